"""The tracking server as the daemon sees it: which one, whether it answers, and the one child process that talks to it.

``tracking_uri = "local"`` is a server of our own, started and kept alive here. Outbox rows are keyed by the configured
URI without its password (``local`` stays ``local`` whatever port it got).
"""

import time
from functools import partial
from typing import Any, Literal

import anyio
from anyio import from_thread, to_thread
from anyio.abc import TaskStatus

from reprod.config import Config
from reprod.core.address import server_key
from reprod.core.manifest import rfc3339
from reprod.errors import ReprodError
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import SinkError
from reprod.sinks.server import LocalServer

State = Literal["none", "starting", "reachable", "unreachable"]

SERVER_CHECK_S = 2.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class Tracking:
    """One tracking server. ``key`` names it in the outbox, ``uri`` is where it answers (None: not yet, or none)."""

    def __init__(self, config: Config, log: Any) -> None:
        self.key = server_key(config.mlflow.tracking_uri)
        self.local = self.key == "local"
        self.uri: str | None = None if self.local else config.mlflow.tracking_uri or None
        self.state: State = "starting" if self.key else "none"
        self.error: str | None = None
        self.denied = False  # it answers, and refuses who asks
        self.last_poll_ns: int | None = None
        self.ready = anyio.Event()
        self._log = log
        self._server = LocalServer(config.state_dir) if self.local else None
        self._child: MlflowChild | None = None
        self._log_path = config.state_dir / "mlflow-child.log"
        if self.uri is not None:
            self.ready.set()

    @property
    def child(self) -> MlflowChild:
        """The process that imports mlflow; started by its first call. Only after ``ready``."""
        if self._child is None:
            self._child = MlflowChild(self.uri or "", log_path=self._log_path)
        return self._child

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the local server alive until cancelled; at the end no process is left."""
        task_status.started()
        try:
            if self._server is None:
                await anyio.sleep_forever()
            else:
                await self._supervise(self._server)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the child and the server now; calls under way return with an error. Blocks for at most 1.5 s."""
        if self._child is not None:
            self._child.kill()
        if self._server is not None:
            self._server.stop()

    def note(self, error: SinkError | None) -> bool:
        """Take in how a poll ended; True when the server has just come back."""
        back = self.state in {"unreachable", "starting"} and error is None
        if error is None:
            self.last_poll_ns = time.time_ns()
            if back and self.state == "unreachable":
                self._log.info("tracking.recovered", uri=self.uri)
        elif self.state != "unreachable":
            self._log.warning("tracking.lost", uri=self.uri, error=error.message, kind=error.kind)
        self.state, self.error = ("reachable", None) if error is None else ("unreachable", error.message)
        self.denied = error is not None and error.kind == "denied"
        return back

    def document(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        return {
            "uri": self.uri,
            "state": self.state,
            "last_poll_at": rfc3339(self.last_poll_ns) if self.last_poll_ns else None,
            "error": self.error,
            "denied": self.denied,
            "local": self.local,
        }

    async def _supervise(self, server: LocalServer) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            try:
                await to_thread.run_sync(partial(server.start, from_thread.check_cancelled))
                await to_thread.run_sync(partial(server.wait_ready, 60.0, from_thread.check_cancelled))
            except ReprodError as error:
                self.state, self.error = "unreachable", error.message
                self._log.error("server.failed", error=error.message, hint=error.hint)
                await anyio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            wait_s = FIRST_WAIT_S
            if self.uri != server.url:
                self.uri = server.url
                if self._child is not None:
                    await to_thread.run_sync(self._child.close)
                    self._child = None
            self._log.info("server.started", uri=self.uri)
            self.ready.set()
            while server.is_alive():  # noqa: ASYNC110 - a process of its own group gives no event here
                await anyio.sleep(SERVER_CHECK_S)
            self._log.warning("server.ended", uri=self.uri)
