"""The child process as such: it is killed when told, dies with its parent, and says what kind of trouble it met."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from reprod.errors import ConfigError, TrackingError
from reprod.sinks import child as child_module
from reprod.sinks.child import MlflowChild
from reprod.sinks.environment import client_environment
from reprod.sinks.failures import classify
from reprod.sinks.protocol import SinkError

pytestmark = pytest.mark.mlflow

PARENT = """
import os, sys
from reprod.sinks.child import MlflowChild
os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "60"
child = MlflowChild(sys.argv[1])
print(child.ping(), flush=True)
child.poll()
"""


def test_refused_connection_is_unreachable_at_once(refused_url: str) -> None:
    """A dead server is reported in the time that importing MLflow takes, without MLflow's own retries."""
    child = MlflowChild(refused_url)
    try:
        child.ping()
        started = time.monotonic()
        for _ in range(2):
            with pytest.raises(SinkError) as caught:
                child.poll()
            assert caught.value.kind == "unreachable"
            assert isinstance(caught.value, TrackingError)
            assert caught.value.hint
        assert time.monotonic() - started < 60  # the retries would take four minutes
    finally:
        child.close()


def test_hung_server_is_unreachable_and_a_slow_call_kills(
    hung_url: str, runs_still: Callable[[int], bool], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HTTP timeout ends one request; the call's own timeout kills the child, and the next call has a new one."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    child = MlflowChild(hung_url)
    try:
        with pytest.raises(SinkError, match=r"within the time limit") as caught:
            child.poll()
        assert caught.value.kind == "unreachable"
        before = child.pid
        assert before is not None
        with pytest.raises(SinkError, match=r"did not finish poll in 0\.3 s") as caught:
            child.call("poll", {}, 0.3)
        assert caught.value.kind == "unreachable"
        until(lambda: not runs_still(before))
        assert child.pid is None
        assert child.ping() not in {None, before}
    finally:
        child.close()


def test_kill_from_another_thread_ends_a_blocked_call(
    hung_url: str, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill() makes a call that waits on a hung server raise, long before it times out; the next call works; close() is
    final."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    child = MlflowChild(hung_url)
    errors: list[SinkError] = []

    def call() -> None:
        try:
            child.poll()
        except SinkError as error:
            errors.append(error)

    try:
        process = psutil.Process(child.ping())
        thread = threading.Thread(target=call)
        thread.start()
        until(lambda: process.net_connections("tcp"))
        child.kill()
        thread.join(30)
        assert not thread.is_alive()
        assert errors[0].kind == "stopped"
        assert child.ping() == child.pid
    finally:
        child.close()
    assert child.pid is None
    with pytest.raises(SinkError) as caught:
        child.ping()
    assert caught.value.kind == "stopped"


def test_child_that_dies_is_reported_and_replaced(refused_url: str, until: Callable[..., None]) -> None:
    """A child killed by somebody else is a crash with its exit code, or unnoticed between calls: a new one comes."""
    child = MlflowChild(refused_url)
    try:
        first = child.ping()
        os.kill(first, signal.SIGKILL)
        until(lambda: child.pid is None)
        assert child.ping() != first
        second = child.ping()
        os.kill(second, signal.SIGSTOP)  # so that the request is surely under way when the child dies
        asked = child._last_id

        def kill_when_it_is_asked() -> None:
            until(lambda: child._last_id > asked)
            os.kill(second, signal.SIGKILL)

        thread = threading.Thread(target=kill_when_it_is_asked)
        thread.start()
        with pytest.raises(SinkError, match=r"ended during ping \(exit code -9\)") as caught:
            child.ping()
        thread.join()
        assert caught.value.kind == "crashed"
    finally:
        child.close()


def test_child_ignores_ctrl_c_and_obeys_term(refused_url: str, runs_still: Callable[[int], bool], until: Any) -> None:
    """SIGINT, which a terminal sends to all, does nothing to the child; SIGTERM ends it at once."""
    child = MlflowChild(refused_url)
    try:
        pid = child.ping()
        os.kill(pid, signal.SIGINT)
        assert child.ping() == pid
        os.kill(pid, signal.SIGTERM)
        until(lambda: not runs_still(pid))
    finally:
        child.close()


def test_child_ends_with_a_killed_parent(
    hung_url: str, runs_still: Callable[[int], bool], until: Callable[..., None]
) -> None:
    """SIGKILL of the parent, even while a request hangs, leaves no child behind."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, hung_url], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs_still(pid)
    finally:
        parent.kill()
        parent.wait(30)
        parent.stdout.close()
    until(lambda: not runs_still(pid))


def test_what_libraries_print_is_not_a_reply(refused_url: str, tmp_path: Path) -> None:
    """Output on the child's stdout goes to the log and never into the protocol; a real garbage reply is a crash."""
    (tmp_path / "sitecustomize.py").write_text("import os; os.write(1, b'noise before the duplicate\\n')\n")
    child = MlflowChild(refused_url, log_path=tmp_path / "child.log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        try:
            with pytest.raises(SinkError, match="garbage") as caught:
                child.ping()
            assert caught.value.kind == "crashed"
        finally:
            child.close()
    printing = """
import sys, threading, time
def print_late():  # when MLflow is imported, its process has begun
    while "mlflow" not in sys.modules:
        time.sleep(0.02)
    print("later noise", flush=True)
threading.Thread(target=print_late, daemon=True).start()
"""
    (tmp_path / "sitecustomize.py").write_text(printing)
    child = MlflowChild(refused_url, log_path=tmp_path / "child.log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        try:
            with pytest.raises(SinkError) as caught:
                child.poll()
            assert caught.value.kind == "unreachable"
        finally:
            child.close()
    assert "later noise" in (tmp_path / "child.log").read_text()


def test_missing_mlflow_is_a_configuration_error(refused_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MLflow nothing is started: the error says what to install."""

    def missing() -> None:
        raise ConfigError("MLflow is not installed", hint='pip install "mlflow>=3.11,<4"')

    monkeypatch.setattr(child_module, "require_mlflow", missing)
    child = MlflowChild(refused_url)
    with pytest.raises(ConfigError):
        child.poll()
    assert child.pid is None


def test_defaults_yield_to_the_users_settings() -> None:
    """Our settings are defaults, the URI is passed unseen by ps, and loopback is reached without a proxy."""
    environ = client_environment({"MLFLOW_HTTP_REQUEST_TIMEOUT": "33", "NO_PROXY": "a.b"}, "http://127.0.0.1:5")
    assert environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "33"
    assert environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5"
    assert environ["no_proxy"] == "a.b,127.0.0.1"
    assert "no_proxy" not in client_environment({}, "https://mlflow.example")


def mlflow_error(code: str, message: str = "m", rest: bool = True) -> Exception:
    from mlflow.exceptions import MlflowException, RestException
    from mlflow.protos.databricks_pb2 import ErrorCode

    if rest:
        return RestException({"error_code": code, "message": message})
    return MlflowException(message, error_code=ErrorCode.Value(code))


def http_error(status: int) -> Exception:
    import requests

    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} for url", response=response)


def caused_by(cause: Exception) -> Exception:
    try:
        try:
            raise cause
        except Exception as error:  # noqa: BLE001
            # As MLflow raises it: without "from", so that only __context__ tells.
            raise mlflow_error("INTERNAL_ERROR", f"API request to x failed: {error}", rest=False)  # noqa: B904
    except Exception as error:  # noqa: BLE001 - it is what we build
        return error


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: mlflow_error("RESOURCE_DOES_NOT_EXIST"), "gone"),
        (lambda: mlflow_error("INVALID_PARAMETER_VALUE", "The run x must be in the 'active' state."), "gone"),
        (lambda: mlflow_error("INVALID_PARAMETER_VALUE", "bad key"), "permanent"),
        (lambda: mlflow_error("BAD_REQUEST"), "permanent"),
        (lambda: mlflow_error("PERMISSION_DENIED"), "denied"),
        (lambda: mlflow_error("UNAUTHENTICATED", rest=False), "denied"),
        (lambda: mlflow_error("INTERNAL_ERROR"), "unreachable"),
        (lambda: mlflow_error("TEMPORARILY_UNAVAILABLE"), "unreachable"),
        (lambda: mlflow_error("REQUEST_LIMIT_EXCEEDED"), "unreachable"),
        (lambda: mlflow_error("ENDPOINT_NOT_FOUND", rest=False), "unreachable"),
        (
            lambda: mlflow_error("INTERNAL_ERROR", "API failed with error code 502 != 200", rest=False),
            "unreachable",
        ),
        (lambda: mlflow_error("INTERNAL_ERROR", "API failed with error code 413 != 200", rest=False), "permanent"),
        (lambda: mlflow_error("INTERNAL_ERROR", "something local", rest=False), "bug"),
        (lambda: caused_by(__import__("requests").ConnectionError("refused")), "unreachable"),
        (lambda: caused_by(__import__("requests").exceptions.RetryError("503")), "unreachable"),
        (lambda: caused_by(__import__("requests").exceptions.InvalidSchema("foo:")), "permanent"),
        (lambda: http_error(403), "denied"),
        (lambda: http_error(503), "unreachable"),
        (lambda: http_error(413), "permanent"),
        (lambda: ConnectionResetError("reset"), "unreachable"),
        (lambda: KeyError("x"), "bug"),
    ],
)
def test_errors_are_of_one_kind(make: Callable[[], Exception], kind: str) -> None:
    """Each way in which MLflow's client reports trouble is judged by what the daemon can do about it."""
    failure = classify(make())
    assert failure.kind == kind
    assert bool(failure.detail) == (kind == "bug")


def test_messages_hold_no_password_and_no_page() -> None:
    """The password of a URI is taken out of messages and tracebacks, and a long answer is cut."""
    error = caused_by(ValueError("http://me:secret@host/x " + "p" * 5000))
    failure = classify(error)
    assert "secret" not in failure.message + failure.detail
    assert len(failure.message) <= 600
    failure = classify(KeyError("http://me:secret@host/x"))
    assert failure.kind == "bug"
    assert "secret" not in failure.message + failure.detail
