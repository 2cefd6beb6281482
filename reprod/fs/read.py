"""Read one file and digest it: once, for every algorithm, refusing a moving target.

A digest is clean (law 3) only if the fingerprint was the same before and after the read (fstat, then lstat of the
path), as many bytes came as the size says, and the read began at least ``slack`` away from the ctime: a write within
the same clock tick would leave no trace. Only regular files are opened: O_NOFOLLOW | O_NONBLOCK, then fstat.
Nothing is mapped, because a truncation during the read would be a SIGBUS.

A store to a mapped page that is dirty already leaves no trace at all until the page was written back or the mapping is
closed. So a file that changed lately, and that somebody has open for writing, is a moving target too: the kernel grants
no read lease on it. It says so to the file's owner and to root; who is neither cannot tell, and then only the event of
the closing does (``reprod.fs.watch_inotify``).

Worker processes import this, so it imports next to nothing and answers in plain tuples; ``reprod.fs.hash`` gives them
names. Times are Unix nanoseconds.
"""

import errno
import fcntl
import hashlib
import os
import signal
import stat
import time
from operator import attrgetter

TYPE_CHECKING = False  # typing itself costs a worker 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

CLEAN, UNREADABLE, UNSTABLE, RACY, VANISHED, OTHER, LARGE = range(7)

#: What is read at once: 64 KiB to 4 MiB differ by 5 % (2 GiB in two threads: 0.68 s with this, 0.70 s with those). With
#: several algorithms each has a thread of its own, and a chunk of this size is worth the hand-over (some 30 us).
CHUNK = 1 << 20

SECOND_NS = 1_000_000_000

#: Stamps that are whole seconds come from a file system that keeps no finer ones (ext4 with 128-byte inodes).
WHOLE_SECOND_SLACK_NS = 1_100_000_000

#: For how long after its ctime a file may be written through a mapping without a further trace: dirty pages are written
#: back after 30 s, which is looked for every 5 s (vm.dirty_expire_centisecs, dirty_writeback_centisecs), and the next
#: store sets the ctime anew. tmpfs writes nothing back: there it is for ever.
WRITE_BACK_NS = 60 * SECOND_NS

#: What SQLite holds. An mtime can be set beyond it (the year 2262), and some file systems number inodes beyond it.
LARGEST = (1 << 63) - 1

#: A fingerprint, ``(mode, size, mtime_ns, ctime_ns, inode)``, compared by inequality, never by ``>``. Equal: need not
#: be read again; it never means the same content elsewhere. A plain tuple, because a walk makes millions of them.
Stat = tuple[int, int, int, int, int]

#: ``(outcome, stat, sha256, more, errno)``, see ``reprod.fs.hash.Hashed``.
Answer = tuple[int, Stat | None, bytes | None, dict[str, bytes] | None, int]

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: All five at once cost half of five attribute accesses.
_five = attrgetter("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")


def stat_tuple(st: os.stat_result) -> Stat:
    """Return the five numbers that make a fingerprint, each as SQLite can hold it."""
    five: Stat = _five(st)
    if not -LARGEST <= five[2] <= LARGEST or five[4] > LARGEST:
        return (five[0], five[1], max(-LARGEST, min(five[2], LARGEST)), five[3], five[4] & LARGEST)
    return five


def lstat_at(fd: int, name: bytes) -> Stat | None:
    """Return the stat of ``name`` in the directory ``fd``, None if it is not there. Other errors raise OSError."""
    try:
        return stat_tuple(os.stat(name, dir_fd=fd, follow_symlinks=False))
    except FileNotFoundError:
        return None


def settle_ns(st: Stat, slack_ns: int) -> int:
    """Return how far from its ctime the read of this file must begin."""
    if st[3] % SECOND_NS or st[2] % SECOND_NS:
        return slack_ns
    return max(slack_ns, WHOLE_SECOND_SLACK_NS)


def read_at(
    directory: int,
    name: bytes,
    slack_ns: int,
    extra: tuple[str, ...] = (),
    unseen_ns: int = WRITE_BACK_NS,
    limit: int | None = None,
    between: "Callable[[int], bool] | None" = None,
    *,
    sync: bool = False,
) -> Answer:
    """Digest ``name`` in the open directory: sha256 and the ``extra`` algorithms in one read.

    :param unseen_ns: a file that changed less than this ago must not be open for writing.
    :param limit: a file of this size or more is not read: LARGE, with its stat.
    :param between: called with the size of each chunk of a large file; true means stop: the read is UNSTABLE then.
    :param sync: ask the server for the attributes before and after (``reprod.fs.statx``).
    """
    fd = -1
    try:
        refresh(directory, name, sync=sync)
        fd = _open(directory, name)
        began = time.time_ns()
        before = stat_tuple(os.fstat(fd))
        size = before[1]
        if not stat.S_ISREG(before[0]):
            return OTHER, None, None, None, 0
        if abs(began - before[3]) < (slack_ns if before[3] % SECOND_NS else settle_ns(before, slack_ns)):
            return RACY, before, None, None, 0
        if limit is not None and size >= limit:
            return LARGE, before, None, None, 0
        if size < CHUNK:
            data = os.read(fd, size + 1)
            if len(data) != size and len(data := _read_on(fd, size, data)) != size:
                return UNSTABLE, None, None, None, 0
            sha256: bytes | None = hashlib.sha256(data).digest()
            more = {a: new_hash(a, data).digest() for a in extra} if extra else None
        else:
            sha256, more = _digest(fd, size, extra, between)
        refresh(directory, name, sync=sync)
        # One stat of the path answers for the descriptor too: the inode is open, so the same number is the same file.
        if (
            sha256 is None
            or stat_tuple(os.stat(name, dir_fd=directory, follow_symlinks=False)) != before
            or (began - before[3] < unseen_ns and _is_open_for_writing(fd))
        ):
            return UNSTABLE, None, None, None, 0
    except FileNotFoundError:
        return VANISHED, None, None, None, 0
    except OSError as error:
        if fd < 0 and error.errno in {errno.ELOOP, errno.ENXIO}:  # a symlink or a socket took the name
            return OTHER, None, None, None, 0
        return UNREADABLE, stat_of_unreadable(directory, name), None, None, error.errno or errno.EIO
    else:
        return CLEAN, before, sha256, more, 0
    finally:
        if fd >= 0:
            os.close(fd)


def refresh(directory: int, name: bytes, *, sync: bool) -> None:
    """Have the next stat answered by the server, if there is one."""
    if sync:
        from reprod.fs.statx import ask_server  # ctypes costs a worker 10 ms

        ask_server(directory, name)


def _is_open_for_writing(fd: int) -> bool:
    """Whether somebody may still write to this file; False where the kernel does not say, or not to us.

    The lease ends when the caller closes the file, at once. Until then who opens it for writing waits for us, some
    microseconds, and we get a signal, which is one that nobody minds: SIGIO, the default, would end this process.
    """
    if _F_SETLEASE is None:
        return False
    try:
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, _F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


#: Linux only; Python names one of them.
_F_SETLEASE: int | None = getattr(fcntl, "F_SETLEASE", None)
_F_SETSIG = 10


def stat_of_unreadable(directory: int, name: bytes) -> Stat | None:
    """Return the stat of a file that cannot be read, if at least that works."""
    try:
        return lstat_at(directory, name)
    except OSError:
        return None


#: The digests of a file; no sha256 where it is not as long as it was, or the read was stopped.
_Digests = tuple[bytes | None, dict[str, bytes] | None]


def _read_on(fd: int, size: int, data: bytes) -> bytes:
    """Return the rest too, after a read that gave less than was asked: no more than one byte over ``size``."""
    while len(data) <= size and (part := os.read(fd, size + 1 - len(data))):
        data += part
    return data


def _digest(fd: int, size: int, extra: tuple[str, ...], between: "Callable[[int], bool] | None") -> _Digests:
    hashes = [hashlib.sha256(), *(new_hash(a) for a in extra)]
    feed = _feed_in_turn if extra else _feed
    if feed(fd, size, hashes, between):
        return None, None
    return hashes[0].digest(), dict(zip(extra, [h.digest() for h in hashes[1:]], strict=True)) or None


def new_hash(algorithm: str, data: bytes = b"") -> "hashlib._Hash":
    """Return a hash object for a name in ``reprod.core.digest.ALGORITHMS``."""
    if algorithm == "blake3":
        from blake3 import blake3

        hashed: Any = blake3(data)  # its type is known only where it is installed
        return hashed  # type: ignore[no-any-return]
    return hashlib.new(algorithm, data, usedforsecurity=False)


def _feed(fd: int, size: int, hashes: "list[hashlib._Hash]", between: "Callable[[int], bool] | None") -> int:
    """Feed a file to every hash; return how many bytes are missing (less than nothing: too many)."""
    buffer = memoryview(bytearray(CHUNK))
    left = size
    while got := os.readv(fd, [buffer]):  # to the end, and so one byte further than the size says
        left -= got
        if left < 0 or (between is not None and between(got)):
            return left or -1
        for h in hashes:
            h.update(buffer[:got])
    return left


def _feed_in_turn(fd: int, size: int, hashes: "list[hashlib._Hash]", between: "Callable[[int], bool] | None") -> int:
    """As ``_feed``, with a thread for each further hash: as slow as the slowest of them, where there are the cores."""
    from concurrent.futures import ThreadPoolExecutor

    buffers = [memoryview(bytearray(CHUNK)) for _ in range(3)]
    under_way: list[list[Future[None]]] = [[] for _ in buffers]
    threads = [ThreadPoolExecutor(1) for _ in hashes[1:]]  # one each: the chunks of a hash must keep their order
    left, turn = size, 0
    try:
        while True:
            for update in under_way[turn]:
                update.result()
            got = os.readv(fd, [buffers[turn]])
            if not got:
                for updates in under_way:
                    for update in updates:
                        update.result()
                return left
            left -= got
            if left < 0 or (between is not None and between(got)):
                return left or -1
            chunk = buffers[turn][:got]
            under_way[turn] = [t.submit(h.update, chunk) for t, h in zip(threads, hashes[1:], strict=True)]
            hashes[0].update(chunk)
            turn = (turn + 1) % len(buffers)
    finally:
        for thread in threads:
            thread.shutdown(wait=True)


_noatime = getattr(os, "O_NOATIME", 0)


def _open(directory: int, name: bytes) -> int:
    """Open for reading; without leaving an atime where we own the file (elsewhere O_NOATIME is EPERM: do without)."""
    global _noatime
    if _noatime:
        try:
            return os.open(name, _OPEN_FLAGS | _noatime, dir_fd=directory)
        except PermissionError:
            fd = os.open(name, _OPEN_FLAGS, dir_fd=directory)
            _noatime = 0
            return fd
    return os.open(name, _OPEN_FLAGS, dir_fd=directory)
