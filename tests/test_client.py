"""The control-socket client against a scripted server: whatever the other side does, the wait ends clearly."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reprod import errors
from reprod.client import Client, connect

Script = Callable[[socket.socket, dict[str, Any]], None]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of its own, without a daemon."""
    for variable in ("REPROD_SOCKET", "REPROD_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path))
    return tmp_path


@contextmanager
def serving(path: Path, script: Script, *, connections: int = 10) -> Iterator[None]:
    """Answer each request line of each connection with ``script(connection, request)`` until the end of the block."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(connections)
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                try:
                    script(connection, json.loads(line))
                except OSError:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=talk, args=(connection,), daemon=True)
            thread.start()
            threads.append(thread)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for thread in threads:
            thread.join(5)


def send(connection: socket.socket, **message: Any) -> None:
    connection.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def echo(connection: socket.socket, request: dict[str, Any]) -> None:
    send(connection, id=request["id"], result={"method": request["method"], "params": request["params"]})


def test_calls_share_one_connection(state: Path) -> None:
    """Several calls go over one connection and each gets its own answer."""
    with serving(state / "control.sock", echo), connect() as client:
        assert client.call("hello") == {"method": "hello", "params": {}}
        assert client.call("status", {"name": "x\n\udcff"})["params"] == {"name": "x\n\udcff"}
        assert client.path == state / "control.sock"


def test_progress_comes_before_the_result(state: Path) -> None:
    """Notifications are handed over in order; foreign ones and late answers to other requests are passed over."""

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        send(connection, method="progress", params={"files": 1})
        send(connection, method="gossip", params={"files": 99})
        send(connection, id=12345, result={})
        send(connection, method="progress", params={"files": 2})
        send(connection, id=request["id"], result={"done": True})

    seen: list[dict[str, Any]] = []
    with serving(state / "control.sock", script), connect() as client:
        assert client.call("scan", on_progress=seen.append) == {"done": True}
    assert seen == [{"files": 1}, {"files": 2}]


def test_a_large_answer_arrives_in_pieces(state: Path) -> None:
    """An answer of several megabytes, sent in odd pieces, is one answer."""
    text = "é" * 2_000_000

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        line = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"text": text}}).encode() + b"\n"
        connection.sendall(line[:7])
        connection.sendall(line[7:])

    with serving(state / "control.sock", script), connect() as client:
        assert client.call("status")["text"] == text


def test_an_error_becomes_its_class(state: Path) -> None:
    """The daemon's exit code selects the class; message and hint arrive."""

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        code = int(request["params"]["code"])
        error = {"code": -32000, "message": f"no {code}", "data": {"exit_code": code, "hint": "do"}}
        send(connection, id=request["id"], error=error)

    with serving(state / "control.sock", script), connect() as client:
        for kind in errors.ALL:
            with pytest.raises(kind) as caught:
                client.call("x", {"code": kind.exit_code})
            assert type(caught.value) is kind
            assert (caught.value.message, caught.value.hint) == (f"no {kind.exit_code}", "do")


def test_an_unknown_method_says_restart(state: Path) -> None:
    """A newer command with an older daemon is told to restart it."""

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        send(connection, id=request["id"], error={"code": -32601, "message": "Method not found"})

    with serving(state / "control.sock", script), connect() as client:
        with pytest.raises(errors.DaemonUnavailableError, match="does not know 'purge'") as caught:
            client.call("purge")
        assert "restart" in caught.value.hint


@pytest.mark.parametrize(
    "answer", [b"not json\n", b"[1]\n", b'{"id": 1}\n', b'{"id": 1, "result": 3}\n', b"[" * 9999 + b"\n"]
)
def test_strange_answers(state: Path, answer: bytes) -> None:
    """Something else than a reprod daemon behind the socket is said to be so."""
    with serving(state / "control.sock", lambda connection, _: connection.sendall(answer)), connect() as client:
        with pytest.raises(errors.DaemonUnavailableError) as caught:
            client.call("hello")
        assert "another version" in caught.value.hint


def test_silence_is_bounded(state: Path) -> None:
    """A hung daemon ends the call after the time-out, and the connection is not used again."""
    with serving(state / "control.sock", lambda *_: None), connect() as client:
        began = time.monotonic()
        with pytest.raises(errors.DaemonUnavailableError, match="does not answer"):
            client.call("status", timeout_s=0.2)
        assert time.monotonic() - began < 2
        assert client._socket is None


def test_patience_while_the_daemon_lives(state: Path) -> None:
    """A patient call outlives the time-out as long as a second connection is answered, and no longer."""
    alive = threading.Event()
    alive.set()
    asked = threading.Event()
    release = threading.Event()

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        if request["method"] == "hello":
            asked.set()
            if alive.is_set():
                send(connection, id=request["id"], result={})
        elif request["params"]["answers"]:
            release.wait(10)
            send(connection, id=request["id"], result={"done": True})

    with serving(state / "control.sock", script), connect(timeout_s=0.2) as client:
        threading.Thread(target=lambda: (asked.wait(10), release.set()), daemon=True).start()
        assert client.call("scan", {"answers": True}, timeout_s=0.1, patient=True) == {"done": True}
        alive.clear()
        with pytest.raises(errors.DaemonUnavailableError, match="does not answer"):
            client.call("scan", {"answers": False}, timeout_s=0.1, patient=True)


def test_a_daemon_that_goes_away(state: Path) -> None:
    """A closed connection is an error that says so, also in the middle of a line."""

    def script(connection: socket.socket, _: dict[str, Any]) -> None:
        connection.sendall(b'{"jsonrpc"')
        connection.shutdown(socket.SHUT_RDWR)

    with (
        serving(state / "control.sock", script),
        connect() as client,
        pytest.raises(errors.DaemonUnavailableError, match="closed the connection"),
    ):
        client.call("status")


def test_no_socket(state: Path) -> None:
    """Without a socket the error comes at once, names the place and says what to start."""
    began = time.monotonic()
    with pytest.raises(errors.DaemonUnavailableError, match=str(state)) as caught:
        connect()
    assert caught.value.hint == "start it: reprod daemon"
    assert time.monotonic() - began < 0.5


def test_a_stale_socket_is_tried_for_a_second(state: Path) -> None:
    """A socket that nobody listens at refuses; the client waits for a restart, but not long."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(state / "control.sock"))
    stale.close()
    began = time.monotonic()
    with pytest.raises(errors.DaemonUnavailableError, match="refuses"):
        connect(retry_s=0.3)
    assert 0.3 <= time.monotonic() - began < 2


def test_a_restarting_daemon_is_found(state: Path) -> None:
    """A daemon that begins to listen within the second is reached."""
    path = state / "control.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    timer = threading.Timer(0.2, listener.listen)
    timer.start()
    try:
        connect(retry_s=5).close()
    finally:
        timer.join()
        listener.close()


def test_a_request_that_is_too_long(state: Path) -> None:
    """The daemon's limit is known here, so that it is an error and not a closed connection."""
    with serving(state / "control.sock", echo), connect() as client, pytest.raises(errors.UsageError):
        client.call("x", {"text": "x" * 2_000_000})


def test_a_path_of_its_own(tmp_path: Path) -> None:
    """A client can be given the socket."""
    with serving(tmp_path / "other.sock", echo), Client(tmp_path / "other.sock") as client:
        assert client.call("hello")["method"] == "hello"


def test_no_permission(state: Path) -> None:
    """A socket that is somebody else's is exit 77 with who may; in a child process as another user."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    code = (
        "import os, sys\n"
        "from reprod.client import connect\nfrom reprod.errors import ReprodError\n"
        "os.setuid(65534)\n"
        "try:\n connect()\nexcept ReprodError as e:\n print(e.exit_code, e.message)\n"
    )
    os.chmod(state, 0o700)
    with serving(state / "control.sock", echo):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("77 permission denied"), done.stderr


def test_import_is_cheap() -> None:
    """Importing the client loads no event loop, no validation library and nothing else that costs."""
    code = "import reprod.client, sys; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30).stdout.split()
    )
    assert "reprod.client" in loaded
    assert not loaded & {
        "asyncio",
        "anyio",
        "msgspec",
        "structlog",
        "dataclasses",
        "inspect",
        "tomllib",
        "logging",
        "mlflow",
    }
