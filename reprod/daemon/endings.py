"""Notice that runs ended, were resumed, or lost their process; write what waits for the end: drift and params.

Rule: the run's status says whether it ended, never its ``end_time``. A row is ``ending`` until its end is written.
Settled runs are asked for again for ``ASK_FOR_S``, because MLflow tells nobody that a run was resumed, or that the
server lost what was written: after ``ASK_S``, and the older the less often, at most ``STATUS_CHUNK`` a look, with one
search. Runs that were seen deleted are asked for as long, a few at a time: people take them back, and a server that was
started on another database for a minute knows none of its runs.

``*_ns`` are of the wall clock, ``*_s`` of the loop's.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from reprod.capture.process.identity import boot_id, current_context, is_alive
from reprod.core.described import described
from reprod.core.drift import GONE, Drift
from reprod.core.process import ProcessContext
from reprod.core.run import ENDED, PendingRun
from reprod.core.snapshot import Snapshot
from reprod.daemon.judging import Judging, is_late
from reprod.daemon.lifetime import Seen, is_news, lifetime
from reprod.errors import StateError
from reprod.ops.deliver_end import deliver_end
from reprod.ops.drift import Lifetime
from reprod.ops.handovers import last_word
from reprod.ops.publish import slack_ns
from reprod.sinks.protocol import RunRow, SinkError
from reprod.store import drifts, files, outbox
from reprod.store.asked import deliver_again
from reprod.store.drifts import Said

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

STATUS_CHUNK = 100  # runs asked about in one call
ASK_S, ASK_FOR_S = 600.0, 7 * 86_400.0
AGAIN_S = 60.0  # until an unknown drift that a walk may prove is judged again; the older the less often
REFUSED_S = 60.0  # until a run that refused what is owed to it is tried again
SILENT_S = 10.0  # until one is tried again of which the server said nothing
DELETED_S, DELETED_CHUNK = 60.0, 20  # of deleted runs: one that is not found costs a request of its own, 5 ms


@dataclass(frozen=True, slots=True)
class _End:
    """A run that ended, as it was found at ``asked_ns``; ``said`` is what was said of its drift before."""

    row: outbox.Delivery
    run: PendingRun
    ended: str
    said: Said | None
    asked_ns: int

    @property
    def settled(self) -> bool:
        """Whether its end was written before."""
        return self.row.state == "done"


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A drift that was just judged over a life; ``again``: a walk may prove more later."""

    drift: Drift
    life: Lifetime
    again: bool


class Endings:
    """Looks after the ends of runs. ``next_s``: when the next look is due."""

    def __init__(self, daemon: "Daemon") -> None:
        self.next_s = 0.0
        self._daemon = daemon
        self._judging = Judging(daemon)
        self._seen: dict[int, Seen] = {}
        self._silent: int | None = None  # the row whose write the server did not answer to in this look
        self._deleted_s, self._deleted_id = float("-inf"), 0
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
        self._judging.walk(group, self._look_now)

    def _look_now(self) -> None:
        """A walk that runs waited for has ended."""
        self.next_s = 0.0
        self._daemon.courier.ring()

    # --- in a worker thread ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        records, key, now = self._daemon.records, self._daemon.tracking.key, time.time_ns()
        since, self._silent = now - int(ASK_FOR_S * 1e9), None
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
            records.write(partial(drifts.asked, deliveries=settled, now_ns=asked_ns))
        self._look_for_deleted(since)

    def _look_for_deleted(self, since_ns: int) -> None:
        """Owe anew what was owed to runs that are there again; each look asks for the next few of them."""
        if time.monotonic() < self._deleted_s:
            return
        records, key = self._daemon.records, self._daemon.tracking.key
        rows = records.read(lambda c: drifts.deleted(c, key, since_ns, self._deleted_id, DELETED_CHUNK))
        self._deleted_s = time.monotonic() + DELETED_S
        self._deleted_id = rows[-1].id if len(rows) == DELETED_CHUNK else 0
        if not rows:
            return
        found = self._daemon.tracking.child.runs(list({row.run_id for row in rows})).runs
        there = {each.run.run_id: each.run.dataset for each in found}
        for row in rows:
            if there.get(row.run_id) in {
                "",
                row.recorded,
            }:  # else it names others by now, which have a row of their own
                records.write(partial(deliver_again, delivery_id=row.id, unbound=row.snapshot is None))
                self._daemon.courier.ring()

    def _see_safely(self, row: outbox.Delivery, found: RunRow, asked_ns: int) -> None:
        """Do what one run needs; a run that refuses it holds up no other."""
        seen = self._seen.setdefault(row.id, Seen())
        if seen.not_before_ns > time.time_ns():
            return
        try:
            self._see(row, found, seen, asked_ns)
        except SinkError as error:
            if error.kind == "gone":
                self._forget(row)
                return
            silent, self._silent = self._silent, row.id if error.kind == "unreachable" else self._silent
            if error.kind == "stopped" or (error.kind == "unreachable" and silent not in {None, row.id}):
                raise  # one run says nothing of the server, for its artifact store may be in trouble; two do
            if error.message != seen.error:
                seen.error = error.message
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
        wait_s = SILENT_S if self._silent == row.id else REFUSED_S
        seen.not_before_ns = time.time_ns() + int(wait_s * 1e9)

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
        end = _End(row, run, ended, said, asked_ns)
        if found.tags.get("reprod.recorded", row.recorded) != row.recorded:  # it names other datasets now
            self._write(end)
        elif end.settled and said is not None and not any(key.startswith("reprod.drift") for key in found.tags):
            records.write(lambda c: drifts.lost(c, row.id))  # the next look writes it
        elif said is None or is_news(said, ended, run):
            self._judge(end, seen)
        elif not end.settled and ended != GONE:
            self._write(end)

    def _is_gone(self, run: PendingRun) -> bool:
        """Whether the process of a run lived on this host and does not any more."""
        context = ProcessContext.parse(run.context or "")
        if context is None or context.boot_id not in self._daemon.boots:
            return False
        if context.boot_id != boot_id():
            return True
        seen_from_here = context.pid_ns is not None and context.pid_ns == self._pid_ns
        return seen_from_here and not is_alive(context)

    def _judge(self, end: _End, seen: Seen) -> None:
        run, daemon = end.run, self._daemon
        slack = slack_ns(
            ProcessContext.parse(run.context or ""), daemon.boots, daemon.config.mlflow.clock_slack_seconds
        )
        life = lifetime(run, end.ended, seen, end.said, slack)
        judged = self._judging.judge(_snapshot(end.row), life)
        if judged.waits and not is_late(seen.ended_ns) and not end.settled:
            return
        until_ns = life.end_ns if life.end_ns is not None and end.ended != GONE else life.ended_ns
        drift = Drift(end.row.run_id, life.start_ns, until_ns, time.time_ns(), tuple(judged.datasets), end.ended)
        again = judged.again and time.time_ns() - life.ended_ns < ASK_FOR_S * 1e9
        self._write(end, _Verdict(drift, life, again))

    def _write(self, end: _End, verdict: _Verdict | None = None) -> None:
        """Write to the run what is new, then that it is written."""
        daemon, row, snapshot = self._daemon, end.row, _snapshot(end.row)
        drift = verdict.drift if verdict is not None else None
        heard = daemon.records.read(lambda c: last_word(c, row, snapshot))
        same = end.settled and drift is not None and end.said is not None and end.said.verdict == drift.verdict
        if not same and (drift is not None or not end.settled):
            deliver_end(
                daemon.records,
                row,
                daemon.tracking.child,
                daemon.scratch,
                drift=drift,
                ended=end.ended != GONE and not end.settled,
                git_diff=daemon.config.upload.git_diff,
                run=end.run,
                open_dataset=daemon.courier.open_dataset,
            )
            told = drift.verdict if drift is not None else None
            daemon.log.info("run.finished", run_id=row.run_id, status=end.ended, drift=told)

        def settle(c: files.Connection) -> None:
            now_row = outbox.get(c, row.id)
            if now_row is None or (now_row.state, now_row.snapshot) != (row.state, row.snapshot):
                return  # it was bound again meanwhile, and is delivered and judged again
            if verdict is not None:
                drifts.say(c, _said(end, verdict))
            if end.ended != GONE and last_word(c, row, snapshot) == heard:  # else there is more than was written
                outbox.ended(c, row.id)

        daemon.records.write(settle)
        if end.ended != GONE:
            self._seen.pop(row.id, None)

    def _forget(self, row: outbox.Delivery) -> None:
        now = time.time_ns()
        self._daemon.records.write(lambda c: outbox.gone(c, row.id, now))
        self._seen.pop(row.id, None)
        self._daemon.log.info("run.deleted", run_id=row.run_id)


def _snapshot(row: outbox.Delivery) -> Snapshot:
    return msgspec.json.decode(row.snapshot or b"", type=described(Snapshot))


def _said(end: _End, verdict: _Verdict) -> Said:
    """Return what is kept of a verdict, and when it is judged again."""
    drift, life = verdict.drift, verdict.life
    age_ns = drift.judged_ns - life.ended_ns
    next_ns = drift.judged_ns + max(int(AGAIN_S * 1e9), age_ns // 10) if verdict.again else 0
    kept = (life.running_ns, life.ended_ns, drift.verdict, drift.judged_ns, next_ns, end.asked_ns)
    return Said(end.row.id, end.ended, end.run.end_ms, *kept)
