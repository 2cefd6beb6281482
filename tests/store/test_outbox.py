"""The outbox: a row before a task, taken in once, tried again ever more slowly, and never forgotten."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reprod.store import outbox
from reprod.store.connection import Database, open_database

URI = "http://server"
SECOND = 1_000_000_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """An empty registry."""
    found = open_database(tmp_path / "registry.sqlite", "registry")
    yield found
    found.close()


def notice(db: Database, run: str = "r1", recorded: str = "data", uri: str = URI) -> bool:
    return db.write(lambda c: outbox.notice(c, uri, run, recorded, b'{"name":"fast"}', 100))


def get(db: Database, number: int = 1) -> outbox.Delivery:
    found = db.read(lambda c: outbox.get(c, number))
    assert found is not None
    return found


def test_a_run_is_taken_in_once(db: Database) -> None:
    """The same run and tag again is nothing; another tag or another server is another delivery."""
    assert notice(db)
    assert not notice(db)
    assert notice(db, recorded="other")
    assert notice(db, uri="http://elsewhere")
    assert len(db.read(lambda c: outbox.due(c, URI, "noticed", 200))) == 2


def test_from_noticed_to_done(db: Database) -> None:
    """Every step of a delivery that goes well, and what is counted on the way."""
    notice(db)
    assert db.read(outbox.counts) == outbox.Counts(1, 0, 0, 100)
    db.write(lambda c: outbox.published(c, 1, b"snap"))
    assert (get(db).state, get(db).snapshot) == ("waiting", b"snap")
    db.write(lambda c: outbox.prepared(c, 1, b"names"))
    db.write(lambda c: outbox.delivered(c, 1, "captured", ended=False, now_ns=5))
    assert (get(db).state, get(db).outcome, get(db).prepared) == ("ending", "captured", b"names")
    assert [d.id for d in db.read(lambda c: outbox.ending(c, URI))] == [1]
    db.write(lambda c: outbox.ended(c, 1))
    assert get(db).state == "done"
    assert db.read(outbox.counts) == outbox.Counts(0, 0, 0, None)
    assert db.read(lambda c: outbox.next_due_ns(c, URI)) is None


def test_back_off_doubles_up_to_five_minutes(db: Database) -> None:
    """1 s, 2 s, 4 s ... 300 s, however often; success begins anew; a server that is back makes all due."""
    notice(db)
    db.write(lambda c: outbox.published(c, 1, b"snap"))
    waits = []
    for _ in range(60):
        db.write(lambda c: outbox.postpone(c, 1, "down", 1000 * SECOND))
        waits.append((get(db).next_ns - 1000 * SECOND) // SECOND)
    assert waits[:4] == [1, 2, 4, 8]
    assert set(waits[9:]) == {300}
    assert db.read(lambda c: outbox.due(c, URI, "waiting", 1000 * SECOND)) == []
    assert len(db.read(lambda c: outbox.due(c, URI, "waiting", 1300 * SECOND))) == 1
    db.write(outbox.hurry)
    assert len(db.read(lambda c: outbox.due(c, URI, "waiting", 0))) == 1
    assert get(db).attempts == 60
    db.write(lambda c: outbox.published(c, 1, b"snap"))
    assert (get(db).attempts, get(db).error) == (0, None)


def test_incomplete_comes_again_and_failed_does_not(db: Database) -> None:
    """An incomplete run is looked at again when asked for; a failed one waits for a person."""
    for run in ("r1", "r2"):
        notice(db, run)
    db.write(lambda c: outbox.delivered(c, 1, "incomplete", ended=True, now_ns=5))
    assert db.read(lambda c: outbox.due_again(c, URI, 10**18)) == []
    db.write(lambda c: outbox.look_again(c, 1, 50))
    assert db.read(lambda c: outbox.due_again(c, URI, 49)) == []
    assert [d.id for d in db.read(lambda c: outbox.due_again(c, URI, 50))] == [1]
    db.write(lambda c: outbox.look_again(c, 1, 10**18))
    db.write(outbox.hurry_incomplete)
    assert [d.id for d in db.read(lambda c: outbox.due_again(c, URI, 50))] == [1]
    db.write(lambda c: outbox.failed(c, 2, "refused", 7))
    assert (get(db, 2).state, get(db, 2).error) == ("failed", "refused")
    assert db.read(outbox.counts) == outbox.Counts(0, 1, 1, None)
    db.write(lambda c: outbox.gone(c, 2, 8))
    assert (get(db, 2).state, get(db, 2).outcome) == ("done", "deleted")


def test_find_by_id_prefix_and_name(db: Database) -> None:
    """A run id, four characters of it, or its name; fewer characters only if that is the whole id."""
    for run in ("abcdef", "abcxyz"):
        notice(db, run)
    ids = {
        text: {d.run_id for d in db.read(lambda c, text=text: outbox.find(c, text))}  # type: ignore[misc]
        for text in ("abcdef", "abcd", "abc", "fast", "nothing")
    }
    assert ids == {
        "abcdef": {"abcdef"},
        "abcd": {"abcdef"},
        "abc": set(),
        "fast": {"abcdef", "abcxyz"},
        "nothing": set(),
    }
