"""What could explain that two runs came to different results: each cause as one sentence, the likeliest first. Pure.

The order is that of how much each usually matters: other data, other code, other parameters, then the environment by
the classes of ``core.environment_diff``, what is not known, and last what is known not to matter. A difference of
results is no cause of itself: metrics are not in here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from reprod.core.environment_diff import Difference
from reprod.core.run import ENDED
from reprod.core.run_differences import DatasetDifference, Pair, RunDifferences
from reprod.core.run_record import RunRecord

Rank = Literal["data", "code", "params", "semantic", "numeric", "hardware", "unknown", "benign"]

ORDER: tuple[Rank, ...] = get_args(Rank)

#: Ranks that are known differences; ``unknown`` may be one, ``benign`` is none.
DIFFERENT: frozenset[Rank] = frozenset({"data", "code", "params", "semantic", "numeric", "hardware"})

#: Facts that a machine has, whatever is installed on it.
_MACHINE = frozenset({"cpu", "gpus", "accelerators", "memory", "limits"})

#: What is not part of a result, so that nobody has to know that it is not known.
_HARMLESS = frozenset({"cloud", "memory", "disks", "schedulers", "benchmark"})

#: A value in a sentence; a param may have 6,000 characters.
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that could explain it; ``what`` is its place: a dataset, ``code``, a param, a fact."""

    rank: Rank
    what: str
    sentence: str


def explain(found: RunDifferences) -> tuple[Cause, ...]:
    """Return all causes, the likeliest first, those of one rank as they are told apart in ``found``."""
    causes = [
        *_of_data(found),
        *_of_code(found),
        *(Cause("params", each.name, _change(each)) for each in found.params),
        *_of_environment(found),
    ]
    return tuple(sorted(causes, key=lambda cause: ORDER.index(cause.rank)))


def not_recorded(found: RunDifferences) -> tuple[str, ...]:
    """Return, as sentences, what nobody can compare because it is not on both runs."""
    told = [f"{label}: {text}" for label, run in (("A", found.a), ("B", found.b)) for text in _missing(run)]
    return (*told, "in which order the data was read, and what a program loaded from elsewhere: no run records it")


def _of_data(found: RunDifferences) -> Iterator[Cause]:
    for each in found.data:
        sentence = _data_sentence(each)
        if sentence:
            yield Cause("unknown" if each.relation == "unknown" else "data", each.name, sentence)
    for label, run in (("A", found.a), ("B", found.b)):
        for drift in run.drift.datasets if run.drift is not None else ():
            if drift.verdict == "changed":
                told = f"it changed while {label} ran: {label} may have read both states"
                yield Cause("data", drift.name, f"{drift.name}: {told}")
            elif drift.verdict == "appended":
                told = f"new files came while {label} ran: what {label} listed late may hold some"
                yield Cause("data", drift.name, f"{drift.name}: {told}")
        if run.drift is None and run.tags.get("reprod.drift") == "changed":
            yield Cause("data", "data", f"the data changed while {label} ran: {label} may have read both states")


def _data_sentence(each: DatasetDifference) -> str:
    match each.relation:
        case "only_a" | "only_b":
            return f"{each.name}: only {each.relation[-1].upper()} names it"
        case "unknown":
            return f"{each.name}: whether the data differs is not known: {each.reason}"
        case "differs":
            counts = ", ".join(f"{count:,} {word}" for word, count in each.counts.items() if count)
            return f"{each.name}: the data differs: {counts or each.reason or 'another digest'}"
    return ""


def _of_code(found: RunDifferences) -> Iterator[Cause]:
    code = found.code
    if code.relation == "differs":
        yield Cause("code", "code", f"the code differs: {code.sentence}")
    elif code.relation == "unknown":
        yield Cause("unknown", "code", f"whether the code differs is not known: {code.sentence}")


def _of_environment(found: RunDifferences) -> Iterator[Cause]:
    if found.environment is None:
        why = found.environment_unknown or "not recorded"
        yield Cause("unknown", "environment", f"whether the environment differs is not known: {why}")
        return
    for each in found.environment.differences:
        yield Cause(_rank(each), each.fact, _fact_sentence(each))


def _rank(each: Difference) -> Rank:
    if each.grade == "numeric" and each.fact.partition(".")[0] in _MACHINE:
        return "hardware"
    if each.grade in {"semantic", "numeric", "unknown"}:
        return each.grade
    return "benign"


def _fact_sentence(each: Difference) -> str:
    why = f" ({each.why})" if each.why else ""
    return f"{each.fact}: {_value(each.left)} → {_value(each.right)}{why}"


def _change(each: Pair) -> str:
    return f"{each.name}: {_value(each.a)} → {_value(each.b)}"


def _value(value: object) -> str:
    if value is None:
        return "not there"
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _missing(run: RunRecord) -> Iterator[str]:
    """Yield what is not recorded of one run."""
    if not run.datasets:
        yield "it names no dataset"
    for each in run.datasets:
        if each.digest is None:
            yield f"{each.name} has no digest" + (f": {each.error}" if each.error else "")
    if run.datasets and run.drift is None and "reprod.drift" not in run.tags:
        when = "within minutes" if run.status in ENDED else "after its end"
        later = f": the daemon writes that {when}" if run.state is not None else ""
        yield f"whether the data changed while it ran{later}"
    if run.environment is None:
        yield "its environment" + (f": {run.environment_unknown}" if run.environment_unknown else "")
        return
    unknown = {**run.environment.environment.unknown, **run.environment.execution.unknown}
    for section, why in sorted(unknown.items()):
        if section not in _HARMLESS:
            yield f"{section}: {why}"
