"""systemd as ``reprod service`` needs it: whether it is there, a few of its commands, each with a bound.

Owns the subprocesses. What a command says goes into our errors, never past them onto the screen. Seconds.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reprod.cli.service_files import UNIT, Scope
from reprod.errors import DaemonUnavailableError, StateError

#: systemctl returns when the job is done: a start may take TimeoutStartSec of the unit (90 s), a stop 10 s.
START_S = 100.0
CALL_S = 30.0

Done = subprocess.CompletedProcess[str]


class Manager:
    """The service manager of the machine or of this user."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._flag = ["--user"] if scope == "user" else []

    @property
    def command(self) -> str:
        """What a person types for it."""
        sudo = "sudo " if self.scope == "system" and os.geteuid() else ""
        return f"{sudo}systemctl{' --user' if self.scope == 'user' else ''}"

    def absence(self) -> str:
        """Return why there is none to talk to, an empty text if there is."""
        if shutil.which("systemctl") is None:
            return "there is no systemctl on this machine"
        if self.scope == "system":
            if os.path.isdir("/run/systemd/system"):  # sd_booted(3)
                return ""
            return f"systemd does not run this machine (process 1 is {_first_process()})"
        if not any(os.environ.get(name) for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")) and not session():
            return "this session has no service manager of its user (no XDG_RUNTIME_DIR: a container, su or sudo)"
        done = self.call("show", "--property=Version", check=False)
        if done.returncode == 0:
            return ""
        return f"the service manager of this user does not answer ({last_line(done.stderr)})"

    def require(self) -> None:
        """Raise DaemonUnavailableError, with what to do instead, where there is no such manager."""
        reason = self.absence()
        if not reason:
            return
        hint = "run it yourself and keep it running: reprod daemon"
        if self.scope == "user" and os.path.isdir("/run/systemd/system"):
            also = "for the whole machine: sudo reprod service install --system" if os.geteuid() else "or with --system"
            hint += f"   ({also})"
        raise DaemonUnavailableError(reason, hint=hint)

    def call(self, *arguments: str, timeout_s: float = CALL_S, check: bool = True) -> Done:
        """Run one systemctl command. Raises StateError where it fails, unless told not to ``check``."""
        done = run(["systemctl", *self._flag, "--no-pager", *arguments], timeout_s)
        if check and done.returncode:
            raise StateError(
                f"systemctl {' '.join(arguments)} failed: {last_line(done.stderr) or f'code {done.returncode}'}",
                hint=f"{self.command} status {UNIT}",
            )
        return done

    def is_active(self) -> bool:
        """Whether the service runs or is about to."""
        return self.call("is-active", UNIT, check=False).stdout.strip() in {"active", "activating", "reloading"}

    def journal(self, lines: int = 15) -> list[str]:
        """Return the service's last lines in the journal; none where it cannot be read."""
        unit = "--user-unit" if self.scope == "user" else "--unit"
        if shutil.which("journalctl") is None:
            return []
        command = ["journalctl", unit, UNIT, "--lines", str(lines), "--no-pager", "--output", "cat", "--quiet"]
        return run(command, CALL_S).stdout.splitlines()

    def complaints(self, text: str) -> list[str]:
        """Return what ``systemd-analyze verify`` has against a unit; nothing where there is no such command."""
        if shutil.which("systemd-analyze") is None:
            return []
        with tempfile.TemporaryDirectory(prefix="reprod-unit-") as folder:
            # The last line is a comment for reprod; a unit is judged under the name that it will have.
            path = Path(folder) / UNIT
            path.write_text(text, encoding="utf-8")
            done = run(["systemd-analyze", *self._flag, "verify", "--man=no", str(path)], CALL_S)
        # It also tells of other units that ours is ordered after: not ours to judge.
        return [line for line in done.stderr.splitlines() if UNIT in line]


def run(command: Sequence[str], timeout_s: float = CALL_S) -> Done:
    """Run a command of the system to its end. Raises StateError if there is none, or it does not end."""
    try:
        return subprocess.run(
            list(command),
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **session()},
        )
    except FileNotFoundError as error:
        raise StateError(f"there is no {command[0]} on this machine", hint="install the package systemd") from error
    except subprocess.TimeoutExpired as error:
        raise StateError(
            f"{' '.join(command)} did not end within {timeout_s:g} s", hint="is the machine shutting down, or stuck?"
        ) from error


def session() -> dict[str, str]:
    """Return the variables that lead to this user's service manager where su or sudo left them out."""
    runtime = f"/run/user/{os.geteuid()}"
    if os.environ.get("XDG_RUNTIME_DIR") or not os.path.isdir(runtime):
        return {}
    return {"XDG_RUNTIME_DIR": runtime}


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _first_process() -> str:
    try:
        return Path("/proc/1/comm").read_text("utf-8", "replace").strip() or "unknown"
    except OSError:
        return "unknown"
