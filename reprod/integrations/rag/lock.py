"""Owns that a folder's index is made by one call at a time, of all processes. Rule: the kernel holds the lock, so it is
gone with the process, however that ends; the file only says whose it is.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reprod.errors import AlreadyRunningError, StateError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one indexing call; it is made if needed. The lock goes with the process, however it ends.

    :raises AlreadyRunningError: another call holds it. :raises StateError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "a+b", buffering=0)  # noqa: SIM115 - errors of opening are not those of the body
    except OSError as error:
        raise StateError(
            f"{folder} cannot be written: {error.strerror}", hint="give index_dir another folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read(20).decode("ascii", "replace").strip() or "unknown"
            raise AlreadyRunningError(
                f"process {pid} is indexing into {folder}",
                hint="wait until it has ended, or give index_dir another folder",
            ) from error
        file.truncate(0)
        file.write(b"%d\n" % os.getpid())
        yield
