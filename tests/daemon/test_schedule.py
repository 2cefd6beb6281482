"""When a dataset is looked at again, by a clock that the test moves."""

import dataclasses
import math

import pytest

from reprod.core.entry import Problem
from reprod.daemon.schedule import (
    LONGEST_LEAD_S,
    LONGEST_RETRY_S,
    LONGEST_UNSTABLE_S,
    POLL_S,
    SEAL_SPACING_S,
    SETTLE_S,
    Schedule,
)
from reprod.ops.findings import Counts
from reprod.ops.refresh import Report
from reprod.store.versions import Version

VERSION = Version(**{one.name: None for one in dataclasses.fields(Version)})  # the schedule does not look at it

NONE: frozenset[bytes] = frozenset()


def report(*, full: bool = True, sealed: bool = False, moving: tuple[bytes, ...] = (), seconds: float = 0.1) -> Report:
    problems = tuple((path, Problem.UNSTABLE) for path in moving)
    return Report(VERSION, sealed, False, full, 0, Counts(), problems, 0, seconds, "ext4")


def test_everything_is_due_at_first_and_then_by_the_timer() -> None:
    """Watched: by the configured time. Not watched: every 30 s, or ten times what a walk takes, if that is sooner."""
    schedule = Schedule()
    assert schedule.due_s() == 0.0
    schedule.succeed(report(), None, 0.0, 100.0, 3600, watched=True)
    assert schedule.due_s() == 3700.0
    schedule.succeed(report(), None, 0.0, 100.0, 3600, watched=False)
    assert schedule.due_s() == 100.0 + POLL_S
    schedule.succeed(report(seconds=50), None, 0.0, 100.0, 3600, watched=False)
    assert schedule.due_s() == 600.0
    schedule.succeed(report(seconds=50), None, 0.0, 100.0, 200, watched=False)
    assert schedule.due_s() == 300.0
    schedule.succeed(report(full=False), NONE, 0.0, 150.0, 200, watched=True)
    assert schedule.due_s() == 300.0  # looking at a part is no walk


def test_failures_wait_longer_each_time_and_success_forgets_them() -> None:
    """1, 2, 4 ... 60 s; meanwhile no timer counts; afterwards everything is due."""
    schedule = Schedule()
    waits = []
    for _ in range(8):
        schedule.fail(1000.0)
        waits.append(schedule.due_s() - 1000.0)
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST_RETRY_S, LONGEST_RETRY_S]
    assert schedule.walk_s == 0.0
    schedule.succeed(report(), None, 0.0, 2000.0, 3600, watched=True)
    assert schedule.retry_s is None
    schedule.fail(3000.0)
    assert schedule.due_s() == 3001.0


def test_files_that_keep_changing_have_a_back_off_of_their_own() -> None:
    """A hint for them counts only when they are due, less and less often, until they rest."""
    schedule = Schedule()
    schedule.succeed(report(moving=(b"log",)), None, 0.0, 10.0, 3600, watched=True)
    assert schedule.paths(frozenset({b"log", b"a"}), NONE, 10.01) == {b"a"}
    assert schedule.paths(frozenset({b"log"}), frozenset({b"log"}), 10.01) == {b"log"}  # its writer has closed it
    now, waits = 10.0, []
    for _ in range(13):
        due = schedule.due_s()
        waits.append(due - now)
        now = due
        assert schedule.paths(frozenset({b"a"}), NONE, now) == {b"a", b"log"}
        schedule.succeed(report(full=False, moving=(b"log",)), NONE, now, now, 3600, watched=True)
    assert waits[:4] == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert waits[-1] == pytest.approx(LONGEST_UNSTABLE_S)
    schedule.succeed(report(full=False, moving=(b"b",)), NONE, now + 1, now + 1, 36000, watched=True)
    assert schedule.moving == {b"log", b"b"}  # a look elsewhere does not forget it
    schedule.succeed(report(full=False), frozenset({b"b"}), now + 2, now + 2, 36000, watched=True)
    assert schedule.moving == {b"log"}  # read clean, because its writer had closed it
    schedule.succeed(report(full=False), NONE, schedule.due_s(), 5000.0, 36000, watched=True)
    assert schedule.moving == frozenset()
    assert schedule.paths(frozenset({b"log"}), NONE, 5000.0) == {b"log"}


def test_settling_ends_with_the_burst_or_in_time() -> None:
    """Just over the slack after the last hint, at most until ``latest``; and a second after the last seal."""
    schedule = Schedule()
    assert schedule.settle_s(10.0, 0.0, 10.5) == pytest.approx(SETTLE_S)
    assert schedule.settle_s(10.0, 0.01, 10.5) == pytest.approx(SETTLE_S - 0.01)
    assert schedule.settle_s(10.49, 0.0, 10.5) == pytest.approx(0.01)
    assert schedule.settle_s(10.0, math.inf, 10.5) == 0.0
    assert schedule.settle_s(10.0, -5.0, 10.5) == 0.0  # the clock was set back: do not wait for it
    schedule.succeed(report(sealed=True), None, 9.9, 10.0, 3600, watched=True)  # the next will take 0.1 s too
    assert schedule.settle_s(10.2, math.inf, 10.5) == pytest.approx(SEAL_SPACING_S - 0.1 - 0.2)
    schedule.succeed(report(sealed=True), None, 0.0, 10.0, 3600, watched=True)
    assert schedule.settle_s(10.2, math.inf, 10.5) == pytest.approx(SEAL_SPACING_S - LONGEST_LEAD_S - 0.2)
    assert schedule.settle_s(12.0, math.inf, 12.5) == 0.0


def test_what_could_not_be_read_is_tried_again() -> None:
    """Without a hint, less and less often, while hints for it count at once; thousands are left to the walks."""
    schedule = Schedule()
    barred = dataclasses.replace(report(), problems=((b"bad", Problem.UNREADABLE),))
    schedule.succeed(barred, None, 0.0, 10.0, 3600, watched=True)
    assert schedule.paths(frozenset({b"bad"}), NONE, 10.01) == {b"bad"}
    due = schedule.due_s()
    assert due < 11
    assert schedule.paths(NONE, NONE, due) == {b"bad"}
    again = dataclasses.replace(barred, full=False)
    for _ in range(15):
        schedule.succeed(again, frozenset({b"bad"}), schedule.due_s(), schedule.due_s(), 36000, watched=True)
    before = schedule.due_s()
    schedule.succeed(report(full=False), frozenset({b"bad"}), before, before, 36000, watched=True)
    assert schedule.barred == frozenset()
    assert schedule.due_s() == pytest.approx(3610.0)
    many = tuple((b"%d" % n, Problem.UNREADABLE) for n in range(1001))
    schedule.succeed(dataclasses.replace(report(), problems=many), None, 0.0, 10.0, 3600, watched=True)
    assert schedule.barred == frozenset()
