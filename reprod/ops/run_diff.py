"""The verb that compares two runs from the tracking server alone: their data through the manifests, and all the rest.

Datasets are paired by name, then by digest, then what is left alone on both sides. Equal digests are equal data, and no
file of it is looked at; of different ones both manifests are read side by side, so memory grows with what differs.
"""

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

from reprod.core.delta import compare
from reprod.core.entry import Content, Entry
from reprod.core.run_differences import DatasetDifference, RunDifferences, differences
from reprod.core.run_record import RunRecord, UsedDataset
from reprod.errors import DamagedError, IncompleteError, NotFoundError
from reprod.ops.diff import difference_document
from reprod.ops.fetch import fetch_manifest
from reprod.ops.fetch_run import fetch_run, find_run
from reprod.sinks.child import MlflowChild

Report = Callable[[dict[str, Any]], None]

#: Paths that differ and are held: more are counted as other data without a list (some 1 GB).
MOST_PATHS = 2_000_000


def diff_runs(child: MlflowChild, a: str, b: str, report: Report = lambda _: None) -> RunDifferences:
    """Return what differs between two runs, each ``run:ID``.

    :raises NotFoundError: no such run. :raises UsageError: it is several. :raises TrackingError: the server cannot be
    reached.
    """
    report({"phase": "finding both runs"})
    heads = [find_run(child, text) for text in (a, b)]
    records = []
    for head in heads:
        report({"phase": f"reading what is recorded of {head.run_id}"})
        records.append(fetch_run(child, head.run_id))
    first, second = records
    return differences(first, second, tuple(_data(child, first, second, report)))


def _data(child: MlflowChild, a: RunRecord, b: RunRecord, report: Report) -> Iterator[DatasetDifference]:
    for mine, theirs in _paired(a, b):
        if mine is None or theirs is None:
            yield from (DatasetDifference(each.name, "only_a", each) for each in (mine,) if each)
            yield from (DatasetDifference(each.name, "only_b", None, each) for each in (theirs,) if each)
            continue
        name = mine.name if mine.name == theirs.name else f"{mine.name} → {theirs.name}"
        if mine.digest is None or theirs.digest is None:
            yield DatasetDifference(name, "unknown", mine, theirs, _unproven(mine, theirs))
        elif mine.digest == theirs.digest:
            yield DatasetDifference(name, "same", mine, theirs)
        else:
            report({"phase": f"comparing the manifests of {name}"})
            yield _compared(child, name, (a.run_id, mine), (b.run_id, theirs))


def _paired(a: RunRecord, b: RunRecord) -> list[tuple[UsedDataset | None, UsedDataset | None]]:
    """Return which dataset of one run stands beside which of the other."""
    left, right = list(a.datasets), list(b.datasets)
    pairs: list[tuple[UsedDataset | None, UsedDataset | None]] = []

    def take(mine: UsedDataset, theirs: UsedDataset) -> None:
        pairs.append((mine, theirs))
        left.remove(mine)
        right.remove(theirs)

    for key in (attrgetter("name"), attrgetter("digest")):
        for mine in tuple(left):
            theirs = next((each for each in right if key(mine) is not None and key(each) == key(mine)), None)
            if theirs is not None:
                take(mine, theirs)
    if len(left) == len(right) == 1:
        take(left[0], right[0])
    return [*pairs, *((each, None) for each in left), *((None, each) for each in right)]


def _unproven(a: UsedDataset, b: UsedDataset) -> str:
    told = [
        f"what {label} started on is not proven"
        + (f" ({each.error or each.bound})" if each.error or each.bound else "")
        for label, each in (("A", a), ("B", b))
        if each.digest is None
    ]
    return "; ".join(told)


def _compared(
    child: MlflowChild, name: str, a: tuple[str, UsedDataset], b: tuple[str, UsedDataset]
) -> DatasetDifference:
    """Return what lies between two digests, file by file where both manifests can be had."""
    try:
        with fetch_manifest(child, a[0], a[1].name) as first, fetch_manifest(child, b[0], b[1].name) as second:
            before, after = differing(first.entries(), second.entries())
    except (DamagedError, IncompleteError, NotFoundError) as error:
        return DatasetDifference(name, "differs", a[1], b[1], f"which files differ is not known: {error.message}")
    sides = [_side(run_id, used) for run_id, used in (a, b)]
    listing = difference_document(sides[0], sides[1], compare(before, after), [], algorithm="sha256")
    summary = listing["summary"]
    counts = {word: summary[word] for word in ("added", "modified", "removed", "renamed")}
    return DatasetDifference(name, "differs", a[1], b[1], "", counts, summary["bytes"], listing)


def _side(run_id: str, used: UsedDataset) -> dict[str, Any]:
    named = {"ref": f"run:{run_id}", "name": used.name, "version": used.version, "run_id": run_id}
    return {**named, "digest": used.digest, "complete": True}


def differing(a: Iterator[Entry], b: Iterator[Entry]) -> tuple[dict[bytes, Content], dict[bytes, Content]]:
    """Return the paths that are not equal on both sides, of sets in path order.

    :raises IncompleteError: they are more than ``MOST_PATHS``.
    """
    before: dict[bytes, Content] = {}
    after: dict[bytes, Content] = {}
    both = merge(_rows(a, 0), _rows(b, 1), key=itemgetter(0, 1))
    for path, rows in groupby(both, key=itemgetter(0)):
        found = {side: content for _, side, content in rows}
        if len(found) == 2 and (found[0].kind, found[0].sha256) == (found[1].kind, found[1].sha256):
            continue
        for side, content in found.items():
            (after if side else before)[path] = content
        if len(before) + len(after) > MOST_PATHS:
            raise IncompleteError(f"more than {MOST_PATHS:,} paths differ", hint="reprod export writes both lists")
    return before, after


def _rows(entries: Iterator[Entry], side: int) -> Iterator[tuple[bytes, int, Content]]:
    return ((entry.path, side, entry.content) for entry in entries)
