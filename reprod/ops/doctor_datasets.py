"""The datasets: whether the daemon's user can read them, how they are watched, what state they are in.

Readability is found by opening, as that user and in the daemon's own view of the file systems where it has one.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reprod.core.pattern import Selection
from reprod.fs import mounts
from reprod.ops.doctor_access import Closed, closed_within, cures
from reprod.ops.doctor_finding import Finding, Situation, Target, sudo
from reprod.ops.doctor_service import capability_lines, hiding

#: Of what is closed in one dataset so much is named.
_NAMED = 3


def open_datasets(situation: Situation, targets: tuple[Target, ...]) -> dict[str, Any]:
    """Open each root and a sample of what is below it, as this process; return what ``judge_opened`` reads, as JSON."""
    found: list[Finding] = []
    opened = readable = 0
    properties = situation.service.properties if situation.service and not situation.chosen else {}
    for target in targets:
        if next(hiding(properties, os.path.realpath(target.path)), None):
            continue  # the check of the sandbox names the directive
        closed, count = closed_within(target.path, situation.root_fd, _taken(target))
        opened += count
        wrong = [finding for each in closed[:_NAMED] if (finding := _judge(situation, target, each)) is not None]
        readable += not wrong and not closed
        found += wrong
        if len(closed) > _NAMED and wrong:
            found[-1] = _and_more(found[-1], len(closed) - _NAMED)
    return {"found": [each.document() for each in found], "readable": readable, "opened": opened}


def judge_opened(situation: Situation, answers: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return the findings in the answers of ``open_datasets``, and how much was fine as one."""
    found = [Finding.from_document(each) for answer in answers for each in answer["found"]]
    readable, opened = (sum(int(answer[key]) for answer in answers) for key in ("readable", "opened"))
    if readable:
        told = f"{_count(readable, 'dataset')} can be read by {situation.person.name}"
        found.append(Finding("ok", "permissions", f"{told} ({_count(opened, 'folder')} and some files of each opened)"))
    return found


def _taken(target: Target) -> Callable[[bytes], bool]:
    """Return whether a path is of the dataset; without its configuration all is."""
    if target.config is None:
        return lambda _: True
    selection = Selection(include=target.config.include, exclude=target.config.exclude)
    return lambda path: selection.takes_directory(path[:-1]) if path.endswith(b"/") else selection.takes_file(path)


def _judge(situation: Situation, target: Target, closed: Closed) -> Finding | None:
    """Return what a closed place means; None where it is no question of permissions."""
    user = situation.person.name
    if not closed.needs:
        return _unseen(situation, target, closed)
    verb = {"x": "go through", "r": "list" if closed.folder else "read"}[closed.needs]
    whole = closed.needs == "x" or closed.path == target.path
    means = "the dataset cannot be read at all" if whole else "the dataset is incomplete, and has no digest"
    lines = (*cures(closed, target.path, user, sudo=sudo()), *capability_lines(situation.service))
    what = f"{target.name}: {user} (uid {situation.person.uid}) may not {verb} {closed.described}"
    return Finding("bad", "permissions", what, means, lines, target.name)


def _unseen(situation: Situation, target: Target, closed: Closed) -> Finding | None:
    """A path that is there, and not for the daemon: its mounts are others than this shell's."""
    if situation.root_fd is None or not os.path.exists(target.path):
        return None
    what = f"{target.name}: {closed.path} is there, and the daemon does not see it ({closed.reason})"
    means = "the daemon's mounts are its own: something was mounted here after it started, or only for this session"
    return Finding("bad", "permissions", what, means, situation.start_lines, target.name)


def _and_more(finding: Finding, more: int) -> Finding:
    return Finding(
        "bad",
        finding.check,
        f"{finding.what}, and {more} more in the sample",
        finding.means,
        finding.mend,
        finding.dataset,
    )


def check_watches(situation: Situation) -> list[Finding]:
    """How each dataset is watched, and why not by events."""
    if situation.status is None:
        means = "only a daemon watches"
        return (
            [Finding("unknown", "watch", "how datasets are watched", means, needs_daemon=True)]
            if situation.targets
            else []
        )
    found, events = [], 0
    for target in situation.targets:
        shown = target.shown or {}
        mode, reason = shown.get("watch"), str(shown.get("watch_reason") or "")
        if mode in {"inotify", "watchfiles"}:
            events += 1
        elif mode == "poll":
            found.append(_polled(target, reason))
        elif shown.get("state") not in {"unavailable", "failed", "misconfigured"}:
            what = f"{target.name} is not watched: {reason or 'no reason given'}"
            found.append(Finding("warn", "watch", what, "its changes are found by walking", (), target.name))
    if events:
        found.append(Finding("ok", "watch", f"{_count(events, 'dataset')} watched by events"))
    return found


def _polled(target: Target, reason: str) -> Finding:
    what = f"{target.name} is polled, not watched: {reason}"
    if reason.startswith("configured") or "other hosts make no events" in reason:
        return Finding("ok", "watch", what, dataset=target.name)
    means = "its changes are found by walking, as often as watch.reconcile_seconds says"
    _, colon, line = reason.rpartition(": ")
    lines = (f"{sudo()}{line}",) if colon and line.startswith("sysctl ") else ()
    return Finding("warn", "watch", what, means, lines, target.name)


def check_datasets(situation: Situation) -> list[Finding]:
    """What keeps a dataset from having a digest: its file, its root, entries that cannot be read."""
    found = [*_misconfigured(situation), *(each for target in situation.targets for each in _state(target))]
    if situation.config_problem is not None:
        means = "the daemon does not start, or keeps what it had"
        found.append(
            Finding("bad", "datasets", situation.config_problem[0], means, _edit(situation, *situation.config_problem))
        )
    if not situation.targets and not found:
        line = "reprod dataset add NAME PATH"
        return [Finding("warn", "datasets", "no dataset is registered", "no run can be recorded", (line,))]
    fine = len(situation.targets) - len({each.dataset for each in found if each.dataset and each.level != "ok"})
    if fine > 0 and situation.status is not None:
        found.append(
            Finding(
                "ok",
                "datasets",
                f"{_count(fine, 'dataset')} as it should be" if fine == 1 else f"{fine} datasets as they should be",
            )
        )
    return found


def _misconfigured(situation: Situation) -> list[Finding]:
    if situation.status is not None:
        rows = [each for each in situation.status.get("datasets") or () if each.get("state") == "misconfigured"]
        wrong = [(str(row["name"]), str(row.get("reason")), str(row.get("hint") or "")) for row in rows]
    else:
        rejected = situation.config.misconfigured if situation.config else ()
        wrong = [(each.name, each.message, each.hint) for each in rejected]
    means = "it is disabled: its runs are not recorded"
    return [
        Finding("bad", "datasets", f"{name}: {why}", means, _edit(situation, why, hint), name)
        for name, why, hint in wrong
    ]


def _state(target: Target) -> list[Finding]:
    if target.shown is None:
        return _root_of(target)
    shown = target.shown
    if shown.get("state") in {"unavailable", "failed"}:
        what = f"{target.name} is {shown['state']}: {shown.get('reason') or 'no reason given'}"
        means = "nothing of it was forgotten; no run can be bound to it meanwhile"
        return [Finding("bad", "datasets", what, means, _return_lines(target), target.name)]
    if shown.get("state") == "incomplete":
        count = shown.get("problem_count") or 0
        named = "; ".join(_problem(each) for each in (shown.get("problems") or ())[:_NAMED])
        several = _count(count, "entry", "entries")
        what = f"{target.name} is incomplete: {several} that cannot be read or will not rest: {named}"
        means = "it has no digest, and its runs are recorded as incomplete"
        return [Finding("bad", "datasets", what, means, (f"reprod status {shlex.quote(target.name)}",), target.name)]
    return []


def _return_lines(target: Target) -> tuple[str, ...]:
    """Return what may bring an unavailable dataset back: what the daemon hints at, a mount, another place."""
    hint, name = str((target.shown or {}).get("hint") or ""), shlex.quote(target.name)
    if "reprod " in hint:
        return (hint[hint.index("reprod ") :].replace(" NAME", f" {name}"),)
    if os.path.exists(target.path):
        return (f"reprod scan {name}",)
    place = _unmounted(target.path)
    mount = (f"{sudo()}mount {shlex.quote(place)}",) if place else ()
    return (*mount, f"reprod dataset move {name} NEWPATH    # it is elsewhere now", f"reprod dataset remove {name}")


def _unmounted(path: str) -> str | None:
    """Return the mount point of fstab that is above ``path`` and has nothing mounted on it now."""
    try:
        with open("/etc/fstab", encoding="utf-8", errors="replace") as table:
            fields = [line.split() for line in table if not line.lstrip().startswith("#")]
    except OSError:
        return None
    places = [row[1] for row in fields if len(row) > 2 and path.startswith(row[1].rstrip("/") + "/") and row[1] != "/"]
    mounted = {os.fsdecode(mount.mount_point) for mount in mounts.mounts()}
    return next((place for place in sorted(places, key=len, reverse=True) if place not in mounted), None)


def _root_of(target: Target) -> list[Finding]:
    """Without a daemon: whether the root is there for this user."""
    if os.path.exists(target.path):
        return []
    what = f"{target.name}: {target.path} is not there for this user"
    return [
        Finding(
            "warn", "datasets", what, "it would be unavailable", (f"ls -ld {shlex.quote(target.path)}",), target.name
        )
    ]


def _problem(problem: Mapping[str, Any]) -> str:
    return f"{problem.get('path')} ({problem.get('problem')})"


def _edit(situation: Situation, message: str, hint: str) -> tuple[str, ...]:
    """Return the line that opens a file of the configuration where it is wrong; its hint where no file is named."""
    named = re.match(r"(/.*?\.toml)(?::(\d+))?(?=[: ])", message)
    if named is None:
        return (hint,) if hint else ()
    number = named[2] or next(iter(re.findall(r"at line (\d+)", message)), "1")
    asked = sudo() if named[1].startswith("/etc/") else ""
    then = f"{asked}reprod reload" if situation.status is not None else situation.start_lines[0]
    return (f"{asked}${{EDITOR:-vi}} +{number} {shlex.quote(named[1])} && {then}    # {hint}",)


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
