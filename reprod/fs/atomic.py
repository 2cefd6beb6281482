"""Files that are either the old one or the new one, never half of either.

Owns how a small file of ours (configuration, records) is replaced. Rule: temporary file in the same directory, fsync,
rename, fsync of the directory; whatever goes wrong, the old file stands and no temporary file is left. Errors are the
operating system's (``OSError``): only the caller knows what the file meant.
"""

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` with exactly the permission bits ``mode``; durable when it returns.

    A symlink at ``path`` is replaced, not followed. Raises ``OSError``; the old content then still stands.
    """
    # The name does not grow with the target's: 255 bytes are allowed for both.
    temporary = path.parent / f".reprod-{secrets.token_hex(8)}.tmp"
    try:
        _write_new(temporary, data, mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def remove(path: Path) -> bool:
    """Remove ``path`` durably; False if there was nothing to remove. Raises ``OSError`` for anything else."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _sync_directory(path.parent)
    return True


def _write_new(path: Path, data: bytes, mode: int) -> None:
    # Readable by the owner alone until it is complete: the data may be a secret and the umask is not ours to trust.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb", closefd=True) as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
