"""Damage, newer formats, removal: history is never overwritten and no number is used twice."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from reprod.config import DatasetConfig
from reprod.errors import DamagedError, NotFoundError, StateError
from reprod.ops.plan import Order
from reprod.ops.refresh import Settings, refresh
from reprod.store import files, listing, registry, versions
from reprod.store.connection import Database, Schema, open_database, open_readonly


class Daemon:
    """What a daemon does to its files: open, scan, note the version in the registry."""

    def __init__(self, base: Path) -> None:
        self.state, self.root = base / "state", base / "data"
        self.root.mkdir(exist_ok=True)
        self.records = files.open_registry(self.state).db
        self.opened: list[Database] = [self.records]

    def scan(self, content: str, name: str = "data", root: Path | None = None) -> files.Opened:
        root = root or self.root
        root.mkdir(exist_ok=True)
        (root / "f").write_text(content)
        opened = files.open_dataset(self.state, self.records, name, os.fsencode(root))
        self.opened.append(opened.db)
        version = refresh(opened.db, DatasetConfig(name, str(root)), Order(), Settings(str(self.state))).version
        self.records.write(lambda c: registry.sealed(c, name, version))
        return opened

    def close(self) -> None:
        for db in self.opened:
            db.close()


def zero_the_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"\0" * 100)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garble_the_middle(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 3)
        file.write(os.urandom(path.stat().st_size // 3))


def another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (x)")
    db.close()


DAMAGE = [zero_the_header, cut, garble_the_middle, another_program]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_dataset_is_set_aside_and_numbered_on(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """The damaged file is kept under another name; versions go on after the highest, the chain after its head."""
    daemon = Daemon(tmp_path)
    for content in "123":
        daemon.scan(content)
    known = daemon.records.read(lambda c: registry.dataset(c, "data"))
    daemon.close()
    path = tmp_path / "state/datasets/data.sqlite"
    damage(path)
    damaged = path.read_bytes()
    again = Daemon(tmp_path)
    opened = again.scan("4")
    newest = opened.db.read(versions.newest)
    assert known is not None
    assert newest is not None
    assert opened.set_aside is not None
    assert opened.set_aside.read_bytes() == damaged
    assert newest.seq > known.seq
    assert newest.reason == "rebuilt"
    seq = newest.seq
    assert again.scan("5").db.read(versions.newest).seq == seq + 1  # type: ignore[union-attr]
    again.close()


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_registry_is_set_aside(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """The registry too; the datasets' own files go on where they were."""
    daemon = Daemon(tmp_path)
    daemon.scan("1")
    daemon.scan("2")
    daemon.close()
    damage(tmp_path / "state/registry.sqlite")
    opened = files.open_registry(tmp_path / "state")
    opened.db.close()
    assert opened.set_aside is not None
    again = Daemon(tmp_path)
    numbers = [v.seq for v in again.scan("3").db.read(versions.versions)]
    assert len(numbers) == len(set(numbers))
    again.close()


def test_an_older_copy_put_back_is_not_continued(tmp_path: Path) -> None:
    """A restored backup lacks versions that runs refer to: it is set aside, and numbers go on above."""
    daemon = Daemon(tmp_path)
    daemon.scan("1")
    daemon.close()
    path = tmp_path / "state/datasets/data.sqlite"
    backup = path.read_bytes()
    daemon = Daemon(tmp_path)
    daemon.scan("2")
    daemon.scan("3")
    daemon.close()
    path.write_bytes(backup)
    daemon = Daemon(tmp_path)
    opened = daemon.scan("4")
    assert opened.set_aside is not None
    assert opened.db.read(versions.newest).seq > 3  # type: ignore[union-attr]
    daemon.close()


@pytest.mark.parametrize("schema", ["dataset", "registry"])
def test_a_newer_format_is_refused_untouched(tmp_path: Path, schema: Schema) -> None:
    """A file of a newer reprod is an error with a cure, never rebuilt."""
    path = tmp_path / "x.sqlite"
    open_database(path, schema).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateError, match="newer") as caught:
        open_database(path, schema)
    assert caught.value.exit_code == 77
    assert list(tmp_path.glob("*damaged*")) == []


def test_reading_while_nobody_runs(tmp_path: Path) -> None:
    """After a clean end, and after an end without any clean-up, everything committed can be read."""
    daemon = Daemon(tmp_path)
    daemon.scan("1")
    daemon.close()
    db, known = files.open_dataset_readonly(tmp_path / "state", "data")
    assert (len(db.read(versions.versions)), known.seq) == (1, 1)
    db.close()
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from test_files import Daemon; from pathlib import Path\n"
        "Daemon(Path(sys.argv[2])).scan('2'); os._exit(9)"
    )
    ended = subprocess.run([sys.executable, "-c", script, os.path.dirname(__file__), str(tmp_path)], timeout=30)
    assert ended.returncode == 9
    db, known = files.open_dataset_readonly(tmp_path / "state", "data")
    assert (len(db.read(versions.versions)), known.seq) == (2, 2)
    db.close()
    with pytest.raises(NotFoundError, match="nothing") as caught:
        files.open_dataset_readonly(tmp_path / "state", "nothing")
    assert caught.value.hint
    with pytest.raises(NotFoundError):
        open_readonly(tmp_path / "no.sqlite")


def test_removed_and_added_again(tmp_path: Path) -> None:
    """The same root goes on with its history; another root under the name gets a file of its own."""
    daemon = Daemon(tmp_path)
    daemon.scan("1")
    daemon.scan("2")
    daemon.records.write(lambda c: registry.remove(c, "data", 1))
    assert len(daemon.scan("3").db.read(versions.versions)) == 3
    other = daemon.scan("1", root=tmp_path / "other")
    assert other.db.path.name == "data.2.sqlite"
    seqs = [v.seq for v in other.db.read(versions.versions)]
    assert min(seqs) > 3  # NAME@3 stays what it was
    daemon.close()


def test_a_state_that_cannot_be_written(tmp_path: Path) -> None:
    """A file in the place of the directory: a state error with a hint."""
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError) as caught:
        files.open_registry(tmp_path / "state")
    assert caught.value.hint


def test_damage_met_later_is_said(tmp_path: Path) -> None:
    """Garbage in a page that is read after opening is damage, not a crash."""
    daemon = Daemon(tmp_path)
    for number in range(300):
        (daemon.root / f"n{number}").write_text(str(number))
    daemon.scan("1")
    daemon.close()
    path = tmp_path / "state/datasets/data.sqlite"
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db = Database(path, connection)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(DamagedError):
        db.read(lambda c: list(listing.entries(c, 1)))
    db.close()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """An exception inside a transaction undoes all of it, and the connection goes on."""
    db = open_database(tmp_path / "x.sqlite", "registry")

    def half(c: files.Connection) -> None:
        registry.add(c, "a", b"/a", "a.sqlite", 1)
        raise KeyError("stop")

    with pytest.raises(KeyError):
        db.write(half)
    assert db.read(registry.datasets) == []
    db.write(lambda c: registry.add(c, "a", b"/a", "a.sqlite", 1))
    assert [d.name for d in db.read(registry.datasets)] == ["a"]
    db.close()


def test_a_state_that_may_not_be_entered(tmp_path: Path) -> None:
    """A state error that names the file; not "there is none", and no bug."""
    state = tmp_path / ("x" * 300)  # as EACCES, but for root too: stat() fails for another reason than absence
    with pytest.raises(StateError, match=r"registry\.sqlite"):
        files.open_registry_readonly(state)
    with pytest.raises(NotFoundError):
        files.open_registry_readonly(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes a user that may not read")
def test_a_state_of_another_user() -> None:
    """The same for permissions."""
    with tempfile.TemporaryDirectory(dir="/tmp") as state:  # 0700; tmp_path lies below another one that is
        os.seteuid(65534)
        try:
            with pytest.raises(StateError, match="Permission denied"):
                files.open_registry_readonly(Path(state))
        finally:
            os.seteuid(0)
