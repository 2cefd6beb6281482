"""Turn what a person writes into a version: ``NAME`` (now), ``NAME@N``, ``run:ID`` (also a unique prefix, or the name).

Read-only and without a daemon: everything comes from the state directory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reprod.core.snapshot import Snapshot
from reprod.errors import IncompleteError, NotFoundError, UsageError
from reprod.store import files, outbox
from reprod.store.connection import Database


@dataclass(frozen=True, slots=True)
class Reference:
    """A dataset at a version. ``seq`` None means now: the files as they are."""

    text: str
    name: str
    seq: int | None
    run_id: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"ref": self.text, "name": self.name, "version": self.seq, "run_id": self.run_id}


def resolve(state: Path, text: str, *, name: str | None = None) -> Reference:
    """Return what ``text`` refers to. ``name`` picks a dataset of a run that used several.

    :raises UsageError: it is no reference, or a run used several datasets and none was named.
    :raises NotFoundError: no such run. :raises IncompleteError: the run has no version of that dataset.
    """
    if text.startswith("run:"):
        return _of_run(state, text, name)
    dataset, at, number = text.partition("@")
    if not at:
        return Reference(text, dataset, None)
    if not number.isdigit():
        raise UsageError(f"{text!r} is no reference", hint="NAME, NAME@12 or run:ID")
    return Reference(text, dataset, int(number))


def _of_run(state: Path, text: str, name: str | None) -> Reference:
    run = text.removeprefix("run:")
    records = files.open_registry_readonly(state)
    try:
        rows = records.read(lambda c: outbox.find(c, run))
    finally:
        records.close()
    ids = {row.run_id for row in rows}
    if not ids:
        raise NotFoundError(
            f"no run {run!r} was recorded here", hint="give the run id, its first characters, or its name"
        )
    if len(ids) > 1:
        listed = ", ".join(sorted(ids)[:3])
        raise UsageError(f"{run!r} is several runs: {listed}", hint="give more characters of the run id")
    row = rows[0]
    if row.snapshot is None:
        raise IncompleteError(f"run {row.run_id} is not recorded yet", hint="reprod status shows what it waits for")
    snapshot = msgspec.json.decode(row.snapshot, type=Snapshot)
    found = [d for d in snapshot.datasets if name in {None, d.name}]
    if not found:
        raise NotFoundError(f"run {row.run_id} did not use {name}", hint=", ".join(d.name for d in snapshot.datasets))
    if len(found) > 1:
        listed = ", ".join(d.name for d in found)
        raise UsageError(f"run {row.run_id} used several datasets: {listed}", hint="compare NAME@N instead")
    if found[0].seq is None:
        raise IncompleteError(
            f"run {row.run_id} has no version of {found[0].name}: {found[0].error}", hint="reprod log"
        )
    return Reference(text, found[0].name, found[0].seq, row.run_id)


def last_used(state: Path, name: str) -> Reference | None:
    """Return the version of a dataset that the newest recorded run used."""
    records = files.open_registry_readonly(state)
    try:
        rows = records.read(outbox.snapshots_newest_first)
    finally:
        records.close()
    for run_id, snapshot in rows:
        for dataset in msgspec.json.decode(snapshot, type=Snapshot).datasets:
            if dataset.name == name and dataset.seq is not None:
                return Reference(f"run:{run_id}", name, dataset.seq, run_id)
    return None


def open_version(state: Path, reference: Reference) -> Database:
    """Open the dataset of a reference for reading; raises as ``require_version`` does."""
    db, _ = files.open_dataset_readonly(state, reference.name)
    try:
        require_version(db, reference)
    except BaseException:
        db.close()
        raise
    return db


def require_version(db: Database, reference: Reference) -> None:
    """Raise NotFoundError for a version that is not there, IncompleteError for one that was pruned."""
    from reprod.store import versions

    seq = reference.seq
    if seq is not None and db.read(lambda c: versions.version(c, seq)).pruned:
        raise IncompleteError(f"{reference.name}@{seq} was pruned: not provable any more", hint="reprod log")
