"""Deliver what is owed: one row after the other through the MLflow child, with back-off, for ever.

A server that is down or hung costs nothing but waiting: rows stay in the outbox, the child is killed at its time-out,
and nothing else in the daemon notices. A run that fails by itself waits by itself (``reprod.daemon.doubt``). What waits
for the end of a run is written by ``reprod.daemon.endings``.
"""

import time
from typing import TYPE_CHECKING, Literal

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from reprod.core.described import described
from reprod.core.run import Payload
from reprod.core.snapshot import Snapshot
from reprod.daemon.doubt import Doubt
from reprod.daemon.endings import Endings
from reprod.errors import DamagedError, NotFoundError, ReprodError, StateError
from reprod.ops.deliver import Delivered, deliver
from reprod.sinks.protocol import RETRIED, Kind, SinkError
from reprod.store import files, outbox
from reprod.store.connection import Database

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

IDLE_S = 30.0

#: What the end of a try says of the server: it answered, or it did not, or nothing (the fault is on this side).
Word = Literal["answered", "silent", "nothing"]
_WORDS: dict[Kind, Word] = {"unreachable": "silent", "stopped": "silent", "crashed": "nothing", "bug": "nothing"}


class Courier:
    """Empties the outbox."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._bell = anyio.Event()
        self._endings = Endings(daemon)
        self._doubt = Doubt()
        self.denied: set[str] = set()  # runs that the tracking server does not let reprod's user write to

    def ring(self) -> None:
        """Something became due."""
        self._bell.set()

    def resume(self) -> None:
        """The server answers again, or somebody asks for a try now."""
        self._doubt.clear()
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
        return max(0.05, min(max(left, self._doubt.left_s(now)), IDLE_S, self._endings.next_s - now))

    async def _deliver_due(self) -> None:
        """Deliver until nothing is due any more, or the server seems to be in trouble."""
        while self._doubt.left_s(anyio.current_time()) <= 0:
            row = await to_thread.run_sync(self._next)
            if row is None:
                return
            word = await self._deliver(row)
            if word == "answered":
                self._doubt.succeed(row.id)
            elif word == "silent":
                self._doubt.fail(row.id, anyio.current_time())

    def _next(self) -> outbox.Delivery | None:
        key, now, doubted = self._daemon.tracking.key, time.time_ns(), self._doubt.failed_last
        return self._daemon.records.read(lambda c: outbox.next_due(c, key, now, doubted))

    async def _deliver(self, row: outbox.Delivery) -> Word:
        """Deliver one row; return what that says of the server."""
        daemon = self._daemon
        try:
            done = await to_thread.run_sync(self._write, row, abandon_on_cancel=True)
        except SinkError as error:
            await to_thread.run_sync(self._take_error, row, error)
            return _WORDS.get(error.kind, "answered")
        except (NotFoundError, DamagedError) as error:
            daemon.log.error("delivery.version_lost", run_id=row.run_id, error=error.message)
            await to_thread.run_sync(lambda: daemon.records.write(lambda c: outbox.republish(c, row.id)))
            daemon.trigger.ring()
            return "nothing"
        except ReprodError as error:
            await to_thread.run_sync(daemon.postpone, row, error)
            return "nothing"
        except Exception as unexpected:  # noqa: BLE001 - one run that cannot be written must not end the daemon
            await to_thread.run_sync(daemon.postpone, row, daemon.bug(unexpected))
            return "nothing"
        self.denied.discard(row.run_id)
        if done is not None:
            self._tell(row, done)
        return "answered"

    def _tell(self, row: outbox.Delivery, done: Delivered) -> None:
        """Count and log a delivery; what is still owed at the run's end is looked after now if it has ended."""
        if done.ended:
            self._endings.next_s = 0.0
        self._daemon.counters.deliver(done.state)
        self._daemon.log.info(
            "run.captured",
            run_id=row.run_id,
            state=done.state,
            params_written=done.ended,
            renamed=done.renamed or None,
            left_out=done.left_out or None,
        )

    def _write(self, row: outbox.Delivery) -> Delivered | None:
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
        if result is None:
            self._withdraw(row)
            return None
        snapshot = msgspec.json.decode(row.snapshot or b"", type=described(Snapshot))
        now = time.time_ns()

        def settle(c: files.Connection) -> None:
            outbox.delivered(c, row.id, result.state, ended=False, now_ns=now)
            if any(d.retry for d in snapshot.datasets):
                outbox.look_again(c, row.id, now + 30_000_000_000)

        daemon.records.write(settle)
        return result

    def open_dataset(self, name: str, seq: int, at_ns: int) -> Database:
        """Open the file that holds a version, for reading; who asks closes it."""
        return files.open_dataset_readonly(self._daemon.config.state_dir, name, seq=seq, at_ns=at_ns)[0]

    def _take_error(self, row: outbox.Delivery, error: SinkError) -> None:
        daemon, now = self._daemon, time.time_ns()
        if error.kind == "gone":
            self._forget(row)
            return
        (self.denied.add if error.kind == "denied" else self.denied.discard)(row.run_id)
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

    def _withdraw(self, row: outbox.Delivery) -> None:
        """Nothing is owed any more: should the run name it again, it is noticed anew."""
        self._daemon.records.write(lambda c: outbox.withdraw(c, row.id))
        why = f"it does not name {row.recorded} any more"
        self._daemon.log.info("run.withdrawn", run_id=row.run_id, why=why)
