"""Notice that runs ended, were resumed, or lost their process; judge their drift, and write what waits for the end.

Rule: the run's status says whether it ended, never its ``end_time``. A row is ``ending`` until its end is written. What
has to be walked first is walked once for all that wait for it; a run waits for that ``PATIENCE_S``, then it gets
``unknown`` and is judged again when the walk is done. Settled runs are asked for again for ``ASK_FOR_S``, because
MLflow tells nobody that a run was resumed: after ``ASK_S``, and the older the less often, at most ``STATUS_CHUNK`` a
look. A run costs some 60 requests of 5 ms in those seven days so.

``*_ns`` are of the wall clock, ``*_s`` of the loop's.
"""

import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from reprod.capture.process.identity import boot_id, current_context, is_alive
from reprod.core.described import described
from reprod.core.drift import GONE, DatasetDrift, Drift
from reprod.core.process import ProcessContext
from reprod.core.run import ENDED, PendingRun
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.daemon.lifetime import Seen, is_news, lifetime
from reprod.errors import DamagedError, NotFoundError, ReprodError, StateError
from reprod.ops.deliver_end import deliver_end
from reprod.ops.drift import Lifetime, dataset_drift, unknown
from reprod.ops.handovers import last_word
from reprod.ops.publish import slack_ns
from reprod.sinks.protocol import RunRow, SinkError
from reprod.store import drifts, files, outbox
from reprod.store.drifts import Said

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

STATUS_CHUNK = 100  # runs asked about in one call
PATIENCE_S = 60.0  # params and drift come together, unless a walk takes long
ASK_S, ASK_FOR_S = 600.0, 7 * 86_400.0
AGAIN_S = 60.0  # until an unknown drift that a walk may prove is judged again; the older the less often
REFUSED_S = 60.0  # until a run that refused what is owed to it is tried again


@dataclass(slots=True)
class _Walk:
    """A walk of one dataset for runs that ended before ``asked_ns``; ``error`` says why there was none."""

    asked_ns: int = 0
    done: bool = False
    error: ReprodError | None = None


@dataclass(slots=True)
class _Judging:
    """One run's drift in the making: datasets, the walks that may prove more, and whether any is worth waiting for."""

    datasets: list[DatasetDrift] = field(default_factory=list)
    again: bool = False
    waits: bool = False


class Endings:
    """Looks after the ends of runs. ``next_s``: when the next look is due."""

    def __init__(self, daemon: "Daemon") -> None:
        self.next_s = 0.0
        self._daemon = daemon
        self._seen: dict[int, Seen] = {}
        self._walks: dict[str, _Walk] = {}
        self._wanted: dict[str, int] = {}
        self._pid_ns: int | None = None
        with suppress(OSError):  # then no process can be looked at either
            self._pid_ns = current_context().pid_ns

    async def look(self, group: TaskGroup) -> None:
        """Ask for the runs whose end is awaited, and write what is due; at most once a poll interval."""
        daemon = self._daemon
        if anyio.current_time() < self.next_s:
            return
        self.next_s = anyio.current_time() + daemon.config.mlflow.poll_seconds
        try:
            await to_thread.run_sync(self._look, abandon_on_cancel=True)
        except SinkError as error:
            if error.kind == "bug":
                daemon.log.error("delivery.params_failed", error=error.message, detail=error.detail)
        wanted, self._wanted = self._wanted, {}
        for name, after_ns in wanted.items():
            walk = self._walks.get(name)
            if walk is None or walk.done:
                self._walks[name] = walk = _Walk()
                group.start_soon(self._walk, name, after_ns, walk, name=f"walk {name} for ended runs")

    async def _walk(self, name: str, after_ns: int, walk: _Walk) -> None:
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
        self.next_s = 0.0
        self._daemon.courier.ring()

    # --- in a worker thread ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        records, key, now = self._daemon.records, self._daemon.tracking.key, time.time_ns()
        since = now - int(ASK_FOR_S * 1e9)
        rows = records.read(
            lambda c: outbox.ending(c, key) + drifts.to_ask(c, key, now, int(ASK_S * 1e9), since, STATUS_CHUNK)
        )
        for i in range(0, len(rows), STATUS_CHUNK):
            chunk = rows[i : i + STATUS_CHUNK]
            asked_ns = time.time_ns()
            now_runs = self._daemon.tracking.child.runs(list({row.run_id for row in chunk}))
            found = {each.run.run_id: each for each in now_runs.runs}
            for row in chunk:
                if row.run_id in now_runs.missing:
                    self._forget(row)
                elif row.run_id in found:
                    self._see_safely(row, found[row.run_id], asked_ns)
            settled = [row.id for row in chunk if row.state == "done"]
            records.write(lambda c, settled=settled, at=asked_ns: drifts.asked(c, settled, at))  # type: ignore[misc]

    def _see_safely(self, row: outbox.Delivery, found: RunRow, asked_ns: int) -> None:
        """Do what one run needs; a run that refuses it holds up no other."""
        seen = self._seen.setdefault(row.id, Seen())
        if seen.not_before_ns > time.time_ns():
            return
        try:
            self._see(row, found, seen, asked_ns)
        except SinkError as error:
            if error.kind in {"unreachable", "stopped"}:
                raise
            if error.kind == "gone":
                self._forget(row)
                return
            self._daemon.log.error(
                "delivery.params_failed", run_id=row.run_id, error=error.message, detail=error.detail
            )
        except StateError:
            raise
        except Exception as unexpected:  # noqa: BLE001 - one run that cannot be judged must not end the daemon
            self._daemon.bug(unexpected)
        else:
            if row.state == "done" and not seen.gone_ns:  # what else was seen of it is in its row
                self._seen.pop(row.id, None)
            return
        seen.not_before_ns = time.time_ns() + int(REFUSED_S * 1e9)

    def _see(self, row: outbox.Delivery, found: RunRow, seen: Seen, asked_ns: int) -> None:
        run, records = found.run, self._daemon.records
        said = records.read(lambda c: drifts.said(c, row.id))
        ended = run.status if run.status in ENDED else None
        if ended is None and self._is_gone(run):
            if not seen.gone_ns:  # its last word may be on its way: the next look decides
                seen.gone_ns = time.time_ns()
                return
            ended = GONE
        if ended is None:
            seen.run_on(run, asked_ns)
            if said is not None and said.ended is not None:
                records.write(lambda c: drifts.resumed(c, row.id, asked_ns))
            return
        seen.end(ended)
        if found.tags.get("reprod.recorded", row.recorded) != row.recorded:  # it names other datasets now
            self._write(row, run, ended, None, said, asked_ns, again=False)
        elif said is None or is_news(said, ended, run):
            self._judge(row, run, ended, seen, said, asked_ns)
        elif row.state != "done" and ended != GONE:
            self._write(row, run, ended, None, said, asked_ns, again=False)

    def _is_gone(self, run: PendingRun) -> bool:
        """Whether the process of a run lived on this host and does not any more."""
        context = ProcessContext.parse(run.context or "")
        if context is None or context.boot_id not in self._daemon.boots:
            return False
        if context.boot_id != boot_id():
            return True
        seen_from_here = context.pid_ns is not None and context.pid_ns == self._pid_ns
        return seen_from_here and not is_alive(context)

    def _judge(
        self, row: outbox.Delivery, run: PendingRun, ended: str, seen: Seen, said: Said | None, asked_ns: int
    ) -> None:
        context, daemon = ProcessContext.parse(run.context or ""), self._daemon
        slack = slack_ns(context, daemon.boots, daemon.config.mlflow.clock_slack_seconds)
        life = lifetime(run, ended, seen, said, slack)
        snapshot = msgspec.json.decode(row.snapshot or b"", type=described(Snapshot))
        judging = _Judging()
        for bound in snapshot.datasets:
            self._judge_dataset(bound, snapshot.created_ns, life, judging)
        late = time.time_ns() - seen.ended_ns > PATIENCE_S * 1e9
        if judging.waits and not late and row.state != "done":
            return
        until_ns = life.end_ns if life.end_ns is not None and ended != GONE else life.ended_ns
        drift = Drift(row.run_id, life.start_ns, until_ns, time.time_ns(), tuple(judging.datasets), ended)
        again = judging.again and time.time_ns() - life.ended_ns < ASK_FOR_S * 1e9
        self._write(row, run, ended, drift, said, asked_ns, again=again, life=life)

    def _judge_dataset(self, bound: BoundDataset, at_ns: int, life: Lifetime, judging: _Judging) -> None:
        daemon = self._daemon
        try:
            db, known = files.open_dataset_readonly(daemon.config.state_dir, bound.name, seq=bound.seq, at_ns=at_ns)
            work = daemon.works.get(known.name)
            with closing(db):
                by_events = work is not None and work.dataset.barrier == "events"
                judged = dataset_drift(db, bound, life, by_events=by_events)
        except (NotFoundError, DamagedError, StateError) as error:
            judging.datasets.append(unknown(bound, error.message))
            return
        drift, after_ns = judged.drift, judged.walk_after_ns
        if after_ns is not None:
            judging.again = True
            walk = self._walks.get(known.name)
            answered = walk is not None and walk.done and walk.asked_ns > after_ns
            if walk is not None and answered and walk.error is not None:
                drift = unknown(bound, f"{drift.reason}: {walk.error.message}")
            if not answered or time.time_ns() - life.ended_ns > PATIENCE_S * 1e9:
                self._wanted[known.name] = max(after_ns, self._wanted.get(known.name, 0))
            judging.waits |= not answered
        judging.datasets.append(drift)

    def _write(
        self,
        row: outbox.Delivery,
        run: PendingRun,
        ended: str,
        drift: Drift | None,
        said: Said | None,
        asked_ns: int,
        *,
        again: bool,
        life: Lifetime | None = None,
    ) -> None:
        """Write to the run what is new, then that it is written."""
        daemon, settled = self._daemon, row.state == "done"
        snapshot = msgspec.json.decode(row.snapshot or b"", type=described(Snapshot))
        heard = daemon.records.read(lambda c: last_word(c, row, snapshot))
        same = settled and drift is not None and said is not None and said.verdict == drift.verdict
        if not same and (drift is not None or not settled):
            ends = ended != GONE and not settled
            keep = daemon.config.upload.git_diff
            child = daemon.tracking.child
            deliver_end(
                daemon.records,
                row,
                child,
                daemon.scratch,
                drift=drift,
                ended=ends,
                git_diff=keep,
                run=run,
                open_dataset=daemon.courier.open_dataset,
            )
            told = drift.verdict if drift is not None else None
            daemon.log.info("run.finished", run_id=row.run_id, status=ended, drift=told)

        def settle(c: files.Connection) -> None:
            now_row = outbox.get(c, row.id)
            if now_row is None or (now_row.state, now_row.snapshot) != (row.state, row.snapshot):
                return  # it was bound again meanwhile, and is delivered and judged again
            if drift is not None and life is not None:
                now, age_ns = drift.judged_ns, drift.judged_ns - life.ended_ns
                next_ns = now + max(int(AGAIN_S * 1e9), age_ns // 10) if again else 0
                kept = (life.running_ns, life.ended_ns, drift.verdict, now, next_ns, asked_ns)
                drifts.say(c, Said(row.id, ended, run.end_ms, *kept))
            if ended != GONE and last_word(c, row, snapshot) == heard:  # else there is more to write than was written
                outbox.ended(c, row.id)

        daemon.records.write(settle)
        if ended != GONE:
            self._seen.pop(row.id, None)

    def _forget(self, row: outbox.Delivery) -> None:
        now = time.time_ns()
        self._daemon.records.write(lambda c: outbox.gone(c, row.id, now))
        self._seen.pop(row.id, None)
        self._daemon.log.info("run.deleted", run_id=row.run_id)
