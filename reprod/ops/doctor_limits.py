"""The kernel's limits of inotify against what the datasets need.

A directory takes a watch, a dataset an instance; both are counted for each user. What other processes of the same user
have is read from /proc/PID/fdinfo, where that may be read: the kernel tells no sum.
"""

import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reprod.errors import ReprodError
from reprod.ops.doctor_finding import Finding, Situation, Target, sudo
from reprod.store import files, health

_PROC = Path("/proc")

#: Reading the watches of a large daemon is some 100 bytes a watch; a machine of thousands of processes is sampled.
READ_S = 1.5

#: Above this part of a limit the next directory tree may be one too many.
NEAR = 0.8

Setting = Literal["max_user_watches", "max_user_instances"]

#: What systemd/60-reprod.sysctl.conf asks for.
USUAL: dict[Setting, int] = {"max_user_watches": 1_048_576, "max_user_instances": 512}
USUAL_QUEUE = 131_072


@dataclass(frozen=True, slots=True)
class Use:
    """Watches and instances that the user's other processes have. ``whole``: all of them could be looked at."""

    watches: int
    instances: int
    whole: bool


def check_limits(situation: Situation) -> list[Finding]:
    """Compare watches and instances that are needed with their limits, and say where events were lost."""
    watched = [target for target in situation.targets if _wants_watch(target)]
    counts = {target.name: _directories(situation, target) for target in watched}
    known = {name: count for name, count in counts.items() if count is not None}
    others = in_use(situation.owner.uid, situation.pid)
    cookies = len(watched)  # each watch has a folder of its own in the state directory
    found = [
        *_against(situation, "max_user_watches", sum(known.values()) + cookies, others.watches),
        *_against(situation, "max_user_instances", len(watched), others.instances),
        *_overflows(situation),
    ]
    unknown = sorted(counts.keys() - known.keys())
    if unknown and all(each.level == "ok" for each in found):
        listed = ", ".join(unknown)
        found.append(Finding("ok", "inotify", f"not counted, because not scanned yet or not to be read: {listed}"))
    return found


def _wants_watch(target: Target) -> bool:
    """Whether inotify is wanted for a dataset: not where polling is configured, or all that can work."""
    shown = target.shown or {}
    return shown.get("watch") != "poll" or "inotify limit" in str(shown.get("watch_reason"))


def _directories(situation: Situation, target: Target) -> int | None:
    try:
        db, _ = files.open_dataset_readonly(situation.state, target.name)
        with closing(db):
            return db.read(health.directories)
    except ReprodError:
        return None


def _against(situation: Situation, setting: Setting, need: int, others: int) -> list[Finding]:
    limit, key = limit_of(setting)
    if limit is None:
        return [Finding("unknown", "inotify", f"{key} cannot be read", "whether it suffices is not known")]
    unit = "watch" if setting == "max_user_watches" else "instance"
    user = situation.owner.name
    beside = f", {others:,} more {_are(others)} in use by {user}" if others else ""
    several = "" if need == 1 else "es" if unit == "watch" else "s"
    told = f"{need:,} {unit}{several} of inotify {_are(need)} needed{beside}; the limit is {limit:,} ({key})"
    if need + others <= limit * NEAR:
        return [Finding("ok", "inotify", told)]
    lines = _raise_lines(key, max(USUAL[setting], _power_of_two(2 * (need + others))))
    if need + others > limit:
        means = "what finds no watch is polled: its changes are noticed late, and runs are bound by walks alone"
        return [Finding("bad", "inotify", told, means, lines)]
    means = "some more directories, and what finds no watch is polled"
    return [Finding("warn", "inotify", told, means, lines)]


def _overflows(situation: Situation) -> list[Finding]:
    lost = [target for target in situation.targets if (target.shown or {}).get("watch_overflows")]
    queue = _number(_PROC / "sys/fs/inotify/max_queued_events")
    if not lost or queue is None or queue >= USUAL_QUEUE:
        return []
    told = ", ".join(f"{target.name} {(target.shown or {})['watch_overflows']} times" for target in lost)
    return [
        Finding(
            "warn",
            "inotify",
            f"the kernel dropped events since the daemon started: {told}",
            f"each time all was walked instead; its queue holds {queue:,} (fs.inotify.max_queued_events)",
            _raise_lines("fs.inotify.max_queued_events", USUAL_QUEUE),
        )
    ]


def limit_of(setting: Setting) -> tuple[int | None, str]:
    """Return a limit that holds for this user, and the key by which it is set.

    In a user namespace of its own (a container without root) a lower one of the namespace may hold.
    """
    machine = _number(_PROC / "sys/fs/inotify" / setting)
    own_key = f"user.max_inotify_{setting.removeprefix('max_user_')}"
    own = _number(_PROC / "sys/user" / own_key.removeprefix("user."))
    if own is not None and (machine is None or own < machine):
        return own, own_key
    return machine, f"fs.inotify.{setting}"


def in_use(uid: int, without: int | None) -> Use:
    """Return what processes of a user have, the process ``without`` left out."""
    watches = instances = 0
    whole, until_s = True, time.monotonic() + READ_S
    for entry in os.scandir(_PROC):
        if not entry.name.isdecimal() or int(entry.name) == without:
            continue
        try:
            if entry.stat().st_uid != uid:
                continue
            for number in _instances(entry.path):
                instances += 1
                text = Path(entry.path, "fdinfo", number).read_bytes()
                watches += text.count(b"\ninotify ") + text.startswith(b"inotify ")
        except OSError:  # it ended, or is closed to this user
            whole = False
        if time.monotonic() > until_s:
            return Use(watches, instances, whole=False)
    return Use(watches, instances, whole)


def _instances(process: str) -> list[str]:
    """Return the descriptors of a process that are instances of inotify."""
    found = []
    for number in os.listdir(f"{process}/fd"):
        try:
            if os.readlink(f"{process}/fd/{number}") == "anon_inode:inotify":
                found.append(number)
        except OSError:  # closed meanwhile
            continue
    return found


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _raise_lines(key: str, value: int) -> tuple[str, ...]:
    if not key.startswith("fs."):
        return (f"sysctl -w {key}={value}    # as root of this user namespace (the container's)",)
    file = f"/etc/sysctl.d/61-reprod-{key.rpartition('.')[2].replace('_', '-')}.conf"
    line = f"echo '{key} = {value}' | {sudo()}tee {file} && {sudo()}sysctl --load {file}"
    return (line, f"{sudo()}sysctl -w {key}={value}    # only until the next boot")


def _power_of_two(least: int) -> int:
    return 1 << max(0, least - 1).bit_length()


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
