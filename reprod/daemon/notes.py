"""``reprod.note``: one sentence on a run that takes long, or that names a dataset which nobody answers for.

A note is a courtesy. Runs are noted a few at a time and seldom, behind everything else the tracking server is asked; a
note that cannot be written is not tried again before the next round; the recording of the run removes it. Of several
daemons that find nobody to answer, one writes: each waits a different while, and writes only where no note is. That
several hosts have the dataset is an error, ``reprod.error``: each of them says it, in the same words. Seconds are of
the loop's clock.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from reprod.capture.process.identity import host_name
from reprod.core.process import ProcessContext
from reprod.core.run import DATASET_NAME, PendingRun, dataset_names, split_name
from reprod.daemon.status import progress
from reprod.errors import did_you_mean
from reprod.sinks.protocol import NoteKey, SinkError

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

ROUND_S = 5.0
WORKING_AFTER_S = 10.0  # until then somebody who looks at a run will look again
AGAIN_S = 60.0  # how soon the same run is told something else
UNANSWERED_AFTER_S, SPREAD_S = 600.0, 60.0
CONTESTED_AFTER_S = 15.0  # a script that tags its run says who it is a moment later
AT_ONCE = 20  # runs in a round: two requests each


@dataclass(slots=True)
class _Told:
    """What a run was told last, and when it may be told something else."""

    text: str = ""
    next_s: float = 0.0


@dataclass(slots=True)
class Unanswered:
    """Runs that no dataset of ours answers for: since when each was seen, and the run as it was then."""

    since: dict[str, tuple[float, PendingRun]] = field(default_factory=dict)
    contested: dict[str, tuple[float, str]] = field(default_factory=dict)

    def see(self, runs: list[PendingRun], now_s: float, contested: Mapping[str, str] | None = None) -> None:
        """Take over what the last poll found; who is not among them any more is answered, or gone.

        ``contested`` are runs that cannot be recorded because several hosts have what they name, and what to say.
        """
        told = contested or {}
        self.contested = {
            run_id: (self.contested[run_id][0] if run_id in self.contested else now_s, text)
            for run_id, text in told.items()
        }
        known = self.since
        self.since = {}
        for run in runs:
            first_s = known[run.run_id][0] if run.run_id in known else now_s + random.uniform(0, SPREAD_S)  # noqa: S311
            self.since[run.run_id] = first_s, run

    def due(self, now_s: float) -> list[PendingRun]:
        """Return those that have waited long enough and carry no note."""
        return [
            run
            for first, run in self.since.values()
            if run.note is None and run.run_id not in self.contested and now_s - first >= UNANSWERED_AFTER_S
        ]

    def disputed(self, now_s: float) -> dict[str, str]:
        """Return the contested runs that have waited long enough, and what to say on them."""
        return {run_id: text for run_id, (first, text) in self.contested.items() if now_s - first >= CONTESTED_AFTER_S}


class Notes:
    """Writes them."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._told: dict[str, _Told] = {}
        self._disputed: dict[str, str] = {}  # what was said on contested runs

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await anyio.sleep(ROUND_S)
            if self._daemon.tracking.state == "reachable":
                await self._round(anyio.current_time())

    async def _round(self, now_s: float) -> None:
        trigger = self._daemon.trigger
        working = {
            run_id: text
            for run_id, waiting in trigger.waiting.items()
            if now_s - waiting.since_s >= WORKING_AFTER_S and (text := self._doing(sorted(waiting.names)))
        }
        self._told = {run_id: told for run_id, told in self._told.items() if run_id in working}
        news = [run_id for run_id, text in working.items() if self._is_news(run_id, text, now_s)]
        for run_id in news[:AT_ONCE]:
            self._told[run_id] = _Told(working[run_id], now_s + AGAIN_S)
            await self._write(run_id, working[run_id], once=False)
        for run in trigger.unanswered.due(now_s)[:AT_ONCE]:
            await self._write(run.run_id, self._nobody(run), once=True)
        disputed = trigger.unanswered.disputed(now_s)
        self._disputed = {run_id: text for run_id, text in self._disputed.items() if run_id in disputed}
        for run_id in [run_id for run_id, text in disputed.items() if self._disputed.get(run_id) != text][:AT_ONCE]:
            self._disputed[run_id] = disputed[run_id]
            await self._write(run_id, disputed[run_id], once=False, key="reprod.error")

    def _is_news(self, run_id: str, text: str, now_s: float) -> bool:
        told = self._told.get(run_id, _Told())
        return text != told.text and now_s >= told.next_s

    async def _write(self, run_id: str, text: str, *, once: bool, key: NoteKey = "reprod.note") -> None:
        child = self._daemon.tracking.child
        try:
            said = await to_thread.run_sync(
                lambda: child.note(run_id, text, once=once, key=key), abandon_on_cancel=True
            )
        except SinkError as error:
            self._daemon.log.info("run.not_noted", run_id=run_id, error=error.message)
            return
        if said:
            self._daemon.log.info("run.noted", run_id=run_id, note=text)

    def _doing(self, names: list[str]) -> str:
        """Say what a run waits for."""
        return "; ".join(filter(None, map(self._doing_with, names)))

    def _doing_with(self, name: str) -> str:
        work = self._daemon.works.get(name)
        if work is None:
            return ""
        patient_s = work.patience_s()
        if patient_s > 0:
            return f"waiting for the next walk of {name}, which may begin in {patient_s:.0f} s (walk_at_most_every)"
        what = "first scan" if work.report is None else "walk"
        now = progress(work)
        if now is None:
            return f"waiting for the {what} of {name}"
        if now["percent"] is not None:
            return f"{what} of {name} {now['percent']:.0f} %"
        # Of a dataset with nothing but its digest published a run is not told how many files it has.
        return f"{what} of {name}" + ("" if work.dataset.publish == "digest" else f": {now['files']:,} files so far")

    def _nobody(self, run: PendingRun) -> str:
        """Say that nobody answers, and what may be meant."""
        works, names = self._daemon.works, dataset_names(run.dataset)
        unknown = [name for name in names if split_name(name)[0] not in works]
        if unknown:
            meant = [did_you_mean(name.partition("/")[0], works).rstrip("?") for name in unknown]
            base, _ = split_name(unknown[0])
            fit = DATASET_NAME.fullmatch(base) is not None
            cure = f"reprod dataset add {base} PATH, where the data is, registers it"
            said = next(filter(None, meant), cure if fit else "a dataset's name is of A-Z a-z 0-9 . _ -")
            return f"no daemon knows {', '.join(map(repr, unknown))}; {said}"
        context = ProcessContext.parse(run.context or "")
        where = context.host if context is not None else "the run's host"
        return (
            f"no daemon on {where} answers for {', '.join(names)}; {host_name()} has that for its own runs: "
            'scope = "shared" there if the data is the same'
        )
