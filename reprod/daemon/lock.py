"""Hold the state directory: one daemon each, on a local disk, closed to others.

The kernel lets go of the lock with the process, however that ends. What a network file system does to locks and to a
database's memory mapping cannot be seen from here, and what others may write cannot be believed: both are refused.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reprod.errors import AlreadyRunningError, ConfigError, StateError
from reprod.fs import mounts

_ELSEWHERE = "set REPROD_STATE_DIR to a directory on a local disk of this machine"


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold ``state`` for the time of the block; made if it is not there, for this user alone.

    :raises AlreadyRunningError: naming the process that holds it. :raises StateError: it cannot be made or written.
    :raises ConfigError: it is on a network file system, another user's, or others may write in it.
    """
    try:
        _require_local(state)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_local(state)
        _require_own(state)
        # Unbuffered: on a full disk closing would write again, and raise again.
        file = open(state / "lock", "a+b", buffering=0)  # noqa: SIM115 - closed by the block below
    except OSError as error:
        raise StateError(
            f"cannot write the state directory {state}: {error.strerror}",
            hint="make it writable for this user, or set REPROD_STATE_DIR",
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().decode("ascii", "replace").strip() or "unknown"
            raise AlreadyRunningError(
                f"another reprod daemon (pid {holder}) uses {state}", hint="reprod status shows it; stop it first"
            ) from error
        try:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        except OSError as error:
            raise StateError(f"cannot write to {state}: {error.strerror}", hint="free space there") from error
        yield


def _require_local(state: Path) -> None:
    """Raise ConfigError if ``state``, or the directory where it would be made, is on a network file system."""
    place = state
    while not place.exists() and place != place.parent:
        place = place.parent
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        mount = mounts.mount_of(fd)
    finally:
        os.close(fd)
    if mount is not None and mounts.is_network(mount.fs_type):
        where = f"{mount.source} at {os.fsdecode(mount.mount_point)}"
        raise ConfigError(
            f"the state directory {state} is on a network file system ({mount.fs_type}, {where})", hint=_ELSEWHERE
        )


def _require_own(state: Path) -> None:
    """Raise ConfigError unless the directory is this user's and nobody else may write in it."""
    found = os.stat(state)
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"the state directory {state} belongs to uid {found.st_uid}, this daemon runs as uid {os.geteuid()}",
            hint=f"run it as that user, or give the directory away: chown -R {os.geteuid()} {state}",
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"others may write in the state directory {state} (its mode is {mode:04o})", hint=f"chmod 700 {state}"
        )
