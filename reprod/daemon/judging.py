"""Judge the drift of runs that ended: dataset by dataset, with the walks that it takes to prove more.

Rule: what has to be walked first is walked once for all runs that wait for it; a run waits for that ``PATIENCE_S``, and
is judged again when the walk is done. ``*_ns`` are of the wall clock.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from reprod.core.drift import DatasetDrift
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import DamagedError, NotFoundError, ReprodError, StateError
from reprod.ops.drift import Lifetime, dataset_drift, unknown
from reprod.store import drifts, files

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

PATIENCE_S = 60.0  # params and drift come together, unless a walk takes long


@dataclass(slots=True)
class _Walk:
    """A walk of one dataset for runs that ended before ``asked_ns``; ``error`` says why there was none."""

    asked_ns: int = 0
    done: bool = False
    error: ReprodError | None = None


@dataclass(slots=True)
class Judged:
    """A run's drift, dataset by dataset. ``again``: a walk may prove more; ``waits``: one that is yet to come."""

    datasets: list[DatasetDrift] = field(default_factory=list)
    again: bool = False
    waits: bool = False


class Judging:
    """Judges from the datasets' files, and has walked what that lacks."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._walks: dict[str, _Walk] = {}
        self._wanted: dict[str, int] = {}

    def judge(self, snapshot: Snapshot, life: Lifetime) -> Judged:
        """Return what happened to a run's datasets while it lived. Blocks: for a thread."""
        found = Judged()
        for bound in snapshot.datasets:
            self._judge_dataset(bound, snapshot.created_ns, life, found)
        return found

    def walk(self, group: TaskGroup, done: Callable[[], None]) -> None:
        """Begin the walks that the last judgements lacked; call ``done`` at the end of each."""
        wanted, self._wanted = self._wanted, {}
        for name, after_ns in wanted.items():
            walk = self._walks.get(name)
            if walk is None or walk.done:
                self._walks[name] = walk = _Walk()
                group.start_soon(self._walk, name, after_ns, walk, done, name=f"walk {name} for ended runs")

    async def _walk(self, name: str, after_ns: int, walk: _Walk, done: Callable[[], None]) -> None:
        """Walk a dataset; only a walk that begins after the ends of the runs proves something."""
        await anyio.sleep(min(max(0.0, (after_ns - time.time_ns()) / 1e9 + 0.005), PATIENCE_S))
        walk.asked_ns = time.time_ns()
        work = self._daemon.works.get(name)
        if work is not None:
            walk.error = (await work.walked(for_run=True)).error
        else:
            walk.error = ReprodError(f"{name} was removed", hint="reprod dataset list")
        try:
            await to_thread.run_sync(lambda: self._daemon.records.write(drifts.hurry))
        except StateError as error:  # they are due on a timer too
            self._daemon.be_stuck(error)
        walk.done = True
        done()

    def _judge_dataset(self, bound: BoundDataset, at_ns: int, life: Lifetime, judged: Judged) -> None:
        daemon = self._daemon
        try:
            db, known = files.open_dataset_readonly(daemon.config.state_dir, bound.name, seq=bound.seq, at_ns=at_ns)
            work = daemon.works.get(known.name)
            with closing(db):
                by_events = work is not None and work.dataset.barrier == "events"
                found = dataset_drift(db, bound, life, by_events=by_events)
        except (NotFoundError, DamagedError, StateError) as error:
            judged.datasets.append(unknown(bound, error.message))
            return
        drift, after_ns = found.drift, found.walk_after_ns
        if after_ns is not None:
            judged.again = True
            walk = self._walks.get(known.name)
            answered = walk is not None and walk.done and walk.asked_ns > after_ns
            if walk is not None and answered and walk.error is not None:
                drift = unknown(bound, f"{drift.reason}: {walk.error.message}")
            if not answered or is_late(life.ended_ns):
                self._wanted[known.name] = max(after_ns, self._wanted.get(known.name, 0))
            judged.waits |= not answered
        judged.datasets.append(drift)


def is_late(ended_ns: int) -> bool:
    """Whether a run that was seen ended at this moment waits no longer for a walk."""
    return time.time_ns() - ended_ns > PATIENCE_S * 1e9
