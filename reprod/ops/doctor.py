"""The check-up: all checks at once, each in a child of its own that can be left behind, and what they found in order.

Bound: everything ends within ``WITHIN_S``; what has not answered then is said as unknown.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from reprod.ops.doctor_datasets import check_datasets, check_watches, judge_opened, open_datasets
from reprod.ops.doctor_finding import Finding, Situation, Target
from reprod.ops.doctor_limits import check_limits
from reprod.ops.doctor_probe import Person, gather
from reprod.ops.doctor_references import check_references
from reprod.ops.doctor_service import check_daemon, check_linger, check_sandbox
from reprod.ops.doctor_state import check_clock, check_disk, check_state
from reprod.ops.doctor_tracking import check_reachable, check_shell, check_store_runs
from reprod.ops.doctor_upgrade import check_formats

#: Of the 5 s that a person may wait; asking the daemon comes before.
WITHIN_S = 3.5

#: Datasets are spread over so many children, so that a dead mount hides its neighbours in one child only.
MOST_CHILDREN = 12

_CHECKS: tuple[tuple[str, Callable[[Situation], list[Finding]]], ...] = (
    ("daemon", check_daemon),
    ("tracking", check_reachable),
    ("shell", check_shell),
    ("datasets", check_datasets),
    ("sandbox", check_sandbox),
    ("watch", check_watches),
    ("inotify", check_limits),
    ("state", lambda situation: [*check_state(situation), *check_formats(situation)]),
    ("disk", check_disk),
    ("references", check_references),
    ("store runs", check_store_runs),
    ("clock", check_clock),
    ("linger", check_linger),
)


#: A dataset for which one of these tells why needs not be told that it is unavailable, and not watched, too.
_CAUSES = frozenset({"permissions", "sandbox"})
_SAME = frozenset({"datasets", "watch"})

_HANGS = "what it looks at hangs (a dead mount, a slow disk), or the machine is overloaded"


def examine(situation: Situation, within_s: float = WITHIN_S) -> list[Finding]:
    """Return what was found, in a fixed order."""
    looks: dict[str, tuple[Callable[[], Any], Person | None]] = {}
    for name, check in _CHECKS:
        looks[name] = (partial(_documents, check, situation), None)
    parts = _parts(situation)
    for number, targets in enumerate(parts):
        looks[f"permissions {number}"] = (partial(open_datasets, situation, targets), situation.person)
    began = time.monotonic()
    answers = gather(looks, within_s)
    silent = partial(_silent, within_s if time.monotonic() - began >= within_s else None)
    opened = [answers.pop(name) for name in list(answers) if name.startswith("permissions ")]
    found = judge_opened(situation, [answer for answer in opened if answer is not None])
    for targets, answer in zip(parts, opened, strict=True):
        if answer is None:
            named = ", ".join(target.name for target in targets)
            found.append(silent("permissions", named))
    for name, answer in answers.items():
        if answer is None:
            found.append(silent(name, name))
        else:
            found += [Finding.from_document(each) for each in answer]
    explained = {each.dataset for each in found if each.check in _CAUSES and each.level == "bad"}
    found = [each for each in found if each.check not in _SAME or each.level == "ok" or each.dataset not in explained]
    return found + _unasked(situation)


def _silent(late_s: float | None, check: str, what: str) -> Finding:
    """Return what to say of a look without an answer: it was left behind after ``late_s``, or ended before."""
    if late_s is not None:
        return Finding("unknown", check, f"{what}: no answer within {late_s:.1f} s", _HANGS)
    return Finding("unknown", check, f"{what}: looking at it failed", "this is a bug in reprod: please report it")


def _documents(check: Callable[[Situation], list[Finding]], situation: Situation) -> list[dict[str, Any]]:
    return [finding.document() for finding in check(situation)]


def _parts(situation: Situation) -> list[tuple[Target, ...]]:
    """Return the datasets whose readability is looked at, in as many parts as there are children for them."""
    if not _may_become(situation):
        return []
    targets = situation.targets
    return [targets[number::MOST_CHILDREN] for number in range(min(MOST_CHILDREN, len(targets)))]


def _may_become(situation: Situation) -> bool:
    return os.geteuid() == 0 or situation.person.is_me


def _unasked(situation: Situation) -> list[Finding]:
    if _may_become(situation) or not situation.targets:
        return []
    what = f"whether {situation.person.name} can read the datasets"
    line = f"sudo reprod doctor --as {situation.person.name}"
    return [Finding("unknown", "permissions", what, "only root can look as another user", (line,))]
