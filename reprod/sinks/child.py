"""The daemon's end of the MLflow child: starts it when needed, asks, waits no longer than told, kills.

One request at a time; calls from several threads wait for each other, so whoever must not wait for a long delivery uses
a child of its own. A call that takes too long kills the child: the next starts a new one (1 to 2 s, the import of
MLflow, counted in that call's time). Timeouts are in seconds.
"""

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from reprod.core.run import Payload, PendingRun
from reprod.sinks.environment import client_environment, require_mlflow
from reprod.sinks.protocol import (
    Deliver,
    Delivered,
    Download,
    Downloaded,
    Failure,
    FindStored,
    OpenStore,
    Poll,
    Prepare,
    Reply,
    Request,
    Runs,
    RunsNow,
    SinkError,
    StoredRun,
    Taken,
    Upload,
)

T = TypeVar("T")

POLL_TIMEOUT_S = 60.0
DELIVER_TIMEOUT_S = 300.0
CALL_TIMEOUT_S = 30.0

#: How long a killed child may take to disappear before we stop waiting for it (it is then reaped later).
REAP_TIMEOUT_S = 1.0

HINTS = {
    "unreachable": "check that the tracking server runs and that its address is right; nothing is lost meanwhile",
    "denied": "check MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN, and this user's permissions",
    "bug": "this is a bug in reprod or MLflow; please report it with the traceback in the log",
}


class _ChildGoneError(Exception):
    """Raised inside a call when the child closed its end of a pipe."""


class MlflowChild:
    """The child process for one tracking server. Thread-safe; costs nothing until the first call.

    ``http_timeout_s`` bounds one HTTP request (MLflow's default here is 10). What the child and its libraries print
    goes to ``log_path``, which each new child starts again, or nowhere.
    """

    def __init__(self, tracking_uri: str, *, http_timeout_s: int | None = None, log_path: Path | None = None) -> None:
        self._tracking_uri = tracking_uri
        self._http_timeout_s = http_timeout_s
        self._log_path = log_path
        self._turn = threading.Lock()
        self._guard = threading.Lock()  # over the four below, held for moments only, so that kill() never waits
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._closed = False
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while there is none."""
        with self._guard:
            return self._process.pid if self._process is not None and self._process.poll() is None else None

    def poll(
        self, page_size: int = 1000, handled: Iterable[str] = (), *, timeout_s: float = POLL_TIMEOUT_S
    ) -> list[PendingRun]:
        """Return every run that carries ``reprod.dataset`` and no ``reprod.state``."""
        ask = Poll(page_size=page_size, handled=tuple(handled))
        return _convert(self.call("poll", asdict(ask), timeout_s), list[PendingRun])

    def runs(self, run_ids: Iterable[str], *, timeout_s: float = CALL_TIMEOUT_S) -> RunsNow:
        """Return how these runs are now; deleted and unknown ones are in ``missing``."""
        return _convert(self.call("runs", asdict(Runs(tuple(run_ids))), timeout_s), RunsNow)

    def prepare(
        self,
        run_id: str,
        artifact_paths: Iterable[str],
        metric_keys: Iterable[str],
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Taken:
        """Return which of these artifact paths and metric keys the run already has."""
        ask = Prepare(run_id, tuple(artifact_paths), tuple(metric_keys))
        return _convert(self.call("prepare", asdict(ask), timeout_s), Taken)

    def deliver(self, payload: Payload, *, timeout_s: float = DELIVER_TIMEOUT_S) -> Delivered:
        """Write the payload to its run, its state last. Repeating it changes nothing."""
        return _convert(self.call("deliver", asdict(Deliver(payload)), timeout_s), Delivered)

    def find_stored(self, digest: str, hint: str | None = None) -> tuple[StoredRun, ...]:
        """Return the store runs that hold the manifest of a digest, the hinted one first."""
        found = self.call("find_stored", asdict(FindStored(digest, hint)), CALL_TIMEOUT_S)
        return _convert(found, tuple[StoredRun, ...])

    def open_store(self, name: str, *, timeout_s: float = CALL_TIMEOUT_S) -> str:
        """Return the id of a new store run, which nobody finds before `upload` has ended."""
        return _convert(self.call("open_store", asdict(OpenStore(name)), timeout_s), str)

    def upload(self, upload: Upload, *, timeout_s: float = DELIVER_TIMEOUT_S) -> None:
        """Write a manifest to its store run, the tag that makes it found last. Repeating it changes nothing."""
        self.call("upload", asdict(upload), timeout_s)

    def download(self, download: Download, *, timeout_s: float = DELIVER_TIMEOUT_S) -> Downloaded:
        """Fetch artifacts of a run into a folder."""
        return _convert(self.call("download", asdict(download), timeout_s), Downloaded)

    def ping(self, *, timeout_s: float = CALL_TIMEOUT_S) -> int:
        """Start the child if there is none and return its process id; asks no server and imports no MLflow."""
        return _convert(self.call("ping", {}, timeout_s), dict[str, int])["pid"]

    def call(self, op: str, params: dict[str, Any], timeout_s: float) -> Any:
        """Return the plain result of one operation.

        Raises `SinkError` (its ``kind`` says what to do), `ConfigError` where MLflow is not installed.
        """
        # A holder of the turn is itself bounded; twice the longest bound is reached only by a queue of long calls.
        if not self._turn.acquire(timeout=2 * DELIVER_TIMEOUT_S):
            raise SinkError("unreachable", "the MLflow process was busy with other calls", hint=HINTS["unreachable"])
        try:
            process = self._running()
            self._last_id += 1
            reply = self._ask(process, Request(self._last_id, op, params), timeout_s)
        finally:
            self._turn.release()
        if reply.failure is not None:
            raise _sink_error(reply.failure)
        return reply.result

    def kill(self) -> None:
        """End the child now, from any thread: a call under way raises `SinkError` ``stopped`` within moments."""
        with self._guard:
            if self._process is not None:
                self._killed = True
                self._process.kill()

    def close(self) -> None:
        """End the child and refuse further calls (``stopped``). Idempotent; waits for the child to be gone."""
        with self._guard:
            self._closed = True
        self.kill()
        if self._turn.acquire(timeout=REAP_TIMEOUT_S):
            try:
                self._discard()
            finally:
                self._turn.release()

    def _running(self) -> subprocess.Popen[bytes]:
        with self._guard:
            alive = self._process is not None and self._process.poll() is None and not self._killed
        if not alive:
            self._discard()
            require_mlflow()
        with self._guard:
            if self._closed:
                raise SinkError("stopped", "the MLflow process was stopped")
            if self._process is None:
                self._process, self._killed = self._start(), False
            return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        stderr: IO[bytes] | int = subprocess.DEVNULL
        if self._log_path is not None:
            stderr = self._log_path.open("wb")
        try:
            process = subprocess.Popen(
                # -P: a file named mlflow.py in the daemon's working directory is not MLflow.
                [sys.executable, "-P", "-m", "reprod.sinks.mlflow"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=client_environment(os.environ, self._tracking_uri, self._http_timeout_s),
                bufsize=0,
            )
        finally:
            if not isinstance(stderr, int):
                stderr.close()
        for pipe in _pipes(process):
            os.set_blocking(pipe.fileno(), False)
        return process

    def _ask(self, process: subprocess.Popen[bytes], request: Request, timeout_s: float) -> Reply:
        try:
            line = msgspec.json.encode(request) + b"\n"
        except UnicodeEncodeError as error:
            raise SinkError("permanent", f"{request.op} holds text that is not Unicode: {error.reason}") from error
        try:
            reply = msgspec.json.decode(_exchange(process, line, timeout_s), type=Reply)
            if reply.id != request.id:
                raise msgspec.ValidationError(f"reply {reply.id} to request {request.id}")
        except TimeoutError as error:
            self._discard()
            raise SinkError(
                "unreachable", f"MLflow did not finish {request.op} in {timeout_s:g} s", hint=HINTS["unreachable"]
            ) from error
        except _ChildGoneError as error:
            raise self._ended(request.op) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._discard()
            raise SinkError("crashed", f"the MLflow process answered {request.op} with garbage: {error}") from error
        return reply

    def _ended(self, op: str) -> SinkError:
        with self._guard:
            stopped = self._killed or self._closed
        code = self._discard(grace_s=REAP_TIMEOUT_S)
        if stopped:
            return SinkError("stopped", f"the MLflow process was stopped during {op}")
        where = f"see {self._log_path}" if self._log_path is not None else ""
        return SinkError("crashed", f"the MLflow process ended during {op} (exit code {code})", hint=where)

    def _discard(self, grace_s: float = 0.0) -> int | None:
        """Forget the process, killed if it does not end within the grace, and return its exit code if it is known."""
        with self._guard:
            process, self._process = self._process, None
        if process is None:
            return None
        try:
            code: int | None = process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = _reap(process)
        for pipe in _pipes(process):
            pipe.close()
        return code


def _exchange(process: subprocess.Popen[bytes], line: bytes, timeout_s: float) -> bytes:
    """Write the line and return the reply line; raises TimeoutError or `_ChildGoneError`. Nothing here blocks."""
    stdin, stdout = (pipe.fileno() for pipe in _pipes(process))
    deadline = time.monotonic() + timeout_s
    rest, reply = memoryview(line), bytearray()
    poller = select.poll()
    poller.register(stdin, select.POLLOUT)
    poller.register(stdout, select.POLLIN)
    while not reply.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        for fd, _ in poller.poll(left_s * 1000):
            try:
                if fd == stdin:
                    rest = rest[os.write(stdin, rest) :]
                    if not rest:
                        poller.unregister(stdin)
                    continue
                chunk = os.read(stdout, 1 << 20)
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise _ChildGoneError from error
            if not chunk:
                raise _ChildGoneError
            reply += chunk
    return bytes(reply)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the child was started without pipes")
    return process.stdin, process.stdout


def _reap(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(REAP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None  # stuck in the kernel; subprocess reaps it later


def _sink_error(failure: Failure) -> SinkError:
    return SinkError(failure.kind, failure.message, hint=HINTS.get(failure.kind, ""), detail=failure.detail)


def _convert(result: Any, shape: type[T]) -> T:
    try:
        return msgspec.convert(result, shape)
    except msgspec.ValidationError as error:
        raise SinkError("bug", f"the MLflow process answered in another shape: {error}", hint=HINTS["bug"]) from error
