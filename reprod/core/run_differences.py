"""What differs between two runs, part by part: data, code, environment, parameters, metrics. Pure.

Rule: equal is said only where both sides are known; what one side does not know is ``unknown``. Data comes compared
(``ops.run_diff`` reads the manifests), the rest is compared here. Sizes are bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reprod.core.environment_diff import ORDER, Comparison, Difference, compare
from reprod.core.repository import Git
from reprod.core.run_record import RunRecord, UsedDataset

#: ``only_a``, ``only_b``: the other run names no such dataset.
Relation = Literal["same", "differs", "unknown", "only_a", "only_b"]

#: What the daemon writes on a run (docs/delivery.md); where the user had the name, ours has ``reprod.`` before it.
OUR_PARAMS = frozenset(
    {
        *("python_version", "platform_system", "cpu_count", "gpu_count"),
        *("git_commit", "git_branch", "git_uncommitted_changes"),
        *("data_path", "hash_algorithms", "manifest_version"),
    }
)
#: Of these, what is written only where a dataset is known, and then with ``manifest_version``: without that one (an
#: incomplete run) a param of such a name is the user's own.
_OF_DATA = ("data_path", "hash_algorithms", "manifest_version")
_MARK = "manifest_version"
OUR_METRICS = frozenset({"data_files_count", "data_size_bytes", "data_processing_time"})

_PREFIX = "reprod."

#: First characters of a commit: enough for people, and for git.
_COMMIT = 12


@dataclass(frozen=True, slots=True)
class DatasetDifference:
    """One dataset of two runs. ``a`` and ``b`` are what each used, ``reason`` says why nothing more is known.

    ``listing`` is the whole difference as ``reprod diff`` tells it, None where nobody looked at the files; ``counts``
    are those of added, removed, modified, renamed, and ``growth`` by how many bytes it grew.
    """

    name: str
    relation: Relation
    a: UsedDataset | None = None
    b: UsedDataset | None = None
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    growth: int | None = None
    listing: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CodeDifference:
    """The code of two runs; ``sentence`` says for a person what is known of it."""

    relation: Relation
    sentence: str
    commits: tuple[str | None, str | None] = (None, None)
    dirty: tuple[bool | None, bool | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Pair:
    """A name with its value on both sides; None: it is not there."""

    name: str
    a: str | float | None
    b: str | float | None


@dataclass(frozen=True, slots=True)
class RunDifferences:
    """All of it. ``environment`` None: ``environment_unknown`` says why; the code is apart.

    ``params`` and ``metrics`` are the user's own that differ; ``equal_params`` counts those that do not.
    """

    a: RunRecord
    b: RunRecord
    data: tuple[DatasetDifference, ...]
    code: CodeDifference
    environment: Comparison | None
    environment_unknown: str | None
    params: tuple[Pair, ...]
    metrics: tuple[Pair, ...]
    equal_params: int = 0


def differences(a: RunRecord, b: RunRecord, data: tuple[DatasetDifference, ...]) -> RunDifferences:
    """Compare two runs; ``data`` is compared already."""
    environment = unknown = None
    git: tuple[Difference, ...] | None = None
    if a.environment is not None and b.environment is not None:
        found = compare(a.environment, b.environment)
        git = tuple(each for each in found.differences if _is_code(each))
        environment = _without_code(found)
    else:
        why = [
            f"that of {label} is not recorded" + (f" ({side.environment_unknown})" if side.environment_unknown else "")
            for label, side in (("A", a), ("B", b))
            if side.environment is None
        ]
        unknown = "; ".join(why)
    mine, theirs = user_params(a.params), user_params(b.params)
    return RunDifferences(
        a=a,
        b=b,
        data=data,
        code=_code(a, b, git),
        environment=environment,
        environment_unknown=unknown,
        params=_pairs(mine, theirs),
        metrics=_pairs(user_metrics(a.metrics), user_metrics(b.metrics)),
        equal_params=sum(mine[key] == theirs.get(key) for key in mine),
    )


def user_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return the params that are not ours."""
    return {key: value for key, value in params.items() if not _is_ours(key, params, OUR_PARAMS)}


def user_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are not ours."""
    return {key: value for key, value in metrics.items() if not _is_ours(key, metrics, OUR_METRICS)}


def _is_ours(key: str, taken: Mapping[str, object], ours: frozenset[str]) -> bool:
    if key.startswith(_PREFIX):
        return True
    if ours is OUR_PARAMS and key.startswith(_OF_DATA) and not {_MARK, f"{_PREFIX}{_MARK}"} & taken.keys():
        return False
    known = key in ours or any(key.startswith(f"{name}.") for name in ours if name.startswith("data_"))
    return known and f"{_PREFIX}{key}" not in taken


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Pair, ...]:
    # repr: nan is not equal to itself, and two runs that both came to it do not differ.
    names = sorted(a.keys() | b.keys())
    return tuple(Pair(name, a.get(name), b.get(name)) for name in names if repr(a.get(name)) != repr(b.get(name)))


# --- code -------------------------------------------------------------------------------------------------------------


def _is_code(each: Difference) -> bool:
    return each.fact == "git" or each.fact.startswith("git.")


def _without_code(found: Comparison) -> Comparison:
    rest = tuple(each for each in found.differences if not _is_code(each))
    if len(rest) == len(found.differences):
        return found
    gravest = max((ORDER.index(each.grade) for each in rest), default=ORDER.index("equivalent"))
    return Comparison(ORDER[gravest], rest)


def _code(a: RunRecord, b: RunRecord, found: tuple[Difference, ...] | None) -> CodeDifference:
    left, right = _git(a), _git(b)
    if found is None or left is None or right is None:
        return _by_params(a, b)
    grades = {each.grade for each in found}
    relation: Relation = "differs" if grades & {"semantic", "numeric"} else "unknown" if "unknown" in grades else "same"
    if relation == "same" and (left.withheld or right.withheld):
        relation = "unknown"
    dirty, commits = (left.dirty, right.dirty), (left.commit, right.commit)
    return CodeDifference(relation, _sentence(left, right, relation), commits, dirty)


def _git(run: RunRecord) -> Git | None:
    return run.environment.environment.git if run.environment is not None else None


def _sentence(a: Git, b: Git, relation: Relation) -> str:
    commits = f"commit {a.commit[:_COMMIT]} → {b.commit[:_COMMIT]}"
    uncommitted = _uncommitted(a.dirty, b.dirty)
    if relation == "unknown":
        return f"not wholly known: {_doubt(a, b)}"
    if relation == "same":
        at = f"commit {a.commit[:_COMMIT]}" if a.commit == b.commit else f"the same files, {commits}"
        return f"the same: {at}" + (", with the same uncommitted changes" if a.dirty and b.dirty else uncommitted)
    if a.commit != b.commit:
        return f"{commits}{uncommitted}"
    same = f"the same commit {a.commit[:_COMMIT]}"
    return f"{same}, with other uncommitted changes" if a.dirty and b.dirty else f"{same}{uncommitted}"


def _uncommitted(a: bool | None, b: bool | None) -> str:
    told = " and ".join(label for label, dirty in (("A", a), ("B", b)) if dirty)
    return f", with uncommitted changes in {told}" if told else ""


def _doubt(a: Git, b: Git) -> str:
    held = sum(len(each.withheld) + each.withheld_more for each in (a, b))
    if held:
        files = "1 changed file was" if held == 1 else f"{held:,} changed files were"
        return f"{files} withheld, of whose content nothing is recorded"
    if a.commit == b.commit:
        return f"the same commit {a.commit[:_COMMIT]}, but what differed from it is not known on both sides"
    return "what differed from the commits is not known on both sides"


def _by_params(a: RunRecord, b: RunRecord) -> CodeDifference:
    """Judge by the params that the daemon wrote, which are there without the record of the environment."""
    commits = (_ours(a, "git_commit"), _ours(b, "git_commit"))
    clean = tuple({"true": False, "false": True}.get(_ours(run, "git_uncommitted_changes") or "") for run in (a, b))
    dirty = tuple(None if each is None else not each for each in clean)
    both = (dirty[0], dirty[1])
    first, second = commits
    if first is None or second is None:
        missing = [label for label, commit in (("A", first), ("B", second)) if commit is None]
        return CodeDifference("unknown", f"no repository is recorded of {' and '.join(missing)}", commits, both)
    if first != second:
        told = f"commit {first[:_COMMIT]} → {second[:_COMMIT]}{_uncommitted(*both)}"
        return CodeDifference("differs", told, commits, both)
    if clean == (True, True):
        return CodeDifference("same", f"the same: commit {first[:_COMMIT]}", commits, both)
    told = f"the same commit {first[:_COMMIT]}, but what differed from it is not recorded"
    return CodeDifference("unknown", told, commits, both)


def _ours(run: RunRecord, key: str) -> str | None:
    return run.params.get(f"{_PREFIX}{key}", run.params.get(key))
