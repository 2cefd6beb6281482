"""The verb that says what happened to the data of a run while it ran: `reprod.core.drift_rule` over the history.

Reads the dataset's file in one transaction and writes nothing. What the rule cannot prove comes back as ``unknown``
with the reason. Times are Unix nanoseconds.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from reprod.core.binding import LOCAL_SLACK_NS, Mark, held_at
from reprod.core.described import described
from reprod.core.drift import DatasetDrift, DriftedPath, What
from reprod.core.drift_document import MOST_PATHS
from reprod.core.drift_rule import Changes, Ending, Judgement, ending, judge, span
from reprod.core.entry import display, named
from reprod.core.snapshot import BoundDataset
from reprod.fs import mounts
from reprod.fs.read import WHOLE_SECOND_SLACK_NS
from reprod.store import drifted, index, meta, timeline, touches
from reprod.store.connection import Database

#: What a version whose entries were not only changed says of the time before it.
_STOPS = {
    "selection": "what belongs to the dataset was changed during the run",
    "moved": "the dataset was moved to another place during the run",
}
_ANOTHER = "the dataset was made anew during the run"
_STEP = "the clock was set during the run"
_PRUNED = "versions of that time were pruned"
_NOT_KEPT = "what was touched in a part of that time is not kept (any more)"
_MANY = "more was touched than is kept"
_MOVING = "names came or went while it was walked"
_NAMES = "names may have come and gone in a directory, or it was moved away and back: its times changed"
_REMOUNTED = "its root was mounted or made anew during the run"
_NETWORK = "on a network file system another host's change may not be seen in time"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When a run lived. It was seen running at ``running_ns`` (its start, if never) and not any more at ``ended_ns``.

    ``start_ns`` and ``end_ns`` (None: nothing that could be believed) are by its own clock, ``slack_ns`` off ours.
    """

    start_ns: int
    end_ns: int | None
    running_ns: int
    ended_ns: int
    slack_ns: int = LOCAL_SLACK_NS


@dataclass(frozen=True, slots=True)
class Judged:
    """The drift of one dataset; ``walk_after_ns``: a walk that begins after that moment may prove more."""

    drift: DatasetDrift
    walk_after_ns: int | None = None


def dataset_drift(db: Database, bound: BoundDataset, life: Lifetime, *, by_events: bool = False) -> Judged:
    """Return what happened to a dataset, or to the subdirectory of it that the run named, while the run lived.

    :param by_events: what the watch told of is enough (``barrier = "events"``), as it was for binding.
    """
    if bound.digest is None or bound.seq is None:
        return Judged(unknown(bound, "it is not known what the run started on"))
    seq = bound.seq
    return db.read(lambda c: _judged(c, bound, seq, life, by_events=by_events))


def unknown(bound: BoundDataset, reason: str) -> DatasetDrift:
    """Return the drift of a dataset of which nothing can be told."""
    return DatasetDrift(bound.named, "unknown", reason, bound.seq)


def _judged(c: index.Connection, bound: BoundDataset, seq: int, life: Lifetime, *, by_events: bool) -> Judged:
    known = meta.read(c)
    fs_type = (
        msgspec.json.decode(known.identity, type=described(mounts.RootIdentity)).fs_type if known.identity else None
    )
    slack = max(life.slack_ns, _stamp_slack_ns(c, fs_type))
    marks = timeline.marks(c, life.start_ns - slack)
    at = held_at(marks, life.start_ns, slack, seq)
    if at is None:
        return Judged(unknown(bound, "what the run started on cannot be told from the history any more"))
    end = ending(life.running_ns, life.ended_ns, life.end_ns, slack)
    over = span(marks, at, end, known.heard_ns if by_events else None)
    reader = _Reader(c, seq, marks, drifted.rows(c, len(marks)), os.fsencode(bound.path) if bound.path else b"")
    changes = reader.read(at, over.last, end)
    found = judge(marks, over, changes, end)
    if found.verdict in {"none", "appended"} and fs_type is not None and mounts.is_network(fs_type):
        found = Judgement("unknown", _NETWORK)
    drift = DatasetDrift(
        name=bound.named,
        verdict=found.verdict,
        reason=found.reason,
        from_version=seq,
        to_version=marks[over.last].seq,
        counts=dict(reader.counts),
        paths=tuple(sorted((*reader.old, *reader.new)[:MOST_PATHS], key=lambda each: each.path)),
        place=reader.place if found.reason == _NAMES else None,
    )
    return Judged(drift, end.until_ns if found.walk else None)


def _stamp_slack_ns(c: index.Connection, fs_type: str | None) -> int:
    """Return how coarse the ctimes are, as for binding."""
    found_ns = WHOLE_SECOND_SLACK_NS if index.stamps_are_whole_seconds(c) else 0
    return max(found_ns, mounts.settle_slack_ns(fs_type) if fs_type is not None else 0)


@dataclass(slots=True)
class _Reader:
    """What the marks after the start have of changes at or below ``prefix`` (empty: all), and of which paths."""

    db: index.Connection
    base: int
    marks: Sequence[Mark]
    rows: Sequence[drifted.Row]
    prefix: bytes
    counts: Counter[str] = field(default_factory=Counter)
    old: list[DriftedPath] = field(default_factory=list)  # were there at the start
    new: list[DriftedPath] = field(default_factory=list)
    place: str | None = None  # the first directory whose times nothing explains
    _existing: Counter[int] = field(default_factory=Counter)
    _added: Counter[int] = field(default_factory=Counter)

    def read(self, at: int, last: int, end: Ending) -> list[Changes]:
        """Return the changes of each mark after ``at`` up to ``last``."""
        if last == at:
            return []
        stops = {i: said for i in range(at + 1, last + 1) if (said := self._stop(at, i)) is not None}
        until = min(stops, default=last + 1)
        traces = touches.traces(self.db, self.rows[at + 1].id, self.rows[last].id)
        touched = self._touched(at, until, traces)
        self._changed(until, touched)
        for path, i in touched.items():
            self._note(path, "touched", i, existed=True)
        return [
            Changes(doubt=stops.get(i) or stops[until], stop=True)
            if i >= until
            else Changes(self._existing[i], self._added[i], self._doubt(i, traces.get(self.rows[i].id), end))
            for i in range(at + 1, last + 1)
        ]

    def _stop(self, at: int, i: int) -> str | None:
        """Say why nothing from this mark on can be compared with the start."""
        mark, row = self.marks[i], self.rows[i]
        if mark.kind == "step":
            return _STEP
        if row.version is not None and row.reason != "change":
            return _STOPS.get(row.reason, _ANOTHER)
        if self.marks[at].pruned or (row.pruned and row.taken):
            return _PRUNED
        return _REMOUNTED if mark.root_since_ns > self.marks[at].root_since_ns else None

    def _touched(self, at: int, until: int, traces: dict[int, touches.Trace]) -> dict[bytes, int]:
        """Return the paths that were there at the start and were touched, each with its first mark."""
        found: dict[bytes, int] = {}
        for i in range(at + 1, until):
            trace = traces.get(self.rows[i].id)
            for path in trace.paths if trace is not None else ():
                if self._counts(path) and (path in found or drifted.existed(self.db, path, self.base)):
                    self._existing[i] += 1
                    found.setdefault(path, i)
        return found

    def _changed(self, until: int, touched: dict[bytes, int]) -> None:
        """Take in what the versions before a mark did; a path that was touched too is told once."""
        sealed = {row.version: i for i, row in enumerate(self.rows[:until]) if row.version is not None}
        last = max(sealed, default=self.base)
        for path in drifted.paths(self.db, self.base, last):
            if not self._counts(path.path):
                continue
            known = [(sealed[event.version], event) for event in path.events if event.version in sealed]
            if path.existed:
                self._existing.update(i for i, _ in known)
                what: What = "modified" if path.events[-1].after else "removed"
                first = min([i for i, _ in known] + [touched.pop(path.path, until)])
            else:
                self._added.update(i for i, _ in known)
                what, first = "added", next((i for i, event in known if event.after), until)
            if first < until:
                self._note(path.path, what, first, existed=path.existed)

    def _note(self, path: bytes, what: What, i: int, *, existed: bool) -> None:
        self.counts[what] += 1
        path = path[len(self.prefix) + 1 :] if self.prefix else path  # as the manifest of what was named has it
        kept = self.old if existed else self.new
        if len(kept) < MOST_PATHS:
            b64 = named(path).get("path_b64")
            kept.append(DriftedPath(display(path), what, self.marks[i].sealed_ns, self.rows[i].version, b64))

    def _doubt(self, i: int, trace: touches.Trace | None, end: Ending) -> str | None:
        """Say what of a mark is not known."""
        mark = self.marks[i]
        if trace is None:
            return _NOT_KEPT
        if trace.unlisted:
            return _MANY
        proved = mark.proved_ns is not None and mark.proved_ns > end.until_ns
        if trace.vanished and i + 1 == len(self.marks) and not proved:
            return _MOVING
        directory = next(self._unexplained(trace.directories), None)
        if directory is None:
            return None
        if self.place is None:
            self.place = f"{display(directory)}/" if directory else "its root"
        return _NAMES

    def _unexplained(self, directories: Sequence[bytes]) -> Iterator[bytes]:
        for directory in directories:
            if self._counts(directory) or directory == self.prefix or self.prefix.startswith(directory + b"/"):
                yield directory

    def _counts(self, path: bytes) -> bool:
        """Whether a path is of what the run named."""
        return not self.prefix or path.startswith(self.prefix + b"/")
