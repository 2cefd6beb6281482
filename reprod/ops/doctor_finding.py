"""What the checks of ``reprod doctor`` look at, and what they find.

A finding says what was seen with its values, what that means, and the exact lines that mend it. Levels: ``ok`` nothing
to do, ``warn`` works and not as it should, ``bad`` something is not recorded, ``unknown`` could not be looked at.
Checks are functions of a ``Situation``; they print nothing and execute nothing of a user's.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from reprod.config import Config, DatasetConfig
from reprod.ops.doctor_probe import Person, myself

Level = Literal["ok", "warn", "bad", "unknown"]

#: Read last, so that no other drop-in takes back what a person was told to write.
_DROPIN = "zz-reprod-doctor.conf"

NO_DAEMON = "no daemon answers"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``check`` is the name of the check, ``dataset`` the one that it is about.

    ``mend``: each line mends it alone; where there are several, the first is the one to try first.

    ``needs_daemon``: it is unknown because no daemon answers.
    """

    level: Level
    check: str
    what: str
    means: str = ""
    mend: tuple[str, ...] = ()
    dataset: str | None = None
    needs_daemon: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**asdict(self), "mend": list(self.mend)}

    @classmethod
    def from_document(cls, found: Mapping[str, Any]) -> "Finding":
        """Return what ``document`` made."""
        return cls(**{**found, "mend": tuple(found["mend"])})


@dataclass(frozen=True, slots=True)
class Service:
    """The systemd unit of the daemon: of the machine's manager or of a user's. ``properties`` as ``systemctl show``."""

    unit: str
    scope: Literal["user", "system"]
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def systemctl(self) -> str:
        """Return the command that reaches it, with sudo where that takes root."""
        return "systemctl --user" if self.scope == "user" else f"{sudo()}systemctl"

    def dropin_line(self, *settings: str) -> str:
        """Return the line that adds settings to the unit and restarts it."""
        folder = "~/.config/systemd/user" if self.scope == "user" else "/etc/systemd/system"
        folder += f"/{self.unit}.d"
        asked = sudo() if self.scope == "system" else ""
        text = " ".join(shlex.quote(line) for line in ("[Service]", *settings))
        return (
            f"{asked}mkdir -p {folder} && printf '%s\\n' {text} | {asked}tee -a {folder}/{_DROPIN} && "
            f"{self.systemctl} daemon-reload && {self.systemctl} restart {self.unit.removesuffix('.service')}"
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A dataset that is checked. ``config`` is None where its file cannot be read, ``shown`` without a daemon."""

    name: str
    path: str
    config: DatasetConfig | None
    shown: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known before the first check. ``status`` is the daemon's own document, None if it does not answer.

    ``owner`` is whom the daemon runs as, or would; ``person`` is whose permissions count, the same unless another one
    was ``chosen``. ``root_fd`` leads to the root of the daemon's own view of the file systems, where it has one and
    this user may see it. Without a status ``silence`` says why: it is ``hung``, or ``refused`` to answer this user.
    ``uri`` is the daemon's tracking server, ``shell_uri`` this shell's.
    """

    version: str
    state: Path
    owner: Person
    person: Person
    status: Mapping[str, Any] | None = None
    silence: str = ""
    hung: bool = False
    refused: bool = False
    config: Config | None = None
    config_problem: tuple[str, str] | None = None
    shell_uri: str = ""
    pid: int | None = None
    root_fd: int | None = None
    service: Service | None = None
    chosen: bool = False

    @property
    def targets(self) -> tuple[Target, ...]:
        """Return the datasets: the daemon's, without one those of the configuration."""
        known = {each.name: each for each in self.config.datasets} if self.config else {}
        if self.status is None:
            return tuple(Target(each.name, each.path, each, None) for each in known.values())
        shown = [each for each in self.status.get("datasets") or () if each.get("path")]
        return tuple(Target(each["name"], each["path"], known.get(each["name"]), each) for each in shown)

    @property
    def uri(self) -> str:
        """Return where the tracking server answers, empty if there is none, ``local`` if it is not known yet."""
        if self.status is not None:
            return str((self.status.get("tracking") or {}).get("uri") or "")
        return self.config.mlflow.tracking_uri if self.config else ""

    @property
    def start_lines(self) -> tuple[str, ...]:
        """Return what starts the daemon, or starts it again, or has it answer this user."""
        if self.refused:
            return (f"{sudo()}usermod -aG reprod {shlex.quote(myself().name)}    # counts from the next login on",)
        if self.service is not None:
            verb = "restart" if self.status is not None or self.hung else "start"
            return (f"{self.service.systemctl} {verb} {self.service.unit.removesuffix('.service')}",)
        end = f"kill {'-KILL ' if self.hung else ''}{self.pid}; " if self.pid else ""
        return (f"{end}reprod daemon", "reprod service install --now")


#: Taken before any child becomes another user: it is about who reads the findings.
_SUDO = "" if os.geteuid() == 0 else "sudo "


def sudo() -> str:
    """Return what comes before a command that only root may give."""
    return _SUDO
