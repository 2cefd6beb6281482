"""Owns how small files of the kernel and of another root directory are read: one value, one list of CPUs, one path.

Every function takes the ``root`` of the file system that ``proc`` and ``sys`` are under: ``/``, or a tree that a test
made. ``pid`` None is the calling process.
"""

import errno
import os

from reprod.capture.bounded import read_bounded, reason
from reprod.core.machine import parse_cpus

#: The longest of the one-value files: a list of CPUs, a line of /proc/PID/cgroup.
_VALUE_BYTES = 1 << 16

#: As many symbolic links as the kernel itself follows.
_MOST_LINKS = 40


def read_value(path: str, limit: int = _VALUE_BYTES) -> str | None:
    """Return the text of a kernel file without the blanks around it; None where it cannot be read."""
    try:
        return read_bounded(path, limit).decode("utf-8", "backslashreplace").strip()
    except OSError:
        return None


def read_cpus(path: str) -> frozenset[int] | None:
    """Return the CPUs that a kernel file lists; None where it cannot be read or lists none."""
    text = read_value(path)
    return (parse_cpus(text) if text is not None else None) or None


def process_directory(root: str, pid: int | None) -> str:
    """Return the ``proc`` directory of a process."""
    return os.path.join(root, "proc", "self" if pid is None else str(pid))


def process_root(root: str, pid: int | None) -> str:
    """Return the directory that is ``/`` for a process; it ends without a slash."""
    return root.rstrip("/") if pid is None else os.path.join(process_directory(root, pid), "root")


def read_inside(root: str, path: str, limit: int) -> bytes:
    """Return the first ``limit`` bytes of the regular file ``path`` as a process whose ``/`` is ``root`` sees it.

    Raises OSError.
    """
    return read_bounded(resolve(root, path), limit)


def resolve(root: str, path: str) -> str:
    """Return where ``path`` leads inside ``root``; raises OSError after too many links.

    An absolute link is followed from ``root``: the kernel, asked through ``/proc/PID/root``, would follow it from the
    reader's own root and find the reader's file.
    """
    done: list[str] = []
    todo = path.split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            del done[-1:]
            continue
        try:
            target = os.readlink("/".join([root, *done, part]))
        except OSError:  # no link, or nothing at all: whoever opens the result is told
            done.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            done.clear()
        todo += target.split("/")[::-1]
    return "/".join([root, *done]) or "/"


def why(error: OSError) -> str:
    """Return why a file of a process cannot be read; ``permission`` for another user's."""
    return "permission" if error.errno in {errno.EACCES, errno.EPERM} else reason(error)
