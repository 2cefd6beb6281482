"""A worker process that hashes batches of small files: ``python -m reprod.fs.worker ROOT_FD SLACK_NS ALGORITHMS``.

Small files are bound by the interpreter lock (100,000 of 4 KiB: two threads 2.25 s, two processes 0.86 s), so they go
to processes. A worker inherits the open root, so it reads the very tree that was walked. Frames on stdin and stdout are
a 4-byte little-endian length and MessagePack: a batch ``[[directory, [name, ...]], ...]`` in, out a list of
``[outcome, stat, sha256, more, errno]`` in the same order. It ends at EOF, so it cannot outlive its parent.
"""

import os
import signal
import struct
import sys
from typing import Any, BinaryIO

import msgspec

from reprod.fs.hash import Hashed, Outcome, hash_at
from reprod.fs.ladder import Ladder

#: From this size on hashlib releases the interpreter lock for long enough that threads scale: no work for a batch.
LARGE = 1 << 20

#: Directories, each with the names to hash in it.
Batch = list[tuple[bytes, list[bytes]]]

_LENGTH = struct.Struct("<I")


def frame(message: Any) -> bytes:
    """Return a message as one frame."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def receive(stream: BinaryIO, shape: Any = Any) -> Any | None:
    """Read one frame, validated against ``shape``; None at EOF."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return msgspec.msgpack.decode(body, type=shape) if len(body) == length else None


def hash_batch(root: Ladder, batch: Batch, slack_ns: int, extra: tuple[str, ...]) -> list[Hashed]:
    """Hash every file of a batch; a directory that cannot be opened makes its files vanished or unreadable."""
    rows: list[Hashed] = []
    for path, names in batch:
        try:
            directory = root.open(path)
        except (FileNotFoundError, NotADirectoryError):
            rows += [Hashed(Outcome.VANISHED)] * len(names)
        except OSError as error:
            rows += [Hashed(Outcome.UNREADABLE, error=error.errno or 5)] * len(names)
        else:
            rows += [hash_at(directory, name, slack_ns, extra, limit=LARGE) for name in names]
    return rows


def main(argv: list[str]) -> int:
    """Serve batches until EOF."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; EOF ends us
    root, slack_ns, extra = int(argv[1]), int(argv[2]), tuple(filter(None, argv[3].split(",")))
    os.nice(5)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    with Ladder(root) as ladder:
        while (batch := receive(stdin, Batch)) is not None:
            rows = hash_batch(ladder, batch, slack_ns, extra)
            ladder.close()  # the next batch may come after a rename; never trust an old rung
            stdout.write(frame(rows))
            stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
