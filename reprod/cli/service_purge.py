"""``reprod service uninstall --purge``: configuration, state and history, gone for good after they were shown.

Rule: only the usual places of the service of this scope, never what a variable of this shell names; a link is removed
and not followed; not while a daemon holds the state.
"""

import fcntl
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reprod.cli import render
from reprod.cli.screen import Screen
from reprod.cli.service_files import UNIT, Scope, user_units
from reprod.config import places
from reprod.errors import AlreadyRunningError, StateError, UsageError

MACHINE_UNIT = Path("/etc/systemd/system") / UNIT


@dataclass(frozen=True, slots=True)
class Purge:
    """What is to be deleted: folders with what they are."""

    folders: tuple[tuple[Path, str], ...]
    state: Path

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """Return what a service of this scope has on this machine."""
        if scope == "system":
            config, state = places.SYSTEM_CONFIG.parent, places.SYSTEM_STATE
        elif places.is_system_account():
            if MACHINE_UNIT.exists():
                raise UsageError(
                    f"{places.SYSTEM_STATE} is the state of the machine's service too, which is installed",
                    hint="reprod service uninstall --system first",
                )
            config, state = places.SYSTEM_CONFIG.parent, places.SYSTEM_STATE
        else:
            home = Path.home()
            config = user_units().parent.parent / "reprod"
            base = os.environ.get("XDG_STATE_HOME", "")
            state = (Path(base) if base.startswith("/") else home / ".local/state") / "reprod"
        named: tuple[tuple[Path, str], ...] = (
            (config, "the configuration"),
            (state, "the state: history of all datasets, environments, what is still owed to runs"),
        )
        if scope == "system":
            named = (*named, (places.SYSTEM_SOCKET.parent, "where its socket was"))
        return cls(tuple(each for each in named if os.path.lexists(each[0])), state)

    def is_wanted(self, screen: Screen, *, yes: bool) -> bool:
        """Say what is deleted and ask. Raises UsageError where nobody can be asked."""
        if not self.folders:
            return True
        screen.line("to be deleted for good:")
        for path, what in self.folders:
            count, size = _measured(path)
            screen.line(
                f"  {render.file_name(str(path))}  {what} ({render.plural(count, 'file')}, {render.size(size)})"
            )
        if (self.state / "mlflow.db").exists():
            screen.line(
                '  with it the runs and artifacts of the MLflow server that reprod ran (tracking_uri = "local")'
            )
        if yes:
            return True
        if not (sys.stdin and sys.stdin.isatty()):
            raise UsageError("--purge deletes for good, and there is no terminal to ask at", hint="add --yes")
        sys.stderr.write("type yes to delete it: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() == "yes":
            return True
        screen.line("nothing was removed")
        return False

    def carry_out(self, screen: Screen) -> None:
        """Delete. Raises AlreadyRunningError, StateError."""
        self._require_unused()
        for path, _ in self.folders:
            try:
                if path.is_symlink():
                    path.unlink()
                else:
                    shutil.rmtree(path)
            except OSError as error:
                raise StateError(
                    f"{error.filename or path} cannot be deleted: {error.strerror}", hint=f"what is left: ls {path}"
                ) from error
            screen.line(f"deleted {render.file_name(str(path))}")

    def _require_unused(self) -> None:
        try:
            lock = open(self.state / "lock", "rb")  # noqa: SIM115 - closed below
        except OSError:
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                pid = lock.read().decode("ascii", "replace").strip() or "unknown"
                raise AlreadyRunningError(
                    f"a daemon that systemd did not start uses {self.state} (pid {pid}): it is not deleted",
                    hint=f"kill {pid}, then the same command again",
                ) from error


def _measured(path: Path) -> tuple[int, int]:
    """Return how many files are below a folder, and their bytes."""
    count = size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
                count += 1
            except OSError:
                continue
    return count, size
