"""Faults of disk, clock, machine and neighbours under a real daemon: said while they last, cured without a hand.

Errors of system calls are injected by strace into the running daemon and end with strace. The clock is that of
libfaketime: the daemon's own and its children's, while the kernel's (ctimes) and the users' stays. Times are seconds.
"""

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import (
    Daemon,
    Place,
    Tracker,
    dt1,
    eventually,
    let_events_tell_apart,
    let_slack_pass,
    make_data,
    running_daemon,
)
from mlflow_proxy import Proxy

from reprod.capture.process.identity import current_context
from reprod.errors import DaemonUnavailableError

LIBFAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"  # where Debian's package has it

RUNS = 5  # that wait while the server is away

#: The clock is looked at twice a second here, not every five; with few descriptors from the first moment on.
QUICK_CLOCK = """
import sys
from reprod.daemon import clock_watch
clock_watch.LOOK_S = 0.5
from reprod.__main__ import main
sys.exit(main(["daemon"]))
"""
FEW_DESCRIPTORS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from reprod.__main__ import main
sys.exit(main(["daemon"]))
"""


@contextmanager
def injected(daemon: Daemon, *rules: str, paths: tuple[Path, ...] = ()) -> Iterator[None]:
    """Have system calls of the daemon and its children fail for the time of the block, or skip where that cannot be."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    only = [argument for path in paths for argument in ("-P", str(path))]
    injections = [argument for rule in rules for argument in ("-e", f"inject={rule}")]
    calls = ",".join(rule.split(":")[0] for rule in rules)
    process = subprocess.Popen(
        [strace, "-f", "-o", os.devnull, "-p", str(daemon.pid), *only, "-e", f"trace={calls}", *injections],
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            eventually(lambda: process.poll() is not None or is_traced(daemon.pid), 10, "strace is at work")
            if process.poll() is not None and process.stderr is not None:
                pytest.skip(f"strace cannot attach here: {process.stderr.read().decode().strip()}")
            yield
        finally:
            process.terminate()
            process.wait(10)


def is_traced(pid: int) -> bool:
    """Whether every thread of a process has a tracer."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            if "TracerPid:\t0\n" in (task / "status").read_text():
                return False
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has just ended
    return True


def make_many(root: Path, count: int, size: int = 100) -> Path:
    """Make many files, a hundred in a folder."""
    for number in range(count):
        folder = root / f"{number // 100:03}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number}.bin").write_bytes(b"%d " % number + bytes(size))
    return root


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("read,readv:error=EIO", "unreadable"),
        ("read,readv:retval=10:when=1+2", "unstable"),  # ten bytes of whatever was in the buffer, then a real read
        ("read,readv:retval=0", "unstable"),
    ],
    ids=["EIO", "short", "nothing"],
)
def test_reads_that_fail_or_give_too_little_invent_no_digest(
    tmp_path: Path, name: str, fault: str, problem: str
) -> None:
    """A small file that a worker reads and a large one fail to read or give less than their size: these two are named
    as problems, the dataset is incomplete without a digest; when reads work again it is whole without a hand."""
    data = make_many(tmp_path / "data", 400)
    victims = (data / "000" / "1.bin", data / "large.bin")
    with running_daemon(tmp_path / "d", "", {name: data}, watch={"reconcile_seconds": 1}) as daemon:
        daemon.sealed(name, 1)
        with injected(daemon, fault, paths=victims):
            victims[1].write_bytes(b"large" * 500_000)
            for path in (data / "000").iterdir():
                path.write_bytes(b"written again")
            told: dict[str, Any] = {}  # one answer: a next read may give all, and fail again then

            def are_named() -> bool:
                told.update(daemon.status())
                return any(each["problem_count"] == 2 for each in told["datasets"] if each["name"] == name)

            eventually(are_named, 15, daemon.tail)
            shown = next(each for each in told["datasets"] if each["name"] == name)
            assert (shown["state"], shown["digest"], shown["complete"]) == ("incomplete", None, False)
            found = {found["path"]: found["problem"] for found in shown["problems"]}
            assert found == {"000/1.bin": problem, "large.bin": problem}
            assert any("2 entries cannot be read" in need["what"] for need in told["attention"])
        wanted = ("current", dt1(data))  # it walks every second, and is scanning then
        eventually(lambda: [daemon.dataset(name)[key] for key in ("state", "digest")] == [*wanted], 20, daemon.tail)


@pytest.mark.mlflow
def test_a_state_directory_that_becomes_read_only_is_a_state(
    tmp_path: Path, data: Path, name: str, tracker: Tracker
) -> None:
    """When nothing can be written to STATE any more the daemon goes on with the old digest and says so; a run that is
    tagged meanwhile, and a change, are taken in when it can be written again."""
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}) as daemon:
        first = daemon.sealed(name, 1)["digest"]
        eventually(lambda: daemon.status()["tracking"]["state"] == "reachable", 15, "it polls")
        let_slack_pass()
        with injected(daemon, "pwrite64,pwritev,ftruncate,fallocate,mkdir,unlink,rename:error=EROFS"):
            run_id = tracker.finished_run(name, context=current_context().to_json())
            eventually(lambda: daemon.events("daemon.stuck"), 15, daemon.tail)
            let_events_tell_apart()
            (data / "part-0.csv").write_text("changed on a read-only disk")
            eventually(lambda: daemon.dataset(name)["state"] == "failed", 15, daemon.tail)
            shown = daemon.dataset(name)
            assert shown["digest"] == first
            assert str(daemon.place.state) in shown["reason"]
            said = [need["what"] for need in daemon.status()["attention"]]
            assert any("nothing can be written down" in what for what in said), said
            assert "reprod.state" not in tracker.ours(run_id)
        assert daemon.sealed(name, 2)["digest"] == dt1(data)
        assert tracker.wait_state(run_id)["reprod.digest"] == first


@pytest.mark.root
def test_a_disk_that_fills_up_during_a_first_scan(tmp_path: Path, name: str) -> None:
    """No space left in the middle of a first scan: never a version of a part of the files, ``status --check`` fails;
    with more space the same process goes on to the oracle's digest."""
    data = make_many(tmp_path / "data", 8000, 1)
    place = Place(tmp_path / "d")
    place.state.mkdir()
    place.register(name, data)
    daemon = Daemon(place)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=900k", "tmpfs", place.state]).returncode:
        pytest.skip("mounting is not possible here")
    try:
        daemon.start()
        eventually(lambda: daemon.dataset(name)["state"] == "failed", 20, daemon.tail)
        shown = daemon.dataset(name)
        assert "no space left" in shown["reason"]
        assert (shown["version"], shown["files"], shown["digest"]) == (None, None, None)
        assert place.cli("status", "--check").returncode == 1
        subprocess.run(["mount", "-o", "remount,size=64m", place.state], check=True)
        shown = daemon.sealed(name, 1, 20)
        assert (shown["digest"], shown["files"], shown["version"]) == (dt1(data), 8000, 1)
    finally:
        daemon.end()
        subprocess.run(["umount", "-l", place.state])


@pytest.mark.mlflow
def test_clock_steps_invent_nothing(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """The wall clock is set a day back, ten years on, and right again: said each time, no version without a change, a
    change with an old mtime is found within seconds, and no run gets a digest of anything but its start."""
    if not Path(LIBFAKETIME).exists():
        pytest.skip("libfaketime is not installed")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    fake = {
        "LD_PRELOAD": LIBFAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    program = ("-c", QUICK_CLOCK)
    runs: dict[str, str] = {}
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}, environ=fake, program=program) as daemon:
        daemon.sealed(name, 1)
        for number, offset in enumerate(("-1d", "+0", "+10y", "+0"), start=1):
            let_slack_pass()
            runs[tracker.finished_run(name)] = dt1(data)
            clock.write_text(offset)
            eventually(lambda n=number: len(daemon.events("clock.stepped")) == n, 10, daemon.tail)
            daemon.call("scan", name=name)
            assert daemon.dataset(name)["version"] == number
            victim = data / "part-0.csv"
            before = victim.stat()
            with victim.open("r+b") as file:  # in place: an empty file between would rightly be a version
                file.write(b"%d" % number * before.st_size)
            os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
            shown = daemon.sealed(name, number + 1, 5)
            assert (shown["version"], shown["digest"]) == (number + 1, dt1(data))
            if offset == "+0":  # it is right again: what starts now is known
                let_slack_pass()
                assert tracker.wait_state(tracker.finished_run(name))["reprod.digest"] == dt1(data)
        for run_id, truth in runs.items():
            eventually(lambda run_id=run_id: "reprod.state" in tracker.ours(run_id), 20, daemon.tail)
            tags = tracker.ours(run_id)
            assert tags.get("reprod.digest") == (truth if tags["reprod.state"] == "captured" else None), tags


@pytest.mark.mlflow
def test_a_suspended_daemon_misses_nothing(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """Stopped for three seconds while files change and a run starts: the client says that it does not answer; when it
    goes on, all changes are found and the run has the digest of its start."""
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}) as daemon:
        daemon.sealed(name, 1)
        eventually(lambda: daemon.status()["tracking"]["state"] == "reachable", 15, "it polls")
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            make_many(data / "new", 300)
            let_slack_pass()
            run_id = tracker.finished_run(name, context=current_context().to_json())
            with pytest.raises(DaemonUnavailableError, match="does not answer"):
                daemon.call("status", timeout_s=3)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        assert daemon.sealed(name, 2)["digest"] == dt1(data)
        assert tracker.wait_state(run_id)["reprod.digest"] == dt1(data)


@pytest.mark.mlflow
def test_64_descriptors_are_enough_and_running_out_is_survived(
    tmp_path: Path, data: Path, name: str, tracker: Tracker
) -> None:
    """With 64 file descriptors three datasets, one of them in 60 folders, are scanned and a run is captured; clients
    that take all that is left get no answer, but the daemon lives, and answers when they have gone."""
    roots = {name: data, name + "many": make_many(tmp_path / "many", 6000), name + "third": make_data(tmp_path / "3")}
    with running_daemon(tmp_path / "d", tracker.uri, roots, program=("-c", FEW_DESCRIPTORS)) as daemon:
        assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (64, 64)
        assert {n: daemon.sealed(n, 1, 30)["digest"] for n in roots} == {n: dt1(root) for n, root in roots.items()}
        let_slack_pass()
        assert tracker.wait_state(tracker.finished_run(name))["reprod.digest"] == dt1(data)
        with crowd(daemon.place.socket, 70):
            (data / "part-0.csv").write_text("changed in a crowd")
            make_many(data / "more", 600)
            eventually(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) >= 60, 10, "no descriptor is left")
        # Without a descriptor for its watch the dataset is polled, every 30 s.
        eventually(lambda: daemon.dataset(name)["digest"] == dt1(data), 45, daemon.tail)
        let_slack_pass()
        assert tracker.wait_state(tracker.finished_run(name))["reprod.digest"] == dt1(data)


@contextmanager
def crowd(path: Path, count: int) -> Iterator[None]:
    """Hold as many connections open as the daemon takes."""
    import socket

    connected = []
    try:
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            connected.append(client)
            try:
                client.connect(str(path))
            except BlockingIOError:  # its backlog is full
                break
        yield
    finally:
        for client in connected:
            client.close()


class PipedDaemon(Daemon):
    """Logs into a pipe, whose other end is ``reader``."""

    reader = -1

    def launch(self) -> None:
        self.reader, writer = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, *self.program],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env=self.place.variables(),
            cwd=self.place.base,
        )
        os.close(writer)

    def fill(self) -> None:
        """Fill the pipe to its last byte, and leave no room for one line."""
        writer = os.open(f"/proc/{self.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while os.write(writer, b"x" * 512):
                pass
        except BlockingIOError:
            return
        finally:
            os.close(writer)

    def take(self) -> bytes:
        """Return what is in the pipe."""
        flags = fcntl.fcntl(self.reader, fcntl.F_GETFL)
        fcntl.fcntl(self.reader, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        return os.read(self.reader, 1 << 20)


@pytest.mark.parametrize("vanished", [True, False], ids=["vanished", "full"])
def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path, data: Path, name: str, *, vanished: bool) -> None:
    """Standard error is a pipe whose reader has gone, or lives and does not read: datasets are kept up to date, status
    answers, SIGTERM ends it with 0; who reads again gets whole lines, and is told how many are missing."""
    place = Place(tmp_path / "d")
    place.register(name, data)
    daemon = PipedDaemon(place)
    try:
        daemon.start()
        daemon.sealed(name, 1)
        if vanished:
            os.close(daemon.reader)
        else:
            daemon.fill()
        for number in range(2, 4):
            (data / "part-0.csv").write_text(f"change {number}")
            assert daemon.sealed(name, number)["digest"] == dt1(data)
        if not vanished:
            daemon.take()
            daemon.call("reload")
            daemon.log_path.write_bytes(daemon.take())
            assert daemon.events("config.reloaded")
            # Of the two lines of the versions the last may have come when there was room again; whichever line came
            # first then says how many are missing.
            lost, came = (event.get("lines_lost", 0) for event in daemon.events()), daemon.events("dataset.refreshed")
            assert (missing := sum(lost)) >= 1
            assert missing + len(came) >= 2
        assert daemon.terminate()[0] == 0
    finally:
        daemon.end()


def test_workers_killed_while_they_hash(tmp_path: Path, name: str) -> None:
    """Workers are stopped in the middle of a scan and killed, three times: nothing is missing, and nothing failed."""
    data = make_many(tmp_path / "data", 6000, 4000)
    with running_daemon(tmp_path / "d") as daemon:
        daemon.place.register(name, data)
        daemon.call("reload")
        killed: set[int] = set()
        while len(killed) < 3:
            found = eventually(lambda: workers(daemon).difference(killed), 5, daemon.tail)  # noqa: B023 - called at once
            for pid in found:
                os.kill(pid, signal.SIGSTOP)  # what it holds cannot be finished without a death
            assert daemon.dataset(name)["state"] == "scanning"
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            killed |= found
        shown = daemon.sealed(name, 1, 20)
        assert (shown["digest"], shown["files"], shown["version"]) == (dt1(data), 6000, 1)
        assert not daemon.events("dataset.failed")


def workers(daemon: Daemon) -> set[int]:
    """Return the worker processes that hash for the daemon now."""
    found: set[int] = set()
    for task in Path(f"/proc/{daemon.pid}/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
            found |= {int(pid) for pid in pids if b"reprod.fs.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread or a worker that has just ended
    return found


@pytest.mark.mlflow
def test_a_full_outbox_is_said_and_emptied(
    tmp_path: Path, data: Path, name: str, mlflow_server: str, tracker: Tracker
) -> None:
    """The server goes away with runs in the outbox: status counts them, also after kill -9 and a restart while it is
    still away; when it is back each is captured once."""
    proxy = Proxy(mlflow_server)
    with running_daemon(tmp_path / "d", proxy.url, {name: data}) as daemon:
        daemon.sealed(name, 1)
        daemon.kill()
        let_slack_pass()
        context = current_context().to_json()
        runs = [tracker.finished_run(name, context=context) for _ in range(RUNS)]
        proxy.cut_at(0, "before", proxy.go_away)
        for start in (daemon.start, daemon.restart):
            start()
            eventually(lambda: daemon.status()["tracking"]["state"] == "unreachable", 20, daemon.tail)
            status = daemon.status()
            assert status["runs"]["waiting"] == len(runs)
            assert any(need["hint"].startswith(f"{len(runs)} runs wait") for need in status["attention"])
        proxy.listen()
        for run_id in runs:
            assert tracker.wait_state(run_id)["reprod.digest"] == dt1(data)
            assert len(tracker.history(run_id, "data_files_count")) == 1
        eventually(lambda: daemon.status()["runs"]["waiting"] == 0, 10, "nothing waits any more")
    proxy.go_away()
