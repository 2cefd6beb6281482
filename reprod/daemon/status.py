"""What ``reprod status`` shows, as one JSON document, and the closed list of event names in the log."""

import os
import pwd
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import psutil

import reprod
from reprod.config.places import is_system_account
from reprod.core import digest
from reprod.core.amount import size
from reprod.core.entry import Problem, named
from reprod.core.manifest import rfc3339
from reprod.core.redact import redact_url
from reprod.daemon import upgrade
from reprod.daemon.work import DatasetWork
from reprod.store import outbox, registry

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

SHOWN_PROBLEMS = 5

#: Every event that the daemon logs. A name never changes its meaning.
EVENTS = frozenset({
    "clock.stepped",
    "config.reloaded",
    "config.refused",
    "config.dataset_disabled",
    "control.refused",
    "daemon.bug",
    "daemon.dump",
    "daemon.started",
    "daemon.stopped",
    "daemon.stuck",
    "dataset.added",
    "dataset.change_unannounced",
    "dataset.crashed",
    "dataset.failed",
    "dataset.prune_failed",
    "dataset.pruned",
    "dataset.rebuilt",
    "dataset.refreshed",
    "dataset.removed",
    "delivery.params_failed",
    "delivery.postponed",
    "delivery.version_lost",
    "environment.changed",
    "environment.forgotten",
    "environment.handed_over",
    "environment.sample_failed",
    "library_log",  # another library's logging
    "hosts.failed",
    "listen.failed",
    "listen.open",
    "listen.started",
    "registry.rebuilt",
    "run.captured",
    "run.compared",
    "run.not_compared",
    "run.deleted",
    "run.failed",
    "run.finished",
    "run.not_noted",
    "run.noted",
    "run.published",
    "server.ended",
    "server.failed",
    "server.started",
    "state.copied",
    "state.copy_forgotten",
    "state.copy_kept",
    "state.not_upgraded",
    "state.upgraded",
    "state.upgrade_failed",
    "state.upgrading",
    "tracking.lost",
    "tracking.poll_failed",
    "tracking.recovered",
    "watch.armed",
    "watch.lost",
    "watch.no_cookie",
    "watch.overflow",
    "watch.polling",
})  # fmt: skip


def status(daemon: "Daemon", name: str | None = None) -> dict[str, Any]:
    """Return the status document (schema ``reprod.status/1``), of all datasets or of one."""
    now = time.time_ns()
    counts = daemon.records.read(outbox.counts)
    works = [w for w in daemon.works.values() if name in {None, w.dataset.name}]
    known = {row.name: row for row in daemon.records.read(registry.datasets)}
    datasets = [
        {
            **_dataset(work),
            **_last_known(work, known.get(work.dataset.name)),
            **_upgrading(known.get(work.dataset.name)),
            "history": daemon.pruner.document(work),
        }
        for work in works
    ]
    datasets += [
        _misconfigured(m.name, m.message, m.hint) for m in daemon.config.misconfigured if name in {None, m.name}
    ]
    return {
        "schema": "reprod.status/1",
        "live": True,
        "version": reprod.__version__,
        "pid": os.getpid(),
        "user": _user(),
        "system": is_system_account(),
        "started_at": rfc3339(daemon.started_ns),
        "uptime_seconds": round((now - daemon.started_ns) / 1e9, 3),
        "rss_bytes": psutil.Process().memory_info().rss,
        "config": str(daemon.config.file) if daemon.config.file else None,
        "state": str(daemon.config.state_dir),
        "socket": str(daemon.config.socket),
        "listen": daemon.listener.document(),
        "tracking": _tracking(daemon),
        "runs": {
            "waiting": counts.waiting,
            "incomplete": counts.incomplete,
            "failed": counts.failed,
            "oldest_waiting_seconds": round((now - counts.oldest_ns) / 1e9, 3) if counts.oldest_ns else None,
        },
        "datasets": sorted(datasets, key=lambda d: str(d["name"])),
        "store": {
            "keep_days": daemon.config.store.keep_days,
            "keep_daily_days": daemon.config.store.keep_daily_days,
            "max_gb": daemon.config.store.max_gb,
        },
        "environment": {
            "digest": daemon.sampler.host_digest,
            "taken_at": rfc3339(daemon.sampler.last_ns) if daemon.sampler.last_ns else None,
            "interpreters": len(daemon.config.environment.interpreters),
        },
        "attention": _attention(daemon, datasets, counts),
    }


@cache
def _user() -> str:
    """Return whose daemon this is; the uid where nobody has named it (a container)."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _tracking(daemon: "Daemon") -> dict[str, Any]:
    """Return what is known of the tracking server; a password in its address is nobody's business (law 10)."""
    told = daemon.tracking.document()
    return {**told, "uri": redact_url(told["uri"]) if told["uri"] else None}


def _dataset(work: DatasetWork) -> dict[str, Any]:
    report = work.report
    version = report.version if report else None
    problems = report.problems if report else ()
    return {
        "name": work.dataset.name,
        "path": work.dataset.path,
        "state": work.state,
        "reason": work.error.message if work.error else None,
        "hint": work.error.hint if work.error else None,
        "watch": work.watch.mode,
        "watch_reason": work.watch.reason,
        "files": version.files if version else None,
        "bytes": version.size if version else None,
        "version": version.seq if version else None,
        "digest": digest.text(version.digest) if version and version.digest else None,
        "complete": version.digest is not None if version else None,
        "last_change_at": rfc3339(work.last_change_ns) if work.last_change_ns else None,
        "confirmed_at": rfc3339(work.confirmed_ns) if work.confirmed_ns else None,
        "progress": progress(work),
        "problems": [_problem(path, problem) for path, problem in problems[:SHOWN_PROBLEMS]],
        "problem_count": version.problems if version else 0,
        "unannounced_changes": work.counts.unannounced,
        "watch_overflows": work.counts.overflows,
    }


def _last_known(work: DatasetWork, known: registry.KnownDataset | None) -> dict[str, Any]:
    """Return what an earlier daemon knew of a dataset that this one has not seen yet: it is away, or just began."""
    if work.report is not None or known is None or not known.sealed_ns or known.root != os.fsencode(work.dataset.path):
        return {}
    return {
        "files": known.files,
        "bytes": known.size,
        "version": known.seq,
        "digest": digest.text(known.digest) if known.digest else None,
        "complete": known.digest is not None,
        "last_change_at": rfc3339(known.sealed_ns) if known.sealed_ns else None,
        "confirmed_at": rfc3339(known.proved_ns) if known.proved_ns else None,
    }


def _upgrading(known: registry.KnownDataset | None) -> dict[str, Any]:
    """Return why nothing is known yet of a dataset whose file is being brought up to date."""
    told = upgrade.under_way(known.file) if known is not None else None
    return {"reason": told, "hint": "it is looked at after that"} if told else {}


def progress(work: DatasetWork) -> dict[str, Any] | None:
    """Return how far the refresh under way is; the total is what the last version held."""
    counts, report = work.progress, work.report
    if counts is None:
        return None
    expected = work.expected if work.expected is not None and work.expected.whole else None
    total = report.version.files if report else expected.files if expected else None
    elapsed = max(0.001, work.elapsed_s())
    left = None
    if total and counts.files:
        left = max(0.0, elapsed * (total - counts.files) / counts.files)
    return {
        "phase": "hashing" if counts.hashed_files else "walking",
        "files": counts.files,
        "bytes": counts.bytes,
        "total_files": total,
        "total_bytes": report.version.size if report else None,
        "percent": round(min(100.0, 100 * counts.files / total), 1) if total else None,
        "seconds_left": round(left, 1) if left is not None else None,
    }


def _problem(path: bytes, problem: Problem) -> dict[str, str]:
    return {**named(path), "problem": problem.word}


def _misconfigured(name: str, message: str, hint: str) -> dict[str, Any]:
    empty = dict.fromkeys(
        ("path", "watch_reason", "files", "bytes", "version", "digest", "complete", "last_change_at", "confirmed_at")
    )
    return {
        "name": name,
        **empty,
        "state": "misconfigured",
        "reason": message,
        "hint": hint,
        "watch": "none",
        "progress": None,
        "problems": [],
        "problem_count": 0,
        "unannounced_changes": 0,
        "watch_overflows": 0,
    }


def _attention(daemon: "Daemon", datasets: list[dict[str, Any]], counts: outbox.Counts) -> list[dict[str, str]]:
    """Return what a person should act on, each with what to do."""
    needs = _tracking_needs(daemon, counts)
    if daemon.stuck is not None:
        needs.append(_need(f"nothing can be written down: {daemon.stuck.message}", daemon.stuck.hint))
    if daemon.listener.error is not None:
        needs.append(_need(daemon.listener.error, daemon.listener.hint))
    if daemon.registry_set_aside is not None:
        lost = f"the registry was damaged and rebuilt; the old one is {daemon.registry_set_aside}"
        needs.append(_need(lost, "runs that waited in it are found again by polling; look at the file, then remove it"))
    needs += [
        _need(
            f"the database of {work.dataset.name} was damaged and rebuilt; the old one is {work.set_aside}",
            "versions from before cannot be proven any more; look at the file, then remove it",
        )
        for work in daemon.works.values()
        if work.set_aside is not None
    ]
    needs += [
        _need(
            f"{_runs(count)} of other hosts name {name}, which is this host's alone: left to the daemons there",
            f'if the data is the same there: scope = "shared" in datasets.d/{name}.toml',
        )
        for name, count in sorted(daemon.trigger.elsewhere.items())
    ]
    for shown in datasets:
        needs += [{"dataset": shown["name"], **need} for need in _dataset_needs(shown)]
    return needs


def _tracking_needs(daemon: "Daemon", counts: outbox.Counts) -> list[dict[str, str]]:
    needs = []
    if daemon.tracking.state == "none":
        cure = 'set tracking_uri in reprod.toml, or MLFLOW_TRACKING_URI; "local" starts one'
        needs.append(_need("no tracking server: tagged runs are not noticed", cure))
    elif daemon.tracking.state == "unreachable":
        lost = f"the tracking server does not answer: {daemon.tracking.error}"
        wait = f"{_runs(counts.waiting)} waiting: delivered when it is back" if counts.waiting else "it is asked again"
        needs.append(_need(lost, wait))
    if counts.failed:
        needs.append(_need(f"{_runs(counts.failed)} could not be recorded", "reprod runs --failed says why"))
    return needs


def _dataset_needs(shown: dict[str, Any]) -> list[dict[str, str]]:
    name, problems = shown["name"], shown["problems"]
    if shown["state"] in {"unavailable", "failed", "misconfigured"}:
        return [_need(f"{name}: {shown['reason']}", str(shown["hint"] or ""))]
    needs = []
    if shown["state"] == "incomplete":
        first = f"first: {problems[0]['path']} ({problems[0]['problem']})" if problems else f"reprod scan {name}"
        count = shown["problem_count"]
        told = "1 entry cannot be read or keeps" if count == 1 else f"{count:,} entries cannot be read or keep"
        needs.append(_need(f"{name}: {told} changing: no digest", first))
    over = (shown.get("history") or {}).get("over_bytes")
    if over:
        cure = "runs and the last keep_days need it: raise [store] max_gb, or lower keep_days"
        needs.append(_need(f"the database of {name} is {size(over)} over max_gb", cure))
    reason = str(shown["watch_reason"] or "")
    if shown["watch"] == "poll" and not reason.startswith("configured"):
        needs.append(_need(f"{name} is polled, not watched: {reason}", "changes are found by walking"))
    return needs


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _need(what: str, hint: str) -> dict[str, str]:
    return {"what": what, "hint": hint}
