"""References that no longer resolve: runs whose version this host cannot tell any more, and runs that were given up.

Nothing is asked of a server here; the manifest that a run has there is not touched by what was lost here.
"""

import time
from collections import defaultdict
from contextlib import closing
from itertools import islice

from reprod.core import digest
from reprod.errors import DamagedError, NotFoundError, ReprodError
from reprod.ops.doctor_finding import Finding, Level, Situation
from reprod.ops.reference import open_epochs
from reprod.store import files, health, uses, versions

#: The newest runs are looked at; reading a million old ones is not what somebody waits for.
LOOK_S = 2.0
MOST_RUNS = 20_000
_NAMED = 3


def check_references(situation: Situation) -> list[Finding]:
    """Look for what the recorded runs refer to."""
    try:
        records = files.open_registry_readonly(situation.state)
    except NotFoundError:
        return []
    except DamagedError as error:
        means = "what runs refer to is not known here until it was rebuilt, which the daemon does when it starts"
        return [Finding("bad", "references", error.message, means, situation.start_lines)]
    except ReprodError as error:
        if files.newer(situation.state):
            return []  # told with its cure: doctor_upgrade
        what = f"what runs refer to: {error.message}"
        return [Finding("unknown", "references", what, error.hint)]
    with closing(records):
        failed, newest = records.read(lambda c: health.failed_runs(c, _NAMED))
        used = records.read(lambda c: list(islice(uses.uses(c), MOST_RUNS)))
    return [*_failed(failed, newest), *_lost(situation, used)]


def _failed(count: int, newest: list[health.FailedRun]) -> list[Finding]:
    if not count:
        return []
    means = "they have reprod.state = failed; it is not tried again by itself"
    found = [
        Finding(
            "bad",
            "references",
            f"run {run.run_id} ({run.recorded}): {run.error}",
            means,
            (f"reprod retry run:{run.run_id}",),
        )
        for run in newest
    ]
    if count > len(newest):
        found.append(
            Finding("bad", "references", f"{count - len(newest)} more runs failed", means, ("reprod runs --failed",))
        )
    return found


def _lost(situation: Situation, used: list[uses.Use]) -> list[Finding]:
    """Compare each use with the version that the dataset's file has under that number."""
    by_name: dict[str, list[uses.Use]] = defaultdict(list)
    for use in used:
        by_name[use.name].append(use)
    found: list[Finding] = []
    until_s, looked, left = time.monotonic() + LOOK_S, 0, len(used)
    for name, wanted in by_name.items():
        if time.monotonic() > until_s:
            break
        try:
            sealed = _sealed(situation, name)
        except ReprodError as error:
            if any(str(each.path) in error.message for each in files.newer(situation.state)):
                left -= len(wanted)
                continue  # told with its cure: doctor_upgrade
            looked += len(wanted)
            found.append(Finding("bad", "references", f"{name}: {error.message}", _MEANS, situation.start_lines, name))
            continue
        looked += len(wanted)
        found += _judge(name, wanted, sealed)
    if looked and not found:
        found.append(
            Finding(
                "ok", "references", f"{_references(looked)} resolve" if looked > 1 else "1 reference of a run resolves"
            )
        )
    if looked < left:
        found.append(Finding("ok", "references", f"{_references(left - looked)} were not looked at, to save time"))
    return found


_MEANS = "which files these runs used is on the tracking server only, in their manifests"


def _sealed(situation: Situation, name: str) -> dict[int, tuple[bytes | None, bool]]:
    """Return ``{number: (digest, pruned)}`` of a dataset's versions, those of earlier roots included."""
    sealed: dict[int, tuple[bytes | None, bool]] = {}
    for _, _, db in open_epochs(situation.state, name):
        with closing(db):
            sealed.update({each.seq: (each.digest, bool(each.pruned)) for each in db.read(versions.versions)})
    return sealed


def _judge(name: str, used: list[uses.Use], sealed: dict[int, tuple[bytes | None, bool]]) -> list[Finding]:
    lost: dict[str, list[uses.Use]] = defaultdict(list)
    for use in used:
        version = sealed.get(use.seq)
        if version is None:
            lost["is not there: the dataset's file was rebuilt or is an older copy"].append(use)
        elif version[1]:
            lost["was pruned"].append(use)
        elif use.digest is not None and use.digest != (digest.text(version[0]) if version[0] else None):
            lost["has another digest than the run recorded"].append(use)
    return [_told(name, why, those) for why, those in lost.items()]


def _told(name: str, why: str, those: list[uses.Use]) -> Finding:
    named = ", ".join(f"{name}@{use.seq} of run {use.run_id}" for use in those[:_NAMED])
    first = those[0]
    sums = f"{name}-{first.seq}.sha256"
    lines = (
        f"reprod export run:{first.run_id} --dataset {name} --format sha256sums --output {sums}",
        f"reprod verify {name} --chain",
    )
    level: Level = "bad" if "digest" in why else "warn"
    return Finding(level, "references", f"{_references(len(those))}: the version {why} ({named})", _MEANS, lines, name)


def _references(count: int) -> str:
    return f"{count:,} reference{'' if count == 1 else 's'} of runs"
