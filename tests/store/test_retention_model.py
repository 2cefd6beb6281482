"""Random histories against plain dictionaries: rebuild, compare, forget, and stop between any two steps.

Names in nested directories get contents, lose them and come back; every version is remembered whole, with times and
modes. Then versions are forgotten in any order, in steps of one to three rows, with new versions sealed and the file
opened anew in between. REPROD_HISTORIES says how many histories.
"""

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from history_store import Held, entry, seal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprod.core import digest
from reprod.core.binding import bind
from reprod.core.delta import compare
from reprod.core.entry import Content, Kind
from reprod.errors import IncompleteError
from reprod.store import files, listing, retention, timeline, versions
from reprod.store.connection import Database, open_database

NAMES = (b"a", b"b", b"d/a", b"d/e/a", b"d/e/b")
SECOND = 1_000_000_000

EMPTY_DIRECTORIES = (
    "SELECT count(*) FROM directory d WHERE present = 0 AND parent IS NOT NULL "
    "AND id NOT IN (SELECT directory FROM file) AND NOT EXISTS (SELECT 1 FROM directory WHERE parent = d.id)"
)


@dataclass
class History:
    """The store, and what it must say."""

    path: Path
    now: int = 1000
    files: Held = field(default_factory=dict)
    remembered: dict[int, Held] = field(default_factory=dict)
    forgotten: set[int] = field(default_factory=set)
    _opened: list[Database] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.db = self.reopen()

    def reopen(self) -> Database:
        """Go on with another connection, as after a kill: the old one is never closed in order."""
        self.db = open_database(self.path, "dataset")
        self._opened.append(self.db)
        return self.db

    def close(self) -> None:
        for db in self._opened:
            db.close()

    def change(self, name: bytes, content: int) -> None:
        """Write, replace (a link is content 4), or delete (content 0)."""
        self.now += 1
        self.files.pop(name, None)
        if content:
            self.files[name] = entry(content, self.now)

    def seal(self) -> None:
        """Make the index equal to the files and seal, as a refresh does."""
        self.now += SECOND
        before = self.remembered[max(self.remembered)] if self.remembered else {}
        for path, state in self.files.items():  # the same content again is no news: the old times stay
            if path in before and before[path][:3] == state[:3]:
                self.files[path] = before[path]
        version = seal(self.db, self.files, self.now)
        if version is not None:
            self.remembered[version.seq] = dict(self.files)

    # --- what must be true -------------------------------------------------------------------------------------------

    def check(self, *, pairs: bool = False) -> None:
        kept = {v.seq for v in self.db.read(versions.versions) if not v.pruned}
        assert kept == self.remembered.keys() - self.forgotten
        for seq in self.remembered:
            if seq in self.forgotten:
                with pytest.raises(IncompleteError):
                    self.db.read(lambda c, seq=seq: list(listing.entries(c, seq)))
                continue
            found = self.db.read(lambda c, seq=seq: list(listing.entries(c, seq)))
            told = {e.path: (int(e.content.kind), e.content.size, e.content.sha256, e.mtime_ns, e.mode) for e in found}
            assert told == self.remembered[seq], seq
            lines = {e.path: (e.content.kind is Kind.LINK, e.content.sha256 or b"") for e in found}
            assert self.db.read(lambda c, seq=seq: versions.version(c, seq)).digest == digest.tree(lines)
        if pairs:
            for a, b in itertools.product(self.remembered, repeat=2):
                self._check_pair(a, b)

    def _check_pair(self, a: int, b: int) -> None:
        if {a, b} & self.forgotten:
            with pytest.raises(IncompleteError):
                self.db.read(lambda c: versions.contents_between(c, a, b))
            return
        told = compare(*self.db.read(lambda c: versions.contents_between(c, a, b)))
        assert told == compare(_contents(self.remembered[a]), _contents(self.remembered[b])), (a, b)

    def check_clean(self) -> None:
        """Nothing is left of what was forgotten but its records."""

        def left(c: files.Connection) -> tuple[int, ...]:
            return tuple(
                c.execute(query).fetchone()[0]
                for query in (
                    "SELECT count(*) FROM history h JOIN version v ON v.seq = h.version WHERE v.pruned > 0",
                    "SELECT count(*) FROM history WHERE version <= (SELECT min(seq) FROM version WHERE pruned = 0)",
                    "SELECT count(*) FROM file WHERE kind = 0 AND id NOT IN (SELECT file FROM history)",
                    EMPTY_DIRECTORIES,
                    "SELECT count(*) FROM version WHERE pruned = 1",
                    "PRAGMA freelist_count",
                )
            )

        assert self.db.read(left) == (0, 0, 0, 0, 0, 0)


def _contents(snapshot: Held) -> dict[bytes, Content]:
    return {path: Content(Kind(kind), size, sha) for path, (kind, size, sha, _, _) in snapshot.items()}


def one_step(history: History, rows: int, phase: int) -> int:
    """Take one step of a prune that stands at ``phase``; returns the phase after it (4: done)."""
    db = history.db
    if phase == 0:
        return 0 if db.write(lambda c: retention.fold(c, rows)) else 1
    if phase == 1:
        return 1 if db.write(lambda c: retention.sweep(c, 0, 1000)) else 2
    if phase == 2:
        return 2 if db.write(lambda c: retention.sweep_directories(c, rows)) else 3
    return 3 if db.write(lambda c: retention.give_back(c, rows)) else 4


edits = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 4), max_size=4)


@settings(
    max_examples=int(os.environ.get("REPROD_HISTORIES", "60")),
    deadline=None,
    database=None,
    derandomize="REPROD_HISTORIES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_what_is_kept_is_what_it_was(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Between any two steps every kept version recomputes, all pairs compare right, and no forgotten one answers."""
    history = History(tmp_path_factory.mktemp("h") / "x.sqlite")
    try:
        for edit in data.draw(st.lists(edits, min_size=2, max_size=9)):
            for name, content in edit.items():
                history.change(name, content)
            history.seal()
        history.check(pairs=True)
        for _ in range(data.draw(st.integers(1, 3))):
            forget_some(data, history)
        starts = range(0, history.now + SECOND, SECOND // 2)
        marks = history.db.read(timeline.marks)
        assert history.forgotten.isdisjoint(bind(marks, start, 1).seq for start in starts)
    finally:
        history.close()


def forget_some(data: st.DataObject, history: History) -> None:
    """Forget a random choice, with all that can come in between."""
    wanted = data.draw(st.sets(st.sampled_from(sorted(history.remembered))))
    pinned = data.draw(st.sets(st.sampled_from(sorted(history.remembered)), max_size=1)) - history.forgotten
    for seq in pinned:
        history.db.write(lambda c, seq=seq: versions.pin(c, seq, "u#r", 1))
    held = {row.seq for row in history.db.read(retention.pins)}
    done = history.db.write(lambda c: retention.forget(c, sorted(wanted)))
    assert set(done) == wanted - held - history.forgotten - {max(history.remembered)}
    history.forgotten |= set(done)
    phase, seals = 0, 0
    while phase < 4:
        phase = one_step(history, data.draw(st.integers(1, 3)), phase)
        what = data.draw(st.sampled_from(("go on", "go on", "seal", "open anew")))
        if what == "open anew":
            history.reopen()
        elif what == "seal" and seals < 2:
            seals += 1
            for name, content in data.draw(edits).items():
                history.change(name, content)
            history.seal()
            phase = 0
        history.check()
    history.check_clean()
    history.check(pairs=True)
