"""Files that are either the old one or the new one, never half of either.

Owns how a small file of ours (configuration, records) or an output that a user named is replaced. Rule: temporary file
in the same directory, fsync, rename, fsync of the directory; whatever goes wrong, the old file stands and no temporary
file is left. Errors are the operating system's (``OSError``): only the caller knows what the file meant.
"""

import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` with exactly the permission bits ``mode``; durable when it returns.

    A symlink at ``path`` is replaced, not followed. Raises ``OSError``; the old content then still stands.
    """
    temporary = _temporary_in(path.parent)
    try:
        _write_new(temporary, (data,), 0o600, mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_output(path: Path, pieces: Iterable[bytes]) -> None:
    """Replace the file that a user named by ``pieces``, with the permission bits that it had or that the umask gives.

    A symlink is followed, as the user's own redirection would. What is no regular file (a pipe, /dev/null) is written
    into, because it can be neither replaced nor kept. Raises ``OSError``, and what ``pieces`` raises.
    """
    try:
        present: int | None = path.stat().st_mode
    except FileNotFoundError:
        present = None
    if present is not None and not stat.S_ISREG(present):
        with open(path, "wb") as stream:
            stream.writelines(pieces)
        return
    target = Path(os.path.realpath(path))
    temporary = _temporary_in(target.parent)
    try:
        _write_new(temporary, pieces, 0o666, None if present is None else stat.S_IMODE(present))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def remove(path: Path) -> bool:
    """Remove ``path`` durably; False if there was nothing to remove. Raises ``OSError`` for anything else."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _sync_directory(path.parent)
    return True


def _temporary_in(directory: Path) -> Path:
    # The name does not grow with the target's: 255 bytes are allowed for both.
    return directory / f".reprod-{secrets.token_hex(8)}.tmp"


def _write_new(path: Path, pieces: Iterable[bytes], first_mode: int, mode: int | None) -> None:
    """Write a new file; ``first_mode`` less the umask until it is complete, since the data may be a secret."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, first_mode)
    with open(descriptor, "wb", closefd=True) as stream:
        stream.writelines(pieces)
        stream.flush()
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
