"""What ``reprod status`` shows, as one JSON document; what in it needs a person says `reprod.daemon.attention`."""

import os
import pwd
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import psutil

import reprod
from reprod.config.places import is_system_account
from reprod.core import digest
from reprod.core.entry import Problem, named
from reprod.core.manifest import rfc3339
from reprod.core.redact import redact_url
from reprod.daemon import upgrade
from reprod.daemon.attention import attention
from reprod.daemon.work import DatasetWork
from reprod.store import outbox, registry

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

SHOWN_PROBLEMS = 5


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
        "attention": attention(daemon, datasets, counts),
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
