"""The MLflow child process: ``python -m reprod.sinks.mlflow``. Reads requests, does them, replies; nothing else.

MLflow lives here because importing it costs 77 to 163 MiB and a second, and because a call to a hung server can only
be ended by killing the process. It ends when its stdin does (the parent died), at once on SIGTERM, never on SIGINT
(a Ctrl-C goes to the parent, which decides). Replies go to a private duplicate of stdout, since libraries print.
"""

import os
import queue
import signal
import sys
import threading
import time
from typing import Any

import msgspec

from reprod.core.described import described
from reprod.sinks.environment import set_client_defaults, take_credential
from reprod.sinks.host_messages import Advertise, Hosts, Node
from reprod.sinks.protocol import (
    Deliver,
    Download,
    Failure,
    FindStored,
    Implied,
    Note,
    OpenStore,
    Poll,
    Polled,
    Prepare,
    Recorded,
    Reply,
    Request,
    Retagged,
    Runs,
    SinkError,
    Upload,
)
from reprod.sinks.run_messages import AskRun, FindRun, RunsOn

#: The operations that talk to the server, and what each takes.
SHAPES: dict[str, type] = {
    "poll": Poll,
    "implied": Implied,
    "retagged": Retagged,
    "recorded": Recorded,
    "runs": Runs,
    "prepare": Prepare,
    "deliver": Deliver,
    "note": Note,
    "node": Node,
    "advertise": Advertise,
    "hosts": Hosts,
    "find_run": FindRun,
    "whole_run": AskRun,
    "runs_on": RunsOn,
    "find_stored": FindStored,
    "open_store": OpenStore,
    "upload": Upload,
    "download": Download,
}


class Session:
    """Answers requests for one tracking server; imports MLflow at the first request that needs it."""

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._client: Any = None
        self._finder: Any = None

    def answer(self, line: bytes) -> Reply:
        """Return the reply to one request line; an exception becomes a failure of the right kind."""
        try:
            request = msgspec.json.decode(line, type=described(Request))
        except (msgspec.DecodeError, ValueError) as error:
            return Reply(-1, failure=Failure("bug", f"the request is not valid: {error}"))
        try:
            return Reply(request.id, result=self._do(request.op, request.params))
        except msgspec.ValidationError as error:
            return Reply(request.id, failure=Failure("bug", f"params of {request.op} are not valid: {error}"))
        except Exception as error:  # noqa: BLE001 - the boundary: whatever happened here must reach the parent
            return Reply(request.id, failure=self._failure(error))

    def _do(self, op: str, params: dict[str, Any]) -> Any:
        if op == "ping":
            return {"pid": os.getpid()}
        shape = SHAPES.get(op)
        if shape is None:
            raise SinkError("bug", f"the MLflow process has no operation {op!r}")
        self._connect()
        ask: Any = msgspec.convert(params, described(shape))
        if isinstance(ask, FindRun | AskRun | RunsOn):
            from reprod.sinks import search

            return search.answer(ask, self._client)
        if isinstance(ask, Node | Advertise | Hosts):
            from reprod.sinks import advertise

            return advertise.answer(ask, self._client)
        return self._answer_to(ask)

    def _answer_to(self, ask: Any) -> Any:
        from reprod.sinks import deliver_run, named_runs, store_run

        match ask:
            case Poll():
                return self._poll(ask)
            case Implied() | Retagged() | Recorded():
                return named_runs.answer(self._finder, ask)
            case Runs():
                return self._finder.runs(ask.run_ids)
            case Prepare():
                return deliver_run.prepare(self._client, ask.run_id, ask.artifact_paths, ask.metric_keys)
            case Note():
                return deliver_run.note(self._client, ask)
            case Deliver():
                return deliver_run.deliver(self._client, ask.payload)
            case FindStored():
                return store_run.find(self._client, ask.digest, ask.hint)
            case OpenStore():
                return store_run.open_run(self._client, ask.name)
            case Upload():
                return store_run.upload(self._client, ask)
            case Download():
                return store_run.download(self._client, ask)

    def _poll(self, ask: Poll) -> Polled:
        began = time.monotonic()
        runs = self._finder.poll(ask.page_size, ask.handled)
        return Polled(tuple(runs), time.monotonic() - began, self._finder.lacks_is_null)

    def _connect(self) -> None:
        if self._client is None:
            from mlflow import MlflowClient

            from reprod.sinks.find_runs import RunFinder

            client = MlflowClient(tracking_uri=self._tracking_uri)
            self._finder, self._client = RunFinder(client), client

    def _failure(self, error: Exception) -> Failure:
        try:
            from reprod.sinks.failures import classify

            return classify(error)
        except ImportError:  # no MLflow, or a broken one: then there is nothing to classify either
            return Failure("bug", f"MLflow cannot be imported by {sys.executable}: {error}")


def main() -> int:
    """Serve requests from stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    replies = os.dup(1)  # not inheritable, so no process that MLflow might start holds it open
    os.dup2(2, 1)
    set_client_defaults(os.environ)
    take_credential(os.environ)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    session = Session(os.environ.get("MLFLOW_TRACKING_URI", ""))
    while True:
        reply = msgspec.json.encode(session.answer(lines.get()))
        _write_all(replies, reply + b"\n")


def _read_lines(lines: queue.SimpleQueue[bytes]) -> None:
    """Queue request lines. The end of stdin ends the process at once, also in the middle of a request: all repeat."""
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    sys.exit(main())
