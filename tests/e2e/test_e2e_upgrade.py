"""Upgrades with real processes: the states of releases, releases to come, killed in the middle, and the way back.

A release to come is today's program with the scripts of ``released_state.later``: formats 2 and 3.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Place, eventually, running_daemon
from released_state import DELIVERED, RELEASES, WAITING, copy_state, write_data

import reprod
from reprod.core import protocol
from reprod.store import copies

TESTS = Path(__file__).parents[1]
STRIDE = int(os.environ.get("REPROD_STRIDE", "9"))  # steps of an upgrade between two kills; ``make torture``: 1
TRACKING = "http://127.0.0.1:5000"  # as in the states of releases; nobody listens there

_LATER = (
    f"import sys; sys.path.insert(0, {str(TESTS)!r}); from released_state import later; "
    "from reprod.store import migrate; migrate.scripts = later; from reprod.__main__ import main; "
)
#: Writes a byte at each step of an upgrade, and goes on when the test has sent one.
_SLOWLY = (
    "import os; from reprod.store import copies; copies.PAGES_A_STEP = 1; from reprod.daemon.upgrade import _Teller; "
    "tell = _Teller._tell; "
    "_Teller._tell = lambda self, step: (tell(self, step), open('steps', 'a').write('.'), os.read(0, 1))[0]; "
)


def later(extra: str = "", command: str = "['daemon']") -> tuple[str, ...]:
    """Return the program of a release that knows format 3."""
    return ("-c", f"{_LATER}{extra}sys.exit(main({command}))")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The newest release's state, and its dataset's files where they are now: moved there as a person does it."""
    copy_state(RELEASES[-1], tmp_path / "state")
    return moved(Place(tmp_path, TRACKING))


def moved(place: Place) -> Place:
    write_data(place.base / "data")
    place.register("tables", Path("/data/tables"))
    done = run(place, "dataset", "move", "tables", str(place.base / "data"))
    assert done.returncode == 0, done.stderr
    return place


@contextmanager
def daemon_of(place: Place, *program: str) -> Iterator[Daemon]:
    daemon = Daemon(place, program or ("-m", "reprod", "daemon"))
    try:
        yield daemon
    finally:
        daemon.end()


def run(place: Place, *argv: str, program: tuple[str, ...] = ("-m", "reprod")) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *program, *argv], env=place.variables(), capture_output=True, text=True, timeout=100
    )


def told(place: Place, *argv: str) -> dict[str, Any]:
    """Return what a reading command answers without a daemon, as JSON."""
    done = run(place, *argv, "--json")
    assert done.returncode in {0, 1, 3}, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def format_of(path: Path) -> int:
    import sqlite3

    db = sqlite3.connect(path)
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    finally:
        db.close()


# --- released states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_a_released_state_goes_on(tmp_path: Path, release: str) -> None:
    """Without a daemon log, diff, export and status answer from it. Its data is at another place now: moved there as a
    person does it, verify finds every file of the newest version, and a change becomes the next number. The run that
    waited still waits for its tracking server; the one that was delivered is as it was."""
    copy_state(release, tmp_path / "state")
    place = Place(tmp_path, TRACKING)
    assert [row["version"] for row in told(place, "log", "tables")["versions"]] == [3, 2, 1]
    assert run(place, "diff", "tables@1", "tables@2").returncode == 1
    assert run(place, "export", "tables@3", "--format", "sha256sums").stdout.count("\n") == 3
    last = told(place, "status")
    assert [(d["name"], d["version"]) for d in last["datasets"]] == [("tables", 3)]
    assert last["runs"]["waiting"] == 1
    with daemon_of(moved(place)) as daemon:
        daemon.start()
        newest = daemon.sealed("tables", 3)
        assert newest["digest"] == told(place, "log", "tables")["versions"][0]["digest"]
        assert run(place, "verify", "tables").returncode == 0
        assert run(place, "diff", "tables@3").returncode == 0
        (tmp_path / "data" / "new.csv").write_text("newer\n")
        after = daemon.sealed("tables", newest["version"] + 1)
        assert after["version"] == newest["version"] + 1
        assert daemon.status()["runs"]["waiting"] == 1
        assert run(place, "diff", f"run:{DELIVERED[:8]}", f"run:{WAITING[:8]}").returncode == 1
        assert run(place, "verify", "tables", "--chain").returncode == 0
    assert not [event for event in daemon.events() if event["event"] in {"dataset.rebuilt", "registry.rebuilt"}]


# --- releases to come ------------------------------------------------------------------------------------------------


def test_there_and_back(place: Place) -> None:
    """The new release copies and changes the registry before it answers and the dataset's file when it opens it, says
    both in its log, and goes on. The old one refuses that state in daemon and commands, naming the copy; the commands
    that it names, as they stand, make it go on where it was."""
    with daemon_of(place, *later()) as new:
        new.start()
        new.sealed("tables", 3)
        for file in ("registry.sqlite", "datasets/tables.sqlite"):
            path = str(place.state / file)
            new.wait_event("state.upgrading", path=path, change="from format 1 to 3")
            copied = new.wait_event("state.copied", path=path, format=1)
            assert Path(copied["copy"]).is_file()
            assert format_of(Path(copied["copy"])) == 1
            new.wait_event("state.upgraded", path=path, copy=copied["copy"])
            assert format_of(place.state / file) == 3
        order = [event["event"] for event in new.events()]
        assert order.index("state.upgraded") < order.index("daemon.started")
        assert run(place, "log", "tables", program=later(command="sys.argv[1:]")).returncode == 0
        assert new.terminate()[0] == 0
    (copy,) = copies.copies_of(place.state / "registry.sqlite")
    refused = []
    for argv in (
        ("daemon",),
        ("log", "tables"),
        ("diff", "tables@1", "tables@2"),
        ("export", "tables@3", "--format", "sha256sums"),
        ("verify", "tables@3"),
    ):
        done = run(place, *argv)
        refused.append((argv, done.returncode))
        assert "written by a newer reprod (format 3, this one knows 1)" in done.stderr, (argv, done.stderr)
        assert f"upgrade reprod again; or go back to {copy.path.name}" in done.stderr
    assert {code for _, code in refused} == {77}, refused
    doctor = run(place, "doctor")
    assert "written by a newer reprod" in doctor.stdout
    assert copy.path.name in " ".join(doctor.stdout.split())  # and the way back
    done = run(place, "log", "tables")
    commands = done.stderr.partition("then run: ")[2].strip()
    assert subprocess.run(["sh", "-c", commands], capture_output=True, text=True, timeout=60).stderr == ""
    assert not copy.path.exists()
    assert format_of(place.state / "registry.sqlite") == format_of(place.state / "datasets" / "tables.sqlite") == 1
    with daemon_of(place) as old:
        old.start()
        assert old.sealed("tables", 3)["version"] >= 3
        assert run(place, "log", "tables").returncode == 0
    assert "dataset.rebuilt" not in [event["event"] for event in old.events()]


def test_files_that_nobody_opens_are_brought_up_to_date_too(place: Place, tmp_path: Path) -> None:
    """A dataset that was removed and one whose configuration is wrong are read by every command after an upgrade."""
    (place.folder / "tables.toml").write_text("path = 3\n")
    with daemon_of(place, *later()) as new:
        new.start()
        eventually(lambda: format_of(place.state / "datasets/tables.sqlite") == 3, 15, new.tail)
        assert run(place, "log", "tables", program=later(command="sys.argv[1:]")).returncode == 0
        assert len(copies.copies_of(place.state / "datasets/tables.sqlite")) == 1


def test_a_command_of_a_newer_release_leaves_an_older_daemon_its_files(place: Place) -> None:
    """The package was upgraded, the daemon still runs: what reads the state says to restart it, and changes nothing."""
    with daemon_of(place) as old:
        old.start()
        old.sealed("tables", 3)
        for argv in (("log", "tables"), ("verify", "tables@3"), ("export", "tables@3", "--format", "json")):
            done = run(place, *argv, program=later(command="sys.argv[1:]"))
            assert (done.returncode, "not up to date yet" in done.stderr) == (77, True), (argv, done.stderr)
            assert "start the daemon, or restart it if it runs" in done.stderr
        assert format_of(place.state / "registry.sqlite") == 1
        assert not [path for path in place.state.rglob("*") if ".format" in path.name]
        assert old.status()["datasets"][0]["state"] == "current"


@pytest.mark.timeout(300 + 600 // STRIDE)
def test_a_kill_in_the_middle_of_an_upgrade(place: Place) -> None:
    """A daemon that is killed at any step of either file: the old release starts on what is left of the registry, the
    new one ends what was begun; one copy of each file, nothing half made, no version lost."""
    registry, dataset = place.state / "registry.sqlite", place.state / "datasets" / "tables.sqlite"
    ends: list[tuple[int, int]] = []
    whole = {path: path.read_bytes() for path in (registry, dataset)}
    for steps in range(0, 200, STRIDE):
        for path, content in whole.items():
            clear(path)
            path.write_bytes(content)
        if not killed_at(place, steps):
            break
        ends.append((format_of(registry), format_of(dataset)))
        assert ends[-1] in {(1, 1), (3, 1)}
        if ends[-1] == (1, 1) and steps % 3 == 0:
            with daemon_of(place) as old:
                old.start()
                old.sealed("tables", 3)
        with daemon_of(place, *later()) as new:
            new.start()
            new.sealed("tables", 3)
            assert new.terminate()[0] == 0
        assert (format_of(registry), format_of(dataset)) == (3, 3)
        for path in (registry, dataset):
            assert [(copy.format, format_of(copy.path)) for copy in copies.copies_of(path)] == [(1, 1)]
        assert not [path for path in place.state.rglob("*") if "copying" in path.name or "damaged" in path.name]
    assert ends.count((1, 1)) > 2
    assert ends.count((3, 1)) > 2


def clear(path: Path) -> None:
    for beside in path.parent.glob(f"*{path.name}?*"):
        beside.unlink()


def killed_at(place: Place, steps: int) -> bool:
    """Start the new release, let it go so many steps of its upgrades, kill it; whether it came so far."""
    gone = place.base / "steps"
    gone.write_text("")
    with daemon_of(place, *later(_SLOWLY)) as new:
        gate = start_slowly(new)
        try:
            os.write(gate, b"." * steps)

            def is_there() -> bool:
                events = [event["event"] for event in new.events()]
                return len(gone.read_text()) > steps or events.count("state.upgraded") == 2

            eventually(is_there, 20, new.tail)
            new.kill()
        finally:
            os.close(gate)
    return len(gone.read_text()) > steps


def start_slowly(daemon: Daemon) -> int:
    """Start a daemon that waits for a byte after each step; return where the bytes are written."""
    read, write = os.pipe()
    with daemon.log_path.open("wb") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, *daemon.program],
            stdin=read,
            stdout=log,
            stderr=log,
            env=daemon.place.variables(),
            cwd=daemon.place.base,
        )
    os.close(read)
    return write


def test_the_service_manager_hears_of_it(place: Place, tmp_path: Path) -> None:
    """While the registry is copied and changed the manager is told what is done, and to wait longer; then READY."""
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)

        def listen() -> None:
            while "READY=1" not in "".join(messages):
                messages.append(listener.recv(4096).decode())

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        noticed = Place(place.base, TRACKING, environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with daemon_of(noticed, *later()) as new:
            new.start()
            thread.join(60)
    text = "\n".join(messages)
    assert "EXTEND_TIMEOUT_USEC=" in text
    assert re.search(r"STATUS=bringing registry.sqlite from format 1 to 3: copying it first", text), text
    assert text.index("STATUS=bringing") < text.index("READY=1")


# --- versions of program and daemon ----------------------------------------------------------------------------------

_OTHER = "import sys, reprod; reprod.__version__ = {version!r}; from reprod.core import protocol; {more}"
_MAIN = "from reprod.__main__ import main; sys.exit(main(sys.argv[1:]))"


def other(version: str, more: str = "") -> tuple[str, ...]:
    """Return the command line of another version."""
    return ("-c", _OTHER.format(version=version, more=f"{more}; " if more else "") + _MAIN)


def test_a_newer_command_with_an_older_daemon(tmp_path: Path) -> None:
    """As long as the protocol is understood it works. One that it does not understand any more, and a method that the
    daemon does not know, are said with both versions and how to restart this very daemon."""
    own, asks = reprod.__version__, "from reprod.client import connect; connect().call('from_tomorrow')"
    with running_daemon(tmp_path) as daemon:
        place = daemon.place
        assert run(place, "status", program=other("99.2")).returncode == 0
        assert run(place, "reload", program=other("99.2")).returncode == 0
        done = run(place, "reload", program=other("99.2", "protocol.OLDEST = 2"))
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.splitlines() == [
            f"error: the daemon is reprod {own} and speaks what is not understood here any more; this is reprod 99.2",
            f"hint: restart it: kill {daemon.pid}, and start it again as it was started: reprod daemon",
        ]
        for command in ("status", "scan"):
            done = run(place, command, program=other("99.2", "protocol.OLDEST = 2"))
            assert (done.returncode, f"the daemon is reprod {own}" in done.stderr) == (3, True), done.stderr
            assert "not running" not in done.stdout
        done = run(place, program=("-c", _OTHER.format(version="99.2", more=asks)))
        assert f"the daemon is reprod {own} and does not know 'from_tomorrow'; this is reprod 99.2" in done.stderr


def test_an_older_command_with_a_newer_daemon(tmp_path: Path) -> None:
    """What both know works; what the daemon does not have any more is said to need the newer command."""
    with running_daemon(tmp_path, program=other("99.2", "sys.argv[1:] = ['daemon']")) as daemon:
        assert daemon.call("hello")["version"] == "99.2"
        for argv in (("status",), ("scan",), ("reload",), ("dataset", "list"), ("prune", "--dry-run")):
            assert run(daemon.place, *argv).returncode == 0, argv
        asks = "from reprod.client import connect; connect().call('from_yesterday')"
        done = run(daemon.place, program=("-c", asks))
        assert "the daemon is reprod 99.2 and does not know 'from_yesterday'" in done.stderr


def test_a_daemon_says_what_it_is(tmp_path: Path) -> None:
    """hello, announce and the answer to an unknown method name protocol, version and pid; started by hand, there is no
    command that restarts it."""
    with running_daemon(tmp_path) as daemon:
        said = {"protocol": protocol.PROTOCOL, "version": reprod.__version__, "pid": daemon.pid, "restart": None}
        assert said.items() <= daemon.call("hello").items()
        assert said.items() <= daemon.call("announce", context=None, dataset="x").items()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(daemon.place.socket))
            connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"from_tomorrow"}\n')
            error = json.loads(connection.recv(1 << 16))["error"]
        assert error["code"] == -32601
        assert said.items() <= error["data"].items()
