"""Owns what was computed from files, in memory only, for as long as the files stay the same.

A file is the same if device, inode, size, mtime and ctime are. What is younger than the coarsest clock tick of a local
file system is not kept: it could change once more without showing it. Safe to share between threads.
"""

import os
import time
from typing import Generic, TypeVar

_T = TypeVar("_T")

#: The slack that architecture law 3 gives a ctime on a local file system.
SLACK_NS = 20_000_000

_Key = tuple[str, int, int, int, int, int]


class FileMemory(Generic[_T]):
    """A mapping from a file's state to a value, of at most ``limit`` entries; the oldest half goes when it is full."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[_Key, _T] = {}

    def recall(self, label: str, status: os.stat_result) -> _T | None:
        """Return what was kept for the file that ``status`` is of; ``label`` is whatever else the value depends on."""
        return self._values.get(_key(label, status))

    def keep(self, label: str, status: os.stat_result, value: _T) -> None:
        """Keep ``value`` for the file as ``status`` described it before it was read."""
        if time.time_ns() - max(status.st_ctime_ns, status.st_mtime_ns) < SLACK_NS:
            return
        if len(self._values) >= self._limit:
            for key in list(self._values)[: self._limit // 2]:
                self._values.pop(key, None)
        self._values[_key(label, status)] = value


def _key(label: str, status: os.stat_result) -> _Key:
    return (label, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
