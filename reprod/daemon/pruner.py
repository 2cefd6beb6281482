"""Forget old versions once a day, a dataset at a time, between everything else; environments too.

Each dataset's file is opened anew for it, so nothing waits for a lock longer than one step takes, and after each step
others get as long as it took. What ``status`` tells of history is counted here too, because counting takes longer than
``status`` may.
"""

import time
from typing import TYPE_CHECKING, Any

import anyio
from anyio import from_thread, to_thread

from reprod.core.manifest import rfc3339
from reprod.errors import NotFoundError, ReprodError, StateError
from reprod.ops.prune import Step, prune
from reprod.store import files, retention, snapshots

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon
    from reprod.daemon.work import DatasetWork

EVERY_NS = 86_400_000_000_000

#: After the start the clock may still be set (one that is years ahead must not forget everything); walks come first.
FIRST_S = 600.0

#: A clock that was set by more than a day is more likely wrong now than it was before.
AFTER_LEAP_S = 86_400.0

LOOK_S = 2.0  # how soon a dataset that is new shows in `status` with its history
LONGEST_REST_S = 0.1


class Pruner:
    """Looks through every dataset's versions."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._first_s = FIRST_S
        self._may_prune_s = 0.0
        self._may_forget_s = 0.0
        self._at_work = anyio.Lock()
        self._failed: dict[str, str] = {}
        self._counts: dict[str, tuple[DatasetWork, retention.Summary]] = {}
        self._over: dict[str, int] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        self._may_prune_s = anyio.current_time() + self._first_s
        while True:
            for work in list(self._daemon.works.values()):
                await self._look(work, may_prune=anyio.current_time() >= self._may_prune_s)
            await self._forget_environments()
            await anyio.sleep(LOOK_S)

    async def prune(self, name: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Forget what need not be kept of one dataset now; one at a time. Raises NotFoundError, StateError."""
        async with self._at_work:
            report = await to_thread.run_sync(self._prune, name, dry_run)
        if not dry_run:
            self._daemon.log.info(
                "dataset.pruned",
                dataset=name,
                versions=len(report["pruned"]),
                kept=report["kept_versions"],
                freed_bytes=max(0, report["bytes_before"] - report["bytes"]),
                over_bytes=report["over_bytes"] or None,
            )
        return report

    def document(self, work: "DatasetWork") -> dict[str, Any] | None:
        """Return what ``status`` says of a dataset's history; None before it was counted."""
        counted_for, counts = self._counts.get(work.dataset.name, (None, None))
        if counts is None or counted_for is not work:
            return None
        version = work.report.version if work.report is not None else None
        since = max(0, version.seq - counts.newest) if version is not None and counts.newest is not None else 0
        return {
            "versions": counts.kept + since,
            "pruned": counts.pruned,
            "history_bytes": counts.rows * retention.HISTORY_ROW_BYTES,
            "file_bytes": counts.file_bytes,
            "over_bytes": self._over.get(work.dataset.name, 0),
            "pruned_at": rfc3339(counts.pruned_ns) if counts.pruned_ns else None,
            "next_prune_at": rfc3339(self._next_ns(counts)),
        }

    def _next_ns(self, counts: retention.Summary) -> int:
        earliest = self._daemon.started_ns + int(self._first_s * 1e9)
        return max(earliest, (counts.pruned_ns or 0) + EVERY_NS)

    async def _look(self, work: "DatasetWork", *, may_prune: bool) -> None:
        name = work.dataset.name
        if work.report is None:
            return
        try:
            if self._counts.get(name, (None,))[0] is not work:
                self._counts[name] = (work, await to_thread.run_sync(self._count, name))
            if may_prune and work.state in {"current", "dirty", "incomplete"} and self._is_due(name):
                await self.prune(name)
            self._failed.pop(name, None)
        except ReprodError as error:  # no space, removed meanwhile, damaged: its own work says more; tried again
            if self._failed.get(name) != error.message:
                self._daemon.log.warning("dataset.prune_failed", dataset=name, error=error.message)
            self._failed[name] = error.message

    async def _forget_environments(self) -> None:
        """Delete what was handed over and no run needs, once a day; put off while a run is being recorded."""
        if anyio.current_time() < max(self._may_prune_s, self._may_forget_s):
            return
        records, server, now_ns = self._daemon.records, self._daemon.tracking.key, time.time_ns()
        try:
            done = await to_thread.run_sync(
                lambda: records.write(lambda c: snapshots.forget_unneeded(c, server, now_ns))
            )
        except StateError as error:
            self._daemon.be_stuck(error)
            return
        if done is not None:
            self._may_forget_s = anyio.current_time() + EVERY_NS / 1e9
            if done.environments:
                self._daemon.log.info("environment.forgotten", count=done.environments, freed_bytes=done.bytes)

    def _is_due(self, name: str) -> bool:
        now, pruned = time.time_ns(), self._counts[name][1].pruned_ns or 0
        return now >= pruned + EVERY_NS or now < pruned  # the latter: the clock was set back since

    def hold(self, moved_ns: int) -> None:
        """The clock was set: what looks old may not be. Give whoever watches over it time to set it right."""
        wait_s = FIRST_S if abs(moved_ns) < EVERY_NS else AFTER_LEAP_S
        self._may_prune_s = max(self._may_prune_s, anyio.current_time() + wait_s)

    def _count(self, name: str) -> retention.Summary:
        db, _ = files.open_dataset_readonly(self._daemon.config.state_dir, name)
        try:
            return db.read(retention.summary)
        finally:
            db.close()

    def _prune(self, name: str, dry_run: bool) -> dict[str, Any]:
        daemon = self._daemon
        step = Step(from_thread.check_cancelled, lambda took_s: time.sleep(min(took_s, LONGEST_REST_S)))
        report = prune(daemon.config.state_dir, daemon.records, name, daemon.config.store, dry_run=dry_run, step=step)
        work = daemon.works.get(name)
        if not dry_run and work is not None:
            self._counts[name] = (work, self._count(name))
            self._over[name] = report["over_bytes"]
        return report


async def prune_all(daemon: "Daemon", name: str | None, *, dry_run: bool) -> list[dict[str, Any]]:
    """Prune one dataset (also one that is no longer registered) or all that are registered; returns their reports."""
    if name is not None:
        return [await daemon.pruner.prune(name, dry_run=dry_run)]
    reports = []
    for each in sorted(daemon.works):
        try:
            reports.append(await daemon.pruner.prune(each, dry_run=dry_run))
        except NotFoundError:
            continue  # never scanned
    return reports
