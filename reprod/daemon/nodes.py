"""Compare this host's copy of a dataset with that of the host that records the run: runs on several nodes.

A process here that takes part in a run which started on another host tells us (`announce` with the run's id). Its
daemon binds its own copy at the run's start and says what it found in ``reprod.nodes.NAME``; the run's record stays
that of the other host. MLflow keeps what was written last, so every node looks again, ever more seldom, until the run
is recorded and it has found itself there several times in a row: some four requests of 10 ms in all, and two a minute
while it is not recorded. What is under way is kept in a file, for a restart. Seconds are of the loop's clock.
"""

import json
import random
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from reprod.core.process import ProcessContext
from reprod.core.run import PendingRun, dataset_names, key_of, split_name
from reprod.errors import ReprodError
from reprod.fs.atomic import write_atomic
from reprod.ops.publish import Walked, copy_at_start, slack_ns
from reprod.sinks.host_messages import Node
from reprod.sinks.protocol import RETRIED, SinkError

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

FILE = "nodes.json"
ROUND_S = 0.5

#: After each time that nothing was missing: 64 nodes that start together need some rounds until none erases another.
AGAIN_S = (2.0, 10.0, 60.0)
RETRY_S = 10.0

#: Runs under way on this host at a time; more is a mistake, or somebody's joke.
MOST = 1000

#: Threads that they may hold at a time: a walk is waited for without one, and the server is asked one by one anyway.
THREADS = 4

#: How long a run is followed that cannot be compared: its server is away, its dataset cannot be walked.
LONGEST_S = 86_400.0


@dataclass(slots=True)
class _Followed:
    """A run that a process here takes part in. ``found`` is what is said of each name, once it is known."""

    since_ns: int
    found: dict[str, str] | None = None
    next_s: float = 0.0
    agreed: int = 0
    looked_at: bool = False


class Nodes:
    """Follows the runs of other hosts that processes here take part in."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._path: Path = daemon.config.state_dir / FILE
        self._followed: dict[str, _Followed] = _read(self._path)
        self._bell = anyio.Event()
        self._threads = anyio.CapacityLimiter(THREADS)
        self._writing = anyio.Lock()

    async def hear(self, run_id: str) -> None:
        """A process of this host takes part in a run."""
        if run_id in self._followed or len(self._followed) >= MOST:
            return
        self._followed[run_id] = _Followed(time.time_ns())
        await self._keep()
        self._bell.set()

    async def run(self) -> None:
        """Compare until cancelled: each run by itself, for one may wait hours for a walk."""
        async with anyio.create_task_group() as group:
            while True:
                now_s = anyio.current_time()
                if self._daemon.tracking.state == "reachable":
                    for run_id, followed in self._followed.items():
                        if followed.next_s <= now_s and not followed.looked_at:
                            followed.looked_at = True
                            group.start_soon(self._look, run_id, followed, name=f"compare {run_id}")
                self._bell = anyio.Event()
                with anyio.move_on_after(ROUND_S if self._followed else None):
                    await self._bell.wait()

    async def _look(self, run_id: str, followed: _Followed) -> None:
        try:
            wait_s = await self._compare(run_id, followed)
        except SinkError as error:
            wait_s = RETRY_S if error.kind in RETRIED else None
        except ReprodError as error:
            wait_s = RETRY_S
            self._daemon.log.info("run.not_compared", run_id=run_id, error=error.message)
        followed.looked_at = False
        if wait_s is None or time.time_ns() - followed.since_ns > LONGEST_S * 1e9:
            self._followed.pop(run_id, None)
            await self._keep()
        else:
            followed.next_s = anyio.current_time() + wait_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret

    async def _compare(self, run_id: str, followed: _Followed) -> float | None:
        """Say what there is to say on the run; return when at the latest to look again, None if nothing is left."""
        daemon, ask = self._daemon, partial(to_thread.run_sync, abandon_on_cancel=True, limiter=self._threads)
        if followed.found is None:
            now = await ask(lambda: daemon.tracking.child.runs([run_id]))
            if not now.runs:
                return RETRY_S if now.denied else None
            run = now.runs[0].run
            context = ProcessContext.parse(run.context or "")
            if context is None or context.boot_id in daemon.boots:  # recorded as any other run
                return None
            followed.found = await self._bind(run, context, followed.since_ns)
            if not followed.found:
                return None
        node = Node(run_id, daemon.advertiser.host.id, followed.found)
        state = await ask(lambda: daemon.tracking.child.compare(node))
        if state == "written" and followed.agreed == 0:
            daemon.log.info("run.compared", run_id=run_id, found=followed.found)
        followed.agreed = followed.agreed + 1 if state == "settled" else 0
        if followed.agreed >= len(AGAIN_S):
            return None
        # What is not recorded yet may be so in a second, or after the first scan of a large dataset.
        return AGAIN_S[-1] if state == "unrecorded" else AGAIN_S[followed.agreed]

    async def _bind(self, run: PendingRun, context: ProcessContext, noticed_ns: int) -> dict[str, str]:
        """Return what our copy of each dataset of the run was at its start: ``dt1:...``, or a word that says why not.

        What has scope ``shared`` is recorded here as by everybody, and needs no comparison.
        """
        daemon, found = self._daemon, dict[str, str]()
        slack = slack_ns(context, daemon.boots, daemon.config.mlflow.clock_slack_seconds)
        # A walk that begins within the slack of the start proves nothing.
        left_s = run.start_ms / 1e3 + slack / 1e9 + 0.005 - time.time()
        await anyio.sleep(min(max(0.0, left_s), slack / 1e9 + 1))
        for named in dataset_names(run.dataset):
            name, path = split_name(named)
            work = daemon.works.get(name)
            if work is None or work.dataset.scope == "shared":
                continue
            looked = await work.walked(for_run=True)
            if work.db is None:
                continue
            seconds = looked.report.seconds if looked.report else 0.0
            walked = Walked(work.dataset, work.db, seconds, looked.error, path)
            owner = f"{daemon.tracking.key}#{run.run_id}"
            bind = partial(copy_at_start, walked, run, slack, owner, noticed_ns)
            bound = await to_thread.run_sync(bind, limiter=self._threads)
            unproven = bound.bound if bound.bound in {"ambiguous", "late"} else "incomplete"
            found[key_of(named)] = bound.digest or unproven
        return found

    async def _keep(self) -> None:
        async with self._writing:  # so that what is known last is what stands there
            text = json.dumps({run_id: each.since_ns for run_id, each in self._followed.items()}).encode()
            try:
                await to_thread.run_sync(write_atomic, self._path, text, 0o600)
            except OSError as error:  # then a restart forgets it
                said = f"{FILE} was not written: {error.strerror}"
                self._daemon.log.info("run.not_compared", run_id=None, error=said)


def _read(path: Path) -> dict[str, _Followed]:
    """Return what was under way when the daemon ended; nothing of a file that is damaged."""
    try:
        value: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {run_id: _Followed(since) for run_id, since in value.items() if type(since) is int}
