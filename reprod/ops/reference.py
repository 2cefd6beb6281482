"""Turn what a person writes into a version: ``NAME`` (now), ``NAME@N``, ``run:ID`` (also a unique prefix, or the name).

Read-only and without a daemon: everything comes from the state directory. What a run recorded is found under the name
that the dataset has now; a version of an earlier epoch (the name stood for another root) in that epoch's file.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reprod.core.entry import display
from reprod.core.snapshot import Snapshot
from reprod.errors import IncompleteError, NotFoundError, UsageError
from reprod.store import files, outbox, registry, uses, versions
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
    # A number of more digits than a 64-bit integer has is no version, and int() takes no more than 4300.
    if not (number.isascii() and number.isdigit()) or len(number) > 18:
        raise UsageError(f"{text!r} is no reference", hint="NAME, NAME@12 or run:ID")
    return Reference(text, dataset, int(number))


def _of_run(state: Path, text: str, name: str | None) -> Reference:
    run = text.removeprefix("run:")
    records = files.open_registry_readonly(state)
    try:
        rows = records.read(lambda c: outbox.find(c, run))
        names = records.read(registry.Names)
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
    present = {names.present(d.name, snapshot.created_ns): d for d in snapshot.datasets}
    found = {now: d for now, d in present.items() if name in {None, now, d.name}}
    if not found:
        raise NotFoundError(f"run {row.run_id} did not use {name}", hint=f"it used {', '.join(present)}")
    if len(found) > 1:
        raise UsageError(f"run {row.run_id} used several datasets: {', '.join(found)}", hint="compare NAME@N instead")
    now, bound = next(iter(found.items()))
    if bound.seq is None:
        raise IncompleteError(f"run {row.run_id} has no version of {now}: {bound.error}", hint=f"reprod log {now}")
    return Reference(text, now, bound.seq, row.run_id)


def last_used(state: Path, name: str) -> Reference | None:
    """Return the version that the newest recorded run on a dataset used; only its present epoch counts."""
    records = files.open_registry_readonly(state)
    try:
        return records.read(lambda c: _last_used(c, name))
    finally:
        records.close()


def _last_used(c: files.Connection, name: str) -> Reference | None:
    ended = registry.epochs(c, name)
    before = ended[-1].last_seq + registry.NUMBER_MARGIN if ended else 0
    use = next((use for use in uses.uses(c, name) if use.seq > before), None)
    return Reference(f"run:{use.run_id}", name, use.seq, use.run_id) if use is not None else None


def open_version(state: Path, reference: Reference) -> Database:
    """Open the dataset of a reference for reading; raises as ``require_version`` does."""
    db, _ = files.open_dataset_readonly(state, reference.name, seq=reference.seq)
    try:
        require_version(db, reference)
    except BaseException:
        db.close()
        raise
    return db


def require_version(db: Database, reference: Reference) -> None:
    """Raise NotFoundError for a version that is not there, IncompleteError for one that was pruned."""
    seq = reference.seq
    if seq is not None and db.read(lambda c: versions.version(c, seq)).pruned:
        raise IncompleteError(
            f"{reference.name}@{seq} was pruned: not provable any more",
            hint=f"reprod log {reference.name} shows which versions are kept",
        )


def require_one_epoch(state: Path, first: Reference, second: Reference) -> None:
    """Raise UsageError if two references to a dataset are of different roots: nothing is compared across.

    Now is of the present one.
    """
    records = files.open_registry_readonly(state)
    try:
        ended = records.read(lambda c: registry.epochs(c, first.name))
        known = records.read(lambda c: registry.dataset(c, first.name))
    finally:
        records.close()
    roots = [*(epoch.root for epoch in ended), known.root if known is not None else b""]
    a, b = (_epoch(ended, reference.seq) for reference in (first, second))
    if a != b:
        raise UsageError(
            f"{first.text} and {second.text} are of different roots: {first.name} stood for "
            f"{display(roots[min(a, b)])} then and for {display(roots[max(a, b)])} later",
            hint=f"reprod log {first.name} shows which versions are of which root; compare two of one",
        )


def _epoch(ended: list[registry.Epoch], seq: int | None) -> int:
    if seq is None:
        return len(ended)
    return next((i for i, epoch in enumerate(ended) if seq <= epoch.last_seq + registry.NUMBER_MARGIN), len(ended))


def open_epochs(state: Path, name: str) -> Iterator[tuple[int, str, Database]]:
    """Yield ``(number, root, open file)`` of each epoch of a dataset, oldest first; who takes one closes it."""
    present, known = files.open_dataset_readonly(state, name)
    try:
        with closing(files.open_registry_readonly(state)) as records:
            ended = records.read(lambda c: registry.epochs(c, name))
        for number, epoch in enumerate(ended, start=1):
            try:
                db, _ = files.open_dataset_readonly(state, name, seq=epoch.last_seq)
            except NotFoundError:
                continue  # its file was taken away; what is left can still be told
            yield number, display(epoch.root), db
    except BaseException:
        present.close()
        raise
    yield len(ended) + 1, display(known.root), present
