"""The verb that says what differs here, now, from what a run had: data by a quick look, code, and the environment.

Nothing of the data is read: names, sizes and, where the manifest has them, times are compared, and said to be no more
than that. The environment is that of the run's own prefix where it is here, else of this interpreter; what is one
process's own (seeds, threads, variables) is left out, because no training runs here.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from reprod.capture.environment import read_prefix
from reprod.capture.git.repository import read_git
from reprod.config import Config
from reprod.core.environment import Record
from reprod.core.environment_diff import ORDER, Comparison, compare
from reprod.core.run_record import RunRecord, UsedDataset
from reprod.errors import ReprodError
from reprod.ops.capture_here import capture
from reprod.ops.fetch import fetch_manifest
from reprod.ops.run_verify import claims_of, recorded_root, root_here
from reprod.ops.verify import validate
from reprod.sinks.child import MlflowChild

Report = Callable[[dict[str, Any]], None]

#: A quick look at more files takes minutes on a network file system; ``verify --quick`` has no limit.
MOST_FILES = 100_000

#: Names that are told of what differs.
MOST_NAMED = 3

#: What an interpreter has without a training going on in it.
_SECTIONS = frozenset(
    {"python", "packages", "broken", "conda", "system", "cpu", "gpus", "accelerators", "cuda", "rocm"}
)

#: ``touched``: only times differ, so content may. ``absent``: nothing is at the root here. ``unknown``: nobody can say.
Verdict = Literal["same", "touched", "differs", "absent", "unknown"]


@dataclass(frozen=True, slots=True)
class DatasetHere:
    """How the files of a dataset are here, now; ``sentence`` says what was compared, and found."""

    name: str
    root: str | None
    verdict: Verdict
    sentence: str
    sample: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CodeHere:
    """The repository of the run as it is here; ``same`` None: nobody can say."""

    root: str
    same: bool | None
    sentence: str


@dataclass(frozen=True, slots=True)
class EnvironmentHere:
    """How far what is here is from what the run had; ``comparison`` None: ``sentence`` says why."""

    of: str
    comparison: Comparison | None
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Here:
    """All of it; None: nothing was recorded to compare with."""

    datasets: tuple[DatasetHere, ...]
    code: CodeHere | None
    environment: EnvironmentHere | None


def compare_here(child: MlflowChild, config: Config, run: RunRecord, report: Report = lambda _: None) -> Here:
    """Return how this machine differs now from what a run recorded. Raises TrackingError, nothing else on purpose."""
    datasets = []
    for used in run.datasets:
        report({"phase": f"looking at {used.name} here"})
        datasets.append(_dataset(child, config, run.run_id, used, report))
    if run.environment is None:
        return Here(tuple(datasets), None, None)
    report({"phase": "looking at the code and the environment here"})
    return Here(tuple(datasets), _code(run.environment), _environment(run.environment))


# --- data -------------------------------------------------------------------------------------------------------------


def _dataset(child: MlflowChild, config: Config, run_id: str, used: UsedDataset, report: Report) -> DatasetHere:
    if used.digest is None:
        return DatasetHere(used.name, None, "unknown", "no digest was recorded to compare with")
    root = root_here(config, used.name, used.root)
    if root is None:
        where = f"nothing is at {used.root} on this machine" if used.root else "nobody recorded where it was"
        return DatasetHere(used.name, None, "absent", where)
    if (used.files or 0) > MOST_FILES:
        told = f"not compared: {used.files:,} files; reprod verify run:{run_id} --quick does"
        return DatasetHere(used.name, root, "unknown", told)
    try:
        with fetch_manifest(child, run_id, used.name) as fetched:
            place = root_here(config, used.name, recorded_root(fetched)) or root
            answer = validate(claims_of(fetched), place, mode="quick", progress=report)
            return _judged(used.name, place, answer, times=fetched.has_metadata)
    except ReprodError as error:
        if error.exit_code == 69:  # the server went away: that is no word on the data
            raise
        return DatasetHere(used.name, root, "unknown", f"not compared: {error.message}")


def _judged(name: str, root: str, answer: dict[str, Any], *, times: bool) -> DatasetHere:
    counted = [(len(answer[kind]), kind) for kind in ("missing", "extra", "mismatched", "unreadable")]
    words = {"mismatched": "of another size or kind", "extra": "new", "unreadable": "not readable"}
    told = ", ".join(f"{count:,} {words.get(kind, kind)}" for count, kind in counted if count)
    paths = [each if isinstance(each, str) else str(each["path"]) for _, kind in counted for each in answer[kind]]
    sample = tuple(paths[:MOST_NAMED])
    if answer["differs"]:
        return DatasetHere(name, root, "differs", told, sample)
    if answer["unreadable"]:
        return DatasetHere(name, root, "unknown", told, sample)
    touched = [str(each["path"]) for each in answer["metadata_only"] if each["field"] == "modified_time"]
    if touched:
        what = f"the same names and sizes, but {len(touched):,} written since: the content may differ"
        return DatasetHere(name, root, "touched", what, tuple(touched[:MOST_NAMED]))
    what = "the same names, sizes and times" if times else "the same names and sizes"
    return DatasetHere(name, root, "same", f"{what} (content not read)")


# --- code and environment ---------------------------------------------------------------------------------------------


def _code(record: Record) -> CodeHere | None:
    then = record.environment.git
    if then is None or not os.path.isabs(then.root) or "\0" in then.root or not os.path.isdir(then.root):
        return None
    try:
        now, _ = read_git(then.root, patch="off")
    except ReprodError as error:
        return CodeHere(then.root, None, error.message)
    at = now.commit[:12] + (" with uncommitted changes" if now.dirty else "")
    if then.tree is not None and now.tree is not None and not (then.withheld or now.withheld):
        equal = then.tree == now.tree
        return CodeHere(then.root, equal, f"the same files, at {at}" if equal else f"other files, at {at}")
    if now.commit != then.commit:
        return CodeHere(then.root, False, f"another commit, {at}")
    same = True if (then.dirty, now.dirty) == (False, False) else None
    return CodeHere(then.root, same, f"at {at}" + ("" if same else ": what differs from it is not known"))


def _environment(record: Record) -> EnvironmentHere:
    prefix = record.environment.python.prefix if record.environment.python else None
    of = "this interpreter"
    try:
        if prefix and os.path.isabs(prefix) and os.path.realpath(prefix) != os.path.realpath(sys.prefix):
            of, now = (prefix, read_prefix(prefix)) if os.path.isdir(prefix) else (of, capture())
        else:
            now = capture()
    except (ReprodError, ValueError) as error:
        return EnvironmentHere(of, None, getattr(error, "message", str(error)))
    found = compare(record, now)
    kept = tuple(each for each in found.differences if each.fact.partition(".")[0] in _SECTIONS)
    verdict = ORDER[max((ORDER.index(each.grade) for each in kept), default=ORDER.index("equivalent"))]
    return EnvironmentHere(of, Comparison(verdict, kept))
