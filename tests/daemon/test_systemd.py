"""sd_notify against real datagram sockets, and what a real daemon sends over its life."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import psutil
import pytest
from waiting import eventually

from reprod.client import Client
from reprod.daemon import systemd
from reprod.daemon.headline import headline
from reprod.daemon.systemd import Startup, keep_told, notify, watchdog_interval_s


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def test_fields_arrive(manager: socket.socket) -> None:
    """Every field is one line of one datagram, and a line break in a status cannot add a field."""
    assert notify(READY=1, STATUS="3 datasets\nMAINPID=1") is True
    assert manager.recv(4096) == b"READY=1\nSTATUS=3 datasets MAINPID=1"


def test_reloading_carries_the_clock(manager: socket.socket) -> None:
    """systemd refuses RELOADING without a monotonic time stamp, so there is one."""
    assert notify(RELOADING=1)
    lines = dict(line.split("=") for line in manager.recv(4096).decode().splitlines())
    assert lines["RELOADING"] == "1"
    assert int(lines["MONOTONIC_USEC"]) > 0


def test_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ is an abstract socket."""
    name = f"reprod-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert notify(STOPPING=1, EXTEND_TIMEOUT_USEC=5_000_000)
        assert listener.recv(4096) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=5000000"


@pytest.mark.parametrize("address", [None, "", "/nonexistent/socket", "vsock:2:1234", "/" + "x" * 200, "/etc/hostname"])
def test_silent_without_a_manager(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    """An absent, foreign or broken address costs nothing and raises nothing."""
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify(READY=1) is False


def test_full_queue_does_not_block(manager: socket.socket) -> None:
    """A manager that does not read cannot stall us: the message is dropped."""
    assert not all(notify(STATUS="x" * 2000) for _ in range(2000))


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", "self", 15.0),
        ("30000000", None, 15.0),
        ("30000000", "1", None),
        ("0", "self", None),
        ("soon", "self", None),
        (None, None, None),
    ],
)
def test_watchdog(monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, expected: float | None) -> None:
    """The interval is half of the allowed time, and only for the process that is meant."""
    for key, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)):
        if value is None:
            monkeypatch.delenv(key, raising=False)
        else:
            monkeypatch.setenv(key, value)
    assert watchdog_interval_s() == expected


# --- over time -------------------------------------------------------------------------------------------------------


def test_a_start_asks_for_time_until_it_is_over(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start asks for more time at once and again and again, and not once more after it said that it is over; one that
    failed asks no more either."""
    monkeypatch.setattr(
        systemd, "EXTEND_EVERY_S", 0.1
    )  # the queue of a socket holds ten: for a second of being held up
    with Startup("opening") as startup:
        assert manager.recv(4096) == b"STATUS=opening\nEXTEND_TIMEOUT_USEC=30000000"
        assert [manager.recv(4096) for _ in range(3)] == [b"EXTEND_TIMEOUT_USEC=30000000"] * 3
        startup.end("watching")
        rest = received(manager, 0.3)
        ready = rest.index(b"READY=1\nSTATUS=watching")
        assert len(rest) - ready <= 2  # one more may have been on its way
    with pytest.raises(ValueError, match="failed"), Startup("opening again"):
        raise ValueError("failed")
    received(manager, 0.3)
    assert received(manager, 0.2) == []


def test_a_start_does_not_ask_for_ever(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is ended by the manager in the end."""
    monkeypatch.setattr(systemd, "EXTEND_EVERY_S", 0.02)
    monkeypatch.setattr(systemd, "LONGEST_START_S", 0.1)
    with Startup("opening"):
        received(manager, 0.3)
        assert received(manager, 0.2) == []


async def test_the_line_is_sent_when_it_changes(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status line goes out once for each change, however often it is looked at."""
    monkeypatch.setattr(systemd, "STATUS_EVERY_S", 0.01)
    lines = ["one", "one", "one", "two", "two"]
    async with anyio.create_task_group() as group:

        def look() -> str:
            if len(lines) == 1:
                group.cancel_scope.cancel()
            return lines.pop(0)

        group.start_soon(keep_told, look)
    assert received(manager, 0.1) == [b"STATUS=one", b"STATUS=two"]


def received(manager: socket.socket, for_s: float) -> list[bytes]:
    """Return all that comes within a time."""
    until, found = time.monotonic() + for_s, []
    while (left := until - time.monotonic()) > 0:
        manager.settimeout(left)
        try:
            found.append(manager.recv(4096))
        except TimeoutError:
            break
    manager.settimeout(30)
    return found


# --- the line --------------------------------------------------------------------------------------------------------


def work(name: str, state: str = "current", files: int | None = 3, **more: Any) -> Any:
    """Return what the line needs of a dataset's work."""
    report = None if files is None else SimpleNamespace(version=SimpleNamespace(files=files, size=1))
    whole = SimpleNamespace(name=name)
    elapsed_s = more.pop("elapsed_s", 60.0)
    shown = {"progress": None, "expected": None, "elapsed_s": lambda: elapsed_s, **more}
    return SimpleNamespace(dataset=whole, state=state, report=report, **shown)


def line(*works: Any, stuck: object = None, misconfigured: tuple[str, ...] = (), tracking: str = "reachable") -> str:
    """Return the line of a daemon with these at work."""
    wrong = tuple(SimpleNamespace(name=name) for name in misconfigured)
    daemon: Any = SimpleNamespace(
        works={w.dataset.name: w for w in works},
        stuck=stuck,
        config=SimpleNamespace(misconfigured=wrong),
        tracking=SimpleNamespace(state=tracking),
    )
    return headline(daemon)


def half() -> Any:
    """Return the counts of a walk that has seen 620 files."""
    return SimpleNamespace(files=620, bytes=0, hashed_files=0, hashed_bytes=0, directories=0)


NONE_READ = "watching 4 datasets, 0 files"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (line(), "no dataset is registered"),
        (line(work("a", files=1)), "watching 1 dataset, 1 file"),
        (line(work("a", files=1_234_567), work("b")), "watching 2 datasets, 1,234,570 files"),
        (line(work("a", files=1000, progress=half())), "scanning a 62 %"),
        (line(work("a", files=1000, progress=half(), elapsed_s=0.5)), "watching 1 dataset, 1,000 files"),
        (line(work("a", files=None, progress=half())), "scanning a 620 files"),
        (line(work("a", "unavailable"), work("b")), "watching 2 datasets, 6 files; a unavailable"),
        (line(*(work(c, "failed", 0) for c in "abcd")), f"{NONE_READ}; a failed; b failed; c failed; 1 more"),
        (line(work("a"), misconfigured=("x",)), "watching 1 dataset, 3 files; x misconfigured"),
        (line(work("a"), tracking="unreachable"), "watching 1 dataset, 3 files; tracking server unreachable"),
        (line(work("a"), stuck=OSError()), "watching 1 dataset, 3 files; nothing can be written down"),
    ],
)  # fmt: skip
def test_the_line_says_what_is_done_and_what_is_wrong(shown: str, expected: str) -> None:
    """The status line names what is read first, then what needs a person, and stays one line."""
    assert shown == expected


# --- a real daemon ---------------------------------------------------------------------------------------------------


@contextmanager
def running(
    base: Path, program: tuple[str, ...] = ("-m", "reprod", "daemon"), **variables: str
) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[str], bytes]]]:
    """Run the daemon with a listener for what it tells; yields the process and a wait for a message with a part."""
    (base / "data").mkdir()
    (base / "data" / "a").write_text("one")
    (base / "datasets.d").mkdir()
    (base / "datasets.d" / "d.toml").write_text(f"path = {json.dumps(str(base / 'data'))}\n")
    (base / "reprod.toml").write_text("")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "REPROD_", "WATCHDOG_"))}
    places = {"REPROD_STATE_DIR": str(base / "state"), "REPROD_CONFIG": str(base / "reprod.toml")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, (base / "log").open("wb") as log:
        listener.bind(str(base / "notify"))
        listener.settimeout(30)
        process = subprocess.Popen(
            [sys.executable, *program],
            env={**kept, **places, "NOTIFY_SOCKET": str(base / "notify"), **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

        def wait_for(part: str) -> bytes:
            while part.encode() not in (message := listener.recv(4096)):
                assert not message.startswith(b"READY=1"), f"{message!r} before {part}"
            return message

        try:
            yield process, wait_for
        finally:
            process.kill()
            process.wait(10)


def is_at_rest(pid: int) -> bool:
    """Return whether the process has used no processor for a moment."""
    used = psutil.Process(pid).cpu_times()
    time.sleep(0.3)
    return psutil.Process(pid).cpu_times() == used


def now_usec() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_what_a_daemon_tells_from_start_to_stop(tmp_path: Path) -> None:
    """8: a daemon says what it opens, READY once, life signs as often as asked for; for a SIGHUP RELOADING and the
    moment in one datagram, then READY again; and STOPPING before it ends with 0."""
    with running(tmp_path, WATCHDOG_USEC="1000000") as (process, wait_for):
        assert b"EXTEND_TIMEOUT_USEC=30000000" in wait_for("STATUS=opening the registry")
        assert wait_for("READY=1").startswith(b"READY=1\nSTATUS=watching 1 dataset")
        for _ in range(3):
            assert wait_for("WATCHDOG=1") == b"WATCHDOG=1"
        assert wait_for("1 file") == b"STATUS=watching 1 dataset, 1 file"

        before = now_usec()
        process.send_signal(signal.SIGHUP)
        fields = dict(line.split("=", 1) for line in wait_for("RELOADING=1").decode().splitlines())
        assert before <= int(fields["MONOTONIC_USEC"]) <= now_usec()
        assert wait_for("READY=1").startswith(b"READY=1\nSTATUS=watching 1 dataset")

        process.send_signal(signal.SIGTERM)
        assert wait_for("STOPPING=1") == b"STOPPING=1\nSTATUS=stopping"
        assert process.wait(30) == 0


SLOW_RELOAD = """
import anyio, sys
from reprod.daemon import reload
async def slowly(daemon):
    await anyio.sleep({seconds})
    return {{}}
reload.reload = slowly
sys.argv = ["reprod", "daemon"]
from reprod.__main__ import main
main()
"""


def test_a_reload_that_hangs_keeps_no_stop_waiting(tmp_path: Path) -> None:
    """A SIGTERM while the configuration is read again, which a dead mount may hold up, ends the daemon at once."""
    with running(tmp_path, program=("-c", SLOW_RELOAD.format(seconds=600))) as (process, wait_for):
        wait_for("READY=1")
        process.send_signal(signal.SIGHUP)
        wait_for("RELOADING=1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_reloads_come_one_after_the_other(tmp_path: Path) -> None:
    """Two reloads at once, by signal and by command, are one and then the other: each has its own end told."""
    with running(tmp_path, program=("-c", SLOW_RELOAD.format(seconds=0.3))) as (process, wait_for):
        wait_for("READY=1")
        process.send_signal(signal.SIGHUP)
        wait_for("RELOADING=1")
        with Client(tmp_path / "state" / "control.sock", timeout_s=10) as client:
            client.call("reload")
        for expected in ("READY=1", "RELOADING=1", "READY=1"):
            assert expected in wait_for("=1\n").decode()


def test_a_daemon_that_is_aborted_leaves_its_stacks(tmp_path: Path) -> None:
    """The SIGABRT of a watchdog has every thread's Python stack written to standard error before the process ends."""
    with running(tmp_path) as (process, wait_for):
        wait_for("READY=1")
        wait_for("1 file")
        eventually(lambda: is_at_rest(process.pid), 60, "no thread runs: its frames would be read while they change")
        process.send_signal(signal.SIGABRT)
        assert process.wait(30) == -signal.SIGABRT
    said = (tmp_path / "log").read_text()
    assert "Fatal Python error: Aborted" in said
    assert "run_forever" in said


def test_a_daemon_without_standard_error_starts(tmp_path: Path) -> None:
    """Where nothing can be written no stack can be left; the daemon runs all the same."""
    closing = "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, '-m', 'reprod', 'daemon'])"
    with running(tmp_path, program=("-c", closing)) as (_, wait_for):
        wait_for("READY=1")
