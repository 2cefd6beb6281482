"""Which settled runs the tracking server is asked for again, and how often."""

from pathlib import Path

import pytest

from reprod.store import drifts, outbox
from reprod.store.connection import Database, open_database
from reprod.store.drifts import Said

URI = "http://tracking"
MINUTE = 60_000_000_000
DAY = 1440 * MINUTE
NOW = 30 * DAY


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_database(tmp_path / "registry.sqlite", "registry")


def settled(db: Database, run_id: str, *, age: int, asked: int, again: int = 0) -> int:
    """A run judged ``age`` ago that was asked for ``asked`` ago; returns its number."""

    def write(c: outbox.sqlite3.Connection) -> int:
        outbox.notice(c, URI, run_id, "d", b"{}", 1)
        number = int(c.execute("SELECT max(id) FROM delivery").fetchone()[0])
        outbox.ended(c, number)
        drifts.say(c, Said(number, "FINISHED", 5, 1, 2, "none", NOW - age, again, NOW - asked))
        return number

    return db.write(write)


def asked_for(db: Database, limit: int = 100) -> list[str]:
    rows = db.read(lambda c: drifts.to_ask(c, URI, NOW, 10 * MINUTE, NOW - 7 * DAY, limit))
    return [row.run_id for row in rows]


def test_the_older_the_less_often(db: Database) -> None:
    """A run is asked for after ten minutes, an old one after a tenth of its age, and after a week never."""
    settled(db, "fresh", age=MINUTE, asked=9 * MINUTE)
    settled(db, "due", age=20 * MINUTE, asked=11 * MINUTE)
    settled(db, "old", age=DAY, asked=100 * MINUTE)
    settled(db, "old and due", age=DAY, asked=150 * MINUTE)
    settled(db, "ancient", age=8 * DAY, asked=8 * DAY)
    settled(db, "clock set back", age=DAY, asked=-DAY)
    assert set(asked_for(db)) == {"old and due", "due", "clock set back"}
    assert asked_for(db, 1) == ["old and due"]


def test_what_waits_for_a_walk_is_due_when_that_is_done(db: Database) -> None:
    """A judgement that a walk may better has a time of its own, and the end of a walk makes it due."""
    number = settled(db, "waits", age=MINUTE, asked=MINUTE, again=NOW + DAY)
    settled(db, "settled", age=MINUTE, asked=MINUTE)
    assert asked_for(db) == []
    db.write(drifts.hurry)
    assert asked_for(db) == ["waits"]
    assert db.read(lambda c: drifts.verdicts(c, [number, 99])) == {number: "none"}


def test_a_resumed_run_has_its_end_to_come(db: Database) -> None:
    """It is looked at with every poll again, and what it said of its end before is kept to be told from the next."""
    number = settled(db, "resumed", age=DAY, asked=DAY, again=1)
    db.write(lambda c: drifts.resumed(c, number, NOW))
    assert asked_for(db) == []
    assert [row.run_id for row in db.read(lambda c: outbox.ending(c, URI))] == ["resumed"]
    said = db.read(lambda c: drifts.said(c, number))
    assert said is not None
    assert (said.ended, said.end_ms, said.running_ns, said.again_ns) == (None, 5, NOW, 0)
