"""The daemon as a process and as a service: its version, its sandbox, whether it outlives a login.

A directive of the unit that hides a dataset is named, because the daemon itself sees nothing but "no such file".
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from reprod.ops.doctor_finding import NO_DAEMON, Finding, Service, Situation, sudo

UNIT = "reprod.service"

#: systemctl answers in 10 ms; a machine that is shutting down may not.
SYSTEMCTL_S = 1.5

_ASKED = (
    *("PrivateTmp", "ProtectHome", "InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "RootImage"),
    *("BindPaths", "BindReadOnlyPaths", "User", "AmbientCapabilities"),
)
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp= is about


def find_service(pid: int | None) -> Service | None:
    """Return the unit of the daemon ``pid``, or without one the unit that is installed; None if there is none."""
    if pid is not None:
        try:
            name, scope = unit_of(Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace"))
        except (OSError, LookupError):
            return None
        return Service(name, scope, _properties(name, scope))
    own = Path(os.path.expanduser("~/.config/systemd/user")) / UNIT
    scope = "user" if own.exists() and os.geteuid() != 0 else "system"
    if scope == "system" and not Path("/etc/systemd/system", UNIT).exists():
        return None
    return Service(UNIT, scope, _properties(UNIT, scope))


def unit_of(cgroups: str) -> tuple[str, Literal["user", "system"]]:
    """Return unit and manager out of /proc/PID/cgroup. Raises LookupError for a process that is in no service."""
    for line in cgroups.splitlines():
        path = line.split(":", 2)[-1]
        parts = path.split("/")
        if parts[-1].endswith(".service") and not parts[-1].startswith("user@"):
            under_user = any(part.startswith("user@") for part in parts[:-1])
            return parts[-1], "user" if under_user else "system"
    raise LookupError("in no service")


def _properties(unit: str, scope: Literal["user", "system"]) -> Mapping[str, str]:
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return {}
    flags = ["--user"] if scope == "user" else []
    command = [systemctl, *flags, "--no-pager", "show", unit, f"--property={','.join(_ASKED)}"]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SYSTEMCTL_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def check_daemon(situation: Situation) -> list[Finding]:
    """Whether a daemon answers, and whether it is of this version."""
    if situation.status is None:
        what = situation.silence or NO_DAEMON
        means = "runs are not recorded while it is down; they are found again when it is back"
        if situation.refused:
            means = "it may be asked by root, by its own user and by members of the group reprod"
        level: Literal["bad", "unknown"] = "bad" if situation.hung else "unknown"
        return [Finding(level, "daemon", what, means, situation.start_lines, needs_daemon=True)]
    theirs = str(situation.status.get("version"))
    if theirs != situation.version:
        what = f"this command is reprod {situation.version}, the daemon (pid {situation.pid}) is {theirs}"
        means = "it was upgraded, and still runs the old code"
        return [Finding("warn", "daemon", what, means, situation.start_lines)]
    unit = f", {situation.service.unit}" if situation.service else ""
    return [
        Finding("ok", "daemon", f"reprod {theirs} answers (pid {situation.pid}, user {situation.owner.name}{unit})")
    ]


def check_sandbox(situation: Situation) -> list[Finding]:
    """Name the directive of the unit that hides a dataset from the daemon."""
    service = situation.service
    if service is None or not service.properties:
        return []
    found = []
    for target in situation.targets:
        real = os.path.realpath(target.path)
        hidden = next(hiding(service.properties, real), None)
        if hidden is not None:
            lines = showing_lines(service, hidden, real)
            means = "the daemon sees another, empty place there, and the dataset is unavailable to it"
            what = f"{target.name}: {hidden} in {service.unit} hides {target.path}"
            found.append(Finding("bad", "sandbox", what, means, lines, target.name))
    if not found and situation.targets:
        found.append(Finding("ok", "sandbox", f"nothing in {service.unit} hides a dataset"))
    return found


def showing_lines(service: Service, hidden: str, path: str) -> tuple[str, ...]:
    """Return the lines that let the service see a path, the narrowest first."""
    bind = f"BindReadOnlyPaths={_escaped(path)}"
    if hidden == "ProtectHome=yes":
        return service.dropin_line("ProtectHome=tmpfs", bind), service.dropin_line("ProtectHome=read-only")
    if hidden.startswith("InaccessiblePaths="):  # what adds to the list cannot take from it
        return (f"{service.systemctl} edit {service.unit}    # take {hidden} back: an empty InaccessiblePaths= first",)
    return (service.dropin_line(bind),)


def hiding(properties: Mapping[str, str], path: str) -> Iterator[str]:
    """Yield the directives that hide ``path`` (symlinks resolved), as they stand in the unit."""
    home = properties.get("ProtectHome", "")
    if home == "yes" and any(_below(path, each) for each in _HOMES):
        yield "ProtectHome=yes"  # of mode 0000: nothing can be bound below it
    for place in _listed(properties.get("InaccessiblePaths", ""), path):
        yield f"InaccessiblePaths={place}"
    if any(_listed(properties.get(name, ""), path) for name in ("BindPaths", "BindReadOnlyPaths")):
        return
    if properties.get("PrivateTmp") not in {None, "", "no"} and any(_below(path, each) for each in _TEMPORARY):
        yield f"PrivateTmp={properties['PrivateTmp']}"
    if home == "tmpfs" and any(_below(path, each) for each in _HOMES):
        yield "ProtectHome=tmpfs"
    for place in _listed(properties.get("TemporaryFileSystem", ""), path):
        yield f"TemporaryFileSystem={place}"
    for name in ("RootDirectory", "RootImage"):
        if properties.get(name):
            yield f"{name}={properties[name]}"


def _listed(value: str, path: str) -> list[str]:
    """Return what a list of systemd's names of ``path`` and the folders above it.

    It is not taken apart: a path in it may hold blanks. Each has signs before it and, perhaps, options after a colon.
    """
    found = []
    while path != "/":
        if re.search(rf"(?:^|\s)[-+]*{re.escape(path)}/?(?=[:\s]|$)", value):
            found.append(path)
        path = path.rpartition("/")[0] or "/"
    return found


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _escaped(path: str) -> str:
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace(":", "\\:")
    return text if re.fullmatch(r"[\w/.,+@%=-]+", text, re.ASCII) else f'"{text}"'


def capability_lines(service: Service | None) -> tuple[str, ...]:
    """Return the last of the three cures for closed data: the machine's service may read everything."""
    if service is None or service.scope != "system":
        return ()
    capability = "CAP_DAC_READ_SEARCH"
    return (service.dropin_line(f"AmbientCapabilities={capability}", f"CapabilityBoundingSet={capability}"),)


def check_linger(situation: Situation) -> list[Finding]:
    """Whether a user's service goes on when that user logs out."""
    service, user = situation.service, situation.owner.name
    if service is None or service.scope != "user":
        return []
    if os.path.exists(f"/var/lib/systemd/linger/{user}"):
        return [Finding("ok", "linger", f"the services of {user} run without a login")]
    means = "runs that go on without you are recorded only when you are back"
    line = f"{sudo()}loginctl enable-linger {user}"
    return [Finding("warn", "linger", f"the daemon ends when {user} logs out", means, (line,))]
