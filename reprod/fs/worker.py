"""A worker process that reads or stats batches of files; see ``main``.

Small files are bound by the interpreter lock (100,000 of 4 KiB: two threads 2.25 s, two processes 0.86 s), so they go
to processes. A worker inherits the open root, so it reads the very tree that was walked. It imports next to nothing: a
refresh spawns its workers anew, 12 ms each where 41 ms were spent on imports. It ends at EOF, so it cannot outlive its
parent.

Frames on stdin and stdout are a 4-byte little-endian length and a body. Asked: ``r`` or ``s``, then directories, each
its path and the names in it, joined by NUL, which no name can hold, and each directory from the next by two. Answered,
for all files in that order and column by column, so that nobody handles them one by one: outcomes (a byte each), stats
(five native 64-bit integers each, zeros where there is none), errnos (16 bits each); and for ``r`` sha256 (32 bytes
each), then each further algorithm (the bytes of its digest).
"""

import gc
import os
import sys
from array import array

from reprod.fs.ladder import Ladder
from reprod.fs.read import CLEAN, UNREADABLE, VANISHED, WRITE_BACK_NS, Answer, new_hash, read_at, refresh, stat_tuple

TYPE_CHECKING = False  # see reprod.fs.read
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

#: From this size on hashlib releases the interpreter lock for long enough that threads scale: no work for a batch.
LARGE = 1 << 20

#: Directories, each with the names to hash in it.
Batch = list[tuple[bytes, list[bytes]]]

_NO_STAT = (0, 0, 0, 0, 0)
_NO_DIGEST = bytes(32)


def frame(body: bytes) -> bytes:
    """Return a body as one frame."""
    return len(body).to_bytes(4, "little") + body


def receive(stream: "BinaryIO") -> bytes | None:
    """Read the body of one frame; None at EOF."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    length = int.from_bytes(head, "little")
    body = stream.read(length)
    return body if len(body) == length else None


def pack_batch(batch: Batch, *, read: bool = True) -> bytes:
    """Return what a worker is asked: to read these files, or only to stat them."""
    return (b"r" if read else b"s") + b"\0\0".join([b"\0".join([path, *names]) for path, names in batch])


def unpack_batch(body: bytes) -> tuple[Batch, bool]:
    """Return what ``pack_batch`` wrote. The root's path is empty, so a group may begin with NUL: never end with one."""
    groups = [group.split(b"\0") for group in body[1:].split(b"\0\0")]
    return [(group[0], group[1:]) for group in groups], body[:1] == b"r"


def pack_answers(answers: "Sequence[Answer]", extra: tuple[str, ...], *, read: bool = True) -> bytes:
    """Return the columns of some answers."""
    stats = array("q")
    for answer in answers:
        stats.extend(answer[1] or _NO_STAT)
    columns = [
        bytes([answer[0] for answer in answers]),
        stats.tobytes(),
        array("H", [answer[4] for answer in answers]).tobytes(),
    ]
    if read:
        columns.append(b"".join([answer[2] or _NO_DIGEST for answer in answers]))
        columns += _pack_more(answers, extra)
    return b"".join(columns)


def _pack_more(answers: "Sequence[Answer]", extra: tuple[str, ...]) -> "Iterator[bytes]":
    for algorithm in extra:
        none = bytes(new_hash(algorithm).digest_size)
        yield b"".join([answer[3][algorithm] if answer[3] else none for answer in answers])


def answer_batch(
    root: Ladder,
    batch: Batch,
    slack_ns: int,
    extra: tuple[str, ...],
    unseen_ns: int = WRITE_BACK_NS,
    *,
    read: bool = True,
    sync: bool = False,
) -> list[Answer]:
    """Read or stat every file of a batch; a directory that cannot be opened makes its files vanished or unreadable."""
    answers: list[Answer] = []
    for path, names in batch:
        try:
            directory = root.open(path)
        except (FileNotFoundError, NotADirectoryError):
            answers += [(VANISHED, None, None, None, 0)] * len(names)
        except OSError as error:
            answers += [(UNREADABLE, None, None, None, error.errno or 5)] * len(names)
        else:
            if read:
                answers += [read_at(directory, name, slack_ns, extra, unseen_ns, LARGE, sync=sync) for name in names]
            else:
                answers += [_stat_at(directory, name, sync=sync) for name in names]
    return answers


def _stat_at(directory: int, name: bytes, *, sync: bool) -> Answer:
    refresh(directory, name, sync=sync)
    try:
        return CLEAN, stat_tuple(os.stat(name, dir_fd=directory, follow_symlinks=False)), None, None, 0
    except FileNotFoundError:
        return VANISHED, None, None, None, 0
    except OSError as error:
        return UNREADABLE, None, None, None, error.errno or 5


def main(root: int, slack_ns: int, unseen_ns: int, extra: tuple[str, ...], *, sync: bool) -> None:
    """Serve batches until EOF."""
    gc.disable()  # nothing here makes cycles
    os.nice(5)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    with Ladder(root) as ladder:
        while (body := receive(stdin)) is not None:
            batch, read = unpack_batch(body)
            answers = answer_batch(ladder, batch, slack_ns, extra, unseen_ns, read=read, sync=sync)
            ladder.close()  # the next batch may come after a rename; never trust an old rung
            stdout.write(frame(pack_answers(answers, extra, read=read)))
            stdout.flush()
