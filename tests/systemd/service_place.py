"""reprod.service in a bed: its files, its configuration, its daemon, as an administrator has them."""

import json
import time
from pathlib import Path
from typing import Any

import oracle
from bed import UNITS, Bed, eventually

from reprod.client import Client
from reprod.errors import DaemonUnavailableError, StateError

UNIT = "reprod.service"
PYTHON = "/opt/reprod/bin/python"

#: The system's own places of a system daemon.
CONFIG, DATASETS = "/etc/reprod/reprod.toml", "/etc/reprod/datasets.d"
STATE, SOCKET = "/var/lib/reprod", "/run/reprod/control.sock"

#: Runs the daemon as its command does, after some lines of a test's own.
PROGRAM = """
{before}
from reprod.cli.main import main
raise SystemExit(main(["daemon"]))
"""


class Service:
    """The system service. Times are seconds."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self._began_s = time.time()

    def install(self) -> None:
        """Put the unit and its configuration folders in place, as the packaging files say."""
        self._clear()  # of what this machine's own service may have
        self.bed.write(f"/etc/systemd/system/{UNIT}", (UNITS / UNIT).read_text())
        self.bed.write("/etc/tmpfiles.d/reprod.conf", (UNITS / "reprod.tmpfiles.conf").read_text())
        done = self.bed.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/reprod.conf")
        assert done.returncode == 0, done.stderr
        self.bed.systemctl("daemon-reload")

    def remove(self) -> None:
        """Stop it and take everything of it away."""
        self.bed.try_systemctl("stop", UNIT)
        self.bed.try_systemctl("reset-failed", UNIT)
        self._clear()

    def _clear(self) -> None:
        places = ("/etc/reprod", STATE, "/run/reprod", f"/etc/systemd/system/{UNIT}", f"/etc/systemd/system/{UNIT}.d")
        self.bed.run("rm", "-rf", *places)

    def configure(self, text: str = "", **datasets: str) -> None:
        """Write reprod.toml, and for each dataset a file with its path."""
        self.bed.write(CONFIG, text)
        for name, path in datasets.items():
            self.bed.write(f"{DATASETS}/{name}.toml", f"path = {json.dumps(path)}\n")

    def drop_in(self, text: str, name: str = "50-test.conf", section: str = "Service") -> None:
        """Add a drop-in, as ``systemctl edit`` does; a text with sections of its own is taken as it is."""
        whole = text if text.lstrip("# \n").startswith("[") or "\n[" in text else f"[{section}]\n{text}\n"
        self.bed.write(f"/etc/systemd/system/{UNIT}.d/{name}", whole)
        self.bed.systemctl("daemon-reload")

    def run_instead(self, before: str) -> None:
        """Have the unit run the daemon after these lines of Python."""
        self.bed.write("/etc/reprod-instead.py", PROGRAM.format(before=before))
        self.drop_in(f"ExecStart=\nExecStart={PYTHON} /etc/reprod-instead.py", "40-instead.conf")

    def make_data(self, path: str, **files: str) -> Path:
        """Make a dataset that everybody may read; return where it is seen from outside."""
        seen = self.bed.path(path)
        seen.mkdir(parents=True)
        seen.chmod(0o755)
        for name, content in (files or {"a": "one", "b": "two"}).items():
            (seen / name).write_text(content)
        return seen

    # --- the unit ----------------------------------------------------------------------------------------------------

    def start(self) -> float:
        """``systemctl start``; return how long it took."""
        began = time.monotonic()
        self.bed.systemctl("start", UNIT)
        return time.monotonic() - began

    def stop(self) -> float:
        """``systemctl stop``; return how long it took."""
        began = time.monotonic()
        self.bed.systemctl("stop", UNIT)
        return time.monotonic() - began

    def show(self, *names: str) -> dict[str, str]:
        return self.bed.show(UNIT, *names)

    def get(self, name: str) -> str:
        """Return one property of the unit."""
        return self.show(name)[name]

    @property
    def pid(self) -> int:
        """The daemon's process id, as it is in the bed."""
        return int(self.get("MainPID"))

    def processes(self) -> list[int]:
        """Return all processes of the unit, as they are numbered outside of the bed."""
        group = self.bed.group / "system.slice" / UNIT / "cgroup.procs"
        return [int(line) for line in group.read_text().split()] if group.exists() else []

    def messages(self) -> list[dict[str, Any]]:
        """Return what the journal has of the unit's own processes, as entries."""
        return self.bed.journal(f"_SYSTEMD_UNIT={UNIT}", f"--since=@{self._began_s:.3f}")

    def events(self, name: str) -> list[dict[str, str]]:
        """Return the fields of each such event of the daemon's log since this test began."""
        entries = self.bed.journal(f"REPROD_EVENT={name}", f"_SYSTEMD_UNIT={UNIT}", f"--since=@{self._began_s:.3f}")
        return [{key: str(value) for key, value in entry.items()} for entry in entries]

    def said(self) -> str:
        """Return what the unit's processes wrote since this test began."""
        lines = (entry["MESSAGE"] for entry in self.messages())
        return "\n".join(line if isinstance(line, str) else bytes(line).decode(errors="replace") for line in lines)

    def managed(self) -> str:
        """Return what systemd said of the unit since this test began."""
        entries = self.bed.journal(f"UNIT={UNIT}", "_PID=1", f"--since=@{self._began_s:.3f}")
        return "\n".join(str(entry["MESSAGE"]) for entry in entries)

    # --- the daemon --------------------------------------------------------------------------------------------------

    def call(self, method: str, timeout_s: float = 30, **params: Any) -> dict[str, Any]:
        """Return what the daemon answers to root."""
        with Client(self.bed.path(SOCKET), timeout_s=timeout_s) as client:
            return client.call(method, params)

    def dataset(self, name: str) -> dict[str, Any]:
        """Return one dataset's part of the status; empty where no daemon answers or none knows it."""
        try:
            shown = self.call("status")["datasets"]
        except (DaemonUnavailableError, StateError):
            return {}
        return next((d for d in shown if d["name"] == name), {})

    def becomes(self, name: str, digest: str, timeout_s: float = 20) -> dict[str, Any]:
        """Wait until a dataset is current with this digest; return its status."""

        def there() -> dict[str, Any]:
            shown = self.dataset(name)
            return shown if shown.get("state") == "current" and shown["digest"] == digest else {}

        return eventually(there, timeout_s, lambda: f"{name} has {digest}; {self.dataset(name)}; {self.said()[-2000:]}")

    def says(self, part: str, timeout_s: float = 10) -> str:
        """Wait until the status line of the unit has this part; return the line."""
        shown = ""

        def there() -> str:
            nonlocal shown
            shown = self.get("StatusText")
            return shown if part in shown else ""

        return eventually(there, timeout_s, lambda: f"{part!r} in {shown!r}; {self.said()[-2000:]}")


def dt1(seen: Path) -> str:
    """Return the digest of what is there, computed without reprod."""
    return oracle.dt1(oracle.scan(bytes(seen)))
