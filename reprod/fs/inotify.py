"""The kernel's inotify, through libc: one instance, its watches, and its events as tuples.

Owns the descriptor and the decoding (format: inotify(7)). A directory is watched by an open descriptor of it, so no
path is resolved twice and none is too long. No library: asyncinotify 4.4, the one that is kept, starts a process to
find libc, takes paths only, and makes five objects an event; what is needed here is three calls and one struct.
"""

import ctypes
import os
import struct
from functools import cache
from typing import NamedTuple

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF = 0x400, 0x800
UNMOUNT, OVERFLOW, IGNORED = 0x2000, 0x4000, 0x8000
_ONLYDIR, _EXCL_UNLINK = 0x0100_0000, 0x0400_0000
ISDIR = 0x4000_0000

#: What changes content, names or whether it may be read. Not OPEN, ACCESS and CLOSE_NOWRITE: reading is no news, and
#: hashing a tree would fill the queue with itself. CLOSE_WRITE is the only sign of a write through a mapped page.
MASK = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
MASK |= _ONLYDIR | _EXCL_UNLINK

_EVENT = struct.Struct("=iIII")
_READ_BYTES = 256 * 1024  # some 8,000 events; the kernel's queue holds 16,384


class Event(NamedTuple):
    """``watch`` is -1 for an overflow; ``name`` is empty when the watched directory itself is meant."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One instance. Raises OSError: ENOSPC and EMFILE are its limits."""

    def __init__(self) -> None:
        self.fd = _checked(_libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def add(self, directory: int) -> int:
        """Watch an open directory; returns the number of the watch, which is the same when it is watched already."""
        return _checked(_libc().inotify_add_watch(self.fd, b"/proc/self/fd/%d" % directory, MASK))

    def remove(self, watch: int) -> None:
        """End a watch; one that has ended is fine."""
        _libc().inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Event]:
        """Return the next events that are queued, oldest first; none if there are none."""
        try:
            return decode(os.read(self.fd, _READ_BYTES))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Let the kernel forget all watches."""
        os.close(self.fd)


def decode(data: bytes) -> list[Event]:
    """Return the events in what was read from an instance."""
    events, at = [], 0
    while at < len(data):
        watch, mask, _, size = _EVENT.unpack_from(data, at)
        at += _EVENT.size + size
        events.append(Event(watch, mask, data[at - size : at].rstrip(b"\0")))
    return events


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    return libc
