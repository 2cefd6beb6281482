"""The daemon's end of the MLflow child: starts it when needed, asks, waits no longer than told, kills.

One request at a time; calls from several threads wait for each other, so whoever must not wait for a long delivery uses
a child of its own. A call that takes too long kills the child: the next starts a new one (1 to 2 s, the import of
MLflow, counted in that call's time). Timeouts are in seconds.
"""

import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reprod.core.described import described
from reprod.core.run import Payload, PendingRun
from reprod.sinks.environment import client_environment, require_mlflow
from reprod.sinks.host_messages import Advertise, Compared, HostTags, Node
from reprod.sinks.line_process import REAP_TIMEOUT_S, GoneError, LineProcess
from reprod.sinks.protocol import (
    Deliver,
    Delivered,
    Download,
    Downloaded,
    Failure,
    FindStored,
    Implied,
    ImpliedNow,
    Note,
    NoteKey,
    OpenStore,
    Poll,
    Polled,
    Prepare,
    Recorded,
    RecordedNow,
    Reply,
    Request,
    Retagged,
    Runs,
    RunsNow,
    SinkError,
    StoredRun,
    Taken,
    Upload,
)
from reprod.sinks.run_messages import OURS, AskRun, FindRun, RunHead, RunsOn, RunsPage, WholeRun

T = TypeVar("T")

POLL_TIMEOUT_S = 60.0
DELIVER_TIMEOUT_S = 300.0
CALL_TIMEOUT_S = 30.0

HINTS = {
    "unreachable": "check that the tracking server runs and that its address is right; nothing is lost meanwhile",
    "denied": "check MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN, and this user's permissions",
    "bug": "this is a bug in reprod or MLflow; please report it with the traceback in the log",
}


class MlflowChild:
    """The child process for one tracking server. Thread-safe; costs nothing until the first call.

    What the child and its libraries print goes to ``log_path``, which each new child starts again, or nowhere.
    """

    def __init__(self, tracking_uri: str, *, log_path: Path | None = None) -> None:
        self._tracking_uri = tracking_uri
        self._log_path = log_path
        self._turn = threading.Lock()
        self._guard = threading.Lock()  # over the four below, held for moments only, so that kill() never waits
        self._process: LineProcess | None = None
        self._killed = False
        self._closed = False
        self._last_id = 0
        self.polled = Polled()  # the last answer to a poll

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while there is none."""
        with self._guard:
            return self._process.pid if self._process is not None else None

    def poll(self, page_size: int = 1000, handled: Iterable[str] = ()) -> list[PendingRun]:
        """Return every run that carries ``reprod.dataset`` and no ``reprod.state``."""
        ask = Poll(page_size=page_size, handled=tuple(handled))
        self.polled = _convert(self.call("poll", asdict(ask), POLL_TIMEOUT_S), Polled)
        return list(self.polled.runs)

    def implied(self, ask: Implied) -> ImpliedNow:
        """Return which runs do not name their datasets themselves, after a poll."""
        return _convert(self.call("implied", asdict(ask), POLL_TIMEOUT_S), ImpliedNow)

    def retagged(self, recorded: Iterable[str]) -> list[PendingRun]:
        """Return the runs that name other datasets by now than were recorded, after a poll."""
        return _convert(self.call("retagged", asdict(Retagged(tuple(recorded))), POLL_TIMEOUT_S), list[PendingRun])

    def recorded(self, ask: Recorded) -> RecordedNow:
        """Return the runs that other hosts recorded and on which this one has still to say what it found."""
        return _convert(self.call("recorded", asdict(ask), POLL_TIMEOUT_S), RecordedNow)

    def runs(self, run_ids: Iterable[str]) -> RunsNow:
        """Return how these runs are now; deleted and unknown ones are in ``missing``."""
        return _convert(self.call("runs", asdict(Runs(tuple(run_ids))), CALL_TIMEOUT_S), RunsNow)

    def prepare(self, run_id: str, artifact_paths: Iterable[str], metric_keys: Iterable[str]) -> Taken:
        """Return which of these artifact paths and metric keys the run already has."""
        ask = Prepare(run_id, tuple(artifact_paths), tuple(metric_keys))
        return _convert(self.call("prepare", asdict(ask), CALL_TIMEOUT_S), Taken)

    def deliver(self, payload: Payload) -> Delivered:
        """Write the payload to its run, its state last. Repeating it changes nothing."""
        return _convert(self.call("deliver", asdict(Deliver(payload)), DELIVER_TIMEOUT_S), Delivered)

    def note(self, run_id: str, text: str, *, once: bool = False, key: NoteKey = "reprod.note") -> bool:
        """Say a sentence on a run that is not recorded yet, with ``once`` only where none is; whether it was said."""
        return _convert(self.call("note", asdict(Note(run_id, text, once, key)), CALL_TIMEOUT_S), bool)

    def compare(self, node: Node) -> Compared:
        """Say what a node of a run found on its own copy. Repeat it later."""
        found: Compared = _convert(self.call("node", asdict(node), CALL_TIMEOUT_S), Compared)  # type: ignore[arg-type]
        return found

    def advertise(self, said: Advertise) -> str:
        """Write what this host says of itself; return the id of the run that holds it."""
        return _convert(self.call("advertise", asdict(said), CALL_TIMEOUT_S), str)

    def hosts(self) -> tuple[HostTags, ...]:
        """Return what all hosts say of themselves."""
        return _convert(self.call("hosts", {}, CALL_TIMEOUT_S), tuple[HostTags, ...])

    def find_run(self, text: str, at_most: int) -> tuple[RunHead, ...]:
        """Return the runs whose id begins with a text, or whose name it is, the newest first."""
        return _convert(self.call("find_run", asdict(FindRun(text, at_most)), POLL_TIMEOUT_S), tuple[RunHead, ...])

    def whole_run(self, run_id: str, folders: Iterable[str] = OURS) -> WholeRun:
        """Return all that the server knows of a run; raises `SinkError` ``gone`` or ``permanent`` without one."""
        return _convert(self.call("whole_run", asdict(AskRun(run_id, tuple(folders))), POLL_TIMEOUT_S), WholeRun)

    def runs_on(self, name: str, page: str = "") -> RunsPage:
        """Return one page of the runs of which something was recorded on a dataset."""
        return _convert(self.call("runs_on", asdict(RunsOn(name, page)), POLL_TIMEOUT_S), RunsPage)

    def find_stored(self, digest: str, hint: str | None = None) -> tuple[StoredRun, ...]:
        """Return the store runs that hold the manifest of a digest, the hinted one first."""
        found = self.call("find_stored", asdict(FindStored(digest, hint)), CALL_TIMEOUT_S)
        return _convert(found, tuple[StoredRun, ...])

    def open_store(self, name: str) -> str:
        """Return the id of a new store run, which nobody finds before `upload` has ended."""
        return _convert(self.call("open_store", asdict(OpenStore(name)), CALL_TIMEOUT_S), str)

    def upload(self, upload: Upload) -> None:
        """Write a manifest to its store run, the tag that makes it found last. Repeating it changes nothing."""
        self.call("upload", asdict(upload), DELIVER_TIMEOUT_S)

    def download(self, download: Download) -> Downloaded:
        """Fetch artifacts of a run into a folder."""
        return _convert(self.call("download", asdict(download), DELIVER_TIMEOUT_S), Downloaded)

    def ping(self) -> int:
        """Start the child if there is none and return its process id; asks no server and imports no MLflow."""
        return _convert(self.call("ping", {}, CALL_TIMEOUT_S), dict[str, int])["pid"]

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

    def _running(self) -> LineProcess:
        with self._guard:
            alive = self._process is not None and self._process.pid is not None and not self._killed
        if not alive:
            self._discard()
            require_mlflow()
        with self._guard:
            if self._closed:
                raise SinkError("stopped", "the MLflow process was stopped")
            if self._process is None:
                self._process, self._killed = self._start(), False
            return self._process

    def _start(self) -> LineProcess:
        return LineProcess(
            # -P: a file named mlflow.py in the daemon's working directory is not MLflow.
            [sys.executable, "-P", "-m", "reprod.sinks.mlflow"],
            client_environment(os.environ, self._tracking_uri),
            self._log_path,
        )

    def _ask(self, process: LineProcess, request: Request, timeout_s: float) -> Reply:
        try:
            line = msgspec.json.encode(request) + b"\n"
        except UnicodeEncodeError as error:
            raise SinkError("permanent", f"{request.op} holds text that is not Unicode: {error.reason}") from error
        try:
            reply = msgspec.json.decode(process.ask(line, timeout_s), type=described(Reply))
            if reply.id != request.id:
                raise msgspec.ValidationError(f"reply {reply.id} to request {request.id}")
        except TimeoutError as error:
            self._discard()
            raise SinkError(
                "unreachable", f"MLflow did not finish {request.op} in {timeout_s:g} s", hint=HINTS["unreachable"]
            ) from error
        except GoneError as error:
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
        return process.end(grace_s) if process is not None else None


def _sink_error(failure: Failure) -> SinkError:
    return SinkError(failure.kind, failure.message, hint=HINTS.get(failure.kind, ""), detail=failure.detail)


def _convert(result: Any, shape: type[T]) -> T:
    try:
        return msgspec.convert(result, described(shape))
    except msgspec.ValidationError as error:
        raise SinkError("bug", f"the MLflow process answered in another shape: {error}", hint=HINTS["bug"]) from error
