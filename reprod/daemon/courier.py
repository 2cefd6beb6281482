"""Deliver what is owed: one row after the other through the MLflow child, with back-off, for ever.

A server that is down or hung costs nothing but waiting: rows stay in the outbox, the child is killed at its time-out,
and nothing else in the daemon notices. What waits for the end of a run is written by ``reprod.daemon.endings``.
"""

import time
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from reprod.core.described import described
from reprod.core.run import Payload
from reprod.core.snapshot import Snapshot
from reprod.daemon.endings import Endings
from reprod.errors import DamagedError, NotFoundError, ReprodError, StateError
from reprod.ops.deliver import deliver
from reprod.sinks.protocol import RETRIED, SinkError
from reprod.store import files, outbox
from reprod.store.connection import Database

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

IDLE_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # after an unreachable server: one row tries it, not each of the outbox


class Courier:
    """Empties the outbox."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._bell = anyio.Event()
        self._endings = Endings(daemon)
        self._paused_until_s = 0.0
        self._pause_s = FIRST_PAUSE_S

    def ring(self) -> None:
        """Something became due."""
        self._bell.set()

    def resume(self) -> None:
        """The server answers again."""
        self._paused_until_s, self._pause_s = 0.0, FIRST_PAUSE_S
        self._bell.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                self._bell = anyio.Event()
                wait_s = await self._round(group)
                with anyio.move_on_after(wait_s):
                    await self._bell.wait()

    async def _round(self, group: TaskGroup) -> float:
        """Deliver what is due, look after the ends of runs; return how long to wait until the next round."""
        tracking = self._daemon.tracking
        if tracking.state == "none":
            return IDLE_S
        await tracking.ready.wait()
        try:
            await self._deliver_due()
            await self._endings.look(group)
            return await self._seconds_to_next()
        except StateError as error:
            return self._daemon.be_stuck(error)

    async def _seconds_to_next(self) -> float:
        key, now = self._daemon.tracking.key, anyio.current_time()
        due = await to_thread.run_sync(lambda: self._daemon.records.read(lambda c: outbox.next_due_ns(c, key)))
        left = (due - time.time_ns()) / 1e9 if due is not None else IDLE_S
        return max(0.05, min(max(left, self._paused_until_s - now), IDLE_S, self._endings.next_s - now))

    async def _deliver_due(self) -> None:
        while anyio.current_time() >= self._paused_until_s:
            rows = await to_thread.run_sync(self._due)
            for row in rows:
                if not await self._deliver(row):
                    self._paused_until_s = anyio.current_time() + self._pause_s
                    self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
                    return
                self._pause_s = FIRST_PAUSE_S
            if not rows:
                return

    def _due(self) -> list[outbox.Delivery]:
        key, now = self._daemon.tracking.key, time.time_ns()
        return self._daemon.records.read(lambda c: outbox.due(c, key, "waiting", now))

    async def _deliver(self, row: outbox.Delivery) -> bool:
        """Deliver one row; False when the server does not answer, so that the rest need not try."""
        daemon = self._daemon
        try:
            done = await to_thread.run_sync(self._write, row, abandon_on_cancel=True)
        except SinkError as error:
            await to_thread.run_sync(self._take_error, row, error)
            return error.kind not in {"unreachable", "stopped"}
        except (NotFoundError, DamagedError) as error:
            daemon.log.error("delivery.version_lost", run_id=row.run_id, error=error.message)
            await to_thread.run_sync(lambda: daemon.records.write(lambda c: outbox.republish(c, row.id)))
            daemon.trigger.ring()
            return True
        except ReprodError as error:
            await to_thread.run_sync(daemon.postpone, row, error)
            return True
        except Exception as unexpected:  # noqa: BLE001 - one run that cannot be written must not end the daemon
            await to_thread.run_sync(daemon.postpone, row, daemon.bug(unexpected))
            return True
        state, ended, renamed = done
        if ended:
            self._endings.next_s = 0.0  # its drift is still owed
        daemon.counters.deliver(state)
        daemon.log.info("run.captured", run_id=row.run_id, state=state, params_written=ended, renamed=renamed or None)
        return True

    def _write(self, row: outbox.Delivery) -> tuple[str, bool, tuple[str, ...]]:
        daemon = self._daemon
        result = deliver(
            daemon.records,
            row,
            daemon.tracking.child,
            self.open_dataset,
            daemon.scratch,
            max_inline_files=daemon.config.mlflow.max_inline_files,
            git_diff=daemon.config.upload.git_diff,
        )
        snapshot = msgspec.json.decode(row.snapshot or b"", type=described(Snapshot))
        now = time.time_ns()

        def settle(c: files.Connection) -> None:
            outbox.delivered(c, row.id, result.state, ended=False, now_ns=now)
            if any(d.retry for d in snapshot.datasets):
                outbox.look_again(c, row.id, now + 30_000_000_000)

        daemon.records.write(settle)
        return result.state, result.ended, result.renamed

    def open_dataset(self, name: str, seq: int, at_ns: int) -> Database:
        """Open the file that holds a version, for reading; who asks closes it."""
        return files.open_dataset_readonly(self._daemon.config.state_dir, name, seq=seq, at_ns=at_ns)[0]

    def _take_error(self, row: outbox.Delivery, error: SinkError) -> None:
        daemon, now = self._daemon, time.time_ns()
        if error.kind == "gone":
            self._forget(row)
            return
        if error.kind in RETRIED:
            daemon.postpone(row, error)
            return
        self._mark_failed(row, error)
        daemon.records.write(lambda c: outbox.failed(c, row.id, error.message, now))
        daemon.counters.fail()
        daemon.log.error("run.failed", run_id=row.run_id, error=error.message, hint=error.hint)

    def _mark_failed(self, row: outbox.Delivery, error: SinkError) -> None:
        """Say on the run that a person must act; if even that is refused, ``status`` still says it."""
        said = f"{error.message} ({error.hint})"[:1000] if error.hint else error.message[:1000]
        try:
            self._daemon.tracking.child.deliver(
                Payload(
                    row.run_id,
                    "failed",
                    time.time_ns() // 1_000_000,
                    host_id=self._daemon.advertiser.host.id,
                    tags={"reprod.error": said},
                    remove_tags=("reprod.note",),
                )
            )
        except SinkError:
            pass

    def _forget(self, row: outbox.Delivery) -> None:
        now = time.time_ns()
        self._daemon.records.write(lambda c: outbox.gone(c, row.id, now))
        self._daemon.log.info("run.deleted", run_id=row.run_id)
