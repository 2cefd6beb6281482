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

import reprod
from reprod import api, errors
from reprod.capture import handover
from reprod.client import Client, connect
from reprod.core import protocol

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
        acceptor.join(30)
        for thread in threads:
            thread.join(30)


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


OWN = reprod.__version__
SERVICE = {"restart": "systemctl --user restart reprod", "pid": 7}
BY_HAND = "kill 7, and start it again as it was started: reprod daemon"
EITHER = f"systemctl restart reprod, or systemctl --user restart reprod; if it is no service: {BY_HAND}"
CHANGED = "it was started before reprod was changed: restart it: "
UPGRADE = "upgrade this reprod, or use the one that the daemon runs with"


def other(hello: dict[str, Any] | None, *, tells: bool = False) -> Script:
    """A daemon of another version: it says ``hello`` and knows nothing else; ``tells``: it says so with the refusal."""

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        if request["method"] == "hello" and hello is not None:
            send(connection, id=request["id"], result=hello)
        else:
            data = {"data": {"exit_code": 2, "hint": "?", **(hello or {})}} if tells else {}
            send(connection, id=request["id"], error={"code": -32601, "message": "Method not found", **data})

    return script


@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.parametrize(
    ("hello", "named", "hint"),
    [
        ({"version": "0.0.9", **SERVICE}, "reprod 0.0.9", "restart it: systemctl --user restart reprod"),
        ({"version": "0.0.9", "pid": 7, "restart": None}, "reprod 0.0.9", f"restart it: {BY_HAND}"),
        ({"version": "0.0.9", "pid": 7}, "reprod 0.0.9", f"restart it: {EITHER}"),
        ({"version": OWN, **SERVICE}, f"reprod {OWN}", f"{CHANGED}systemctl --user restart reprod"),
        ({"version": "99.0", **SERVICE}, "reprod 99.0", UPGRADE),
        ({"version": ["x"], "pid": "7", "restart": 8}, "another version", "start it again as it was started"),
        ({}, "another version", "systemctl restart reprod"),
        (None, "another version", "systemctl restart reprod"),
    ],
)
def test_an_unknown_method_says_both_versions(
    state: Path, hello: dict[str, Any] | None, named: str, hint: str, tells: bool
) -> None:
    """Which version the daemon is, which one this is, and what to do: restart it as it runs, or upgrade what is older.

    The code is that of "no daemon answers", but nothing takes it for that.
    """
    with (
        serving(state / "control.sock", other(hello, tells=tells)),
        connect() as client,
        pytest.raises(errors.VersionsDifferError, match=f"is {named}.* does not know 'purge'") as caught,
    ):
        client.call("purge")
    assert caught.value.message.endswith(f"; this is reprod {OWN}")
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3
    assert not isinstance(caught.value, errors.DaemonUnavailableError)


def test_a_protocol_that_is_too_old_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once an older protocol is not understood any more, a daemon that speaks it is asked nothing else."""
    asked: list[str] = []

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        asked.append(request["method"])
        send(connection, id=request["id"], result={"protocol": 1, "version": "0.0.9", **SERVICE})

    monkeypatch.setattr(protocol, "OLDEST", 2)
    with serving(state / "control.sock", script):
        for method in ("status", "hello", "scan"):
            with connect() as client, pytest.raises(errors.VersionsDifferError, match=r"reprod 0\.0\.9") as caught:
                client.call(method)
            assert caught.value.hint == "restart it: systemctl --user restart reprod"
        assert asked == ["hello"] * 3


def test_a_protocol_that_is_understood_is_asked_for_once(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question a connection, and none as long as every protocol is understood; whom the daemon does not tell it
    may go on."""
    asked: list[str] = []

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        asked.append(request["method"])
        if request["method"] == "hello" and len(asked) > 4:
            data = {"exit_code": 77, "hint": ""}
            send(connection, id=request["id"], error={"code": -32000, "message": "uid 5 may not hello", "data": data})
        else:
            send(connection, id=request["id"], result={"protocol": 7})

    with serving(state / "control.sock", script):
        with connect() as client:
            client.call("status")
        monkeypatch.setattr(protocol, "OLDEST", 2)
        with connect() as client:
            client.call("status")
            client.call("scan")
        assert asked == ["status", "hello", "status", "scan"]
        with connect() as client:
            client.call("status")
        assert asked[4:] == ["hello", "status"]


@pytest.mark.parametrize(("version", "kind"), [(OWN, errors.UsageError), ("0.0.9", errors.VersionsDifferError)])
def test_a_bad_request_of_another_version(state: Path, version: str, kind: type[errors.ReprodError]) -> None:
    """What a daemon of the same version calls a bad request is one; of another version both versions are named."""

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        if request["method"] == "hello":
            send(connection, id=request["id"], result={"version": version, **SERVICE})
        else:
            error = {"code": -32600, "message": "bad request: 'depth'", "data": {"exit_code": 2, "hint": "do"}}
            send(connection, id=request["id"], error=error)

    with (
        serving(state / "control.sock", script),
        connect() as client,
        pytest.raises(kind, match="bad request: 'depth'") as caught,
    ):
        client.call("scan")
    assert type(caught.value) is kind


def test_what_a_newer_daemon_adds_is_passed_over(state: Path) -> None:
    """An older client works with a newer daemon for what both know."""

    def script(connection: socket.socket, request: dict[str, Any]) -> None:
        send(connection, method="news", params={"x": 1})
        send(connection, id=request["id"], result={"protocol": 9, "version": "99.0", "more": [1]}, more=2)

    with serving(state / "control.sock", script), connect() as client:
        assert client.call("hello")["version"] == "99.0"
        assert client.call("status")["more"] == [1]


def test_the_library_hears_of_an_older_daemon(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a training process is told in one line: both versions and how to restart; from a daemon that does not know
    the question, or speaks a protocol that is not understood any more; nothing where the two understand each other."""
    hello = {"protocol": 1, "version": "0.0.9", **SERVICE}
    with serving(state / "control.sock", other(hello, tells=True)):
        answer = handover.ask("r", "data", "http://h", identify=False, answer_s=5.0)
    assert answer is not None
    doubt = api.doubt(answer, ["data"], "http://h")
    assert isinstance(doubt, errors.VersionsDifferError)
    assert f"{doubt.message}; {doubt.hint}" == (
        f"the daemon is reprod 0.0.9 and does not know what this library tells it; this is reprod {OWN}; "
        "restart it: systemctl --user restart reprod"
    )
    known = {**hello, "known": True, "tracking_uri": "http://h", "datasets": ["data"]}
    assert api.doubt(known, ["data"], "http://h") is None
    monkeypatch.setattr(protocol, "OLDEST", 2)
    assert "0.0.9" in str(api.doubt(known, ["data"], "http://h"))


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
        assert time.monotonic() - began < 30
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
            release.wait(60)
            send(connection, id=request["id"], result={"done": True})

    with serving(state / "control.sock", script), connect(timeout_s=2.0) as client:
        threading.Thread(target=lambda: (asked.wait(60), release.set()), daemon=True).start()
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
        connect(retry_s=60)  # it would be waited for so long if there were one
    assert caught.value.hint == "start it: reprod daemon"
    assert time.monotonic() - began < 30


def test_a_stale_socket_is_tried_for_a_second(state: Path) -> None:
    """A socket that nobody listens at refuses; the client waits for a restart, but not long."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(state / "control.sock"))
    stale.close()
    began = time.monotonic()
    with pytest.raises(errors.DaemonUnavailableError, match="refuses"):
        connect(retry_s=0.3)
    assert 0.3 <= time.monotonic() - began < 30


def test_a_restarting_daemon_is_found(state: Path) -> None:
    """A daemon that begins to listen within the second is reached."""
    path = state / "control.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    timer = threading.Timer(0.2, listener.listen)
    timer.start()
    try:
        connect(retry_s=60).close()
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
