"""Which version a run gets: a table of timelines. Times are seconds; the slack is 1; S, the start, is at 100."""

import dataclasses
from typing import Any

import pytest

from reprod.core.binding import Mark, bind

SECOND = 1_000_000_000
S, SLACK = 100, 1
TIMES = (
    "sealed_ns",
    "born_ns",
    "root_since_ns",
    "walk_ns",
    "low_ctime_ns",
    "first_hint_ns",
    "proved_ns",
    "gap_from_ns",
)


def mark(seq: int, sealed: float, **values: Any) -> Mark:
    """A version by a full walk that ended when it was sealed; ``low`` is also when it was born, if not said."""
    names = {"walk": "walk_ns", "low": "low_ctime_ns", "hint": "first_hint_ns", "proved": "proved_ns",
             "gap": "gap_from_ns", "born": "born_ns", "root": "root_since_ns"}  # fmt: skip
    fields = {names.get(key, key): value for key, value in values.items()}
    fields = {
        "kind": "version",
        "root_since_ns": 1,
        "complete": True,
        "born_ns": fields.get("low_ctime_ns", 10),
        **fields,
    }
    timed = {k: int(v * SECOND) if k in TIMES and v is not None else v for k, v in fields.items()}
    return Mark(seq=seq, sealed_ns=int(sealed * SECOND), **timed)


def touch(seq: int, sealed: float, **values: Any) -> Mark:
    return mark(seq, sealed, kind="touch", **values)


OLD = mark(1, 50, walk=49, born=40, low=5)

TIMELINES = {
    # --- start, proven by a walk
    "quiet data, walk after S": ([mark(1, 50, walk=49, proved=102)], "start", 1, "walk"),
    "quiet data, no walk since": ([OLD], "late", None, None),
    "walk that began before S proves nothing": ([mark(1, 50, walk=49, born=99.5, proved=99)], "ambiguous", None, None),
    "walk that began within the slack": ([mark(1, 50, walk=49, proved=100.9)], "late", None, None),
    "change after S, proven in between": (
        [mark(1, 50, walk=49, proved=102), mark(2, 110, low=109)], "start", 1, "walk"),
    "late tag after several changes, proven once": (
        [mark(1, 50, proved=105), mark(2, 110, low=109), mark(3, 120, low=119), touch(3, 130, low=129)],
        "start", 1, "walk"),
    "touch before S, walk after": ([OLD, touch(1, 60, low=59, proved=103)], "start", 1, "walk"),
    # --- start, told by events
    "change after S, hinted": ([OLD, mark(2, 110, low=109, hint=109)], "start", 1, "events"),
    "late tag after several hinted changes": (
        [OLD, mark(2, 110, low=109, hint=109), mark(3, 120, low=119, hint=119)], "start", 1, "events"),
    "touch after S, hinted (A-B-A came later)": ([OLD, touch(1, 110, low=109, hint=109)], "start", 1, "events"),
    "change after S, hinted before S": ([OLD, mark(2, 110, low=109, hint=98)], "late", None, None),
    "change before S, hinted after": ([OLD, mark(2, 110, low=98, born=109, hint=109)], "late", None, None),
    "old file moved in after S": ([OLD, mark(2, 110, walk=108, low=7, born=109, hint=109)], "late", None, None),
    "change after S, never hinted": ([OLD, mark(2, 110, walk=108, low=109)], "late", None, None),
    "deletion after S whose time nobody saw": ([OLD, mark(2, 110, hint=109, born=40)], "late", None, None),
    "gap that began before S": ([OLD, mark(2, 110, low=109, hint=109, gap=90)], "late", None, None),
    "gap that began after S": ([OLD, mark(2, 110, low=109, hint=109, gap=105)], "start", 1, "events"),
    "gap that only a later walk tells of": (
        [OLD, mark(2, 110, low=109, hint=109), mark(3, 120, walk=118, low=95, born=119, gap=90)], "late", None, None),
    "unannounced change in between": ([OLD, mark(2, 110, walk=108, low=109, hint=109, gap=50)], "late", None, None),
    # --- ctime
    "first scan after S with old files": ([mark(1, 110, walk=105, low=5, born=40)], "ctime", 1, "walk"),
    "first scan after S with a young file": ([mark(1, 110, walk=105, low=5, born=101.5)], "late", None, None),
    "first scan began before S": ([mark(1, 110, walk=95, low=5, born=40)], "late", None, None),
    "first scan began before S, then proven": (
        [mark(1, 110, walk=95, low=5, born=40, proved=120)], "ctime", 1, "walk"),
    "first scan after S, root since after S": ([mark(1, 110, walk=105, born=40, root=103)], "late", None, None),
    "first scan after S, only a part": ([mark(1, 110, born=40)], "late", None, None),
    "change before S, found after S": ([OLD, mark(2, 110, walk=105, low=90, born=90)], "ctime", 2, "walk"),
    "change before S found in a gap": ([OLD, mark(2, 110, walk=105, low=90, born=90, gap=60)], "ctime", 2, "walk"),
    "touch A-B-A before S, found after": ([OLD, touch(1, 110, walk=105, low=90, born=90)], "ctime", 1, "walk"),
    "touch A-B-A after S before the walk": ([OLD, touch(1, 110, walk=105, low=103, born=103)], "late", None, None),
    "root replaced after S": ([OLD, mark(2, 110, walk=105, low=5, born=110, root=103)], "late", None, None),
    "born never falls": (
        [OLD, mark(2, 110, low=103, born=103), mark(3, 120, walk=115, low=90, born=103)], "late", None, None),
    "change within the slack, found after": (
        [OLD, mark(2, 110, walk=105, low=99.5, born=99.5)], "ambiguous", None, None),
    "sealed within the slack": ([OLD, mark(2, 100.5, low=98, born=98, hint=98)], "ambiguous", None, None),
    "hinted within the slack": ([OLD, mark(2, 110, low=109, hint=100.5)], "ambiguous", None, None),
    # --- clock
    "clock set back over S": ([OLD, mark(1, 95, kind="step", gap=110), mark(2, 120, walk=118)], "late", None, None),
    "clock set forward over S": ([OLD, mark(1, 130, kind="step", gap=90)], "late", None, None),
    "clock set back, S at the edge": ([OLD, mark(1, 100.5, kind="step", gap=200, proved=110)], "late", None, None),
    "years ahead for a minute, S after it": (
        [OLD, mark(1, 3000, kind="step", gap=60), mark(1, 70, kind="step", gap=3060, proved=103)], "start", 1, "walk"),
    "years ahead for a minute, S before it": (
        [mark(1, 50, walk=49, proved=102), mark(1, 3000, kind="step", gap=110),
         mark(2, 3010, walk=3005, low=3004), mark(2, 120, kind="step", gap=3060)], "start", 1, "walk"),
    "years ahead for a minute, S in it": (
        [mark(1, 5, walk=4, born=3), mark(1, 95, kind="step", gap=7), mark(2, 98, walk=97, low=96, proved=105),
         mark(2, 9, kind="step", gap=120)], "late", None, None),
    "a mark of an earlier life is not before S": (
        [mark(1, 40, walk=39), mark(1, 5, kind="step", gap=120), mark(2, 8, walk=7, low=6),
         mark(2, 130, kind="step", gap=12)],
        "late", None, None),
    "clock set on over S, S before it in an earlier life": (
        [mark(1, 150, walk=149), mark(1, 60, kind="step", gap=200, hint=59),
         mark(1, 120, kind="step", gap=99, hint=90)],
        "late", None, None),
    "clock set a moment before it was seen": (
        [OLD, mark(1, 101.5, kind="step", gap=20, hint=95, proved=110)], "late", None, None),
    "clock step before S, proven after": ([OLD, mark(1, 60, kind="step", gap=58, proved=103)], "start", 1, "walk"),
    "clock step after S, then a change": (
        [OLD, mark(1, 150, kind="step", gap=140, born=40), mark(2, 160, walk=155, low=90, born=90)],
        "late", None, None),
    "clock set back: order is of recording": (
        [mark(1, 95, walk=94, born=10, low=5), mark(1, 70, kind="step", gap=90, born=10),
         mark(2, 72, walk=71, proved=103)],
        "start", 2, "walk"),
    # --- pruned, incomplete, nothing
    "pruned version": ([mark(1, 50, pruned=True, proved=102), mark(2, 110, low=109)], "late", None, None),
    "pruned never answers with its neighbour": (
        [mark(1, 50, pruned=True), mark(2, 110, walk=105, low=103, born=103)], "late", None, None),
    "never scanned": ([], "late", None, None),
}  # fmt: skip


@pytest.mark.parametrize(("marks", "bound", "seq", "assurance"), TIMELINES.values(), ids=TIMELINES.keys())
def test_timeline(marks: list[Mark], bound: str, seq: int | None, assurance: str | None) -> None:
    """Each timeline gets the verdict that its name promises."""
    binding = bind(marks, S * SECOND, SLACK * SECOND)
    assert (binding.bound, binding.seq, binding.assurance) == (bound, seq, assurance), binding.reason
    assert binding.seq is not None or set(binding.candidates) <= {m.seq for m in marks}
    assert binding.reason


def test_what_was_heard_is_proof_by_events() -> None:
    """Where the watch told of nothing until after the start, the newest version is what was there, and no other."""
    heard = {"heard_ns": 102 * SECOND}
    binding = bind([OLD], S * SECOND, SLACK * SECOND, **heard)
    assert (binding.bound, binding.seq, binding.assurance) == ("start", 1, "events")
    assert bind([OLD], S * SECOND, SLACK * SECOND, heard_ns=S * SECOND).bound == "late"
    assert bind([OLD, mark(2, 110, low=105)], S * SECOND, SLACK * SECOND, **heard).bound == "late"
    binding = bind([OLD, mark(2, 101, low=90, hint=90)], S * SECOND, SLACK * SECOND, **heard)
    assert (binding.bound, binding.seq, binding.assurance) == ("ctime", 2, "events")


def test_a_start_in_the_future_is_of_another_clock() -> None:
    """A run that was noticed before it started has another clock: nothing can be said."""
    quiet = [mark(1, 50, walk=49, proved=102)]
    assert bind(quiet, S * SECOND, SLACK * SECOND, noticed_ns=S * SECOND).bound == "start"
    binding = bind(quiet, S * SECOND, SLACK * SECOND, noticed_ns=90 * SECOND)
    assert binding.bound == "late"
    assert "future" in binding.reason


def test_an_incomplete_version_is_bound_without_a_digest() -> None:
    """What was there was incomplete: that is the answer, and it says so."""
    binding = bind([mark(1, 50, complete=False, proved=102)], S * SECOND, SLACK * SECOND)
    assert (binding.bound, binding.seq, binding.incomplete) == ("start", 1, True)


def test_incomplete_then_complete() -> None:
    """A file that was still moving before S and was read after it, unchanged since, makes the later version right."""
    marks = [
        mark(1, 98, walk=97, complete=False, low=5, born=96),
        mark(2, 110, walk=105, low=96, born=96),
    ]
    binding = bind(marks, S * SECOND, SLACK * SECOND)
    assert (binding.bound, binding.seq, binding.incomplete) == ("ctime", 2, False)


def test_incomplete_then_changed_stays_incomplete() -> None:
    """If the file changed after S nobody knows what it was."""
    marks = [mark(1, 98, complete=False, proved=103), mark(2, 110, walk=105, low=104, born=104)]
    binding = bind(marks, S * SECOND, SLACK * SECOND)
    assert (binding.seq, binding.incomplete) == (1, True)


def test_unbound_names_the_versions_on_both_sides() -> None:
    """Without proof a person still gets what it may have been."""
    binding = bind([OLD, mark(2, 110, walk=105, low=103, born=103)], S * SECOND, SLACK * SECOND)
    assert binding.candidates == (1, 2)


def test_every_reason_is_told_apart() -> None:
    """The sentence says which of the causes it was."""
    pruned = dataclasses.replace(OLD, pruned=True)
    cases = [
        ([], "not been scanned"),
        ([mark(1, 110, walk=105, born=103)], "first seen after"),
        ([pruned], "pruned"),
        ([OLD], "no walk has confirmed"),
        ([OLD, mark(2, 110, low=109, hint=109, gap=90)], "gap"),
        ([OLD, mark(2, 110, walk=105, low=109)], "changed after the start"),
    ]
    for marks, word in cases:
        assert word in bind(marks, S * SECOND, SLACK * SECOND).reason
