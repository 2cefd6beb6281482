"""The words of the report page: what each verdict of reprod means to somebody who reads one for the first time.

Rule: a verdict is a mark, a few words and a sentence; a colour never says anything alone. Nothing sounds better than it
is: what was not proven is called so.
"""

from dataclasses import dataclass
from typing import Literal

from reprod.core.binding import Assurance, Bound
from reprod.core.drift import Drift
from reprod.core.drift import Verdict as DriftVerdict
from reprod.core.environment_diff import Class, Comparison
from reprod.core.report_since import CHANGES, DatasetSince, EnvironmentSince, Since
from reprod.core.run_record import RunRecord, UsedDataset

Mark = Literal["good", "warn", "bad", "quiet"]


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict as it is said. ``quiet`` is neither good nor bad: there is nothing to judge."""

    mark: Mark
    word: str
    sentence: str


_BOUND: dict[Bound, Said] = {
    "start": Said(
        "good",
        "Proven",
        "This version was on the disk when the run started: it had been read before, and was found unchanged since.",
    ),
    "ctime": Said(
        "good",
        "Proven afterwards",
        "The data was read only after the start, but nothing in it is younger than the start: no file, no folder, no "
        "mount. So it is what was there when the run began.",
    ),
    "ambiguous": Said(
        "warn",
        "Not proven",
        "Something changed so close to the start of the run that nobody can tell which side of it the run saw. The "
        "versions around the start are only candidates, so the run has no digest.",
    ),
    "late": Said(
        "warn",
        "Not proven",
        "What was there when the run started cannot be told any more: the data changed since then, or was not watched "
        "yet. reprod does not guess, so the run has no digest.",
    ),
}

_ASSURANCE: dict[Assurance, str] = {
    "walk": "A walk over every file that began after the start confirmed it.",
    "events": "It rests on the change notices of the operating system, which came without a gap; no walk over all "
    "files confirmed it.",
    "network": "The data is on a network file system, where another machine may change it and times may arrive late.",
}

_DRIFT: dict[DriftVerdict, Said] = {
    "none": Said("good", "Held still", "Nothing in the data changed between the start and the end of the run."),
    "appended": Said(
        "warn",
        "Files were added",
        "New files came while the run was going; nothing that was there at its start was touched.",
    ),
    "changed": Said(
        "bad",
        "Changed meanwhile",
        "Files were changed, removed or touched while the run was going. What it read of them from then on may not be "
        "what is recorded above.",
    ),
    "unknown": Said("warn", "Not known", "Whether the data held still during the run cannot be told."),
}

_ENVIRONMENT: dict[Class, Said] = {
    "identical": Said(
        "good", "The same", "The same packages, code, machine and settings, as far as they are recorded."
    ),
    "equivalent": Said("good", "As good as the same", "What differs cannot be part of a result."),
    "benign": Said("good", "Harmless differences", "What differs is not known to change a result."),
    "unknown": Said("warn", "Not all is known", "What is missing on one side could be a grave difference."),
    "numeric": Said(
        "warn", "Digits may differ", "The last digits of a result may differ: sums may be taken in another order."
    ),
    "semantic": Said(
        "bad", "Something else ran", "Other code, other versions or other seeds: other results are possible."
    ),
}


def said_of_binding(dataset: UsedDataset) -> Said:
    """Return how well it is known what the run found of a dataset."""
    if dataset.digest is not None and dataset.bound is not None:
        return _BOUND[dataset.bound]
    if dataset.digest is not None:
        return Said("quiet", "Recorded", "A digest was recorded, but not how it was tied to the start of the run.")
    if dataset.bound in {"ambiguous", "late"}:
        return _BOUND[dataset.bound]
    return Said("bad", "Not recorded", "The run has no digest of this dataset, so nothing is proven.")


def said_of_assurance(assurance: Assurance | None) -> str:
    """Return what the proof rests on; empty if nothing is proven."""
    return _ASSURANCE[assurance] if assurance is not None else ""


def said_of_data(run: RunRecord) -> Said:
    """Return the weakest verdict over the run's datasets."""
    order: tuple[Mark, ...] = ("bad", "warn", "quiet", "good")
    found = [said_of_binding(each) for each in run.datasets]
    if not found:
        return Said("quiet", "No dataset", "Nothing is recorded of this run's data.")
    return min(found, key=lambda said: order.index(said.mark))


def said_of_drift(drift: Drift | None, *, ended: bool) -> Said:
    """Return what became of the data while the run was going."""
    if drift is not None:
        return _DRIFT[drift.verdict]
    if ended:
        return Said("quiet", "Not judged", "Whether the data held still during the run was not recorded.")
    return Said("quiet", "Not judged yet", "Whether the data holds still is judged when the run has ended.")


def said_of_class(grade: Class) -> Said:
    """Return what a class of difference between two environments means."""
    return _ENVIRONMENT[grade]


def said_of_environment(run: RunRecord, since: EnvironmentSince | None) -> Said:
    """Return how the environment stands to that of the run before."""
    if run.environment is None:
        return Said("warn", "Not known", run.environment_unknown or "No environment was recorded for this run.")
    if since is None:
        return Said("quiet", "Recorded", "There is no earlier run to compare it with.")
    if since.comparison is None:
        return Said("quiet", "Not compared", since.unknown or "The earlier run has no environment.")
    return _ENVIRONMENT[since.comparison.verdict]


def said_of_since(run: RunRecord, since: Since) -> Said:
    """Return whether the data is that of the run before, over all datasets."""
    found = {each.name: each for each in since.datasets}
    pairs = [(each, found[each.name]) for each in run.datasets if each.name in found]
    compared = [(each, then) for each, then in pairs if then.run is not None]
    names = sorted({then.run.name for _, then in compared if then.run is not None})
    if not compared:
        return Said("quiet", "First run", "No earlier run on this data is known.")
    if all(is_same(each, then) for each, then in compared):
        return Said("good", "The same data", "Byte for byte what the run before had.")
    if any(each.digest is None for each, _ in compared):
        return Said("quiet", "Not compared", "What changed since the run before cannot be told.")
    totals = {what: sum(then.counts.get(what, 0) for _, then in compared) for what in CHANGES}
    total = sum(totals.values())
    if not total or any(then.unknown for _, then in compared):
        return Said("warn", "Other data", "The data is not what the run before had.")
    told = ", ".join(f"{count:,} {what}" for what, count in totals.items() if count)
    word = f"{total:,} {'file differs' if total == 1 else 'files differ'}"
    return Said("warn", word, f"{told} since {' and '.join(names[:2])}.")


def is_same(dataset: UsedDataset, then: DatasetSince) -> bool:
    """Return whether the run before had the same bytes under the same names."""
    return dataset.digest is not None and dataset.digest == then.digest


def counted(comparison: Comparison) -> list[tuple[Class, int]]:
    """Return how many differences there are of each class that has any, the gravest first."""
    classes: tuple[Class, ...] = ("semantic", "numeric", "unknown", "benign", "equivalent")
    counts = [(grade, sum(each.grade == grade for each in comparison.differences)) for grade in classes]
    return [(grade, count) for grade, count in counts if count]
