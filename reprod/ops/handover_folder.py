"""Owns ``STATE/handover``: what processes said of themselves while no daemon answered, until one takes it in.

Rule: in a state directory of this user's own, a folder that only this user can reach, one file of mode 0600 a process
and kind, replaced whole or not at all, bounded in number, bytes and age. A file is what the line of a handover holds.
What is not this user's own regular file is passed over. Nobody reads another user's folder. Sizes are bytes.
"""

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reprod.capture.bounded import read_bounded
from reprod.core.process import ProcessContext
from reprod.core.protocol import MAX_HANDOVER

#: A record of 137 packages has 66 KB: a day of short trainings, and a few with patches of megabytes.
MOST_FILES, MOST_BYTES = 256, 64 << 20
#: No run is recorded that long after it began (``store.snapshots.KEPT_NS``).
KEPT_S = 30 * 86_400
#: What a writer that was killed left behind.
HALF_WRITTEN_S = 3600

_FOLDER = "handover"


@dataclass(frozen=True, slots=True)
class Waiting:
    """One file: its name in the folder, and what it holds."""

    name: str
    content: bytes


def file_name(context: ProcessContext, kind: str) -> str:
    """Return the name of a process's file; ``kind`` is ``record`` or ``execution``."""
    return f"{hashlib.sha256(context.key.encode()).hexdigest()[:32]}.{kind}.json"


def keep(state: Path, name: str, content: bytes) -> bool:
    """Keep ``content`` under ``name``, and forget the oldest where there is too much; whether it could be kept."""
    if len(content) > MAX_HANDOVER:
        return False
    try:
        state.mkdir(mode=0o750, parents=True, exist_ok=True)
        with _opened(state, make=True) as folder:
            if folder is None:
                return False
            _forget(folder, len(content))
            temporary = f".{secrets.token_hex(8)}.tmp"
            try:
                _write(folder, temporary, content)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                _remove(folder, temporary)
                raise
            return True
    except OSError:
        return False


def waiting(state: Path) -> list[Waiting]:
    """Return what waits, the oldest first; nothing where the folder is missing or not this user's own."""
    found = []
    with _opened(state) as folder:
        for _, _, name in _listed(folder) if folder is not None else ():
            try:
                content = read_bounded(name, MAX_HANDOVER + 1, dir_fd=folder)
            except OSError:
                continue
            if len(content) <= MAX_HANDOVER:
                found.append(Waiting(name, content))
    return found


def remove(state: Path, names: list[str]) -> None:
    """Remove files that have been taken in; one that is gone by now is no error."""
    with _opened(state) as folder:
        if folder is not None:
            for name in names:
                _remove(folder, name)


def is_empty(state: Path) -> bool:
    """Return whether nothing waits, in one look."""
    try:
        return not any(name.endswith(".json") for name in os.listdir(state / _FOLDER))
    except OSError:
        return True


@contextmanager
def _opened(state: Path, *, make: bool = False) -> Iterator[int | None]:
    """Yield the open folder, or None unless it and the state directory are this user's own."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    opened: list[int] = []
    try:
        try:
            opened.append(os.open(state, flags))
            if os.fstat(opened[0]).st_uid != os.geteuid():
                raise PermissionError
            if make:
                try:
                    os.mkdir(_FOLDER, 0o700, dir_fd=opened[0])
                except FileExistsError:
                    pass
            opened.append(os.open(_FOLDER, flags | os.O_NOFOLLOW, dir_fd=opened[0]))
            if os.fstat(opened[1]).st_uid != os.geteuid():
                raise PermissionError
            if make:
                os.fchmod(opened[1], 0o700)
        except OSError:
            yield None
        else:
            yield opened[1]
    finally:
        for fd in opened:
            os.close(fd)


def _listed(folder: int) -> list[tuple[int, int, str]]:
    """Return time of change, bytes and name of every file of this user's, the oldest first."""
    found = []
    for name in os.listdir(folder):
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            continue
        if name.endswith(".json") and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            found.append((status.st_mtime_ns, status.st_size, name))
    return sorted(found)


def _forget(folder: int, more: int) -> None:
    """Remove what is too old, and the oldest until ``more`` bytes in one more file fit."""
    now = time.time()
    files = _listed(folder)
    total = sum(size for _, size, _ in files)
    while files and (len(files) >= MOST_FILES or total + more > MOST_BYTES or files[0][0] / 1e9 < now - KEPT_S):
        _, size, name = files.pop(0)
        total -= size
        _remove(folder, name)
    for name in os.listdir(folder):
        if name.endswith(".tmp") and _age_s(folder, name, now) > HALF_WRITTEN_S:
            _remove(folder, name)


def _age_s(folder: int, name: str, now: float) -> float:
    try:
        return now - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _write(folder: int, name: str, content: bytes) -> None:
    """Write a new file, durable when it returns: the machine may go down with the daemon."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def _remove(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:  # gone by now, or a directory: then it waits for a person
        pass
