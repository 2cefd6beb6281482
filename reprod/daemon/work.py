"""All that one dataset needs: its database, its watch, and the loop that refreshes it.

The loop walks at start, on hints, on a timer, and when a run asks; requests that come while a walk is under way share
the next one, because only a walk that began after a request can answer it. An expected failure is a state with a
back-off; an unexpected exception fails this dataset alone. Times: ``*_ns`` wall clock, ``*_s`` the loop's clock.
"""

import asyncio
import math
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio import from_thread, to_thread
from anyio.abc import TaskStatus

from reprod.config import Config, DatasetConfig
from reprod.core.entry import display
from reprod.daemon.dirty import DirtySet, Lease
from reprod.daemon.schedule import LONGEST_SETTLE_S, Schedule
from reprod.daemon.view import WatchView, watch_without
from reprod.daemon.watcher import WatchService
from reprod.errors import DamagedError, DatasetUnavailableError, ReprodError, StateError
from reprod.fs.pace import Limits
from reprod.ops.findings import Counts
from reprod.ops.plan import Order
from reprod.ops.refresh import Report, Settings, refresh
from reprod.store import files, registry, timeline
from reprod.store.connection import Database

State = Literal["new", "scanning", "current", "dirty", "incomplete", "unavailable", "failed"]


@dataclass(eq=False)
class Request:
    """Somebody who waits for a full walk that begins from now on."""

    rehash: bool = False
    accept_root: bool = False
    done: anyio.Event = field(default_factory=anyio.Event)
    report: Report | None = None
    error: ReprodError | None = None


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
    ) -> None:
        self.dataset = dataset
        self.state: State = "new"
        self.error: ReprodError | None = None
        self.traceback: str | None = None
        self.report: Report | None = None
        self.progress: Counts | None = None
        self.began_s = 0.0
        self.set_aside: Path | None = None
        self.unannounced = 0
        self.last_change_ns: int | None = None
        self.confirmed_ns: int | None = None
        self.db: Database | None = None
        self._config, self._limits, self._records, self._log = config, limits, records, log.bind(dataset=dataset.name)
        self._on_whole = on_whole
        self._wake = anyio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests: list[Request] = []
        self._gap: tuple[int, str] | None = None
        self._schedule = Schedule()
        # Of its own: a walk may take hours, and forty of them would keep the shared threads from every answer.
        self._thread = anyio.CapacityLimiter(1)
        self.dirty = DirtySet(self._ring)
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

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled. "Started" when the watch is armed, or cannot be, and before the first walk."""
        self._loop = asyncio.get_running_loop()
        try:
            async with anyio.create_task_group() as group:
                await group.start(partial(self.watch.run), name=f"watch {self.dataset.name}")
                task_status.started()
                await self._serve()
        finally:
            with anyio.CancelScope(shield=True):
                db, self.db = self.db, None
                if db is not None:
                    await to_thread.run_sync(db.close)

    async def walked(self, *, rehash: bool = False, accept_root: bool = False) -> Request:
        """Wait for a full walk that begins after this call, shared with all who wait; its failure is in the result."""
        request = Request(rehash, accept_root)
        self._requests.append(request)
        self._wake.set()
        await request.done.wait()
        return request

    def elapsed_s(self) -> float:
        """How long the refresh under way has taken."""
        return time.monotonic() - self.began_s

    def crash(self, error: BaseException) -> None:
        """The loop itself crashed: say so, and answer whoever waits."""
        self.state = "failed"
        self.error = ReprodError(f"unexpected {type(error).__name__}: {error}", hint="this is a bug; report it")
        self.answer_all(self.error)

    def answer_all(self, error: ReprodError) -> None:
        """Tell those who wait for a walk that there will be none."""
        requests, self._requests = self._requests, []
        for request in requests:
            request.error = error
            request.done.set()

    def note_step(self, before_ns: int, after_ns: int, within_ns: int) -> None:
        """The clock was set from ``before_ns`` to ``after_ns``, at some moment of the last ``within_ns``.

        No time before can be compared with one after. Blocking; call from a thread.
        """
        if self.db is not None:
            low, high = sorted((before_ns, after_ns))
            self.db.write(lambda c: timeline.step(c, low - within_ns, high, after_ns))

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            await self._until_needed()
            if not self._requests:
                await self._settle()
            await self._once()

    async def _until_needed(self) -> None:
        """Wait for a hint, a request or a timer. After a failure only the back-off or a request counts."""
        while True:
            self._wake = wake = anyio.Event()
            if self._requests or (self._schedule.retry_s is None and self.dirty.pending()):
                return
            left = self._schedule.due_s() - anyio.current_time()
            if left <= 0:
                return
            with anyio.move_on_after(left):
                await wake.wait()

    async def _settle(self) -> None:
        """Let a burst of writes end, and background seals be a second apart; a request ends the wait."""
        latest = anyio.current_time() + LONGEST_SETTLE_S
        while not self._requests:
            newest = self.dirty.newest_ns
            quiet_s = (time.time_ns() - newest) / 1e9 if newest is not None else math.inf
            left = self._schedule.settle_s(anyio.current_time(), quiet_s, latest)
            if left <= 0:
                return
            self._wake = anyio.Event()
            with anyio.move_on_after(left):
                await self._wake.wait()

    async def _once(self) -> None:
        """Refresh once, and turn whatever comes of it into a state."""
        requests, self._requests = self._requests, []
        error: ReprodError | None = None
        self.began_s = anyio.current_time()
        try:
            with self.dirty.lease() as lease:
                order = self._order(lease, requests)
                if order.paths is not None and not order.paths:
                    return
                if order.paths is None or self.state in {"new", "unavailable", "failed"}:
                    self.state = "scanning"
                report = await to_thread.run_sync(self._refresh, lease, order, limiter=self._thread)
        except ReprodError as expected:
            error = expected
            await self._fail(expected)
        except Exception as unexpected:  # noqa: BLE001 - law 7: it fails this dataset, not the others
            error = ReprodError(
                f"unexpected {type(unexpected).__name__}: {unexpected}", hint="this is a bug; report it"
            )
            self.traceback = traceback.format_exc()
            await self._fail(error)
        else:
            await self._succeed(report, order)
        finally:
            self.progress = None
            for request in requests:
                request.report, request.error = self.report if error is None else None, error
                request.done.set()

    def _order(self, lease: Lease, requests: list[Request]) -> Order:
        """Everything when somebody asks, a timer says so or the watch cannot tell; else what was hinted at."""
        if requests or lease.everything or self.began_s >= self._schedule.walk_s:
            return Order(None, any(r.rehash for r in requests), any(r.accept_root for r in requests))
        return Order(self._schedule.paths(frozenset(lease.paths), lease.closed, self.began_s))

    def _refresh(self, lease: Lease, order: Order) -> Report:
        """Run the verb, in a worker thread."""
        db = self._open()
        if self._gap is not None:
            gap, self._gap = self._gap, None
            db.write(lambda c: timeline.open_gap(c, *gap))
        report = refresh(
            db,
            self.dataset,
            order,
            Settings(str(self._config.state_dir), self._config.scan.workers, self._limits),
            watch=WatchView(self.watch, lease, self.dirty),
            checkpoint=from_thread.check_cancelled,
            progress=self._note_progress,
        )
        self._keep_record(db, report)
        return report

    def _open(self) -> Database:
        if self.db is None:
            opened = files.open_dataset(
                self._config.state_dir, self._records, self.dataset.name, os.fsencode(self.dataset.path)
            )
            self.db, self.set_aside = opened.db, opened.set_aside or self.set_aside
            if opened.set_aside is not None:
                self._log.error("dataset.rebuilt", set_aside=str(opened.set_aside))
            self.db.write(timeline.open_downtime)
        return self.db

    def _keep_record(self, db: Database, report: Report) -> None:
        name, version = self.dataset.name, report.version
        self.confirmed_ns = db.read(timeline.proved_ns)
        if report.sealed:
            self._records.write(lambda c: registry.sealed(c, name, version))
        state = "incomplete" if version.problems else "current"
        self._records.write(lambda c: registry.noted(c, name, state, None, self.confirmed_ns))

    # --- outcomes ----------------------------------------------------------------------------------------------------

    async def _succeed(self, report: Report, order: Order) -> None:
        was_whole = self.state in {"current", "scanning", "dirty"} and self.error is None
        version = report.version
        self.report, self.error, self.traceback = report, None, None
        self.unannounced += report.unannounced
        self.last_change_ns = version.sealed_ns
        reconcile_s = self._config.watch.reconcile_seconds
        now, armed = anyio.current_time(), self.watch.armed
        self._schedule.succeed(report, order.paths, self.began_s, now, reconcile_s, watched=armed)
        self.state = "incomplete" if version.problems else "current"
        if version.problems == 0 and (report.sealed or not was_whole):
            await self._on_whole()
        if report.sealed or report.full:
            self._log.info("dataset.refreshed", **_fields(report))
        if report.unannounced:
            self._log.warning("dataset.change_unannounced", version=version.seq, total=self.unannounced)

    async def _fail(self, error: ReprodError) -> None:
        """An expected failure is a state and a back-off; a damaged file is closed, so that opening sets it aside."""
        known = self.error is not None and self.error.message == error.message
        self.error = error
        self.state = "unavailable" if isinstance(error, DatasetUnavailableError) else "failed"
        self._schedule.fail(anyio.current_time())
        if isinstance(error, DamagedError) and self.db is not None:
            await to_thread.run_sync(self.db.close)
            self.db = None
        if not known:
            self._log.error("dataset.failed", error=error.message, hint=error.hint, traceback=self.traceback)
        name, state = self.dataset.name, self.state
        try:
            await to_thread.run_sync(
                lambda: self._records.write(lambda c: registry.noted(c, name, state, error.message, None))
            )
        except (StateError, DamagedError):
            pass  # the registry is what failed; status tells, and the next success writes it

    # --- called from other threads -----------------------------------------------------------------------------------

    def _note_progress(self, counts: Counts) -> None:
        self.progress = counts

    def _note_gap(self, kind: str, since_ns: int) -> None:
        known = self._gap
        if known is None or since_ns < known[0]:
            self._gap = (since_ns, kind)

    def _ring(self) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake_up)
        except RuntimeError:
            return  # the loop has ended: nobody waits any more

    def _wake_up(self) -> None:
        if self.state == "current":
            self.state = "dirty"
        self._wake.set()


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
