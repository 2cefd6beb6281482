"""Owns how a file that somebody else controls is read: a regular file, not through a symlink, never more than a cap.

A FIFO does not block, a link to a secret does not come out, a file of a gigabyte costs its cap. Sizes are bytes.
"""

import errno
import os
import stat

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def read_bounded(name: str, limit: int, *, dir_fd: int | None = None) -> bytes:
    """Return the first ``limit`` bytes of a regular file; ``name`` itself may not be a symlink.

    Raises OSError, also when it is a symlink (ELOOP) or no regular file (its message says so).
    """
    fd = os.open(name, _FLAGS, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("not a regular file")
        chunks = []
        while limit > 0 and (chunk := os.read(fd, min(limit, 1 << 20))):
            chunks.append(chunk)
            limit -= len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    finally:
        os.close(fd)


def reason(error: OSError) -> str:
    """Return why a read failed, in a few words and without the path."""
    if error.errno == errno.ELOOP:
        return "a symbolic link, not followed"
    return error.strerror or str(error)
