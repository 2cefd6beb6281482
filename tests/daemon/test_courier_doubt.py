"""Which row is tried next, and when none is: a run that fails waits alone, a server in trouble makes all wait."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reprod.daemon.doubt import LONGEST_PAUSE_S, Doubt
from reprod.store import outbox
from reprod.store.connection import Database, open_database

URI = "http://server"
SECOND = 1_000_000_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A registry with four rows that wait: two runs of experiment a, two of b."""
    found = open_database(tmp_path / "registry.sqlite", "registry")
    for number, experiment in enumerate("aabb", start=1):
        run = b'{"experiment_id":"%s"}' % experiment.encode()
        found.write(lambda c, n=number, r=run: outbox.notice(c, URI, f"r{n}", "data", r, 100))  # type: ignore[misc]
        found.write(lambda c, n=number: outbox.published(c, n, b"snap"))  # type: ignore[misc]
    yield found
    found.close()


def order(db: Database, now_ns: int, doubted: int | None = None) -> list[int]:
    """Return the rows in the order in which they are tried at this moment, each once."""
    found = []
    while (row := db.read(lambda c: outbox.next_due(c, URI, now_ns, doubted))) is not None:
        found.append(row.id)
        db.write(lambda c, row=row: outbox.look_again(c, row.id, now_ns + 1))  # type: ignore[misc]
    for row_id in found:
        db.write(lambda c, row_id=row_id: outbox.look_again(c, row_id, 0))  # type: ignore[misc]
    return found


def test_what_failed_is_tried_after_what_did_not(db: Database) -> None:
    """The oldest goes first, what failed after all that failed less often, the experiment in doubt after the others;
    what is not due yet, or was of another server, is not tried at all."""
    assert order(db, 0) == [1, 2, 3, 4]
    assert order(db, 0, doubted=2) == [3, 4, 1, 2]
    assert order(db, 0, doubted=99) == [1, 2, 3, 4]
    db.write(lambda c: outbox.postpone(c, 1, "refused", 0))
    assert order(db, 1) == [2, 3, 4]
    db.write(lambda c: outbox.postpone(c, 1, "refused", 0))
    assert order(db, 5 * SECOND) == [2, 3, 4, 1]
    assert db.read(lambda c: outbox.next_due(c, "http://other", 0)) is None


def test_what_was_withdrawn_is_noticed_anew(db: Database) -> None:
    """A row of which nothing was written is as if it had never been, also of a run that was deleted and restored; one
    that was recorded rests as it is."""
    db.write(lambda c: outbox.delivered(c, 2, "incomplete", ended=False, now_ns=5))
    db.write(lambda c: outbox.gone(c, 3, 5))
    for row in (1, 2, 3):
        db.write(lambda c, row=row: outbox.withdraw(c, row))  # type: ignore[misc]
    assert [db.read(lambda c, row=row: outbox.get(c, row)) for row in (1, 3)] == [None, None]  # type: ignore[misc]
    assert db.write(lambda c: outbox.notice(c, URI, "r1", "data", b"{}", 100))
    rested = db.read(lambda c: outbox.get(c, 2))
    assert rested is not None
    assert (rested.state, rested.outcome, rested.next_ns) == ("done", "incomplete", 0)


def test_one_run_that_fails_again_and_again_pauses_nothing() -> None:
    """However often it fails; what is asked next is told which it was."""
    doubt = Doubt()
    for now_s in range(100):
        doubt.fail(1, now_s)
        assert doubt.left_s(now_s) <= 0
    assert doubt.failed_last == 1


def test_a_second_run_that_fails_pauses_all_for_ever_longer() -> None:
    """One row tries the server after each pause: 1 s, 2 s, 4 s, up to a minute; an answer, or a person, ends it."""
    doubt, now_s, pauses = Doubt(), 1000.0, []
    doubt.fail(1, now_s)
    for row in range(2, 12):
        doubt.fail(row, now_s)
        pauses.append(doubt.left_s(now_s))
        now_s += pauses[-1]
    assert pauses[:4] == [1, 2, 4, 8]
    assert set(pauses[6:]) == {LONGEST_PAUSE_S}
    doubt.clear()
    assert doubt.left_s(now_s) <= 0
    doubt.fail(20, now_s)
    doubt.succeed(21)
    doubt.fail(22, now_s)
    assert doubt.left_s(now_s) <= 0


def test_runs_that_failed_while_others_did_not_pause_nothing_any_more() -> None:
    """Two runs that never succeed, one after the other, are no sign of trouble once the server took a third; when one
    of them is delivered it counts as any other."""
    doubt = Doubt()
    for row in (1, 2):
        doubt.fail(row, 0)
        doubt.succeed(3)
    for now_s in range(10, 20):
        doubt.fail(1, now_s)
        doubt.fail(2, now_s)
        assert doubt.left_s(now_s) <= 0
    doubt.succeed(1)
    doubt.fail(1, 30)
    doubt.fail(4, 30)
    assert doubt.left_s(30) == 1
