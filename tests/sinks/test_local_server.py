"""The embedded server: real starts and stops, the same address again, and no life without its owner."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reprod.errors import ConfigError, StateError, TrackingError
from reprod.sinks import server as server_module
from reprod.sinks.server import LocalServer, _answers

OWNER = """
import sys, threading
from pathlib import Path
from reprod.sinks.server import LocalServer
server = LocalServer(Path(sys.argv[1]))
server.start()
server.wait_ready(110)
print(server.pid, server.url, flush=True)
threading.Event().wait(60)
"""

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.mlflow
def test_server_dies_with_its_owner_and_comes_back_at_the_same_address(
    tmp_path: Path,
    group_members: Callable[[int], list[int]],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGKILL of the owner ends the whole server; the next owner gets the same port and data, and its stop ends all."""
    monkeypatch.setattr(server_module, "LEFTOVER_S", 60.0)  # a busy machine may need more than two seconds
    state = tmp_path / "a state #1%20?"  # characters that would mean something in a database URI
    state.mkdir()
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(state)], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        group, url = owner.stdout.readline().decode().split()
        assert len(group_members(int(group))) >= 2
    finally:
        owner.kill()
        owner.wait(30)
        owner.stdout.close()
    server = LocalServer(state)
    server.start()  # at once: the leftover is still on its way out
    try:
        assert server.url == url
        until(lambda: group_members(int(group)) == [])
        server.wait_ready(110)
        assert server.is_alive()
        server.start()  # while it runs: nothing
        assert (state / "mlflow.db").is_file()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a state #1%20?"]
        group = server.pid
    finally:
        server.stop()
    until(lambda: group_members(group) == [])  # killed; the kernel may take a moment on a busy machine
    assert not server.is_alive()
    server.stop()


@pytest.mark.mlflow
def test_startup_failure_is_told_with_the_last_line(tmp_path: Path) -> None:
    """A server that cannot open its database ends with an error that quotes its log, not with a long wait."""
    (tmp_path / "mlflow.db").write_text("this is not a database, and long enough to be taken for a broken one" * 20)
    server = LocalServer(tmp_path)
    server.start()
    try:
        with pytest.raises(TrackingError, match="ended while it started") as caught:
            server.wait_ready(60)
        assert str(server.log_path) in caught.value.hint
        assert not server.is_alive()
    finally:
        server.stop()


def test_wait_ends_by_checkpoint_and_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that raises ends the wait at once; without one the bound does."""
    monkeypatch.setattr(LocalServer, "_command", lambda self: [sys.executable, "-c", "import time; time.sleep(60)"])
    server = LocalServer(tmp_path)
    server.start()

    def stop_now() -> None:
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            server.wait_ready(60, stop_now)
        with pytest.raises(TrackingError, match=r"did not answer within 0\.2 s"):
            server.wait_ready(0.2)
        assert server.is_alive()
    finally:
        server.stop()


def test_a_port_taken_by_a_stranger_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a remembered port that somebody else uses another is made and remembered; a wanted one is an error."""
    monkeypatch.setattr(server_module, "LEFTOVER_S", 0.2)
    monkeypatch.setattr(LocalServer, "_command", lambda self: [sys.executable, "-c", "import time; time.sleep(60)"])
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        (tmp_path / "mlflow-port").write_text(f"{port}\n")
        server = LocalServer(tmp_path)
        server.start()
        server.stop()
        remembered = int((tmp_path / "mlflow-port").read_text())
        assert remembered != port
        assert server.url == f"http://127.0.0.1:{remembered}"
        with pytest.raises(TrackingError, match="is taken"):
            LocalServer(tmp_path, port).start()
    (tmp_path / "mlflow-port").write_text("junk")
    server = LocalServer(tmp_path)
    server.start()
    server.stop()
    assert server.url == f"http://127.0.0.1:{int((tmp_path / 'mlflow-port').read_text())}"


def test_bad_state_and_missing_mlflow_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory that cannot be one is a StateError, a missing MLflow a ConfigError; nothing is started."""
    (tmp_path / "file").write_text("")
    server = LocalServer(tmp_path / "file")
    with pytest.raises(StateError):
        server.start()
    assert server.pid is None

    def missing() -> None:
        raise ConfigError("MLflow is not installed")

    monkeypatch.setattr(server_module, "require_mlflow", missing)
    with pytest.raises(ConfigError):
        LocalServer(tmp_path).start()


@pytest.fixture
def stubborn() -> "subprocess.Popen[bytes]":
    """Return a guard over a command that ignores TERM and has a child that does too."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "reprod.sinks.server_guard", "--", sys.executable, "-c", STUBBORN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert guard.stdout is not None
    assert guard.stdout.readline() == b"ready\n"
    return guard


@pytest.mark.parametrize("how", ["eof", "term", "hup"])
def test_guard_ends_even_what_ignores_term(
    stubborn: "subprocess.Popen[bytes]",
    how: str,
    group_members: Callable[[int], list[int]],
    until: Callable[..., None],
) -> None:
    """The end of stdin, a TERM or a HUP to the guard ends the whole group, grandchildren too."""
    assert stubborn.stdin is not None
    assert stubborn.stdout is not None
    if how == "eof":
        stubborn.stdin.close()
    else:
        os.kill(stubborn.pid, signal.SIGTERM if how == "term" else signal.SIGHUP)
    assert stubborn.wait(20) == -signal.SIGKILL
    stubborn.stdin.close()
    stubborn.stdout.close()
    until(lambda: group_members(stubborn.pid) == [])  # the others were killed with it, and may still be dying


def test_stop_ends_a_group_whose_guard_was_killed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group_members: Callable[[int], list[int]],
    until: Callable[..., None],
) -> None:
    """Also a server that lost its guard is ended by stop() and replaced by start()."""
    monkeypatch.setattr(LocalServer, "_command", lambda self: [sys.executable, "-c", "import time; time.sleep(60)"])
    server = LocalServer(tmp_path)
    server.start()
    group = server.pid
    assert group is not None
    until(lambda: len(group_members(group)) == 2)
    os.kill(group, signal.SIGKILL)
    until(lambda: not server.is_alive())
    assert len(group_members(group)) == 1
    server.start()
    until(lambda: group_members(group) == [])
    server.stop()


def test_health_is_asked_of_any_answerer_safely() -> None:
    """Something that is not HTTP, or nothing, is no answer and no exception."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        assert not _answers(dead.getsockname()[1])
