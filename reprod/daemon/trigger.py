"""Notice tagged runs, and turn each into a snapshot that is owed to it.

The poll is the only complete source (MLflow moves no time stamp when a tag is set, and has no webhook for runs); a
doorbell from the socket makes it immediate. A run of a name that this daemon does not have is left alone. Publishing is
one task a run: they wait together for one walk.
"""

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio import to_thread

from reprod.capture.process.identity import is_alive
from reprod.core.described import described
from reprod.core.process import ProcessContext
from reprod.core.run import PendingRun, dataset_names, split_name
from reprod.daemon.notes import Unanswered
from reprod.daemon.noticing import Noticing
from reprod.daemon.polling import Interval
from reprod.errors import ReprodError, StateError
from reprod.fs.mounts import settle_slack_ns
from reprod.ops.publish import Walked, publish, slack_ns
from reprod.sinks.protocol import SinkError
from reprod.store import asked, outbox, registry, snapshots

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

LONGEST_POLL_S = 300.0
POLL_SPACING_S = 0.1  # any local user may ring: the tracking server is not asked back to back for that
HANDOVER_WAIT_S = 15.0  # a record of 1,000 packages and a large repository takes a second or two, niced, if it is free
ANNOUNCE_WAIT_S = 1.0  # a script tags its run, and then says who it is: a poll may come between
LOOK_AGAIN_S = 30.0  # an incomplete run, when nothing else says that its dataset changed
KEEP_LOOKING_S = 7 * 86_400.0


@dataclass(slots=True)
class Waiting:
    """A run that is being published: since when (the loop's clock), and for which datasets it still waits."""

    since_s: float
    names: set[str]


class Trigger:
    """Polls the tracking server and publishes what it finds."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._bell = anyio.Event()
        self._noticing = Noticing(daemon)
        self._interval = Interval()
        self._publishing: set[int] = set()
        self.waiting: dict[str, Waiting] = {}  # runs that are being published
        self.unanswered = Unanswered()
        self.elsewhere: dict[str, int] = {}  # runs of other hosts that name a dataset of this host alone

    def ring(self) -> None:
        """Poll now."""
        self._bell.set()

    async def run(self) -> None:
        """Poll until cancelled, with jitter; slower while the server does not answer."""
        daemon = self._daemon
        rung = False
        async with anyio.create_task_group() as group:
            while True:
                self._bell = anyio.Event()
                try:
                    wait_s = await self._round(group, rung=rung)
                except StateError as error:
                    wait_s = daemon.be_stuck(error)
                await anyio.sleep(POLL_SPACING_S)
                with anyio.move_on_after(wait_s):
                    await self._bell.wait()
                rung = self._bell.is_set()

    async def _round(self, group: anyio.abc.TaskGroup, *, rung: bool) -> float:
        """Publish what is due, ask for more; return how long to wait until the next round."""
        await self._publish_due(group)
        if self._daemon.tracking.state == "none":
            return LONGEST_POLL_S
        await self._daemon.tracking.ready.wait()
        wait_s = await self._poll(rung=rung)
        await self._publish_due(group)
        return wait_s

    async def _poll(self, *, rung: bool) -> float:
        """Ask for tagged runs and take in those of our datasets; return how long to wait until the next poll."""
        daemon, tracking = self._daemon, self._daemon.tracking
        try:
            pending = await to_thread.run_sync(lambda: self._noticing.ask(rung=rung), abandon_on_cancel=True)
        except SinkError as error:
            tracking.note(error)
            if error.kind == "bug":
                daemon.log.error("tracking.poll_failed", error=error.message, detail=error.detail)
            return self._interval.failed(float(daemon.config.mlflow.poll_seconds))
        if tracking.note(None):
            await to_thread.run_sync(lambda: daemon.records.write(outbox.hurry))
            daemon.courier.resume()
        await daemon.advertiser.look(pending)
        ours = self._ours(pending)
        if ours:
            await to_thread.run_sync(self._take_in, ours)
        return self._interval.answered(
            float(daemon.config.mlflow.poll_seconds), tracking.child.polled.took_s, daemon.advertiser.daemons
        )

    def _ours(self, pending: list[PendingRun]) -> list[PendingRun]:
        """Return the runs that this daemon answers for; count those of other hosts that name datasets of this one."""
        ours, others, elsewhere, contested = [], [], Counter[str](), {}
        answering = self._daemon.answering
        for run in pending:
            found = answering.of(run)
            if "answer" in found.values():
                ours.append(run)
                continue
            others.append(run)
            if (said := answering.said(run)) is not None:
                contested[run.run_id] = said
            else:
                elsewhere.update(split_name(named)[0] for named, each in found.items() if each == "leave")
        self.elsewhere = dict(elsewhere)
        self.unanswered.see(others, anyio.current_time(), contested)
        return ours

    def _take_in(self, runs: list[PendingRun]) -> None:
        key, now = self._daemon.tracking.key, time.time_ns()
        rows = [(run.run_id, run.dataset, msgspec.json.encode(run)) for run in runs]
        self._daemon.records.write(
            lambda c: [asked.notice(c, key, run_id, dataset, row, now) for run_id, dataset, row in rows]
        )

    async def _publish_due(self, group: anyio.abc.TaskGroup) -> None:
        """Start a task for each run that is due; those under way are left alone."""
        records, key, now = self._daemon.records, self._daemon.tracking.key, time.time_ns()
        noticed = await to_thread.run_sync(
            lambda: records.read(lambda c: outbox.due(c, key, "noticed", now, 1000) + outbox.due_again(c, key, now))
        )
        for delivery in noticed:
            if delivery.id not in self._publishing:
                self._publishing.add(delivery.id)
                group.start_soon(self._publish, delivery, name=f"publish {delivery.run_id}")

    async def _publish(self, delivery: outbox.Delivery) -> None:
        daemon = self._daemon
        try:
            run = msgspec.json.decode(delivery.run, type=described(PendingRun))
            await self._publish_run(delivery, run)
        except ReprodError as error:
            await self._postpone(delivery, error)
        except Exception as unexpected:  # noqa: BLE001 - one run that cannot be published must not end the daemon
            await self._postpone(delivery, daemon.bug(unexpected))
        finally:
            self._publishing.discard(delivery.id)
            self.waiting.pop(delivery.run_id, None)
        daemon.courier.ring()

    async def _postpone(self, delivery: outbox.Delivery, error: ReprodError) -> None:
        try:
            await to_thread.run_sync(self._daemon.postpone, delivery, error)
        except StateError as stuck:  # then it is tried again with the next poll
            self._daemon.be_stuck(stuck)

    async def _publish_run(self, delivery: outbox.Delivery, run: PendingRun) -> None:
        daemon = self._daemon
        context = ProcessContext.parse(run.context or "")
        slack = slack_ns(context, daemon.boots, daemon.config.mlflow.clock_slack_seconds)
        names = await to_thread.run_sync(self._present_names, run, delivery.created_ns)
        parts = daemon.answering.parts(names, context)
        ours = list(dict.fromkeys(base for base, _ in map(split_name, parts.ours)))
        walked: dict[str, Walked] = {}
        self.waiting[delivery.run_id] = Waiting(anyio.current_time(), set(ours))
        async with anyio.create_task_group() as group:
            for name in ours:
                group.start_soon(self._walk, name, walked, run, slack)
            if context is not None:
                group.start_soon(self._await_handover, context)
        missed = [name for name in ours if name not in walked]
        if missed or not walked:
            raise StateError(f"{', '.join(missed) or run.dataset} could not be walked", hint="reprod status")
        used = [replace(walked[base], path=path) for base, path in map(split_name, parts.ours)]
        snapshot = await to_thread.run_sync(
            publish, daemon.records, delivery, run, used, parts, slack, daemon.advertiser.host
        )
        if delivery.snapshot is not None and snapshot.state == "incomplete":
            await self._look_again(delivery, worth_it=any(d.retry for d in snapshot.datasets))
        else:
            daemon.log.info(
                "run.published",
                run_id=run.run_id,
                state=snapshot.state,
                datasets={d.named: d.seq if d.digest else d.bound for d in snapshot.datasets},
                environment=snapshot.environment[:12] if snapshot.environment else None,
            )

    def _present_names(self, run: PendingRun, noticed_ns: int) -> list[str]:
        """Return what the run's datasets are called now: one may have been renamed since the run was noticed."""
        known = self._daemon.records.read(registry.Names)
        return list(dict.fromkeys(known.present_name(named, noticed_ns) for named in dataset_names(run.dataset)))

    async def _walk(self, name: str, walked: dict[str, Walked], run: PendingRun, slack: int) -> None:
        """Walk a dataset for a run. A walk that begins within the slack of its start proves nothing: let that pass."""
        work = self._daemon.works.get(name)
        if work is None:  # removed since; who waits for it is told that it was not walked
            return
        if work.report is not None:
            slack = max(slack, settle_slack_ns(work.report.fs_type))
        left_s = run.start_ms / 1e3 + slack / 1e9 + 0.005 - time.time()
        await anyio.sleep(min(max(0.0, left_s), slack / 1e9 + 1))
        looked = await work.walked(for_run=True)
        if run.run_id in self.waiting:
            self.waiting[run.run_id].names.discard(name)
        if work.db is not None:
            seconds = looked.report.seconds if looked.report else 0.0
            walked[name] = Walked(work.dataset, work.db, seconds, looked.error)

    async def _await_handover(self, context: ProcessContext) -> None:
        """A process that announced itself is about to hand over its record: give that a moment."""
        records = self._daemon.records
        alive_until_s = anyio.current_time() + (ANNOUNCE_WAIT_S if is_alive(context) else 0.0)
        with anyio.move_on_after(HANDOVER_WAIT_S):
            while True:
                handed = await to_thread.run_sync(lambda: records.read(lambda c: snapshots.handover(c, context.key)))
                if handed is None and anyio.current_time() < alive_until_s:
                    await anyio.sleep(0.05)
                    continue
                if handed is None or handed.digest is not None:
                    return
                if time.time_ns() - handed.taken_ns > HANDOVER_WAIT_S * 1e9:
                    return
                await anyio.sleep(0.05)

    async def _look_again(self, delivery: outbox.Delivery, *, worth_it: bool) -> None:
        """Look at an incomplete run later; one that somebody asked for may be beyond proof, and then no walk helps."""
        age_s = (time.time_ns() - delivery.created_ns) / 1e9
        wait_s = max(LOOK_AGAIN_S, age_s / 10)
        when = time.time_ns() + int(wait_s * 1e9) if worth_it and age_s < KEEP_LOOKING_S else 0
        await to_thread.run_sync(lambda: self._daemon.records.write(lambda c: outbox.look_again(c, delivery.id, when)))
