"""Hold the state directory: one daemon each. The kernel lets go of the lock with the process, however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reprod.errors import AlreadyRunningError, StateError


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold ``state`` for the time of the block.

    :raises AlreadyRunningError: naming the process that holds it. :raises StateError: it cannot be made or written.
    """
    try:
        state.mkdir(mode=0o750, parents=True, exist_ok=True)
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
