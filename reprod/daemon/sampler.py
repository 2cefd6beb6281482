"""Sample environments on a timer: the host, and each configured prefix, by reading files.

So that a run that is tagged late can still be given the environment that held around its start: equal samples on both
sides of it. A sample is written only when it differs from the last.
"""

import time
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from reprod.capture.environment import read_host, read_prefix
from reprod.core.environment import Environment, encode
from reprod.errors import ReprodError, StateError
from reprod.store import snapshots

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

HOST = "host"


class Sampler:
    """Takes the samples. ``last_ns`` and ``host_digest`` are for ``status``; ``failed`` maps a prefix to why."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self.last_ns: int | None = None
        self.host_digest: str | None = None
        self.failed: dict[str, str] = {}

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            wait_s = self._daemon.config.environment.interval_seconds
            try:
                await to_thread.run_sync(self._sample_all)
            except StateError as error:
                wait_s = min(wait_s, self._daemon.be_stuck(error))
            await anyio.sleep(wait_s)

    def _sample_all(self) -> None:
        self._keep(HOST, read_host().environment)
        for prefix in self._daemon.config.environment.interpreters:
            try:
                environment = read_prefix(prefix).environment
            except ReprodError as error:
                if self.failed.get(prefix) != error.message:
                    self._daemon.log.warning("environment.sample_failed", prefix=prefix, error=error.message)
                self.failed[prefix] = error.message
            else:
                self.failed.pop(prefix, None)
                self._keep(prefix, environment)
        self.last_ns = time.time_ns()

    def _keep(self, subject: str, environment: Environment) -> None:
        digest, now = environment.digest(), time.time_ns()

        def keep(c: snapshots.Connection) -> bool:
            snapshots.keep_environment(c, digest, encode(environment), now)
            return snapshots.keep_sample(c, subject, digest, now)

        if self._daemon.records.write(keep):
            self._daemon.log.info("environment.changed", subject=subject, digest=digest[:12])
        if subject == HOST:
            self.host_digest = digest
