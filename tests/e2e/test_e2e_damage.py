"""The daemon's own files cut, emptied, garbled or held by somebody else: said, cured without a hand, nothing invented.

Files are damaged while no daemon runs, after a clean stop (everything is in the main file) and after kill -9 (the
newest version is in the write-ahead log alone). Damage under a running daemon is in ``test_e2e_trouble`` and
``test_e2e_lifecycle``. Times are seconds.
"""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from harness import Daemon, dt1, eventually, make_data, running_daemon

from reprod.ops.chain import verify_chain

VERSIONS = 2  # the first is in the main file when it is damaged, the last perhaps only in the log
PAGE = 4096  # SQLite's

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeroed(path: Path) -> None:
    os.truncate(path, 0)


def garbled_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(random.Random(1).randbytes(100))


def garbled_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // PAGE // 2 * PAGE)
        file.write(random.Random(2).randbytes(PAGE))


def garbled_wal_tail(path: Path) -> None:
    """After a clean stop there is no log: then nothing is damaged."""
    log = path.with_name(path.name + "-wal")
    if log.exists():
        with log.open("r+b") as file:
            file.seek(log.stat().st_size // 2)
            file.write(random.Random(3).randbytes(log.stat().st_size // 2))


def gone(path: Path) -> None:
    path.unlink()


DAMAGE: list[Damage] = [cut, zeroed, garbled_header, garbled_page, garbled_wal_tail, gone]


def make_history(daemon: Daemon, roots: dict[str, Path]) -> None:
    """Have every dataset sealed twice, with a clean stop in between: the first version is in the main file for sure."""
    for name in roots:
        daemon.sealed(name, 1)
    assert daemon.terminate()[0] == 0
    for root in roots.values():
        (root / "part-0.csv").write_text("changed")
    daemon.start()
    for name in roots:
        daemon.sealed(name, VERSIONS)
    assert not daemon.events("dataset.failed")  # although all their files were made at the same moment


def end(daemon: Daemon, *, killed: bool) -> None:
    """End the daemon: a kill leaves the newest rows in the log alone, a stop folds them in."""
    if killed:
        daemon.kill()
    else:
        assert daemon.terminate()[0] == 0


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_damaged_datasets_are_set_aside_and_rebuilt(tmp_path: Path, *, killed: bool) -> None:
    """Six kinds of damage, each to one dataset's file: each is current with the oracle's digest after the next start,
    never empty, no number is used twice; what was lost is kept aside and said in status and log, the rest unhurt."""
    roots = {damage.__name__: make_data(tmp_path / damage.__name__, 40) for damage in DAMAGE}
    roots["untouched"] = make_data(tmp_path / "untouched")
    with running_daemon(tmp_path / "d", "", roots) as daemon:
        make_history(daemon, roots)
        end(daemon, killed=killed)
        folder = daemon.place.state / "datasets"
        damaged = {damage.__name__: do_damage(damage, folder / f"{damage.__name__}.sqlite") for damage in DAMAGE}
        daemon.start()
        shown = {name: daemon.sealed(name, VERSIONS) for name in roots}
        assert {name: found["digest"] for name, found in shown.items()} == {n: dt1(r) for n, r in roots.items()}
        said = " ".join(need["what"] for need in daemon.status()["attention"])
        rebuilt = {event["dataset"]: Path(event["set_aside"]) for event in daemon.events("dataset.rebuilt")}
        for name, before in damaged.items():
            whole = shown[name]["version"] == VERSIONS
            assert whole == (name not in rebuilt) or name == "gone", name
            assert whole or shown[name]["version"] > VERSIONS + 1, name
            if name in rebuilt:
                assert killed or rebuilt[name].read_bytes() == before  # opening it has folded the log in
                assert f"the database of {name} was damaged and rebuilt; the old one is {rebuilt[name]}" in said
        # Without a log nothing is wrong with it; with one, the log holds the garbled header once more.
        # So it may do for the page in the middle.
        intact = damaged.keys() - rebuilt.keys() - ({"garbled_page"} if killed else set())
        assert intact == {"gone", "garbled_header" if killed else "garbled_wal_tail"}
        assert shown["untouched"]["version"] == VERSIONS
        for name, root in roots.items():
            (root / "part-0.csv").write_text("after the damage")
            assert daemon.sealed(name, shown[name]["version"] + 1)["digest"] == dt1(root)
            assert verify_chain(daemon.place.state, name)["broken"] == []


def test_files_that_a_killed_daemon_left_half_made_are_in_nobodys_way(tmp_path: Path, data: Path, name: str) -> None:
    """An empty database, and one with a header and no tables, as kill -9 leaves them: the datasets begin at 1."""
    roots = {name: data, name + "2": make_data(tmp_path / "second")}
    folder = tmp_path / "d" / "state" / "datasets"
    folder.mkdir(parents=True)
    (folder / f"{name}.sqlite").touch()
    with closing(sqlite3.connect(folder / f"{name}2.sqlite")) as begun:
        begun.execute("PRAGMA journal_mode = WAL")
    with running_daemon(tmp_path / "d", "", roots) as daemon:
        for each, root in roots.items():
            shown = daemon.sealed(each, 1)
            assert (shown["version"], shown["digest"]) == (1, dt1(root))
        assert not daemon.events("dataset.failed")
        daemon.restart()
        assert {each: daemon.sealed(each, 1)["version"] for each in roots} == dict.fromkeys(roots, 1)


def test_a_damaged_registry_forgets_no_version(tmp_path: Path, data: Path, name: str) -> None:
    """The same damage to the registry: datasets go on at the version where they were, nothing is hashed again, status
    and log say where the old one lies."""
    with running_daemon(tmp_path / "d", "", {name: data}) as daemon:
        registry = daemon.place.state / "registry.sqlite"
        make_history(daemon, {name: data})
        for damage in DAMAGE:
            healed = damage in {garbled_header, garbled_page}  # by the log, if there is one
            end(daemon, killed=not healed)
            before = do_damage(damage, registry)
            known, refreshed = len(daemon.events("registry.rebuilt")), len(daemon.events("dataset.refreshed"))
            daemon.start()
            shown = daemon.sealed(name, VERSIONS)
            assert (shown["version"], shown["digest"], shown["files"]) == (VERSIONS, dt1(data), 6), damage
            told = eventually(lambda n=refreshed: daemon.events("dataset.refreshed")[n:], 10, "the walk is logged")
            assert told[0]["hashed_files"] == 0, damage
            rebuilt = [Path(event["set_aside"]) for event in daemon.events("registry.rebuilt")[known:]]
            said = [need["what"] for need in daemon.status()["attention"] if "registry was damaged" in need["what"]]
            assert (len(rebuilt), len(said)) == ((1, 1) if damage in LOSSES else (0, 0)) or damage is garbled_wal_tail
            if damage in LOSSES:
                assert str(rebuilt[0]) in said[0]
                assert rebuilt[0].exists()
                assert not healed or rebuilt[0].read_bytes() == before  # elsewhere opening it has folded the log in
        (data / "part-0.csv").write_text("after the damage")
        assert daemon.sealed(name, VERSIONS + 1)["digest"] == dt1(data)
        assert verify_chain(daemon.place.state, name)["broken"] == []


#: What leaves a damaged file behind for sure. The tail of the log may hold what is written anew at every start, and of
#: a file that is gone nothing is left to set aside.
LOSSES = {cut, zeroed, garbled_header, garbled_page}


def do_damage(damage: Damage, path: Path) -> bytes:
    """Damage a file; return what is there now."""
    damage(path)
    return path.read_bytes() if path.exists() else b""


HOLDER = """
import sqlite3, sys
held = [sqlite3.connect(path, isolation_level=None) for path in sys.argv[1:]]
for connection in held:
    connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""

#: The daemon waits a second for a lock here, not ten.
IMPATIENT = """
import sys
from reprod.store import connection
connection.BUSY_TIMEOUT_MS = 1000
from reprod.__main__ import main
sys.exit(main(["daemon"]))
"""


@contextmanager
def held(*paths: Path) -> Iterator[None]:
    """Have another process hold the writer's lock of some databases for the time of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, paths)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()


def test_a_lock_held_by_another_process_is_waited_for(tmp_path: Path, data: Path, name: str) -> None:
    """Another process holds the registry and a dataset's file: for a while nothing fails, and status answers; for
    longer it is a failed state that says so with the old digest; when it lets go, all goes on without a hand."""
    with running_daemon(tmp_path / "d", "", {name: data}) as daemon:
        first = daemon.sealed(name, 1)["digest"]
        both = (daemon.place.state / "registry.sqlite", daemon.place.state / "datasets" / f"{name}.sqlite")
        with held(*both):
            began = time.monotonic()
            (data / "part-0.csv").write_text("changed under a lock")
            eventually(lambda: daemon.status() and time.monotonic() > began + 1.2, 10, "time passes")
        assert daemon.sealed(name, 2)["digest"] == dt1(data) != first
        assert not daemon.events("dataset.failed")
        first = dt1(data)
        assert daemon.terminate()[0] == 0
        daemon.program = ("-c", IMPATIENT)
        daemon.start()
        daemon.sealed(name, 2)
        with held(*both):
            (data / "part-0.csv").write_text("changed under a longer lock")
            eventually(lambda: daemon.dataset(name)["state"] == "failed", 15, "it is said")
            shown = daemon.dataset(name)
            assert "another process holds it" in shown["reason"]
            assert (shown["digest"], shown["version"]) == (first, 2)
            assert any("another process holds it" in need["what"] for need in daemon.status()["attention"])
        assert daemon.sealed(name, 3)["digest"] == dt1(data)
        assert daemon.answers()
