"""Upgrades of state files: released states are understood, a copy comes first, no end in the middle harms anything."""

import hashlib
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from released_state import CONTENT, DELIVERED, RELEASES, WAITING, copy_state, later

from reprod.core import digest
from reprod.errors import DamagedError, StateError
from reprod.ops import history
from reprod.store import copies, files, listing, migrate, outbox, registry, snapshots, versions
from reprod.store.connection import Database, open_database, open_readonly
from reprod.store.migrate import Schema, Step

SCHEMAS: tuple[Schema, ...] = ("dataset", "registry")
FILES: dict[Schema, str] = {"dataset": "datasets/tables.sqlite", "registry": "registry.sqlite"}
TABLES: dict[Schema, tuple[str, ...]] = {
    "dataset": ("meta", "version", "mark", "directory", "file", "history", "pending", "pin"),
    "registry": ("dataset", "environment", "sample", "handover", "boot", "delivery", "upload"),
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of the newest release."""
    return copy_state(RELEASES[-1], tmp_path / "state")


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> "Release":
    """Become another release."""
    return Release(monkeypatch)


class Release:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def knows(self, number: int) -> None:
        """From now on this program is one that knows formats up to ``number``."""
        self._monkeypatch.setattr(migrate, "scripts", partial(later, number=number))

    def has(self, schema: Schema, *scripts: str) -> None:
        """From now on these scripts follow the first of a schema."""
        self._monkeypatch.setattr(
            migrate, "scripts", lambda which: (*later(which, 1), *scripts) if which == schema else later(which, 1)
        )


@contextmanager
def upgrading() -> Iterator[list[Step]]:
    """Do as the daemon does, and note what it hears."""
    heard: list[Step] = []
    with migrate.permitted(heard.append):
        yield heard


def rows(path: Path, schema: Schema) -> dict[str, list[tuple[object, ...]]]:
    """Return what the tables of format 1 hold, in the columns of format 1."""
    with closing(sqlite3.connect(path)) as db:
        found = {}
        for table in TABLES[schema]:
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "note"]
            found[table] = db.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY 1, 2").fetchall()
        return found


def format_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def schema_sql(path: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2").fetchall()


def content(db: Database, seq: int) -> dict[str, bytes]:
    """Return the digests of a version's files by name."""
    return {e.path.decode(): e.content.sha256 or b"" for e in db.read(lambda c: list(listing.entries(c, seq)))}


# --- released states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RELEASES)
def test_a_released_state_is_understood(tmp_path: Path, name: str) -> None:
    """All that a release wrote is read as it was meant: every version's files, the chain, pins, runs, environments."""
    state = copy_state(name, tmp_path / "state")
    with upgrading():
        records = files.open_registry(state).db
        opened = files.open_dataset(state, records, "tables", b"/data/tables")
    assert opened.set_aside is None
    with closing(records), closing(opened.db) as db:
        for seq, held in CONTENT.items():
            expected = {path: hashlib.sha256(text.encode()).digest() for path, text in held.items()}
            assert content(db, seq) == expected
        assert [m[0] for m in db.read(lambda c: c.execute("SELECT kind FROM mark ORDER BY id").fetchall())] == [
            *("version", "touch", "version", "touch", "version", "touch")
        ]
        assert db.read(lambda c: c.execute("SELECT count(*) FROM pin").fetchone()) == (2,)
        states = {run: records.read(lambda c, run=run: outbox.find(c, run))[0].state for run in (DELIVERED, WAITING)}
        assert states == {DELIVERED: "done", WAITING: "waiting"}
        (sample,) = records.read(snapshots.samples)
        assert records.read(lambda c: snapshots.environment(c, sample.digest)) is not None
    chain = history.verify_chain(state, "tables", contents=True)
    assert (chain["valid"], chain["complete"], chain["versions"]) == (True, True, 3)
    shown = history.log(state, "tables")
    assert [(row["version"], row["runs"]) for row in shown] == [(3, []), (2, [WAITING]), (1, [DELIVERED])]


@pytest.mark.parametrize("name", RELEASES)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_an_upgraded_file_is_as_a_new_one(tmp_path: Path, schema: Schema, name: str) -> None:
    """A released file that was brought up to date has the tables and indexes that a new file has: no script that was
    released is ever edited, and none forgets what new files get."""
    path = copy_state(name, tmp_path / "state") / FILES[schema]
    with upgrading():
        open_database(path, schema).close()
    open_database(tmp_path / "new.sqlite", schema).close()
    assert schema_sql(path) == schema_sql(tmp_path / "new.sqlite")


def test_a_state_has_one_format() -> None:
    """Both schemas count alike, so that the registry is refused, copied and put back together with the datasets."""
    assert len(later("dataset", 99)) == len(later("registry", 99))
    assert len(migrate.scripts("dataset")) == len(migrate.scripts("registry"))


# --- the copy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_copy_comes_before_the_first_statement(state: Path, release: Release, schema: Schema) -> None:
    """When the first statement runs, the copy is there under its name with all that the file holds; the file then goes
    through both formats and keeps its rows."""
    path = state / FILES[schema]
    before, schema_before = rows(path, schema), schema_sql(path)
    release.knows(3)
    seen: list[tuple[str, int]] = []

    def hear(step: Step) -> None:
        found = copies.copies_of(path)
        if step.stage != "copy":
            assert [copy.path for copy in found] == [step.copy] or step.copy is None
            assert rows(found[0].path, schema) == before
            assert schema_sql(found[0].path) == schema_before
        seen.append((step.stage, len(found)))

    with migrate.permitted(hear):
        open_database(path, schema).close()
    assert [stage for stage, _ in dict.fromkeys(seen)] == ["copy", "copied", "change", "commit", "done"]
    (copy,) = copies.copies_of(path)
    assert (copy.format, copy.original) == (1, path)
    assert copy.path.name.startswith(f"{path.name}.format1-20")
    assert abs(copy.made_ns - time.time_ns()) < 60e9
    assert (format_of(path), format_of(copy.path)) == (3, 1)
    assert rows(path, schema) == before
    assert os.stat(copy.path).st_mode == os.stat(path).st_mode


def test_what_is_only_in_the_log_is_copied(state: Path, release: Release) -> None:
    """What a daemon that was killed had committed, and nobody has folded into the file since, is in the copy."""
    path = state / "registry.sqlite"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom reprod.store import registry\n"
        "from reprod.store.connection import open_database\n"
        "db = open_database(Path(sys.argv[1]), 'registry')\n"
        "db.write(lambda c: registry.add(c, 'late', b'/late', 'late.sqlite', 1))\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=30).returncode == 9
    assert path.with_name("registry.sqlite-wal").stat().st_size > 0
    shutil.copyfile(path, state / "alone")
    assert b"late.sqlite" not in (state / "alone").read_bytes()
    release.knows(3)
    with upgrading():
        open_database(path, "registry").close()
    (copy,) = copies.copies_of(path)
    assert [row[0] for row in rows(copy.path, "registry")["dataset"]] == ["late", "tables"]


def test_a_new_file_needs_no_copy_and_no_permission(tmp_path: Path, release: Release) -> None:
    """Everybody may make a file; there is nothing to keep."""
    release.knows(3)
    open_database(tmp_path / "x.sqlite", "dataset").close()
    assert (format_of(tmp_path / "x.sqlite"), copies.copies_of(tmp_path / "x.sqlite")) == (3, [])


@pytest.mark.parametrize("schema", SCHEMAS)
def test_only_the_daemon_brings_a_file_up_to_date(state: Path, release: Release, schema: Schema) -> None:
    """A command of a newer release refuses an older file, for reading too, says what to do, and changes nothing."""
    path = state / FILES[schema]
    before = path.read_bytes()
    release.knows(2)
    for opening in (open_readonly, partial(open_database, schema=schema)):
        with pytest.raises(StateError, match="not up to date yet") as caught:
            opening(path)
        assert "start the daemon" in caught.value.hint
    assert path.read_bytes() == before
    assert copies.copies_of(path) == []
    with upgrading(), closing(open_readonly(path)):
        assert format_of(path) == 2


def test_two_at_once(state: Path, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes while it is being done waits, and finds it done."""
    release.knows(3)
    path = state / FILES["dataset"]
    failed: list[Exception] = []
    heard: list[str] = []
    all_there, real = threading.Barrier(4), migrate.format_of

    def look(connection: sqlite3.Connection) -> int:
        """Let nobody go on who has seen the old format before all have."""
        found = real(connection)
        if found == 1 and sys._getframe(1).f_code.co_name == "migrate" and not connection.in_transaction:
            all_there.wait(60)
        return found

    monkeypatch.setattr(migrate, "format_of", look)

    def opening() -> None:
        try:
            open_database(path, "dataset").close()
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)

    with migrate.permitted(lambda step: heard.append(step.stage)):
        threads = [threading.Thread(target=opening) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
    assert failed == []
    assert heard.count("done") == 1
    assert len(copies.copies_of(path)) == 1


def test_far_through_a_long_statement_is_heard(state: Path, release: Release) -> None:
    """One statement that takes long does not keep silent."""
    release.has(
        "dataset",
        "CREATE TABLE long AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600000) "
        "SELECT sum(i) FROM n;",
    )
    with upgrading() as heard:
        open_database(state / FILES["dataset"], "dataset").close()
    assert [step.done for step in heard if step.stage == "change"].count(0) > 3


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        "SELECT nonsense FROM nowhere;",
        "INSERT INTO version SELECT * FROM version;",
        "UPDATE version SET digest = 'text in a column of bytes';",
        "CREATE TABLE half (x",
    ],
)
def test_a_script_that_fails_leaves_the_file_as_it_was(state: Path, release: Release, wrong: str) -> None:
    """The error says what failed and that nothing happened; the copy goes, and a better script is tried next time."""
    path = state / FILES["dataset"]
    before, schema_before = rows(path, "dataset"), schema_sql(path)
    release.has("dataset", "ALTER TABLE version ADD COLUMN note TEXT; UPDATE version SET files = 0;\n" + wrong)
    with upgrading() as heard, pytest.raises(StateError, match="from format 1 to 2") as caught:
        open_database(path, "dataset")
    assert "it is as it was" in caught.value.message
    assert heard[-1].stage == "failed"
    assert (format_of(path), rows(path, "dataset"), schema_sql(path)) == (1, before, schema_before)
    assert [p.name for p in path.parent.iterdir()] == ["tables.sqlite"]
    release.knows(3)
    with upgrading():
        open_database(path, "dataset").close()
    assert format_of(path) == 3


def kill_at(path: Path, schema: Schema, step: int) -> bool:
    """Open a file as a daemon that is killed when it hears of this step; whether it came so far."""
    code = (
        "import os, signal, sys\nfrom functools import partial\nfrom pathlib import Path\n"
        "from released_state import later\nfrom reprod.store import copies, migrate\n"
        "from reprod.store.connection import open_database\n"
        "migrate.scripts, copies.PAGES_A_STEP, left = later, 4, [int(sys.argv[3])]\n"
        "def hear(step):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with migrate.permitted(hear): open_database(Path(sys.argv[1]), sys.argv[2]).close()\n"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, str(path), schema, str(step)], env=environ, timeout=60)
    assert done.returncode in {0, -9}
    return done.returncode == -9


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_kill_at_any_step_leaves_a_usable_file(state: Path, release: Release, schema: Schema) -> None:
    """kill -9 at each step of the copy and of the change: the old release opens the file and finds all of it, unless
    it was committed; the next start of the new one does it; one whole copy is left and nothing half made."""
    path = state / FILES[schema]
    before = rows(path, schema)
    whole = path.read_bytes()
    ended: list[int] = []
    for step in range(100):
        for old in path.parent.glob(f"*{path.name}?*"):
            old.unlink()
        path.write_bytes(whole)
        if not kill_at(path, schema, step):
            break
        ended.append(format_of(path))
        assert rows(path, schema) == before
        for copy in copies.copies_of(path):
            assert (copy.format, rows(copy.path, schema)) == (1, before)
        if ended[-1] == 1:
            release.knows(1)
            open_database(path, schema).close()  # the old release goes on with it
        assert not kill_at(path, schema, 1000)
        assert (format_of(path), rows(path, schema)) == (3, before)
        (copy,) = copies.copies_of(path)
        assert rows(copy.path, schema) == before
        assert not list(path.parent.glob(".*"))
    assert len(ended) > 8
    assert ended[:-1] == [1] * (len(ended) - 1)
    assert ended[-1] == 3  # the last step is told after the commit


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, timeout=10)


def test_too_little_space_is_said_before(small_disk: Path, release: Release) -> None:
    """What is needed and what is free is said; nothing was written."""
    state = copy_state(RELEASES[-1], small_disk / "state")
    path = state / "registry.sqlite"
    release.knows(2)
    with (
        upgrading() as heard,
        pytest.raises(StateError, match=r"no space .* 16\.\d MiB are needed .* 1\d\.\d MiB are free") as caught,
    ):
        open_database(path, "registry")
    assert "free" in caught.value.hint
    assert heard == []
    assert sorted(p.name for p in state.iterdir()) == ["datasets", "registry.sqlite"]
    assert format_of(path) == 1


@pytest.mark.parametrize("left_kb", [40, 100, 400])
def test_a_disk_that_fills_up_meanwhile(
    small_disk: Path, release: Release, monkeypatch: pytest.MonkeyPatch, left_kb: int
) -> None:
    """Somebody else takes the space during the copy or the change: the file is as it was, and the rest is cleared."""
    state = copy_state(RELEASES[-1], small_disk / "state")
    path = state / FILES["dataset"]
    before = rows(path, "dataset")
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "other").write_bytes(b"x" * (free - left_kb * 1024))
    monkeypatch.setattr(copies, "require_space", lambda _: None)
    release.has("dataset", "CREATE TABLE big AS SELECT randomblob(2000000) AS x;")
    with upgrading(), pytest.raises(StateError, match=r"no space left|cannot copy"):
        open_database(path, "dataset")
    assert [p.name for p in path.parent.iterdir() if p.name != "tables.sqlite"] == []
    (small_disk / "other").unlink()
    assert (format_of(path), rows(path, "dataset")) == (1, before)
    with upgrading():
        open_database(path, "dataset").close()
    assert format_of(path) == 2


# --- going back ------------------------------------------------------------------------------------------------------


def test_a_newer_state_is_refused_with_the_way_back(state: Path, release: Release) -> None:
    """The old release names the copy and the commands; carried out as they stand, it goes on where it was, with the
    datasets' files too."""
    before = {schema: rows(state / file, schema) for schema, file in FILES.items()}
    release.knows(3)
    with upgrading():
        records = files.open_registry(state).db
        db = files.open_dataset(state, records, "tables", b"/data/tables").db
        records.write(lambda c: registry.add(c, "later", b"/later", "later.sqlite", 1))
        db.close()
        records.close()
    release.knows(1)
    for opening in (files.open_registry, files.open_registry_readonly):
        with pytest.raises(StateError, match=r"written by a newer reprod \(format 3, this one knows 1\)") as caught:
            opening(state)
        assert caught.value.exit_code == 77
    assert format_of(state / "registry.sqlite") == 3
    commands = caught.value.hint.partition("then run: ")[2]
    assert str(state) in commands
    assert subprocess.run(["sh", "-c", commands], capture_output=True, text=True, timeout=30).stderr == ""
    assert {schema: rows(state / file, schema) for schema, file in FILES.items()} == before
    assert not [p for p in state.rglob("*") if ".format" in p.name]
    records = files.open_registry(state).db
    opened = files.open_dataset(state, records, "tables", b"/data/tables")
    assert opened.set_aside is None
    assert opened.db.read(versions.newest).seq == 3  # type: ignore[union-attr]
    opened.db.close()
    records.close()


def test_one_dataset_is_refused_with_its_own_way_back(tmp_path: Path, release: Release) -> None:
    """A dataset's file names its copy, in commands that a shell takes whatever the path is called; what a daemon that
    was killed had left in the log beside the newer file is not taken for a part of the older one."""
    state = copy_state(RELEASES[-1], tmp_path / "a state; $HOME 'x'")
    path = state / FILES["dataset"]
    before = rows(path, "dataset")
    release.knows(2)
    with upgrading():
        open_database(path, "dataset").close()
    code = (
        "import os, sys\nfrom functools import partial\nfrom pathlib import Path\n"
        "from released_state import later\nfrom reprod.store import migrate\n"
        "from reprod.store.connection import open_database\n"
        "migrate.scripts = partial(later, number=2)\n"
        "db = open_database(Path(sys.argv[1]), 'dataset')\n"
        "db.write(lambda c: c.execute('DELETE FROM version'))\nos._exit(9)"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code, str(path)], env=environ, timeout=30).returncode == 9
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    release.knows(1)
    with pytest.raises(StateError, match="newer") as caught:
        open_readonly(path)
    (copy,) = copies.copies_of(path)
    assert shlex.quote(str(copy.path)) in caught.value.hint
    commands = caught.value.hint.partition("then run: ")[2]
    assert subprocess.run(["sh", "-c", commands], capture_output=True, text=True, timeout=30).stderr == ""
    assert rows(path, "dataset") == before


def test_no_copy_no_way_back(state: Path) -> None:
    """Without a copy nothing is made up."""
    path = state / "registry.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(StateError, match="format 7, this one knows 1") as caught:
        open_readonly(path)
    assert "there is no copy" in caught.value.hint


def test_a_foreign_file_is_no_newer_state(tmp_path: Path) -> None:
    """Another program's database with a large number of its own is not ours, of whatever format."""
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as db:
        db.execute("CREATE TABLE other (x)")
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(DamagedError, match="not a reprod"):
        open_database(tmp_path / "x.sqlite", "dataset")


# --- keeping and forgetting ------------------------------------------------------------------------------------------

DAY = 86_400 * 10**9


def aged(copy: copies.Copy, days: float) -> Path:
    """Rename a copy as if it had been made so long ago."""
    made = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - days * 86_400))
    return copy.path.rename(copy.path.with_name(f"{copy.original.name}.format{copy.format}-{made}"))


def test_copies_are_forgotten_after_a_month(state: Path, release: Release) -> None:
    """A copy goes when it is 30 days old and its file is in use in a later format; what a person put there stays."""
    path = state / FILES["dataset"]
    release.knows(2)
    with upgrading():
        open_database(path, "dataset").close()
    folder, now = path.parent, time.time_ns()
    (own := folder / "tables.sqlite.format1-mine").write_text("")
    (other := folder / "lost.sqlite.format1-20200101T000000Z").write_text("")  # its file is away: perhaps all there is
    assert list(copies.forget_old(folder, now)) == []
    assert list(copies.forget_old(folder, now + 29 * DAY)) == []
    (copy,) = copies.forget_old(folder, now + 31 * DAY)
    assert not copy.path.exists()
    assert own.exists()
    assert other.exists()


def test_a_copy_stays_while_the_upgrade_is_not_done(state: Path, release: Release) -> None:
    """After a kill between copy and commit the copy waits for the next start, however long that takes."""
    path = state / FILES["dataset"]
    copy = copies.make(path, 1, lambda *_: None)
    old = aged(copy, 400)
    assert list(copies.forget_old(path.parent, time.time_ns())) == []
    release.knows(2)
    with upgrading():
        open_database(path, "dataset").close()
    (only,) = copies.copies_of(path)  # the new one, in place of the one of then
    assert only.path != old


def test_copies_of_two_upgrades_are_both_kept(state: Path, release: Release) -> None:
    """Who upgrades twice in a month can go back by one release or by two."""
    path = state / FILES["dataset"]
    for number in (2, 3):
        release.knows(number)
        with upgrading():
            open_database(path, "dataset").close()
    assert [copy.format for copy in copies.copies_of(path)] == [1, 2]
    for number in (2, 1):
        release.knows(number)
        with pytest.raises(StateError) as caught:
            open_readonly(path)
        assert f".format{number}-" in caught.value.hint


def test_purging_a_dataset_deletes_its_copies(state: Path, release: Release) -> None:
    """A history that is purged is not kept in a copy."""
    release.knows(2)
    with upgrading():
        records = files.open_registry(state).db
        files.open_dataset(state, records, "tables", b"/data/tables").db.close()
        assert copies.copies_of(state / FILES["dataset"])
        history.purge(state, "tables", records)
        records.close()
    assert list((state / "datasets").iterdir()) == []


def test_copies_are_not_taken_for_datasets(state: Path, release: Release) -> None:
    """A lost registry finds the datasets' files again, not their copies."""
    release.knows(2)
    with upgrading():
        open_database(state / FILES["dataset"], "dataset").close()
        (state / "registry.sqlite").unlink()
        records = files.open_registry(state).db
        opened = files.open_dataset(state, records, "tables", b"/data/tables")
    assert opened.db.path.name == "tables.sqlite"
    assert opened.db.read(versions.newest).seq == 3  # type: ignore[union-attr]
    opened.db.close()
    records.close()


def test_a_lost_registry_beside_an_upgrade(state: Path, release: Release) -> None:
    """A dataset's file of an older format is taken up again as one of the present format is."""
    (state / "registry.sqlite").unlink()
    release.knows(2)
    with upgrading():
        records = files.open_registry(state).db
        opened = files.open_dataset(state, records, "tables", b"/data/tables")
    assert digest.text(opened.db.read(versions.newest).digest or b"").startswith("dt1:")  # type: ignore[union-attr]
    assert opened.db.read(versions.newest).seq == 3  # type: ignore[union-attr]
    opened.db.close()
    records.close()


def test_statements() -> None:
    """Semicolons in comments, texts and triggers end nothing; comments alone are no statement."""
    script = (
        "-- a; b\nCREATE TABLE x (a, -- c; d\n b);; INSERT INTO x VALUES ('e;f', 1);\n/* g; */ DROP TABLE x;\n--h;\n"
    )
    assert [s.strip() for s in migrate.statements(script)] == [
        "-- a; b\nCREATE TABLE x (a, -- c; d\n b);",
        "INSERT INTO x VALUES ('e;f', 1);",
        "/* g; */ DROP TABLE x;",
    ]
