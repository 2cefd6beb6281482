"""The daemon as a process: one per state, ends at once, reloads, and one dataset's trouble is its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import STOPPED_S, Daemon, Place, dt1, eventually, is_running, make_data, running_daemon


@pytest.fixture
def daemon(tmp_path: Path, data: Path, name: str) -> Iterator[Daemon]:
    """Yield a daemon with one dataset and no tracking server."""
    with running_daemon(tmp_path / "d", "", {name: data}) as running:
        running.sealed(name, 1)
        yield running


def test_a_second_instance_names_the_first(daemon: Daemon) -> None:
    """A second daemon on the same state exits 75, names the first's pid, and does not disturb it."""
    second = daemon.place.cli("daemon")
    assert second.returncode == 75
    assert f"pid {daemon.pid}" in second.stderr
    assert "hint:" in second.stderr
    assert daemon.answers()


def test_sigterm_when_idle(daemon: Daemon) -> None:
    """SIGTERM ends an idle daemon with 0, leaves no process and no socket, and another can start."""
    children = daemon.children()
    code, seconds = daemon.terminate()
    assert (code, seconds < STOPPED_S) == (0, True), seconds
    eventually(lambda: not [pid for pid in children if is_running(pid)], 10, "no process is left")
    assert not daemon.place.socket.exists()
    daemon.start()


def test_sigterm_during_a_first_scan_loses_nothing(tmp_path: Path, name: str) -> None:
    """SIGTERM while many files are hashed ends the daemon soon, with 0; the next one goes on to the digest."""
    data = tmp_path / "data"
    for folder in range(40):
        (data / f"{folder:02}").mkdir(parents=True)
        for file in range(500):
            (data / f"{folder:02}" / f"{file}.txt").write_bytes(b"%d/%d" % (folder, file))
    place = Place(tmp_path / "d")
    place.register(name, data)
    daemon = Daemon(place)
    try:
        daemon.start()
        eventually(lambda: (daemon.dataset(name)["progress"] or {}).get("files"), 15, "the scan is under way")
        for _ in range(5):
            daemon.status()  # answers meanwhile
        daemon.children()
        code, seconds = daemon.terminate()
        assert (code, seconds < STOPPED_S) == (0, True), (seconds, daemon.tail())
        eventually(lambda: not daemon.children(), 2, "no worker process is left")
        daemon.start()
        assert daemon.sealed(name, 1, 60)["digest"] == dt1(data)
    finally:
        daemon.end()


def test_sigterm_while_starting(tmp_path: Path, data: Path, name: str) -> None:
    """SIGTERM at any moment of the start ends the process soon; none hangs, and the next start works."""
    place = Place(tmp_path / "d")
    place.register(name, data)
    daemon = Daemon(place)
    try:
        for condition in (lambda: True, (place.state / "lock").exists, place.socket.exists):
            daemon.launch()
            eventually(condition, 15, "the moment comes")
            code, seconds = daemon.terminate()
            assert code in {0, -signal.SIGTERM}, daemon.tail()
            assert seconds < STOPPED_S
        daemon.start()
        daemon.sealed(name, 1)
    finally:
        daemon.end()


def test_reload_adds_changes_and_removes_datasets(daemon: Daemon, name: str, data: Path, tmp_path: Path) -> None:
    """SIGHUP and ``reprod reload`` bring the datasets in line with the files; a removed one's history stays, and it
    goes on where it was when it comes back."""
    other = make_data(tmp_path / "other")
    daemon.place.register("second", other)
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_event("config.reloaded", added=["second"])
    daemon.sealed("second", 1)

    daemon.place.register("second", other, exclude=["*.csv"])
    done = daemon.place.cli("reload", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changed"] == ["second"]
    assert daemon.sealed("second", 2)["files"] == 2

    (daemon.place.folder / "second.toml").unlink()
    assert daemon.call("reload")["removed"] == ["second"]
    assert [d["name"] for d in daemon.status()["datasets"]] == [name]
    daemon.place.register("second", other, exclude=["*.csv"])
    daemon.call("reload")
    assert daemon.sealed("second", 2)["version"] == 2
    (data / "part-0.csv").write_text("changed")
    assert daemon.sealed(name, 2)["digest"] == dt1(data)


def test_a_wrong_configuration_is_refused_and_the_old_one_goes_on(
    daemon: Daemon, name: str, data: Path, tmp_path: Path
) -> None:
    """A wrong reprod.toml is refused at reload (78, key and hint said) and nothing changes; a wrong datasets.d file
    disables that dataset alone, and is said; the same reprod.toml at start is 78."""
    good = daemon.place.config.read_text()
    daemon.place.register("late", make_data(tmp_path / "other"))
    daemon.place.config.write_text("[mlflow]\npoll_secnods = 1\n")
    done = daemon.place.cli("reload")
    assert done.returncode == 78
    assert "poll_secnods" in done.stderr
    assert "poll_seconds" in done.stderr
    daemon.wait_event("config.refused")
    assert [d["name"] for d in daemon.status()["datasets"]] == [name]
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: len(daemon.events("config.refused")) == 2, 10, "SIGHUP refuses it too")
    (data / "part-0.csv").write_text("changed")
    daemon.sealed(name, 2)
    elsewhere = {**daemon.place.variables(), "REPROD_STATE_DIR": str(tmp_path / "elsewhere")}
    command = [sys.executable, "-m", "reprod", "daemon"]
    assert subprocess.run(command, env=elsewhere, capture_output=True, timeout=30).returncode == 78

    daemon.place.config.write_text(good)
    (daemon.place.folder / "late.toml").write_text('path = "/x"\ncolour = "blue"\n')
    done = daemon.place.cli("reload")
    assert done.returncode == 78
    assert "colour" in done.stderr
    shown = daemon.dataset("late")
    assert shown["state"] == "misconfigured"
    assert daemon.dataset(name)["state"] == "current"
    daemon.place.register("late", tmp_path / "other")
    assert daemon.place.cli("reload").returncode == 0
    daemon.sealed("late", 1)


def test_a_vanished_root_is_unavailable_until_it_returns(daemon: Daemon, name: str, data: Path, tmp_path: Path) -> None:
    """A root that vanishes makes its dataset unavailable within seconds, others go on; back unchanged it is current
    again without a new version, and nothing was forgotten."""
    other = make_data(tmp_path / "other")
    daemon.place.register("second", other)
    daemon.call("reload")
    daemon.sealed("second", 1)
    data.rename(tmp_path / "away")
    eventually(lambda: daemon.dataset(name)["state"] == "unavailable", 10, "the dataset is unavailable")
    assert any(name in need["what"] for need in daemon.status()["attention"])
    (other / "new.txt").write_text("x")
    assert daemon.sealed("second", 2)["digest"] == dt1(other)
    (tmp_path / "away").rename(data)
    shown = daemon.sealed(name, 1)
    assert (shown["version"], shown["digest"]) == (1, dt1(data))


def test_a_damaged_database_is_that_datasets_trouble_alone(
    daemon: Daemon, name: str, data: Path, tmp_path: Path
) -> None:
    """A dataset's database that turns into garbage under the running daemon is set aside and rebuilt, numbered on, and
    said in status and log; another dataset does not notice."""
    other = make_data(tmp_path / "other")
    daemon.place.register("second", other)
    daemon.call("reload")
    daemon.sealed("second", 1)
    file = daemon.place.state / "datasets" / f"{name}.sqlite"
    for suffix in ("", "-wal", "-shm"):  # the files that are open; the last makes SQLite look at the others again
        with file.with_name(file.name + suffix).open("r+b") as opened:
            opened.write(os.urandom(file.stat().st_size) if suffix != "-shm" else bytes(136))
    (data / "part-0.csv").write_text("changed")
    daemon.wait_event("dataset.rebuilt", 30, dataset=name)
    shown = daemon.sealed(name, 2, 30)
    assert shown["digest"] == dt1(data)
    assert any("damaged and rebuilt" in need["what"] for need in daemon.status()["attention"])
    assert list(file.parent.glob(f"{name}.sqlite.damaged-*"))
    (other / "new.txt").write_text("x")
    assert daemon.sealed("second", 2)["digest"] == dt1(other)
    daemon.restart()
    assert daemon.sealed(name, 2)["digest"] == dt1(data)


def test_every_event_in_the_log_is_a_known_one(daemon: Daemon, name: str, data: Path) -> None:
    """The log is one JSON object a line, and its event names are of the closed list."""
    from reprod.daemon.events import EVENTS

    (data / "part-0.csv").write_text("changed")
    daemon.sealed(name, 2)
    daemon.call("reload")
    daemon.terminate()
    lines = daemon.log_path.read_text().splitlines()
    names = {json.loads(line)["event"] for line in lines}
    assert names <= EVENTS
    assert {"daemon.started", "dataset.refreshed", "config.reloaded", "daemon.stopped"} <= names
