"""The verbs that tell a dataset's versions, check their chain, and forget a dataset for good.

A name's history is that of its present root first, and then of the roots before it (epochs), each with its own file;
numbers and chain go on from one to the next.
"""

import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from reprod.core import digest
from reprod.core.manifest import rfc3339
from reprod.errors import NotFoundError, StateError
from reprod.ops.chain import verify_chain
from reprod.ops.reference import open_epochs
from reprod.store import copies, files, registry, uses, versions
from reprod.store.connection import Database

__all__ = ["log", "purge", "verify_chain"]

#: Versions that say more than that entries changed: the root and the selection since then are told with them.
_TELLING = frozenset({"first", "selection", "moved", "root", "rebuilt"})


def log(state: Path, name: str) -> list[dict[str, Any]]:
    """Return the versions of a dataset, newest first, each with the runs that used it; forgotten ones say so.

    :raises NotFoundError: no dataset of that name was ever scanned here.
    """
    runs = _runs_by_version(state, name)
    found: list[dict[str, Any]] = []
    for number, present_root, db in open_epochs(state, name):
        root = present_root
        with closing(db):
            for version in db.read(versions.versions):
                selection = None
                if version.reason in _TELLING:
                    record = db.read(lambda c, seq=version.seq: versions.record(c, seq))  # type: ignore[misc]
                    root, selection = record["root"], record["selection"]
                found.append(_row(version, number, root, selection, runs.get(version.seq, [])))
    return found[::-1]


def _row(
    version: versions.Version, epoch: int, root: str, selection: dict[str, Any] | None, runs: list[str]
) -> dict[str, Any]:
    return {
        "version": version.seq,
        "sealed_at": rfc3339(version.sealed_ns),
        "digest": digest.text(version.digest) if version.digest else None,
        "complete": version.digest is not None,
        "pruned": version.pruned,
        "files": version.files,
        "bytes": version.size,
        "added": version.added,
        "modified": version.modified,
        "removed": version.removed,
        "reason": version.reason,
        "selection": selection,
        "epoch": epoch,
        "root": root,
        "chain": version.chain.hex(),
        "runs": runs,
    }


def _runs_by_version(state: Path, name: str) -> dict[int, list[str]]:
    runs: dict[int, list[str]] = defaultdict(list)
    with closing(files.open_registry_readonly(state)) as records:
        for use in records.read(lambda c: list(uses.uses(c, name))):
            if use.run_id not in runs[use.seq]:
                runs[use.seq].append(use.run_id)
    return runs


def purge(state: Path, name: str, records: Database | None = None) -> None:
    """Delete the history of a dataset: its files and its row. ``records`` is the open registry of a running daemon.

    :raises NotFoundError: there is none. :raises StateError: a file cannot be deleted.
    """
    own = records is None
    records = records or files.open_registry(state).db
    try:
        if records.read(lambda c: registry.dataset(c, name)) is None:
            raise NotFoundError(f"no dataset named {name!r}", hint="reprod dataset list")
        now_ns = time.time_ns()
        for file in records.write(lambda c: registry.purge(c, name, now_ns)):
            path = state / "datasets" / file
            older = [copy.path for copy in copies.copies_of(path)]  # from before upgrades
            for each in (path, *(path.with_name(file + suffix) for suffix in ("-wal", "-shm")), *older):
                try:
                    each.unlink(missing_ok=True)
                except OSError as error:
                    raise StateError(
                        f"cannot delete the history of {name}: {error.strerror}", hint=f"check {state}"
                    ) from error
    finally:
        if own:
            records.close()
