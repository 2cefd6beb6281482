"""Bad places and bad data: a clear error or a state, nothing lost, and never a wrong digest."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from harness import Daemon, Place, Tracker, dt1, eventually, let_slack_pass, running_daemon

from reprod.capture.process.identity import current_context


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[Callable[[], None]]:
    """Mount something at ``at`` for the time of the block (root only, else skip); yields what unmounts it early."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount is not possible here: {done.stderr.strip()}")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "-l", str(at)], capture_output=True)
        yield stack.close


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Append to a file without pause for the time of the block."""
    stop = threading.Event()

    def append() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.002):
                file.write(b"x")

    thread = threading.Thread(target=append, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def test_a_state_directory_that_cannot_be_is_77(tmp_path: Path) -> None:
    """Where the state directory or the socket cannot be made the daemon exits 77, says which path, and gives a hint."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file in its place")
    for variables in ({"REPROD_STATE_DIR": str(blocked)}, {"REPROD_SOCKET": str(blocked / "control.sock")}):
        place = Place(tmp_path / "d", environ=variables)
        done = place.cli("daemon")
        assert done.returncode == 77, done.stderr
        assert f"error: cannot {'write' if 'REPROD_STATE_DIR' in variables else 'listen on'}" in done.stderr
        assert str(blocked) in done.stderr
        assert "hint: " in done.stderr


@pytest.mark.root
def test_a_read_only_state_directory_is_77(tmp_path: Path) -> None:
    """A state directory on a read-only file system ends the start with 77 and a hint."""
    place = Place(tmp_path / "d")
    place.state.mkdir()
    with mounted("-t", "tmpfs", "-o", "mode=700,ro,size=1m", "tmpfs", at=place.state):
        done = place.cli("daemon")
        assert done.returncode == 77, done.stderr
        assert "hint: " in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("left", [0, 60_000])
def test_a_full_state_directory_at_the_start_is_77(tmp_path: Path, left: int) -> None:
    """With no space for the lock's pid, or for the registry, the start ends with 77 and the cure."""
    place = Place(tmp_path / "d")
    place.state.mkdir()
    with mounted("-t", "tmpfs", "-o", "mode=700,size=200k", "tmpfs", at=place.state):
        fill(place.state / "filler")
        os.truncate(place.state / "filler", max(0, (place.state / "filler").stat().st_size - left))
        done = place.cli("daemon")
        assert done.returncode == 77, done.stderr
        assert "hint: free space" in done.stderr


def test_a_damaged_registry_is_set_aside(tmp_path: Path, data: Path, name: str) -> None:
    """A registry of garbage is set aside at the start, said in log and status, and datasets go on where they were; one
    that turns into garbage under the running daemon ends it, not with a traceback, and the next start cures it."""
    with running_daemon(tmp_path / "d", "", {name: data}) as daemon:
        daemon.sealed(name, 1)
        (data / "part-0.csv").write_text("changed")
        daemon.sealed(name, 2)
        daemon.terminate()
        registry = daemon.place.state / "registry.sqlite"
        registry.write_bytes(os.urandom(registry.stat().st_size))
        refreshed = len(daemon.events("dataset.refreshed"))
        daemon.start()
        assert daemon.wait_event("registry.rebuilt")["set_aside"].startswith(str(registry))
        assert daemon.sealed(name, 2)["version"] == 2
        told = eventually(lambda: daemon.events("dataset.refreshed")[refreshed:], 10, "the walk is logged")
        assert told[0]["hashed_files"] == 0
        assert any("registry was damaged" in need["what"] for need in daemon.status()["attention"])

        for suffix in ("", "-wal", "-shm"):
            with registry.with_name(registry.name + suffix).open("r+b") as opened:
                opened.write(os.urandom(registry.stat().st_size) if suffix != "-shm" else bytes(136))
        assert daemon.process is not None
        (data / "part-0.csv").write_text("changed again")  # so that it wants to write there
        daemon.place.register("other", tmp_path)
        daemon.place.cli("reload")
        assert daemon.process.wait(60) == 65, daemon.tail()
        assert "Traceback" not in daemon.tail()
        daemon.start()
        assert daemon.sealed(name, 3)["digest"] == dt1(data)


@pytest.mark.root
@pytest.mark.mlflow
def test_a_full_state_directory_is_a_state(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """With no space left the daemon goes on: it says so, shows the old version and no wrong digest, and captures the
    run that was tagged meanwhile when there is space again."""
    place = Place(tmp_path / "d", tracker.uri)
    place.state.mkdir()
    place.register(name, data)
    daemon = Daemon(place)
    with mounted("-t", "tmpfs", "-o", "mode=700,size=2m", "tmpfs", at=place.state):
        try:
            daemon.start()
            first = daemon.sealed(name, 1)["digest"]
            let_slack_pass()
            filler = place.state / "filler"
            fill(filler)
            for number in range(300):
                (data / f"new-{number:03}.txt").write_text("more rows than the log has room for")
            eventually(lambda: daemon.dataset(name)["state"] == "failed", 15, lambda: f"it fails: {daemon.tail()}")
            shown = daemon.dataset(name)
            assert "no space left" in shown["reason"]
            assert shown["digest"] == first
            fill(filler)
            run_id = tracker.finished_run(name, context=current_context().to_json())
            eventually(lambda: daemon.events("daemon.stuck"), 15, lambda: f"it is said: {daemon.tail()}")
            assert any("no space left" in need["what"] for need in daemon.status()["attention"])
            assert "reprod.state" not in tracker.ours(run_id)
            filler.unlink()
            assert daemon.sealed(name, 2, 30)["digest"] == dt1(data)
            tags = tracker.wait_state(run_id, timeout_s=30)
            assert tags["reprod.digest"] == dt1(data)
            assert daemon.answers()
        finally:
            daemon.end()


def fill(path: Path) -> None:
    """Use up all space of a file system."""
    with path.open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.mark.mlflow
def test_a_file_that_keeps_changing_is_incomplete(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """A run that starts while a file is written ends ``incomplete`` with the reason and no digest anywhere, and stays
    so, because nobody can know any more what it read; when the file has settled, the next run is captured."""
    context = current_context().to_json()
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}) as daemon:
        daemon.sealed(name, 1)
        with growing(data / "log.txt"):
            eventually(lambda: daemon.dataset(name)["state"] == "incomplete", 15, "the dataset is incomplete")
            shown = daemon.dataset(name)
            assert (shown["digest"], shown["complete"]) == (None, False)
            assert shown["problems"][0]["problem"] == "unstable"
            run_id = tracker.finished_run(name, context=context)
            tags = tracker.wait_state(run_id, "incomplete")
            assert name in tags["reprod.error"]
            assert not [key for key in tags if key.startswith(("reprod.digest", "reprod.version"))]
            assert "data_files_count" not in tracker.client.get_run(run_id).data.metrics
            assert not tracker.client.get_run(run_id).inputs.dataset_inputs
            assert "data_manifest/data_manifest.json" not in tracker.artifacts(run_id)
        daemon.sealed(name, 2)
        let_slack_pass()
        later = tracker.finished_run(name, context=context)
        assert tracker.wait_state(later)["reprod.digest"] == dt1(data)
        assert tracker.ours(run_id)["reprod.state"] == "incomplete"


@pytest.mark.root
@pytest.mark.mlflow
def test_an_unreadable_file_is_incomplete_until_it_can_be_read(
    tmp_path: Path, data: Path, name: str, tracker: Tracker
) -> None:
    """A run whose dataset holds a file that gives an I/O error is ``incomplete``, says which reason, and has no digest;
    when the file can be read and is older than the run, the history proves the start and the run is captured."""
    victim = data / "sub" / "victim.bin"
    victim.write_bytes(b"")
    # Reading a process's memory at address 0 is an I/O error, for root too.
    with (
        mounted("--bind", f"/proc/{os.getpid()}/mem", at=victim) as unmount,
        running_daemon(tmp_path / "d", tracker.uri, {name: data}) as daemon,
    ):
        eventually(lambda: daemon.dataset(name)["state"] == "incomplete", 15, lambda: f"{daemon.tail()}")
        assert daemon.dataset(name)["problems"][0]["problem"] == "unreadable"
        let_slack_pass()
        run_id = tracker.finished_run(name, context=current_context().to_json())
        tags = tracker.wait_state(run_id, "incomplete")
        assert not [key for key in tags if key.startswith(("reprod.digest", "reprod.version"))]
        unmount()
        daemon.call("scan", name=name)
        tags = tracker.wait_state(run_id)
        assert tags["reprod.digest"] == dt1(data)
        assert tags["reprod.bound"] == "ctime"
        assert "reprod.error" not in tags
