"""sd_notify against real datagram sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprod.daemon.systemd import notify, watchdog_interval_s


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(2)
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
        listener.settimeout(2)
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
