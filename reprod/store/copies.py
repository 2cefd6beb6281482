"""The copies that are kept of state files from before an upgrade: their names, how one is made, how one is put back.

    NAME.sqlite.format1-20261123T101500Z     beside NAME.sqlite, from which it was made when that had format 1

Rule: a copy is whole, on disk, and has its name only then; there is one for each file and format, and it goes 30 days
after the upgrade. Nothing here changes a state file. Sizes are bytes, times Unix nanoseconds.
"""

import os
import re
import shlex
import sqlite3
import time
from calendar import timegm
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from reprod.core.amount import size
from reprod.errors import StateError

#: How long a copy is kept. Who finds out in a month's work that the new version does not do finds the way back.
KEPT_NS = 30 * 86_400 * 1_000_000_000

#: Left free beside what a migration may need, so that the daemon's other files can still be written.
SPARE_BYTES = 16 << 20

#: 4 MiB at a time: a caller hears of a copy some hundred times a second at most.
PAGES_A_STEP = 1024

#: A file that is copied is locked against writers; SQLite says "busy" in odd moments of other readers only.
BUSY_S = 10.0
_BUSY_PAUSE_S = 0.05

_NAME = re.compile(r"(?P<file>.+\.sqlite)\.format(?P<format>[1-9][0-9]{0,8})-(?P<made>[0-9]{8}T[0-9]{6}Z)\Z")
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of ``original`` from when that had ``format``."""

    path: Path
    original: Path
    format: int
    made_ns: int


def copies_of(original: Path) -> list[Copy]:
    """Return the copies of a state file: by format, then by time."""
    return [copy for copy in copies_in(original.parent) if copy.original == original]


def copies_in(folder: Path) -> list[Copy]:
    """Return all copies in a folder: by format, then by time. Raises nothing: a folder that cannot be read has none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = [copy for copy in (_parse(folder, name) for name in names) if copy is not None]
    return sorted(found, key=lambda copy: (copy.format, copy.made_ns, copy.path))


def _parse(folder: Path, name: str) -> Copy | None:
    match = _NAME.match(name)
    if match is None:
        return None
    try:
        made_s = timegm(time.strptime(match["made"], _TIME))
    except ValueError:  # a person's own name for something
        return None
    return Copy(folder / name, folder / match["file"], int(match["format"]), made_s * 1_000_000_000)


# --- making ----------------------------------------------------------------------------------------------------------


def require_space(original: Path) -> None:
    """See to it that a copy and what a migration may write fit; at most all pages change, into the log beside the file.

    :raises StateError: naming what is needed and what is free.
    """
    need = 2 * size_of(original) + SPARE_BYTES
    found = os.statvfs(original.parent)
    free = found.f_bavail * found.f_frsize
    if free < need:
        raise StateError(
            f"no space to bring {original} up to date: {size(need)} are needed for a copy and the change, "
            f"{size(free)} are free",
            hint=f"free {size(need - free)} on the file system of {original.parent}; nothing was changed",
        )


def size_of(original: Path) -> int:
    """Return how large a state file is, its log included."""
    total = 0
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += os.stat(original.with_name(original.name + suffix)).st_size
    return total


def make(original: Path, number: int, report: Callable[[int, int], None]) -> Copy:
    """Copy a state file that nobody can write meanwhile (the caller holds it); ``report`` gets bytes done and total.

    What is in the file's log counts too. When it returns, the copy and its name are on disk, and an older copy of the
    same format is gone. Raises OSError, sqlite3.Error; nothing half made keeps a name.
    """
    made_s = time.time()
    part = original.with_name(f".{original.name}.copying")
    part.unlink(missing_ok=True)  # of a process that was killed
    final = original.with_name(f"{original.name}.format{number}-{time.strftime(_TIME, time.gmtime(made_s))}")
    older = [copy.path for copy in copies_of(original) if copy.format == number]
    try:
        _write(original, part, report)
        part.replace(final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync(original.parent)
    for path in older:
        if path != final:
            path.unlink(missing_ok=True)
    return Copy(final, original, number, int(made_s * 1e9))


def _write(original: Path, part: Path, report: Callable[[int, int], None]) -> None:
    found = os.stat(original)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with suppress(PermissionError):  # root may have been asked to look after somebody else's state
            os.fchown(descriptor, found.st_uid, found.st_gid)
        with closing(read_only(original)) as source, closing(sqlite3.connect(part, isolation_level=None)) as target:
            page_bytes = source.execute("PRAGMA page_size").fetchone()[0]
            target.execute("PRAGMA journal_mode = OFF")  # half a copy is deleted, never mended
            target.execute("PRAGMA synchronous = OFF")  # once, below
            source.backup(target, pages=PAGES_A_STEP, progress=_Progress(page_bytes, report), sleep=_BUSY_PAUSE_S)
        os.fchmod(descriptor, found.st_mode & 0o777)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Progress:
    """What SQLite calls after each step of a backup; it would wait for ever for a file that stays busy."""

    def __init__(self, page_bytes: int, report: Callable[[int, int], None]) -> None:
        self._page_bytes, self._report = page_bytes, report
        self._left = -1
        self._give_up_s = time.monotonic() + BUSY_S

    def __call__(self, _status: int, left: int, total: int) -> None:
        if left != self._left:
            self._left, self._give_up_s = left, time.monotonic() + BUSY_S
        elif time.monotonic() > self._give_up_s:
            raise TimeoutError(f"the file stayed busy for {BUSY_S:g} s")
        self._report((total - left) * self._page_bytes, total * self._page_bytes)


def read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads, log included. Raises sqlite3.Error."""
    uri = f"file:{quote(str(path))}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- putting back, forgetting ----------------------------------------------------------------------------------------


def way_back(original: Path, known: int) -> tuple[Copy, str] | None:
    """Return the newest copy that a program which knows format ``known`` can use, and the commands that put it back.

    For the registry those of all files of the state: it alone would not know what the datasets' files hold.
    """
    usable = [copy for copy in copies_of(original) if copy.format <= known]
    if not usable:
        return None
    copy = usable[-1]
    if original.name != "registry.sqlite":
        log, shm, old, new = (
            shlex.quote(str(path))
            for path in (*(original.with_name(original.name + s) for s in ("-wal", "-shm")), copy.path, original)
        )
        return copy, f"rm -f {log} {shm}; mv {old} {new}"
    state, ending = shlex.quote(str(original.parent)), f".format{copy.format}-*"
    return copy, (
        f"for c in {state}/*{ending} {state}/datasets/*{ending}; do "
        f'[ -f "$c" ] && f=${{c%{ending}}} && rm -f "$f-wal" "$f-shm" && mv "$c" "$f"; done'
    )


def forget_old(folder: Path, now_ns: int) -> Iterator[Copy]:
    """Delete the copies in a folder that are over ``KEPT_NS`` old and whose file is in use in a later format.

    Raises OSError for one that cannot be deleted.
    """
    for copy in copies_in(folder):
        if now_ns - copy.made_ns > KEPT_NS and _format(copy.original) > copy.format:
            copy.path.unlink(missing_ok=True)
            yield copy


def _format(path: Path) -> int:
    """Return the format of a state file; 0 for what cannot be read."""
    with suppress(sqlite3.Error), closing(read_only(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    return 0
