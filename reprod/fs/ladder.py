"""Open directories below a root, one component at a time, never through a symlink.

A ladder keeps the file descriptors of the directory opened last and of its nearest parents, so that a depth-first walk
opens each directory with one system call; paths longer than PATH_MAX and deep trees work, with a bounded number of
descriptors. Paths are raw bytes relative to the root; ``b""`` is the root itself.
"""

import os

TYPE_CHECKING = False  # a worker process imports this, and typing itself costs it 7 ms
if TYPE_CHECKING:
    from typing import Self

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

#: Descriptors held at most. Deeper trees close the upper rungs and climb again from the root when they return.
MAX_RUNGS = 32


class Ladder:
    """Opens directories below ``root``, an open descriptor that stays the caller's."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._names: list[bytes] = []
        self._fds: list[int] = []  # -1: closed to save descriptors

    def open(self, path: bytes) -> int:
        """Return a descriptor of the directory at ``path``, valid until the next call.

        Raises OSError as openat does: NotADirectoryError or ELOOP where a component is a symlink.
        """
        names = path.split(b"/") if path else []
        common = 0
        for mine, wanted in zip(self._names, names, strict=False):
            if mine != wanted:
                break
            common += 1
        self._drop_to(common)
        level, fd = self._nearest()
        for name in names[level:]:
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=fd)
            if level < len(self._fds):
                self._fds[level] = fd
            else:
                self._names.append(name)
                self._fds.append(fd)
            level += 1
            self._save_descriptors(level)
        return fd

    def close(self) -> None:
        """Close every rung."""
        self._drop_to(0)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _nearest(self) -> tuple[int, int]:
        """Return how many levels the deepest open rung covers, and its descriptor."""
        for i in range(len(self._fds) - 1, -1, -1):
            if self._fds[i] >= 0:
                return i + 1, self._fds[i]
        return 0, self._root

    def _drop_to(self, level: int) -> None:
        while len(self._fds) > level:
            fd = self._fds.pop()
            self._names.pop()
            if fd >= 0:
                os.close(fd)

    def _save_descriptors(self, level: int) -> None:
        oldest = level - MAX_RUNGS - 1
        if oldest >= 0 and self._fds[oldest] >= 0:
            os.close(self._fds[oldest])
            self._fds[oldest] = -1
