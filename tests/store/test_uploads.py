"""What was uploaded where: found by digest, never across epochs or servers, forgotten when it is lost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reprod.store import uploads
from reprod.store.connection import Database, open_database
from reprod.store.uploads import Upload

URI, FILE = "http://server", "data.sqlite"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """An empty registry."""
    found = open_database(tmp_path / "registry.sqlite", "registry")
    yield found
    found.close()


def upload(seq: int, **changes: object) -> Upload:
    run = f"{seq:032x}"
    known = Upload(URI, FILE, seq, bytes([seq]) * 32, run, "checkpoint", None, (run,), 1000, 1000, seq)
    return replace(known, **changes)  # type: ignore[arg-type]


def keep(db: Database, *rows: Upload) -> None:
    for row in rows:
        db.write(lambda c, row=row: uploads.keep(c, row))


def find(db: Database, seq: int, uri: str = URI) -> Upload | None:
    return db.read(lambda c: uploads.find(c, uri, bytes([seq]) * 32))


def test_what_is_kept_is_found_as_it_was(db: Database) -> None:
    """An upload comes back with its chain, by digest and by run; another server has none."""
    delta = upload(2, kind="delta", base=b"\1" * 32, chain=("b" * 32, "a" * 32), size=10)
    keep(db, upload(1), delta)
    assert (find(db, 1), find(db, 2)) == (upload(1), delta)
    assert db.read(lambda c: uploads.by_run(c, URI, delta.run_id)) == delta
    assert find(db, 1, "http://elsewhere") is None
    assert db.read(lambda c: uploads.by_run(c, "http://elsewhere", delta.run_id)) is None


def test_an_upload_that_was_begun_counts_as_nothing(db: Database) -> None:
    """The run of an unfinished upload is remembered for the next attempt, and is no upload until it is kept."""
    node = b"\3" * 32
    db.write(lambda c: uploads.begin(c, URI, FILE, 3, node, "r" * 32))
    assert find(db, 3) is None
    assert db.read(lambda c: uploads.by_run(c, URI, "r" * 32)) is None
    assert db.read(lambda c: uploads.earlier(c, URI, FILE, 9)) == []
    assert db.read(lambda c: uploads.begun(c, URI, FILE, 3, node)) == "r" * 32
    assert db.read(lambda c: uploads.begun(c, URI, FILE, 3, b"\4" * 32)) is None  # another content under this number
    keep(db, upload(3))
    assert db.read(lambda c: uploads.begun(c, URI, FILE, 3, node)) is None


def test_bases_are_the_nearest_earlier_of_the_same_epoch(db: Database) -> None:
    """Earlier versions come nearest first and not without end; another file or server is another dataset."""
    keep(db, *(upload(seq) for seq in range(1, 30)), upload(40, file="data.2.sqlite"))
    found = db.read(lambda c: uploads.earlier(c, URI, FILE, 28))
    assert [row.seq for row in found] == list(range(27, 27 - uploads.MOST_CANDIDATES, -1))
    assert db.read(lambda c: uploads.earlier(c, URI, "data.2.sqlite", 40)) == []
    assert db.read(lambda c: uploads.earlier(c, "http://elsewhere", FILE, 28)) == []


def test_the_same_content_again_is_a_base_too(db: Database) -> None:
    """A digest that two versions have is one run with two rows; forgetting the run forgets both."""
    again = replace(upload(1), seq=7, checked_ns=99)
    keep(db, upload(1), again)
    assert find(db, 1) == again  # the one that was seen last
    assert [row.seq for row in db.read(lambda c: uploads.earlier(c, URI, FILE, 8))] == [7, 1]
    db.write(lambda c: uploads.checked(c, again, 1234))
    assert [row.checked_ns for row in db.read(lambda c: uploads.earlier(c, URI, FILE, 8))] == [1234, 1234]
    db.write(lambda c: uploads.forget(c, URI, again.run_id))
    assert db.read(lambda c: uploads.earlier(c, URI, FILE, 8)) == []


def test_a_lost_run_is_replaced_in_every_chain(db: Database) -> None:
    """What rested on a lost run rests on the new one; nothing else changes."""
    old, new = "a" * 32, "c" * 32
    keep(db, upload(2, kind="delta", base=b"\1" * 32, chain=("b" * 32, old)), upload(3), upload(4, chain=(old,)))
    db.write(lambda c: uploads.replace(c, URI, old, new))
    chains = [row.chain for row in db.read(lambda c: uploads.earlier(c, URI, FILE, 9))]
    assert chains == [(new,), upload(3).chain, ("b" * 32, new)]
