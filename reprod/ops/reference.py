"""Turn what a person writes into a version: ``NAME`` (now), ``NAME@N``, ``run:ID`` (also a unique prefix, or the name).

Read-only and without a daemon: everything comes from the state directory. What a run recorded is found under the name
that the dataset has now; a version of an earlier epoch (the name stood for another root) in that epoch's file.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reprod.config import Config
from reprod.core.described import described
from reprod.core.entry import display
from reprod.core.run import split_name
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import IncompleteError, NotFoundError, UsageError
from reprod.store import files, outbox, registry, uses, versions
from reprod.store.connection import Database

#: The tracking server may have what this host has not.
_ELSEWHERE = "the manifest on its tracking server: reprod export run:ID --format sha256sums > S; reprod verify S DIR"


@dataclass(frozen=True, slots=True)
class Reference:
    """A dataset at a version. ``seq`` None means now: the files as they are.

    With ``below`` only what is below that directory of it is meant, as by a run on ``NAME/SUB``.
    """

    text: str
    name: str
    seq: int | None
    run_id: str | None = None
    below: str | None = None

    @property
    def named(self) -> str:
        """As a run names it: ``NAME`` or ``NAME/SUB``."""
        return self.name if self.below is None else f"{self.name}/{self.below}"

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"ref": self.text, "name": self.named, "version": self.seq, "run_id": self.run_id}


def resolve(state: Path, text: str, *, name: str | None = None) -> Reference:
    """Return what ``text`` refers to. ``name`` picks a dataset of a run that used several.

    :raises UsageError: it is no reference or none of ``name``, or a run used several datasets and none was named.
    :raises NotFoundError: no such run. :raises IncompleteError: the run has no version of that dataset, or of the
        folder of it that it named.
    """
    if text.startswith("run:"):
        return _of_run(state, text, name)
    dataset, at, number = text.partition("@")
    if name is not None and name != dataset:
        raise UsageError(f"{text} is no version of {name}", hint="--dataset picks one of the datasets of a run:ID")
    if not at:
        return Reference(text, dataset, None)
    # A number of more digits than a 64-bit integer has is no version, and int() takes no more than 4300.
    if not (number.isascii() and number.isdigit()) or len(number) > 18:
        raise UsageError(f"{text!r} is no reference", hint="NAME, NAME@12 or run:ID")
    return Reference(text, dataset, int(number))


def _of_run(state: Path, text: str, name: str | None) -> Reference:
    run = text.removeprefix("run:")
    unknown = NotFoundError(
        f"no run {run!r} was recorded here",
        hint=f"give its id, the first characters of that, or its name; {_ELSEWHERE}",
    )
    try:
        records = files.open_registry_readonly(state)
    except NotFoundError as error:
        raise unknown from error
    with closing(records):
        rows = records.read(lambda c: outbox.find(c, run))
        names = records.read(registry.Names)
    ids = {row.run_id for row in rows}
    if not ids:
        raise unknown
    if len(ids) > 1:
        listed = ", ".join(sorted(ids)[:3])
        raise UsageError(f"{run!r} is several runs: {listed}", hint="give more characters of the run id")
    row = rows[0]
    if row.snapshot is None:
        raise IncompleteError(f"run {row.run_id} is not recorded yet", hint="reprod status shows what it waits for")
    now, bound = _bound(row.run_id, msgspec.json.decode(row.snapshot, type=described(Snapshot)), names, name)
    found = Reference(text, now, bound.seq, row.run_id, bound.path)
    # A folder has no version of its own: without a digest nothing says what, or whether anything, was in it.
    if bound.seq is None or (bound.path is not None and bound.digest is None):
        raise IncompleteError(
            f"run {row.run_id} has no version of {found.named}: {bound.error}", hint=f"reprod log {now}"
        )
    return found


def _bound(run_id: str, snapshot: Snapshot, names: registry.Names, name: str | None) -> tuple[str, BoundDataset]:
    """Return the dataset that a run used, by its present name, and what the run recorded of it."""
    purged = [d.named for d in snapshot.datasets if names.purged(d.name, snapshot.created_ns)]
    present = [(names.present(d.name, snapshot.created_ns), d) for d in snapshot.datasets if d.named not in purged]
    # One dataset may be there twice, by two of its folders.
    found = [(now, d) for now, d in present if name in {None, now, _named(now, d), d.name, d.named}]
    gone = [each for each in purged if name in {None, each, split_name(each)[0]}]
    if len(found) > 1 or (name is None and len(found) + len(gone) > 1):
        listed = [_named(now, d) for now, d in found]
        choice = " or ".join(f"{now}@{d.seq}" for now, d in found if d.seq is not None and d.path is None)
        raise UsageError(
            f"run {run_id} used several datasets: {', '.join([*listed, *gone])}",
            hint=f"name one of them: {f'{choice}; ' if choice else ''}reprod verify and export have --dataset NAME",
        )
    if found:
        return found[0]
    if gone:
        raise NotFoundError(f"the history of {gone[0]} that this run used was purged", hint=_ELSEWHERE)
    used = [*(_named(now, d) for now, d in present), *purged]
    raise NotFoundError(f"run {run_id} did not use {name}", hint=f"it used {', '.join(used)}")


def _named(now: str, bound: BoundDataset) -> str:
    return now if bound.path is None else f"{now}/{bound.path}"


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


def require_present_root(state: Path, config: Config, name: str) -> None:
    """Raise UsageError if the configuration has another root than the recorded versions: that is another epoch.

    A daemon would have begun it; without one nobody has read the configuration since it was changed.
    """
    path = next((os.fsencode(item.path) for item in config.datasets if item.name == name), None)
    with closing(files.open_registry_readonly(state)) as records:
        known = records.read(lambda c: registry.dataset(c, name))
    if path is not None and known is not None and path not in {known.root, known.moving_to}:
        raise UsageError(
            f"the versions of {name} and its files now are of different roots: it stood for {display(known.root)} "
            f"then and is configured for {display(path)} now",
            hint=f"the daemon begins a new history there; for the same data: reprod dataset move {name} NEWPATH",
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
