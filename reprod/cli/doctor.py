"""``reprod doctor``: find what keeps reprod from its work, and say for each thing the exact line that mends it.

Rule: within five seconds, whatever hangs. Exit 1 if there is something to mend; else 3 if there is no daemon, so that
some checks could not be made; else 0. Commands to copy are never wrapped.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import reprod
from reprod.cli import codes, render
from reprod.cli.screen import Screen
from reprod.client import Client, connect
from reprod.config import Config, MlflowConfig, load, places
from reprod.config.parse import read_folder
from reprod.errors import ConfigError, DaemonUnavailableError, NotFoundError, ReprodError, StateError
from reprod.ops import doctor
from reprod.ops.doctor_finding import Finding, Level, Situation
from reprod.ops.doctor_probe import Person, myself, person_named, person_of
from reprod.ops.doctor_service import find_service

WITHIN_S = 5.0

#: A daemon answers from memory in milliseconds; one that does not is a finding.
ASK_S = 1.0
RETRY_S = 0.2

#: What starting, printing and a busy machine take of the five seconds.
_RESERVE_S = 0.7
_LEAST_S = 1.5

#: level, mark, colour, heading for one, for several
_GROUPS: tuple[tuple[Level, str, str, str, str], ...] = (
    ("bad", "bad", "red", "thing is bad", "things are bad"),
    ("warn", "warn", "yellow", "warning", "warnings"),
    ("unknown", "new", "", "thing was not looked at", "things were not looked at"),
    ("ok", "good", "green", "thing is fine", "things are fine"),
)


def run(args: argparse.Namespace) -> int:
    """Look at everything and show what was found."""
    began = time.monotonic()
    situation = survey(args)
    found = doctor.examine(situation, max(_LEAST_S, WITHIN_S - _RESERVE_S - (time.monotonic() - began)))
    seconds = round(time.monotonic() - began, 3)
    if args.json:
        print(render.to_json("doctor", _document(situation, found, seconds)))
    else:
        _show(Screen(sys.stdout), situation, found, seconds)
    return exit_code(found)


def exit_code(found: Sequence[Finding]) -> int:
    """Return 1 if there is something to mend, 3 if a daemon was needed and none answered, else 0."""
    if any(each.level in {"bad", "warn"} for each in found):
        return codes.DIFFERS
    return codes.NO_DAEMON if any(each.needs_daemon for each in found) else codes.FINE


def survey(args: argparse.Namespace) -> Situation:
    """Return what the checks begin with: who answers, what it reads, and as whom it does. Raises StateError (--as)."""
    chosen = _chosen(args.as_user)
    hello, status, silence, pid = _ask()
    refused = hello.get("refused") is True
    if refused:
        folder = places.SYSTEM_CONFIG.parent / "datasets.d"
        hello = {"config": str(places.SYSTEM_CONFIG), "folder": str(folder), "state": str(places.SYSTEM_STATE)}
    config, problem = _config(args.config, hello)
    state = Path(str(hello["state"])) if hello.get("state") else places.known_state_dir()
    hung = not refused and "does not answer" in silence
    if hung:
        pid = _holder(state)
    owner = (person_of(pid) if pid else None) or _expected(system=refused)
    return Situation(
        version=reprod.__version__,
        state=state,
        owner=owner,
        person=chosen or owner,
        status=status,
        silence=silence,
        hung=hung,
        refused=refused,
        config=config,
        config_problem=problem,
        shell_uri=os.environ.get("MLFLOW_TRACKING_URI", ""),
        pid=pid,
        root_fd=None if chosen else _own_root(pid),
        service=find_service(pid),
        chosen=chosen is not None,
    )


def _chosen(name: str | None) -> Person | None:
    """Return the user of --as."""
    if name is None:
        return None
    person = person_named(name)
    if os.geteuid() != 0 and not person.is_me:
        raise StateError("only root can look as another user", hint=f"sudo reprod doctor --as {name}")
    return person


def _ask() -> tuple[dict[str, Any], dict[str, Any] | None, str, int | None]:
    """Return hello and status of the daemon, why there is none, and its pid where that is one of ours."""
    hello: dict[str, Any] = {}
    try:
        with closing(connect(timeout_s=ASK_S, retry_s=RETRY_S)) as client:
            hello = client.call("hello")
            return hello, client.call("status", {"name": None}), "", _pid(client, hello)
    except DaemonUnavailableError as error:
        return hello, None, error.message, None
    except ReprodError as error:  # it does not talk to this user
        return {"refused": True}, None, f"the daemon of this machine does not answer this user ({error.message})", None


def _pid(client: Client, hello: dict[str, Any]) -> int | None:
    """Return the daemon's pid, unless it is of another pid namespace (a container's socket)."""
    try:
        pid = int(hello["pid"])
        return (
            pid if client.path is not None and os.stat(f"/proc/{pid}").st_uid == os.stat(client.path).st_uid else None
        )
    except (KeyError, ValueError, OSError):
        return None


def _holder(state: Path) -> int | None:
    """Return which process holds the state directory, as that wrote it down."""
    try:
        pid = int((state / "lock").read_text("ascii"))
        return pid if os.path.exists(f"/proc/{pid}") else None
    except (OSError, ValueError):
        return None


def _config(explicit: str | None, hello: dict[str, Any]) -> tuple[Config | None, tuple[str, str] | None]:
    """Return the configuration that the daemon reads, or what is wrong with it."""
    told = str(hello.get("config") or "")
    path = explicit or (told if told and os.path.exists(told) else None)
    try:
        config = load(path, tracking=not hello)
        if told and path is None:  # not there yet: what was read is this user's own
            config = replace(config, mlflow=MlflowConfig(), file=Path(told))
        if hello.get("folder") and explicit is None:
            folder = Path(str(hello["folder"]))
            datasets, misconfigured = read_folder(folder, config.state_dir)
            config = replace(config, folder=folder, datasets=datasets, misconfigured=misconfigured)
    except ConfigError as error:
        closed = isinstance(error.__cause__, PermissionError)
        return None, None if hello and closed else (error.message, error.hint)
    return config, None


def _expected(*, system: bool) -> Person:
    """Return whom a daemon would run as: for root, and for one of the machine, the service's user if there is one."""
    if system or os.geteuid() == 0:
        try:
            return person_named(places.SERVICE_USER)
        except NotFoundError:
            pass
    return myself()


def _own_root(pid: int | None) -> int | None:
    """Return a descriptor of the daemon's own root, where it sees other mounts than this process."""
    if pid is None:
        return None
    try:
        if os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            return None
        return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _document(situation: Situation, found: Sequence[Finding], seconds: float) -> dict[str, Any]:
    status = situation.status or {}
    return {
        "live": situation.status is not None,
        "version": situation.version,
        "daemon_version": status.get("version"),
        "pid": situation.pid,
        "user": situation.person.name,
        "unit": situation.service.unit if situation.service else None,
        "state": str(situation.state),
        "summary": {level: sum(each.level == level for each in found) for level, *_ in _GROUPS},
        "findings": [each.document() for level, *_ in _GROUPS for each in found if each.level == level],
        "seconds": seconds,
    }


def _show(screen: Screen, situation: Situation, found: Sequence[Finding], seconds: float) -> None:
    for level, mark, colour, one, many in _GROUPS:
        group = [each for each in found if each.level == level]
        if not group:
            continue
        screen.line(screen.paint(f"{len(group)} {one if len(group) == 1 else many}", "bold"))
        for each in group:
            _show_one(screen, each, f"{screen.paint(screen.mark(mark), colour)} ")
        screen.line()
    needed = sum(each.level in {"bad", "warn"} for each in found)
    told = f"{render.plural(needed, 'thing')} to mend" if needed else "nothing to mend"
    if situation.status is None:
        told += "; without the daemon not all could be looked at"
    who = f"as {situation.person.name}"
    screen.prose(f"{told}   (looked {who}, {seconds:.1f} s)", colour="" if needed else "green")


def _show_one(screen: Screen, finding: Finding, mark: str) -> None:
    what = render.safe(finding.what)
    first, *more = _wrapped(screen, f"{finding.check}: {what}" if finding.level == "ok" else what, 4)
    screen.line(f"  {mark}{first}")
    for line in more:
        screen.line(f"    {line}")
    if finding.level == "ok":
        return
    if finding.means:
        screen.prose(render.safe(finding.means), 4, "dim")
    for number, line in enumerate(finding.mend):
        screen.line(f"      {screen.paint('mend:' if number == 0 else '  or:', 'dim')} {render.safe(line)}")


def _wrapped(screen: Screen, text: str, indent: int) -> list[str]:
    if screen.width is None or len(text) <= screen.width - indent:
        return [text]
    import textwrap

    return textwrap.wrap(text, max(20, screen.width - indent), break_on_hyphens=False, break_long_words=False) or [""]
