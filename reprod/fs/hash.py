"""Digest one file: read it once, feed every algorithm, refuse a moving target.

A digest is clean (law 3) only if the fingerprint was the same before and after the read (fstat, then lstat of the
path), as many bytes came as the size says, and the read began at least ``slack`` away from the ctime: a write within
the same clock tick would leave no trace. Only regular files are opened: O_NOFOLLOW | O_NONBLOCK, then fstat.
Nothing is mapped, because a truncation during the read would be a SIGBUS.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

from reprod.fs.walk import Stat, lstat_at, stat_tuple

CHUNK = 1 << 20  # larger reads gain nothing: 16 MiB in 12 ms either way

#: Stamps that are whole seconds come from a file system that keeps no finer ones (ext4 with 128-byte inodes).
WHOLE_SECOND_SLACK_NS = 1_100_000_000

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Outcome(IntEnum):
    """How a read ended."""

    CLEAN = 0
    UNREADABLE = 1
    UNSTABLE = 2  # it changed while it was read
    RACY = 3  # changed within the slack: wait, then read
    VANISHED = 4  # not there any more
    OTHER = 5  # no regular file any more
    LARGE = 6  # nobody knew its size, and it is not for a batch of small ones


class Hashed(NamedTuple):
    """What a read of one file gave: ``sha256`` when clean, ``error`` (an errno) when unreadable, ``stat`` if known."""

    outcome: Outcome
    stat: Stat | None = None
    sha256: bytes | None = None
    more: dict[str, bytes] | None = None
    error: int = 0


def new_hash(algorithm: str) -> "hashlib._Hash":
    """Return a hash object for a name in ``reprod.core.digest.ALGORITHMS``."""
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3()  # type: ignore[no-any-return]
    return hashlib.new(algorithm, usedforsecurity=False)


def settle_ns(st: Stat, slack_ns: int) -> int:
    """Return how far from its ctime the read of this file must begin."""
    if st[3] % 1_000_000_000 or st[2] % 1_000_000_000:
        return slack_ns
    return max(slack_ns, WHOLE_SECOND_SLACK_NS)


def hash_at(
    directory: int,
    name: bytes,
    slack_ns: int,
    extra: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
    limit: int | None = None,
) -> Hashed:
    """Hash ``name`` in the open directory: sha256 and the ``extra`` algorithms in one read.

    :param stop: asked once a chunk; a stopped read is UNSTABLE.
    :param limit: a file of this size or more is not read: LARGE, with its stat.
    """
    fd = -1
    try:
        fd = _open(directory, name)
        began = time.time_ns()
        st = os.fstat(fd)
        before = stat_tuple(st)
        if not stat.S_ISREG(before[0]):
            return Hashed(Outcome.OTHER)
        if abs(began - before[3]) < settle_ns(before, slack_ns):
            return Hashed(Outcome.RACY, before)
        if limit is not None and before[1] >= limit:
            return Hashed(Outcome.LARGE, before)
        digests = _read(fd, before[1], extra, stop)
        # One stat of the path answers for the descriptor too: the inode is open, so the same number is the same file.
        if digests is None or lstat_at(directory, name) != before:
            return Hashed(Outcome.UNSTABLE)
        return Hashed(Outcome.CLEAN, before, *digests)
    except FileNotFoundError:
        return Hashed(Outcome.VANISHED)
    except OSError as error:
        if fd < 0 and error.errno in {errno.ELOOP, errno.ENXIO}:  # a symlink or a socket took the name
            return Hashed(Outcome.OTHER)
        return unreadable(directory, name, error)
    finally:
        if fd >= 0:
            os.close(fd)


def unreadable(directory: int, name: bytes, error: OSError) -> Hashed:
    """Return what can be said of a file that cannot be read: why, and its stat if at least that works."""
    try:
        st = lstat_at(directory, name)
    except OSError:
        st = None
    return Hashed(Outcome.UNREADABLE, st, error=error.errno or errno.EIO)


def _read(
    fd: int, size: int, extra: Sequence[str], stop: Callable[[], bool]
) -> tuple[bytes, dict[str, bytes] | None] | None:
    """Read to the end and one byte further; None if the file is not ``size`` long, or if stopped."""
    if size < CHUNK and not extra:
        data = os.read(fd, size + 1)
        while len(data) < size and (part := os.read(fd, size + 1 - len(data))):
            data += part
        return (hashlib.sha256(data).digest(), None) if len(data) == size else None
    hashes = [hashlib.sha256(), *(new_hash(a) for a in extra)]
    buffer = bytearray(CHUNK)
    view, left = memoryview(buffer), size
    while got := os.readv(fd, [view]):
        left -= got
        if left < 0 or stop():
            return None
        for h in hashes:
            h.update(view[:got])
    if left:
        return None
    return hashes[0].digest(), dict(zip(extra, (h.digest() for h in hashes[1:]), strict=True)) or None


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
