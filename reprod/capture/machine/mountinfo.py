"""Owns reading ``/proc/PID/mountinfo``: all mounts that a process sees, in the kernel's order.

Paths are text as ``os.fsdecode`` makes it, so that they can be opened; what records one makes it plain first.
`reprod.fs.mounts` reads the same file for another purpose, the identity of a dataset's root.
"""

import re
from dataclasses import dataclass

from reprod.capture.bounded import read_bounded

#: A host with thousands of containers has some 10,000 mounts of 200 bytes; overlays of 100 layers have long lines.
_LIMIT = 1 << 24
_NUMBER = re.compile(r"[0-9]{1,20}")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line: ``root`` of the file system is mounted at ``point``. ``options`` are the mount's, then the system's."""

    id: int
    device: str
    root: str
    point: str
    fs_type: str
    source: str
    options: tuple[str, ...]
    super_options: tuple[str, ...]


def read_mounts(path: str) -> list[Mount]:
    """Return the mounts that a mountinfo file lists; lines that are not understood are left out. Raises OSError."""
    text = read_bounded(path, _LIMIT).decode("utf-8", "surrogateescape")
    return [mount for line in text.split("\n") if (mount := _parse(line))]


def holding(mounts: list[Mount], path: str) -> Mount | None:
    """Return the mount that the absolute ``path`` is on, by the mount points alone: the last that is above it.

    The last and not the longest: a mount on ``/a`` hides what was mounted on ``/a/b`` before.
    """
    return next((mount for mount in reversed(mounts) if is_below(path, mount.point)), None)


def is_below(path: str, directory: str) -> bool:
    """Return whether ``path`` is ``directory`` or something in it, by name."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _parse(line: str) -> Mount | None:
    left, dash, right = line.partition(" - ")
    fields, tail = left.split(" "), right.split(" ")
    if not dash or len(fields) < 6 or len(tail) < 2 or not _NUMBER.fullmatch(fields[0]):
        return None
    return Mount(
        id=int(fields[0]),
        device=fields[2],
        root=_unescape(fields[3]),
        point=_unescape(fields[4]),
        fs_type=tail[0],
        source=_unescape(tail[1]),
        options=tuple(fields[5].split(",")),
        super_options=tuple(tail[2].split(",")) if len(tail) > 2 else (),
    )


def _unescape(field: str) -> str:
    # The kernel writes space, tab, newline and backslash as three octal digits.
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field) if "\\" in field else field
