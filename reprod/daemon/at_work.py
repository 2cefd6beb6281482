"""The datasets at work: each taken in, let go, and started again by itself should it crash.

Law 7: an exception inside one dataset's work fails that dataset alone. ``works`` is for all to read, by name.
"""

import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from reprod.config import DatasetConfig
from reprod.daemon.work import DatasetWork
from reprod.errors import ReprodError, StateError
from reprod.store import outbox, registry, rehome

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

CRASH_WAIT_S = 5.0


class AtWork:
    """Starts and ends the work of each dataset."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self.works: dict[str, DatasetWork] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._ended: dict[str, anyio.Event] = {}
        self._group: TaskGroup | None = None

    async def begin(self, group: TaskGroup) -> None:
        """Take all datasets of the configuration in; they work in ``group`` from now on."""
        self._group = group
        await self.settle_names()
        for dataset in self._daemon.config.datasets:
            await self.add(dataset)

    async def add(self, dataset: DatasetConfig) -> None:
        """Take a dataset in: watch it, walk it, keep it up to date."""
        daemon = self._daemon
        counts = daemon.counters.of(dataset.name)
        work = DatasetWork(dataset, daemon.config, daemon.limits, daemon.records, daemon.log, self._note_whole, counts)
        self.works[dataset.name] = work
        scope = self._scopes[dataset.name] = anyio.CancelScope()
        self._ended[dataset.name] = anyio.Event()
        if self._group is not None:
            await self._group.start(partial(self._keep_working, work, scope), name=f"dataset {dataset.name}")
        daemon.log.info("dataset.added", dataset=dataset.name, path=dataset.path, watch=work.watch.mode)

    async def settle_names(self) -> None:
        """Carry out what `dataset move` and `dataset rename` have left to do, while none of these is at work."""
        config = self._daemon.config
        roots = {d.name: os.fsencode(d.path) for d in config.datasets}
        with suppress(StateError):  # then it is done when the dataset's file is opened
            await to_thread.run_sync(rehome.settle, config.state_dir, self._daemon.records, roots)

    async def remove(self, name: str) -> None:
        """Let a dataset go; its history stays. Returns when its work has ended, so that its file can be opened anew."""
        daemon = self._daemon
        self._scopes.pop(name).cancel()
        work = self.works.pop(name)
        await self._ended.pop(name).wait()
        work.answer_all(ReprodError(f"{name} was removed", hint="reprod dataset list"))
        now = time.time_ns()
        try:
            await to_thread.run_sync(lambda: daemon.records.write(lambda c: registry.remove(c, name, now)))
        except StateError as error:  # only `status` without a daemon reads it; the rest of a reload must go on
            daemon.be_stuck(error)
        daemon.log.info("dataset.removed", dataset=name)

    async def _keep_working(
        self, work: DatasetWork, scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        """Run a dataset's work; should it crash, start it again and leave the others alone (law 7)."""
        ended = self._ended[work.dataset.name]
        task_status.started()
        try:
            with scope:
                while True:
                    try:
                        await work.run()
                    except* Exception as crash:  # noqa: BLE001 - the border of one dataset
                        first = crash.exceptions[0]
                        self._daemon.log.error("dataset.crashed", dataset=work.dataset.name, error=repr(first))
                        work.crash(first)
                    await anyio.sleep(CRASH_WAIT_S)
        finally:
            ended.set()

    async def _note_whole(self) -> None:
        """A dataset has a complete version again: runs that were recorded as incomplete may be provable now."""
        try:
            await to_thread.run_sync(self._daemon.records.write, outbox.hurry_incomplete)
        except StateError as error:  # they are looked at again on a timer too
            self._daemon.be_stuck(error)
        self._daemon.trigger.ring()
