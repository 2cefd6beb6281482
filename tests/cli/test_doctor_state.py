"""``reprod doctor`` on real states: little room, a network file system, a clock that was set, files that are too new.

No daemon is needed for any of it: each check looks at what is on the disk.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from history_store import DAY, HOUR, HistoryStore
from scripted_daemon import Done, ScriptedDaemon, status_answer

import reprod as package
from reprod.store import timeline

Run = Callable[..., Done]
Findings = list[dict[str, Any]]
Examine = Callable[..., Findings]


@pytest.fixture
def examine(home: Path, reprod_process: Run) -> Examine:
    """Run the doctor and return what a check found."""
    (home / "etc" / "reprod.toml").touch()

    def run(check: str, **variables: str) -> Findings:
        done = reprod_process("doctor", "--json", **variables)
        assert (done.err, done.code in {0, 1, 3}) == ("", True), done.err
        return [each for each in json.loads(done.out)["findings"] if each["check"] == check]

    return run


@pytest.fixture
def store(home: Path) -> Iterator[HistoryStore]:
    """A history of one dataset, which a run used and which is registered."""
    made = HistoryStore(home)
    made.seal(time.time_ns() - HOUR, a=1)
    made.run("f" * 32, data=1)
    (home / "etc" / "datasets.d" / "data.toml").write_text(f'path = "{home}/data"\n')
    yield made
    made.close()


def only(findings: Findings, level: str) -> dict[str, Any]:
    """Return the one finding of a level."""
    found = [each for each in findings if each["level"] == level]
    assert len(found) == 1, findings
    return found[0]


# --- room ------------------------------------------------------------------------------------------------------------


@contextmanager
def mounted(place: Path, *command: str) -> Iterator[None]:
    done = subprocess.run([*command, str(place)], capture_output=True, text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True, timeout=30)


@pytest.mark.parametrize(
    ("options", "level", "told"),
    [
        ("size=24m", "bad", "24.0 MiB free"),
        ("size=300m", "warn", "300.0 MiB free"),
        ("size=4g", "ok", "4.0 GiB free"),
        ("size=4g,nr_inodes=200", "warn", "inodes left"),
    ],
)
def test_a_disk_with_little_room(home: Path, examine: Examine, options: str, level: str, told: str) -> None:
    """Under 100 MiB is bad, under 1 GiB or 1,000 inodes a warning, each with a line that shows what takes the room."""
    with mounted(home / "state", "mount", "-t", "tmpfs", "-o", options, "tmpfs"):
        found = only(examine("disk"), level)
        assert told in found["what"]
        assert f" for {home}/state" in found["what"]
        if level != "ok":
            shown = subprocess.run(["sh", "-c", found["mend"][0]], capture_output=True, text=True, timeout=30)
            assert (shown.returncode, f"{home}/state" in shown.stdout) == (0, True)
            assert found["mend"][1] == "reprod prune --dry-run"


# --- where it lies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False], ids=["there", "to be made"])
def test_a_state_on_a_network_file_system(home: Path, examine: Examine, there: bool) -> None:
    """What the kernel calls fuse.sshfs: bad, which it is, and the line after which that is not found any more."""
    if shutil.which("bindfs") is None:
        pytest.skip("needs bindfs")
    (home / "source").mkdir()
    (home / "remote").mkdir()
    state = home / "remote" / "state"
    with mounted(home / "remote", "bindfs", "-o", "subtype=sshfs", str(home / "source")):
        if there:
            state.mkdir(mode=0o700)
        found = only(examine("state", REPROD_STATE_DIR=str(state)), "bad")
        assert f"{state} is on a network file system (fuse.sshfs, " in found["what"]
        assert found["mend"] == ["export REPROD_STATE_DIR=/a/folder/on/a/local/disk"]
    assert not [each for each in examine("state") if each["level"] == "bad"]


# --- the clock -------------------------------------------------------------------------------------------------------


def set_clock(store: HistoryStore, before_ns: int, after_ns: int) -> None:
    """Write down that the clock was set, as the daemon does that sees it."""
    store.opened["data"].write(lambda c: timeline.step(c, before_ns, after_ns, 1_000_000_000))


def test_a_clock_that_was_set(store: HistoryStore, examine: Examine) -> None:
    """Within a day it is a warning, with how often and what keeps it right; longer ago it says nothing about today."""
    now = time.time_ns()
    assert only(examine("clock"), "ok")["what"] == "the clock was not set within a day"
    set_clock(store, now - 3 * DAY, now - 2 * DAY)
    assert only(examine("clock"), "ok")
    set_clock(store, now - 9 * HOUR, now - 8 * HOUR)
    found = only(examine("clock"), "warn")
    assert found["what"] == "the clock was set once within a day"
    assert found["mend"][0].endswith("timedatectl set-ntp true")
    set_clock(store, now - HOUR, now - 2 * HOUR)
    assert only(examine("clock"), "warn")["what"] == "the clock was set 2 times within a day"


def test_a_clock_that_was_ten_years_ahead(store: HistoryStore, examine: Examine) -> None:
    """Ahead and back again is no news any more when a day has passed, although ten years have not."""
    now = time.time_ns()
    set_clock(store, now - 3 * DAY, now + 3650 * DAY)
    set_clock(store, now + 3650 * DAY, now - 3 * DAY)
    assert only(examine("clock"), "ok")


# --- a newer release's state -----------------------------------------------------------------------------------------


def make_newer(path: Path, number: int = 7) -> None:
    """Let a later release have brought a file to its format."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {number}")


def keep_copy(path: Path) -> Path:
    """Make the copy that an upgrade from format 1 leaves."""
    copy = path.with_name(f"{path.name}.format1-20261120T101500Z")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def in_a_shell(line: str) -> None:
    """Give a line but for its last command, which starts a daemon and stays."""
    commands, _, last = line.rpartition("; ")
    assert last.partition("    #")[0] == "reprod daemon"
    subprocess.run(["sh", "-c", commands], check=True, timeout=30)


def test_newer_state_has_two_ways_out(store: HistoryStore, home: Path, examine: Examine, reprod_process: Run) -> None:
    """A registry of a later release: bad, once, with the line that upgrades and one that brings the copies back."""
    state = home / "state"
    files = (state / "registry.sqlite", state / "datasets" / "data.sqlite")
    store.close()
    for path in files:
        keep_copy(path)
        make_newer(path)
    assert examine("references") == []
    found = {each["what"].partition(" ")[0]: each for each in examine("state") if each["level"] == "bad"}
    assert set(found) == {str(path) for path in files}
    told = found[str(files[0])]
    assert "was written by a newer reprod (format 7, this one knows 1)" in told["what"]
    assert "goes back to registry.sqlite.format1-20261120T101500Z" in told["means"]
    upgrade, back = told["mend"]
    assert upgrade == f'{sys.executable} -m pip install --upgrade "$REPROD[mlflow]" && reprod daemon'
    assert reprod_process("log", "data").code == 77
    in_a_shell(back)
    assert not [each for each in examine("state") if each["level"] == "bad"]
    assert only(examine("references"), "ok")
    assert "run ffffffff" in reprod_process("log", "data").out


def test_one_newer_dataset_is_mended_alone(store: HistoryStore, home: Path, examine: Examine) -> None:
    """Only a dataset's file is newer: its line puts that one back, and nothing else is said of it."""
    path = home / "state" / "datasets" / "data.sqlite"
    store.close()
    keep_copy(path)
    make_newer(path)
    found = only(examine("state"), "bad")
    assert found["what"].startswith(f"{path} was written by a newer reprod")
    assert examine("references") == []
    in_a_shell(found["mend"][1])
    assert not [each for each in examine("state") if each["level"] == "bad"]


def test_newer_state_without_a_copy_begins_anew(home: Path, store: HistoryStore, examine: Examine) -> None:
    """Nothing to go back to: the state is moved away whole, and stays for the release that made it."""
    store.close()
    make_newer(home / "state" / "registry.sqlite")
    anew = only(examine("state"), "bad")["mend"][1]
    assert anew.endswith("# begins anew: all is scanned again")
    in_a_shell(anew)
    assert (home / "state.newer" / "datasets" / "data.sqlite").exists()
    assert only(examine("state"), "ok")["what"] == f"{home}/state is not there yet; the daemon makes it"


def test_a_newer_daemon_keeps_its_state(store: HistoryStore, daemon: ScriptedDaemon, examine: Examine) -> None:
    """The daemon that answers is of the later release: only this command is too old, and nothing is put back."""
    store.close()
    keep_copy(store.state / "registry.sqlite")
    make_newer(store.state / "registry.sqlite")
    daemon.says("status", **status_answer(version="9.0.0"))
    found = only(examine("state"), "bad")
    assert found["mend"] == [
        f'{sys.executable} -m pip install --upgrade "$REPROD[mlflow]"    # to 9.0.0, which the daemon is'
    ]
    assert package.__version__ != "9.0.0"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becoming another user needs root")
def test_a_state_that_is_closed_to_this_user() -> None:
    """Somebody else's state: what could not be looked at is said with its reason, and no look fails."""
    public = Path(tempfile.mkdtemp(prefix="reprod-public-"))
    try:
        public.chmod(0o755)
        (public / "reprod.toml").touch()
        (public / "state" / "datasets").mkdir(parents=True)
        (public / "state" / "registry.sqlite").write_bytes(b"x")
        (public / "state").chmod(0o700)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("REPROD_", "MLFLOW_", "XDG_"))}
        places = {"CONFIG": "reprod.toml", "STATE_DIR": "state", "SOCKET": "sock"}
        done = subprocess.run(
            [
                *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
                *(sys.executable, "-m", "reprod", "doctor", "--json"),
            ],
            env=kept | {f"REPROD_{key}": f"{public}/{name}" for key, name in places.items()} | {"HOME": str(public)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        found = json.loads(done.stdout)["findings"]
    finally:
        shutil.rmtree(public)
    unknown = [each["what"] for each in found if each["level"] == "unknown"]
    assert any("cannot read" in what for what in unknown), unknown
    assert not [what for what in unknown if "looking at it failed" in what or "no answer within" in what]


# --- what is no database ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(b"", 4, "data is not scanned yet"), (b"garbage" * 99, 65, "is damaged: file is not a database")],
    ids=["empty", "garbage"],
)
def test_a_registry_that_is_none(
    store: HistoryStore, home: Path, examine: Examine, reprod_process: Run, content: bytes, code: int, said: str
) -> None:
    """Cut to nothing (a daemon that was killed early) or garbled: no bug, and the doctor says what mends it."""
    store.close()
    path = home / "state" / "registry.sqlite"
    for other in path.parent.glob("registry.sqlite-*"):
        other.unlink()
    path.write_bytes(content)
    done = reprod_process("log", "data")
    assert (done.code, said in done.err) == (code, True), done.err
    found = examine("references")
    assert [(each["level"], each["mend"][0]) for each in found] == ([] if code == 4 else [("bad", "reprod daemon")])
    assert os.path.getsize(path) == len(content)  # looking changes nothing
