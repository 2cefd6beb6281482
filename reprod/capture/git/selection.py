"""Owns which changed files git may read for the patch: chosen by name, size and number before a byte of them is read.

New files are taken in this order: what looks like code, then the rest, small ones first; a directory of data beside
the code then costs the data its place, not the code. Sizes are bytes; paths are bytes, relative to the root.
"""

import os
import stat
from dataclasses import dataclass, field

from reprod.capture.bounded import reason
from reprod.capture.git.command import Budget
from reprod.capture.git.lfs import LFS, Filtered
from reprod.capture.git.secrets import NAMED, is_secret_name

#: A tracked file of more is data; a changed line in one of less is still a small patch.
MAX_TRACKED_BYTES = 16 << 20

#: All changed tracked files together: git reads and compares them at some 100 MB/s.
MAX_TRACKED_TOTAL = 32 << 20

#: New files that are read; writing one object takes git about 50 us.
MAX_NEW_FILES = 2000

#: New files whose size is asked.
MAX_NEW_LOOKED_AT = 20_000

TOO_LARGE = "it is over the limit for one file"
TOO_MANY = "there are too many files for the patch"
NO_ROOM = "there is no room for it in the patch"
ODD_NAME = "its name leads out of the repository"
NOT_FILE = "it is neither a file nor a symbolic link"
NESTED = "it is a git repository of its own"

_CODE = (
    b".py", b".pyi", b".pyx", b".ipynb", b".sh", b".bash", b".yaml", b".yml", b".toml", b".json", b".jsonnet", b".cfg",
    b".ini", b".conf", b".txt", b".md", b".rst", b".c", b".cc", b".cpp", b".cxx", b".cu", b".cuh", b".h", b".hpp",
    b".rs", b".go", b".jl", b".r", b".rmd", b".java", b".scala", b".sql", b".js", b".ts", b".lua", b".proto", b".j2",
    b".gin", b".slurm", b".sbatch", b"dockerfile", b"makefile", b".gitattributes", b".gitignore", b".gitmodules",
    b".lock",
)  # fmt: skip


@dataclass(slots=True)
class Selection:
    """``update``: files to take as they lie there; ``gone``: paths to take out; ``pointers``: blobs to take instead.

    ``withheld``: path -> (size in bytes or None, reason). A path in conflict that stays out is taken out first.
    """

    update: list[bytes] = field(default_factory=list)
    pointers: dict[bytes, bytes] = field(default_factory=dict)
    gone: list[bytes] = field(default_factory=list)
    withheld: dict[bytes, tuple[int | None, str]] = field(default_factory=dict)


def select(root: str, filtered: Filtered, budget: Budget) -> Selection:
    """Return what of the changes may enter the patch, with a reason for each that may not."""
    chosen = Selection()
    changes = filtered.changes
    left = MAX_TRACKED_TOTAL
    links: dict[bytes, bool] = {}
    for path, where in changes.tracked.items():
        if _is_gone(os.fsencode(root), path, links) and not is_secret_name(path):
            chosen.gone.append(path)
            continue
        size, why = _judge(root, path, filtered, min(MAX_TRACKED_BYTES, left))
        _enter(chosen, path, size, why, filtered)
        if why is None:
            left -= size or 0
        elif where == "conflict":
            chosen.gone.append(path)
    _select_new(chosen, root, filtered, budget)
    for path in changes.nested:
        chosen.withheld[path] = (None, NESTED)
    return chosen


def _select_new(chosen: Selection, root: str, filtered: Filtered, budget: Budget) -> None:
    names = sorted(filtered.changes.untracked, key=lambda path: not path.lower().endswith(_CODE))
    judged = []
    for path in names[:MAX_NEW_LOOKED_AT]:
        size, why = _judge(root, path, filtered, budget.file_bytes)
        judged.append((not path.lower().endswith(_CODE), size or 0, path, size, why))
    taken, room = 0, 2 * budget.patch_bytes
    for _, _, path, size, why in sorted(judged, key=lambda item: item[:3]):
        if why is not None:
            _enter(chosen, path, size, why, filtered)
        elif taken >= MAX_NEW_FILES or (size or 0) > room:
            _enter(chosen, path, size, TOO_MANY if taken >= MAX_NEW_FILES else NO_ROOM, filtered)
        else:
            taken, room = taken + 1, room - (size or 0)
            _enter(chosen, path, size, None, filtered)
    for path in names[MAX_NEW_LOOKED_AT:]:
        chosen.withheld[path] = (None, NAMED if is_secret_name(path) else TOO_MANY)


def _enter(chosen: Selection, path: bytes, size: int | None, why: str | None, filtered: Filtered) -> None:
    if why is not None:
        chosen.withheld[path] = (size, why)
        return
    chosen.update.append(path)
    if path in filtered.pointers:
        chosen.pointers[path] = filtered.pointers[path]
        chosen.withheld[path] = (size, LFS)


def _judge(root: str, path: bytes, filtered: Filtered, limit: int) -> tuple[int | None, str | None]:
    """Return the size of the file (None: it is gone) and why it may not enter (None: it may)."""
    if path.startswith(b"/") or not {b"..", b".git"}.isdisjoint(path.lower().split(b"/")):
        return None, ODD_NAME
    if is_secret_name(path):
        return _size(root, path), NAMED
    if path in filtered.withheld:
        return _size(root, path), filtered.withheld[path]
    full = os.path.join(os.fsencode(root), path)
    try:
        status = os.lstat(full)
        if stat.S_ISREG(status.st_mode):
            if status.st_size > limit and path not in filtered.pointers:
                return status.st_size, TOO_LARGE
            os.close(os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    except (FileNotFoundError, NotADirectoryError):
        return None, None  # deleted, which is a change as well
    except OSError as error:
        return None, f"it could not be read: {reason(error)}"
    if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
        return status.st_size, None
    if stat.S_ISDIR(status.st_mode):
        return None, None  # a file became a directory, or it is a submodule
    return None, NOT_FILE


def _is_gone(root: bytes, path: bytes, links: dict[bytes, bool]) -> bool:
    """Return whether nothing lies at a tracked path: what lies behind a symbolic link is another file."""
    folder = os.path.dirname(path)
    while folder:
        if folder not in links:
            links[folder] = os.path.islink(os.path.join(root, folder))
        if links[folder]:
            return True
        folder = os.path.dirname(folder)
    return not os.path.lexists(os.path.join(root, path))


def _size(root: str, path: bytes) -> int | None:
    try:
        return os.lstat(os.path.join(os.fsencode(root), path)).st_size
    except OSError:
        return None
