"""What ``status`` can say while no daemon runs: the registry's last word, in the shape of the live document."""

import os
from pathlib import Path
from typing import Any

from reprod.core import digest
from reprod.core.entry import display
from reprod.core.manifest import rfc3339
from reprod.errors import NotFoundError, ReprodError
from reprod.store import files, outbox, registry, retention


def read(state: Path) -> dict[str, Any]:
    """Return the last known state; no datasets if no daemon ever ran here. Raises StateError, DamagedError."""
    path = state / "registry.sqlite"
    try:
        records = files.open_registry_readonly(state)
    except NotFoundError:
        return _document(state, None, [], outbox.Counts(0, 0, 0, None))
    try:
        known = records.read(registry.datasets)
        counts = records.read(outbox.counts)
    finally:
        records.close()
    touched = max(os.stat(p).st_mtime_ns for p in (path, path.with_name(path.name + "-wal")) if p.exists())
    datasets = [{**_dataset(d), "history": _history(state, d)} for d in known if d.removed_ns is None]
    return _document(state, rfc3339(touched), datasets, counts)


def _document(
    state: Path, stopped_at: str | None, datasets: list[dict[str, Any]], counts: outbox.Counts
) -> dict[str, Any]:
    return {
        "schema": "reprod.status/1",
        "live": False,
        "stopped_at": stopped_at,
        "state": str(state),
        "runs": {
            "waiting": counts.waiting,
            "incomplete": counts.incomplete,
            "failed": counts.failed,
            "oldest_waiting_seconds": None,
        },
        "datasets": datasets,
        "attention": [],
    }


def _dataset(known: registry.KnownDataset) -> dict[str, Any]:
    return {
        "name": known.name,
        "path": display(known.root),
        "state": known.state,
        "reason": known.reason,
        "hint": None,
        "watch": "none",
        "watch_reason": None,
        "files": known.files,
        "bytes": known.size,
        "version": known.seq if known.sealed_ns else None,  # the highest number may be of another root
        "digest": digest.text(known.digest) if known.digest else None,
        "complete": known.digest is not None if known.sealed_ns else None,
        "last_change_at": rfc3339(known.sealed_ns) if known.sealed_ns else None,
        "confirmed_at": rfc3339(known.proved_ns) if known.proved_ns else None,
        "progress": None,
        "problems": [],
        "problem_count": 0,
    }


def _history(state: Path, known: registry.KnownDataset) -> dict[str, Any] | None:
    """Return how much history there is; None where its file cannot be read, which its own commands will say."""
    try:
        db, _ = files.open_dataset_readonly(state, known.name)
    except ReprodError:
        return None
    try:
        counts = db.read(retention.summary)
    except ReprodError:
        return None
    finally:
        db.close()
    return {
        "versions": counts.kept,
        "pruned": counts.pruned,
        "history_bytes": counts.rows * retention.HISTORY_ROW_BYTES,
        "file_bytes": counts.file_bytes,
        "over_bytes": None,
        "pruned_at": rfc3339(counts.pruned_ns) if counts.pruned_ns else None,
        "next_prune_at": None,
    }
