"""When a run that a poll finds is recorded once more: what it names, what became of its record, and how often."""

from functools import partial
from pathlib import Path

import pytest

from reprod.store import asked, drifts, outbox
from reprod.store.asked import LOST_NS
from reprod.store.connection import Database, open_database
from reprod.store.drifts import Said

URI, RUN = "http://tracking", "run"


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_database(tmp_path / "registry.sqlite", "registry")


def found(db: Database, recorded: str, now_ns: int) -> bool:
    """A poll finds the run; whether it is to be recorded."""
    return db.write(lambda c: asked.notice(c, URI, RUN, recorded, b"{}", now_ns))


def row(db: Database, recorded: str) -> outbox.Delivery:
    number = db.read(lambda c: c.execute("SELECT id FROM delivery WHERE recorded = ?", (recorded,)).fetchone()[0])
    kept = db.read(lambda c: outbox.get(c, number))
    assert kept is not None
    return kept


def record(db: Database, recorded: str, now_ns: int, outcome: str = "captured") -> None:
    """Its record and its end are written."""
    number = row(db, recorded).id

    def write(c: outbox.sqlite3.Connection) -> None:
        outbox.published(c, number, b"{}")
        outbox.delivered(c, number, outcome, ended=True, now_ns=now_ns)
        drifts.say(c, Said(number, "FINISHED", 5, 1, 2, "none", now_ns, 0, now_ns))

    db.write(write)


@pytest.mark.parametrize("outcome", ["captured", "incomplete"])
def test_a_record_that_is_gone_is_made_again(db: Database, outcome: str) -> None:
    """A poll that was under way while the record was written changes nothing. A run that is found long after has lost
    it: it gets record and drift again, once in ten minutes at most."""
    assert found(db, "d", 1)
    record(db, "d", 2, outcome)
    assert not found(db, "d", LOST_NS)
    assert row(db, "d").state == "done"

    assert found(db, "d", 3 + LOST_NS)
    assert row(db, "d").state == "waiting"
    assert db.read(lambda c: drifts.said(c, row(db, "d").id)) is None
    record(db, "d", 4 + LOST_NS, outcome)
    assert not found(db, "d", 5 + LOST_NS)


def test_a_run_that_goes_back_to_what_it_named_is_delivered_once(db: Database) -> None:
    """With its drift, which the record between took away; and what a person must mend is not tried with every poll."""
    found(db, "a", 1)
    record(db, "a", 2)
    found(db, "b", 3)
    record(db, "b", 4)
    assert found(db, "a", 5)
    assert row(db, "a").state == "waiting"
    assert db.read(lambda c: drifts.said(c, row(db, "a").id)) is None
    record(db, "a", 6)
    assert not found(db, "a", 7)

    found(db, "c", 8)
    db.write(lambda c: outbox.failed(c, row(db, "c").id, "refused", 9))
    assert not found(db, "c", 10)
    assert not found(db, "c", 11 + LOST_NS)


def test_a_deleted_run_that_is_found_is_recorded(db: Database) -> None:
    """Whoever deleted it took that back; it is asked for a week, in turns."""
    found(db, "d", 1)
    record(db, "d", 2)
    number = row(db, "d").id
    db.write(lambda c: outbox.gone(c, number, 3))
    assert [each.id for each in db.read(lambda c: drifts.deleted(c, URI, 2, 0, 5))] == [number]
    assert db.read(lambda c: drifts.deleted(c, URI, 3, 0, 5)) == []
    assert db.read(lambda c: drifts.deleted(c, URI, 2, number, 5)) == []
    assert found(db, "d", 4)
    assert row(db, "d").state == "waiting"


def test_what_was_named_for_a_moment_takes_no_place(db: Database) -> None:
    """A tag that is corrected before anything was uploaded leaves its place to the next; one that came later does
    not."""
    places = []
    for at, name in enumerate(("typo", "meant", "more")):
        assert found(db, name, at + 1)
        number = row(db, name).id
        if name != "typo":
            record(db, name, at + 1)
            db.write(partial(outbox.prepared, delivery_id=number, names=b"{}"))
        places.append(db.read(partial(asked.place_of, delivery_id=number)))
    assert places == [1, 1, 2]
