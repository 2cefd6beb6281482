"""Real systemd as pid 1 of namespaces of its own, over an overlay of this machine's root: a bed to test units in.

Boots in about a second. Everything in it is real (journal, notification, watchdog, sandbox, users, lingering) except
resource control and devices; the kernel, its variables and its clock are the host's. The network is private: only
``lo``. The interpreter, its packages and this repository are bound, read-only, below ``/opt/reprod``, where a unit may
execute them whatever it may see of home directories. Ends with everything that was started in it. Times are seconds.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waiting import eventually

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
UNITS = REPOSITORY / "systemd"

#: Another system's root to boot instead of this machine's, such as a bootstrapped one with a later systemd.
LOWER = os.environ.get("REPROD_BED_ROOT", "/")

BOOT_S = 60.0
CALL_S = 90.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Two ordinary users: bob is in the group ``reprod``, alice is not.
USERS = {"alice": 1500, "bob": 1501}

_NAMESPACES = ("mount", "pid", "uts", "ipc", "net", "cgroup")
_count = itertools.count()


def why_not() -> str | None:
    """Return why there can be no bed here, None if there can."""
    if os.geteuid() != 0:
        return "a bed needs root"
    missing = [tool for tool in ("unshare", "nsenter", "setpriv", "mount") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if not Path(LOWER, "usr/lib/systemd/systemd").exists():
        return f"no systemd below {LOWER}"
    if _cgroups() is None:
        return "no cgroup v2 hierarchy that can be written"
    flags = [f"--{name}" for name in _NAMESPACES]
    tried = subprocess.run(["unshare", *flags, "--fork", "true"], capture_output=True, text=True, timeout=CALL_S)
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else None


def systemd_version() -> int:
    """Return the version of the systemd that a bed boots."""
    said = subprocess.run(
        ["chroot", LOWER, "/usr/lib/systemd/systemd", "--version"], capture_output=True, text=True, timeout=CALL_S
    )
    return int(said.stdout.split()[1])


def _cgroups() -> Path | None:
    """Return the root of the cgroup v2 hierarchy, if groups can be made in it."""
    for place in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (place / "cgroup.procs").exists() and (place / "cgroup.controllers").exists():
            return place if os.statvfs(place).f_flag & os.ST_RDONLY == 0 else None
    return None


class Bed:
    """One running systemd. ``boot`` and ``end`` belong together; ``base`` is an empty folder for the bed's own use."""

    def __init__(self, base: Path) -> None:
        self._base = base
        groups = _cgroups()
        assert groups is not None
        self.group = groups / f"reprod-bed-{os.getpid()}-{next(_count)}"
        self._log = base / "console.log"
        self._outer: subprocess.Popen[bytes] | None = None
        self.init = 0

    def boot(self) -> None:
        """Start it, make it a home for reprod, and return when it is up."""
        scratch = self._base / "scratch"
        scratch.mkdir()
        self.group.mkdir()
        binds = {
            sys.base_prefix: "/opt/reprod/python",
            sysconfig.get_path("purelib"): "/opt/reprod/packages",
            str(REPOSITORY): "/opt/reprod/src",
        }
        flags = [f"--{name}" for name in _NAMESPACES]
        with self._log.open("wb") as log:
            self._outer = subprocess.Popen(
                [
                    *("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.group), "unshare", *flags),
                    *("--fork", "--kill-child=SIGKILL", "--propagation=private", "sh", str(HERE / "boot.sh"), LOWER),
                    *(str(scratch), *itertools.chain.from_iterable(binds.items())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.init = eventually(self._first_child, BOOT_S, self._console)
        eventually(self._is_up, BOOT_S, self._console)
        self._install_python()
        self._install_users()

    def _first_child(self) -> int:
        assert self._outer is not None
        assert self._outer.poll() is None, self._console()
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _is_up(self) -> bool:
        assert self._outer is not None
        assert self._outer.poll() is None, self._console()
        if "systemd" not in Path(f"/proc/{self.init}/comm").read_text():
            return False  # still the script
        return self.run("systemctl", "is-active", "bed.target").stdout.strip() == "active"

    def _console(self) -> str:
        return f"the bed boots; its console: {self._log.read_text(errors='replace')[-3000:]}"

    def _install_python(self) -> None:
        """Make ``/opt/reprod`` a virtual environment of this interpreter, and ``reprod`` a command on the path."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = f"/opt/reprod/lib/{version}/site-packages"
        self.write("/opt/reprod/pyvenv.cfg", "home = /opt/reprod/python/bin\ninclude-system-site-packages = false\n")
        self.write(f"{site}/bed.pth", "/opt/reprod/src\n/opt/reprod/packages\n")
        self.write("/usr/local/bin/reprod", '#!/bin/sh\nexec /opt/reprod/bin/python -m reprod "$@"\n', mode=0o755)
        done = self.run("sh", "-c", f"mkdir /opt/reprod/bin && ln -s ../python/bin/{version} /opt/reprod/bin/python")
        assert done.returncode == 0, done.stderr
        if sysconfig.get_config_var("Py_ENABLE_SHARED"):  # its library is where a service user may not look
            self.write("/etc/ld.so.conf.d/000-bed.conf", "/opt/reprod/python/lib\n")
            self.run("ldconfig")

    def _install_users(self) -> None:
        self.write("/etc/group-of-reprod.conf", (UNITS / "reprod.sysusers.conf").read_text())
        lines = [f'u {name} {uid} "" /home/{name} /bin/sh' for name, uid in USERS.items()] + ["m bob reprod"]
        self.write("/etc/users.conf", "\n".join(lines) + "\n")
        for file in ("/etc/group-of-reprod.conf", "/etc/users.conf"):
            done = self.run("systemd-sysusers", file)
            assert done.returncode == 0, done.stderr
        for name, uid in USERS.items():
            self.run("install", "-d", "-o", str(uid), "-g", str(uid), "-m", "0700", f"/home/{name}")

    # --- what tests do in it -----------------------------------------------------------------------------------------

    def run(
        self, *argv: str, user: str | None = None, env: Mapping[str, str] | None = None, timeout_s: float = CALL_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the bed to its end, as root or as one of ``USERS``."""
        flags = [f"--{name}" for name in (*_NAMESPACES, "root", "wd")]
        home = f"/home/{user}" if user else "/root"
        variables = {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8", "TERM": "dumb", **(env or {})}
        become: tuple[str, ...] = ()
        if user is not None:
            uid = str(USERS[user])
            become = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups")
        return subprocess.run(
            ["nsenter", f"--target={self.init}", *flags, "--", *become, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=variables,
            timeout=timeout_s,
        )

    def path(self, inside: str) -> Path:
        """Return where a file of the bed is seen from outside. Absolute links in its path lead astray."""
        return Path(f"/proc/{self.init}/root{inside}")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the bed, as root."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def systemctl(self, *argv: str, user: str | None = None, timeout_s: float = CALL_S) -> str:
        """Run ``systemctl`` (``--user`` for a user); return what it printed, fail where it failed."""
        done = self.try_systemctl(*argv, user=user, timeout_s=timeout_s)
        assert done.returncode == 0, f"systemctl {argv}: {done.stderr}\n{self.tail()}"
        return done.stdout.strip()

    def try_systemctl(
        self, *argv: str, user: str | None = None, timeout_s: float = CALL_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run ``systemctl`` and return how it went."""
        if user is None:
            return self.run("systemctl", *argv, timeout_s=timeout_s)
        runtime = {"XDG_RUNTIME_DIR": f"/run/user/{USERS[user]}"}
        return self.run("systemctl", "--user", *argv, user=user, env=runtime, timeout_s=timeout_s)

    def show(self, unit: str, *names: str, user: str | None = None) -> dict[str, str]:
        """Return properties of a unit."""
        lines = self.systemctl("show", unit, f"--property={','.join(names)}", user=user).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the journal's entries, oldest first; ``matches`` as ``journalctl`` takes them."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--output=json", "--all", "--no-pager", *matches).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def tail(self) -> str:
        """Return the end of the journal as people see it, for the message of a failure."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--lines=40").stdout[-6000:]

    def end(self) -> None:
        """Kill all that runs in it; its mounts go with its namespace."""
        if self._outer is not None:
            self._outer.send_signal(
                signal.SIGKILL
            )  # its child, pid 1 of the bed, is killed with it, and so is all else
            self._outer.wait(BOOT_S)
        if self.group.exists():
            eventually(self._is_empty, BOOT_S, "all processes of the bed are gone")
            for folder, _, _ in os.walk(self.group, topdown=False):
                os.rmdir(folder)

    def _is_empty(self) -> bool:
        return "populated 0" in (self.group / "cgroup.events").read_text()
