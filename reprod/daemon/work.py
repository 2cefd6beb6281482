"""All that one dataset needs: its database, its watch, and the loop that refreshes it.

The loop walks at start, on hints, on a timer, and when a run asks: when that is due says `daemon.turns`. Requests that
come while a walk is under way share the next one, because only a walk that began after a request can answer it. An
expected failure is a state with a back-off; an unexpected exception fails this dataset alone. Times: ``*_ns`` wall
clock, ``*_s`` the loop's clock.
"""

import asyncio
import math
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio import from_thread, to_thread
from anyio.abc import TaskStatus

from reprod.config import Config, DatasetConfig
from reprod.core.entry import display
from reprod.daemon.counters import DatasetCounts
from reprod.daemon.dataset_file import DatasetFile
from reprod.daemon.dirty import DirtySet, Lease
from reprod.daemon.turns import Turns
from reprod.daemon.unexpected import bug
from reprod.daemon.view import BARRIER_S, WatchView, watch_without
from reprod.daemon.waiters import Waiter, answer
from reprod.daemon.watcher import WatchService
from reprod.errors import DamagedError, DatasetUnavailableError, ReprodError
from reprod.fs.pace import Limits
from reprod.ops.estimate import Estimate
from reprod.ops.findings import Counts
from reprod.ops.plan import Order
from reprod.ops.refresh import Report, Settings, refresh
from reprod.store.connection import Database

State = Literal["new", "scanning", "current", "dirty", "incomplete", "unavailable", "failed"]


class DatasetWork:
    """One dataset at work. The attributes are what ``status`` shows; only the loop below changes them."""

    def __init__(
        self,
        dataset: DatasetConfig,
        config: Config,
        limits: Limits,
        records: Database,
        log: Any,
        on_whole: Callable[[], Awaitable[None]],
        counts: DatasetCounts,
    ) -> None:
        self.dataset = dataset
        self.state: State = "new"
        self.error: ReprodError | None = None
        self.traceback: str | None = None
        self.report: Report | None = None
        self.progress: Counts | None = None
        self.expected: Estimate | None = None
        self.watched = anyio.Event()  # the watch is armed, or cannot be
        self.began_s = 0.0
        self.last_change_ns: int | None = None
        self.confirmed_ns: int | None = None
        self._config, self._limits, self._log = config, limits, log.bind(dataset=dataset.name)
        self.counts = counts  # of the whole life of the daemon; this object goes with a reload
        self._on_whole = on_whole
        self._loop: asyncio.AbstractEventLoop | None = None
        # Of its own: a walk may take hours, and forty of them would keep the shared threads from every answer.
        self._thread = anyio.CapacityLimiter(1)
        self.file = DatasetFile(dataset, config.state_dir, records, self._log)
        self.dirty = DirtySet(self._ring)
        self._turns = Turns(dataset, self.dirty, self._hears)
        self.watch = WatchService(
            dataset.name,
            os.fsencode(dataset.path),
            config.state_dir / "cookies" / dataset.name,
            self.dirty,
            log=log,
            backend=config.watch.backend,
            make_watcher=partial(watch_without, os.path.realpath(config.state_dir), config.watch.backend),
            on_gap=self._note_gap,
        )

    @property
    def db(self) -> Database | None:
        """The dataset's open file, None before the first look."""
        return self.file.db

    @property
    def set_aside(self) -> Path | None:
        """Where a damaged file of the dataset was put."""
        return self.file.set_aside

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled. "Started" when the watch is armed, or cannot be, and before the first walk."""
        self._loop = asyncio.get_running_loop()
        try:
            async with anyio.create_task_group() as group:
                await group.start(self.watch.run, name=f"watch {self.dataset.name}")
                self.watched.set()
                task_status.started()
                await self._serve()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self.file.close)

    async def walked(self, *, rehash: bool = False, accept_root: bool = False, for_run: bool = False) -> Waiter:
        """Wait for a look that begins after this call, shared with all who wait; its failure is in the result.

        It is a full walk; ``for_run``: when and how the dataset's configuration says.
        """
        waiter = Waiter(rehash, accept_root, for_run)
        self._turns.add(waiter)
        await waiter.done.wait()
        return waiter

    def patience_s(self) -> float:
        """Return for how long those who wait have to be patient yet."""
        left_s = self._turns.asked_s() - anyio.current_time()
        return left_s if math.isfinite(left_s) else 0.0

    def elapsed_s(self) -> float:
        """How long the refresh under way has taken."""
        return time.monotonic() - self.began_s

    def crash(self, error: BaseException) -> None:
        """The loop itself crashed: say so, and answer whoever waits."""
        self.state = "failed"
        self.error = bug(error)
        self.answer_all(self.error)

    def answer_all(self, error: ReprodError) -> None:
        """Tell those who wait for a walk that there will be none."""
        answer(self._turns.waiters.take(), None, error)

    def note_step(self, before_ns: int, after_ns: int, within_ns: int) -> None:
        """The clock was set (see ``DatasetFile.note_step``): times of before prove nothing, so look at everything."""
        self.file.note_step(before_ns, after_ns, within_ns)
        self.dirty.mark_all(after_ns, "clock set")

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            await self._turns.until_due()
            await self._once()

    def _hears(self) -> bool:
        """Whether a run is content with what the watch tells, and the watch can tell."""
        return self.dataset.barrier == "events" and self.watch.armed and self.report is not None and self.error is None

    async def _once(self) -> None:
        """Refresh once, and turn whatever comes of it into a state."""
        turns = self._turns
        asked = turns.asked_s() <= anyio.current_time()
        heard_ns = await self._hear() if asked and self._hears() and turns.waiters.only_runs() else None
        waiters: list[Waiter] = []
        error: ReprodError | None = ReprodError(f"{self.dataset.name} is not looked at any more", hint="reprod status")
        self.began_s = anyio.current_time()
        try:
            with self.dirty.lease() as lease:
                full = turns.is_full(lease, asked=asked, heard=heard_ns is not None, began_s=self.began_s)
                waiters = turns.waiters.take() if full or heard_ns is not None else []
                order = turns.order(lease, waiters, self.began_s, full=full)
                if order.paths is None:
                    turns.note_walk(self.began_s)
                elif not order.paths and heard_ns is None:
                    return
                if order.paths is None or self.state in {"new", "unavailable", "failed"}:
                    self.state = "scanning"
                report = await to_thread.run_sync(self._look, lease, order, heard_ns, limiter=self._thread)
            error = None
        except ReprodError as expected:
            error = expected
            await self._fail(expected)
        except Exception as unexpected:  # noqa: BLE001 - law 7: it fails this dataset, not the others
            error = bug(unexpected)
            self.traceback = traceback.format_exc()
            await self._fail(error)
        else:
            if report is not None:
                await self._succeed(report, order)
        finally:
            self.progress = None
            answer(waiters, self.report, error)

    async def _hear(self) -> int | None:
        """Return a moment up to which all hints have arrived; None if the watch did not answer."""
        moment_ns = time.time_ns()
        return moment_ns if await self.watch.barrier(BARRIER_S) else None

    def _look(self, lease: Lease, order: Order, heard_ns: int | None) -> Report | None:
        """Run the verb, in a worker thread; None if there was nothing to look at."""
        db = self.file.open()
        whole_ns = self.watch.whole_since_ns
        report = None
        if order.paths is None or order.paths:
            report = refresh(
                db,
                self.dataset,
                order,
                Settings(str(self._config.state_dir), self._config.scan.workers, self._limits),
                watch=WatchView(self.watch, lease, self.dirty),
                checkpoint=from_thread.check_cancelled,
                progress=self._note_progress,
            )
            self.confirmed_ns = self.file.record(report.version, sealed=report.sealed)
        stayed_whole = whole_ns is not None and whole_ns == self.watch.whole_since_ns
        if heard_ns is not None and stayed_whole and heard_ns > (whole_ns or 0):
            self.file.note_heard(heard_ns)
        return report

    # --- outcomes ----------------------------------------------------------------------------------------------------

    async def _succeed(self, report: Report, order: Order) -> None:
        was_whole = self.state in {"current", "scanning", "dirty"} and self.error is None
        version = report.version
        self.report, self.error, self.traceback = report, None, None
        self.counts.end(report)
        self.last_change_ns = version.sealed_ns
        reconcile_s = self._config.watch.reconcile_seconds
        now, armed = anyio.current_time(), self.watch.armed
        self._turns.schedule.succeed(report, order.paths, self.began_s, now, reconcile_s, watched=armed)
        self.state = "incomplete" if version.problems else "current"
        if report.sealed or report.full:
            self._log.info("dataset.refreshed", **_fields(report))
        if report.unannounced:
            self._log.warning("dataset.change_unannounced", version=version.seq, total=self.counts.unannounced)
        if version.problems == 0 and (report.sealed or not was_whole):
            await self._on_whole()

    async def _fail(self, error: ReprodError) -> None:
        """An expected failure is a state and a back-off; a damaged file is closed, so that opening sets it aside."""
        known = self.error is not None and self.error.message == error.message
        self.error = error
        self.state = "unavailable" if isinstance(error, DatasetUnavailableError) else "failed"
        self._turns.schedule.fail(anyio.current_time())
        self.counts.failed += 1
        if isinstance(error, DamagedError):
            await to_thread.run_sync(self.file.close)
        if not known:
            self._log.error("dataset.failed", error=error.message, hint=error.hint, traceback=self.traceback)
        await to_thread.run_sync(self.file.record_failure, self.state, error.message)

    # --- called from other threads -----------------------------------------------------------------------------------

    def _note_progress(self, counts: Counts) -> None:
        self.progress = counts
        self.counts.advance(counts)

    def _note_gap(self, kind: str, since_ns: int) -> None:
        self.counts.overflows += kind == "overflow"
        self.file.note_gap(kind, since_ns)

    def _ring(self) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake_up)
        except RuntimeError:
            return  # the loop has ended: nobody waits any more

    def _wake_up(self) -> None:
        if self.state == "current":
            self.state = "dirty"
        self._turns.ring()


def _fields(report: Report) -> dict[str, Any]:
    version, counts = report.version, report.counts
    return {
        "version": version.seq,
        "sealed": report.sealed,
        "full": report.full,
        "files": version.files,
        "bytes": version.size,
        "added": version.added if report.sealed else 0,
        "modified": version.modified if report.sealed else 0,
        "removed": version.removed if report.sealed else 0,
        "hashed_files": counts.hashed_files,
        "hashed_bytes": counts.hashed_bytes,
        "problems": version.problems,
        "first_problem": display(report.problems[0][0]) if report.problems else None,
        "took_ms": round(report.seconds * 1000, 1),
    }
