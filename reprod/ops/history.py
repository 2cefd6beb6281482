"""The verb that tells a dataset's versions, and the one that forgets a dataset for good."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from reprod.core import digest
from reprod.core.manifest import rfc3339
from reprod.core.snapshot import Snapshot
from reprod.errors import NotFoundError, StateError
from reprod.store import files, outbox, registry, versions
from reprod.store.connection import Database


def log(state: Path, name: str) -> list[dict[str, Any]]:
    """Return the versions of a dataset, newest first, each with the runs that used it.

    :raises NotFoundError: no dataset of that name was ever scanned here.
    """
    db, _ = files.open_dataset_readonly(state, name)
    try:
        found = db.read(versions.versions)
    finally:
        db.close()
    runs = _runs_by_version(state, name)
    return [
        {
            "version": v.seq,
            "sealed_at": rfc3339(v.sealed_ns),
            "digest": digest.text(v.digest) if v.digest else None,
            "complete": v.digest is not None,
            "files": v.files,
            "bytes": v.size,
            "added": v.added,
            "modified": v.modified,
            "removed": v.removed,
            "reason": v.reason,
            "runs": runs.get(v.seq, []),
        }
        for v in reversed(found)
    ]


def purge(state: Path, name: str, records: Database | None = None) -> None:
    """Delete the history of a dataset: its file and its row. ``records`` is the open registry of a running daemon.

    :raises NotFoundError: there is none. :raises StateError: the file cannot be deleted.
    """
    own = records is None
    records = records or files.open_registry(state).db
    try:
        known = records.read(lambda c: registry.dataset(c, name))
        if known is None:
            raise NotFoundError(f"no dataset named {name!r}", hint="reprod dataset list")
        records.write(lambda c: registry.purge(c, name))
        for suffix in ("", "-wal", "-shm"):
            try:
                (state / "datasets" / (known.file + suffix)).unlink(missing_ok=True)
            except OSError as error:
                raise StateError(
                    f"cannot delete the history of {name}: {error.strerror}", hint=f"check {state}"
                ) from error
    finally:
        if own:
            records.close()


def _runs_by_version(state: Path, name: str) -> dict[int, list[str]]:
    records = files.open_registry_readonly(state)
    try:
        rows = records.read(outbox.snapshots_newest_first)
    finally:
        records.close()
    runs: dict[int, list[str]] = defaultdict(list)
    for run_id, snapshot in rows:
        for dataset in msgspec.json.decode(snapshot, type=Snapshot).datasets:
            if dataset.name == name and dataset.seq is not None:
                runs[dataset.seq].append(run_id)
    return runs
