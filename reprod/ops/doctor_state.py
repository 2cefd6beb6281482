"""The state directory: whose it is, where it lies, how much room it has, what was set aside in it; and the clock.

Sizes are bytes, times Unix nanoseconds.
"""

import os
import shlex
import stat
import time
from contextlib import closing
from pathlib import Path

from reprod.core.amount import size
from reprod.errors import ReprodError
from reprod.fs import mounts
from reprod.ops.doctor_finding import Finding, Situation, sudo
from reprod.ops.doctor_probe import user_name
from reprod.store import files, health

#: Below this a scan of a large dataset, or the log of one transaction, may fill the disk.
LITTLE_BYTES = 1 << 30
#: Below this nothing larger than a few thousand changes can be written down.
TOO_LITTLE_BYTES = 100 << 20
FEW_INODES = 1000

#: A clock that was set longer ago says nothing about the runs of today.
RECENT_NS = 86_400_000_000_000

_FLEETING = frozenset({"tmpfs", "ramfs"})


def check_state(situation: Situation) -> list[Finding]:
    """Owner, mode and file system of the state directory."""
    state = situation.state
    try:
        found = os.stat(state)
    except FileNotFoundError:
        return _file_system(state) or [Finding("ok", "state", f"{state} is not there yet; the daemon makes it")]
    except OSError as error:
        line = f"{sudo()}ls -ld {shlex.quote(str(state))}"
        return [Finding("unknown", "state", f"{state}: {error.strerror}", "only its owner may look at it", (line,))]
    return _owner(situation, found) + _file_system(state) + _set_aside(state)


def _owner(situation: Situation, found: os.stat_result) -> list[Finding]:
    state, place = situation.state, shlex.quote(str(situation.state))
    mode, findings = stat.S_IMODE(found.st_mode), []
    if found.st_uid != situation.owner.uid:
        what = f"{state} belongs to {user_name(found.st_uid)}, the daemon runs as {situation.owner.name}"
        line = f"{sudo()}chown -R {situation.owner.name} {place}"
        findings.append(Finding("bad", "state", what, "the daemon does not start with it (78)", (line,)))
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        what = f"others may write in {state} (its mode is {mode:04o})"
        line = f"{sudo()}chmod go-w {place}"
        findings.append(
            Finding("bad", "state", what, "what is in it cannot be believed: it does not start (78)", (line,))
        )
    return findings or [Finding("ok", "state", f"nobody else may write in {state} (mode {mode:04o})")]


def _there(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _file_system(state: Path) -> list[Finding]:
    try:
        fd = os.open(_there(state), os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        mount = mounts.mount_of(fd)
    finally:
        os.close(fd)
    if mount is None:
        return []
    line = "export REPROD_STATE_DIR=/a/folder/on/a/local/disk"
    if mounts.is_network(mount.fs_type):
        what = f"{state} is on a network file system ({mount.fs_type}, {mount.source})"
        return [Finding("bad", "state", what, "a database there is not safe: it does not start (78)", (line,))]
    if mount.fs_type in _FLEETING:
        what = f"{state} is in memory ({mount.fs_type}): the history is lost at the next boot"
        return [Finding("warn", "state", what, "runs from before cannot be compared with the files any more", (line,))]
    return []


def _set_aside(state: Path) -> list[Finding]:
    """Name the databases that were damaged and set aside: a person looks at them, then they are only in the way."""
    try:
        aside = sorted(each for folder in (state, state / "datasets") for each in folder.glob("*.damaged-*"))
    except OSError:
        return []
    aside = [each for each in aside if not each.name.endswith(("-wal", "-shm"))]
    if not aside:
        return []
    names = ", ".join(each.name for each in aside[:3])
    means = "versions from before the damage cannot be proven; look at the disk (journalctl -k, smartctl)"
    line = f"{sudo()}rm {' '.join(shlex.quote(str(each)) + '*' for each in aside[:3])}"
    return [Finding("warn", "state", f"{len(aside)} damaged databases were set aside: {names}", means, (line,))]


def check_disk(situation: Situation) -> list[Finding]:
    """Room on the file system of the state directory, and what the databases take of it."""
    place = _there(situation.state)
    try:
        room = os.statvfs(place)
    except OSError as error:
        return [Finding("unknown", "disk", f"{place}: {error.strerror}")]
    free = room.f_bavail * room.f_frsize
    used, largest = _databases(situation.state)
    told = f"{size(free)} free for {situation.state}"
    if used is not None:
        told += f", which takes {size(used)}" + (f" (most of it {largest})" if largest else "")
    few = room.f_files > 0 and room.f_favail < FEW_INODES
    if free >= LITTLE_BYTES and not few:
        return [Finding("ok", "disk", told)]
    if few:
        told += f"; {room.f_favail} inodes left"
    means = "when it is full nothing new is written down until there is room again; nothing is lost that was"
    lines = (f"{sudo()}du -xh --max-depth=2 {shlex.quote(str(place))} | sort -h | tail", "reprod prune --dry-run")
    return [Finding("bad" if free < TOO_LITTLE_BYTES else "warn", "disk", told, means, lines)]


def _databases(state: Path) -> tuple[int | None, str]:
    """Return the bytes of all databases, and the name of one that is most of them; None where they are closed."""
    sizes: dict[str, int] = {}
    try:
        for folder in (state, state / "datasets"):
            for entry in os.scandir(folder):
                if ".sqlite" in entry.name:
                    name = entry.name.partition(".sqlite")[0]
                    sizes[name] = sizes.get(name, 0) + entry.stat(follow_symlinks=False).st_size
    except OSError:
        return (sum(sizes.values()) or None), ""
    total = sum(sizes.values())
    largest = max(sizes, key=lambda name: sizes[name], default="")
    return total, f"{largest}, {size(sizes[largest])}" if largest and len(sizes) > 2 and sizes[
        largest
    ] > total / 2 else ""


def check_clock(situation: Situation) -> list[Finding]:
    """Whether the clock was set while a daemon looked: what was before cannot be compared with what came after."""
    now, steps, looked = time.time_ns(), 0, 0
    for target in situation.targets:
        try:
            db, _ = files.open_dataset_readonly(situation.state, target.name)
            with closing(db):
                steps = max(steps, len(db.read(lambda c: health.clock_steps(c, now - RECENT_NS, now))))
                looked += 1
        except ReprodError:
            continue
    if not looked:
        return []
    if not steps:
        return [Finding("ok", "clock", "the clock was not set within a day")]
    times = "once" if steps == 1 else f"{steps} times"
    means = "a run that started around that moment may not be provable"
    line = f"{sudo()}timedatectl set-ntp true"
    return [Finding("warn", "clock", f"the clock was set {times} within a day", means, (line,))]
