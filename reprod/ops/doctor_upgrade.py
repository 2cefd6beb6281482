"""State that a newer release of reprod wrote: which files, and the lines that bring release and state together again.

Two ways: the newer release again, or the copies from before its upgrade. A copy is not put back under a daemon that
runs, and not at all where that daemon is of the newer release: then only this command is too old.
"""

import os
import shlex
import sys

from reprod.ops.doctor_finding import Finding, Situation, sudo
from reprod.store import files

#: A daemon ends within two.
_END_S = 3


def check_formats(situation: Situation) -> list[Finding]:
    """Whether this release can read what is in the state directory."""
    return [_judge(situation, newer) for newer in files.newer(situation.state)]


def _judge(situation: Situation, newer: files.Newer) -> Finding:
    is_registry = newer.path.name == "registry.sqlite"
    what = f"{newer.path} was written by a newer reprod (format {newer.format}, this one knows {newer.known})"
    means = "a daemon of this release does not start with it (77)" if is_registry else "its dataset is not looked at"
    theirs = (situation.status or {}).get("version")
    if theirs is not None and theirs != situation.version:
        line = f"{_upgrade()}    # to {theirs}, which the daemon is"
        return Finding("bad", "state", what, "this command is older than the daemon, and cannot read it", (line,))
    lines = [f"{_upgrade()} && {situation.start_lines[0]}"]
    if newer.back is not None:
        copy, commands = newer.back
        lines.append(_around(situation, commands))
        means += f"; the second line goes back to {copy.path.name}, and what was recorded since is not in that"
    elif is_registry:
        state = shlex.quote(str(situation.state))
        lines.append(f"{_around(situation, f'mv {state} {state}.newer')}    # begins anew: all is scanned again")
    return Finding("bad", "state", what, means, tuple(lines))


def _upgrade() -> str:
    # By the newer wheel or checkout, not by name: an index may know another project by that.
    return f'{shlex.quote(sys.executable)} -m pip install --upgrade "$REPROD[mlflow]"'


def _around(situation: Situation, commands: str) -> str:
    """Return commands that are given while no daemon runs, as a user who may, and then a daemon again."""
    if sudo() and situation.owner.uid != os.geteuid():
        commands = f"{sudo()}sh -c {shlex.quote(commands)}"
    service = situation.service
    if service is not None:
        unit = service.unit.removesuffix(".service")
        return f"{service.systemctl} stop {unit}; {commands}; {service.systemctl} start {unit}"
    end = f"kill {situation.pid}; sleep {_END_S}; " if situation.pid else ""
    return f"{end}{commands}; reprod daemon"
