"""Give a dataset another place or another name, so that no crash can split its history.

What a person wants is a row first (``registry.intend``), then the configuration says it, then it is carried out here:
by whoever opens the dataset next, or at once. Each step may be repeated. Times are Unix nanoseconds.
"""

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from reprod.errors import DamagedError
from reprod.store import meta, registry
from reprod.store.connection import Database, open_database


def settle(state: Path, records: Database, configured: Mapping[str, bytes]) -> None:
    """Carry out what was wanted and is configured by now; ``configured`` maps names to roots.

    :raises StateError: a file cannot be written; nothing is lost, opening the dataset tries again.
    """
    for known in records.read(registry.datasets):
        if known.moving_to is not None and configured.get(known.name) == known.moving_to:
            move(state, records, known, known.moving_to)
        new = known.renaming_to
        if new is not None and known.name not in configured and configured.get(new) == known.root:
            rename(state, records, known, new)


def renamed_to(records: Database, name: str, root: bytes) -> registry.KnownDataset | None:
    """Return the dataset that was to be called ``name``, if it is the one at ``root`` and served no more."""
    return next(
        (
            known
            for known in records.read(registry.datasets)
            if known.renaming_to == name and known.root == root and known.removed_ns is not None
        ),
        None,
    )


def move(state: Path, records: Database, known: registry.KnownDataset, root: bytes) -> None:
    """The dataset is at another root: its next walk takes that one, and nothing is bound across this moment."""
    _tell(state, known, moving="ordered", epoch_ns=time.time_ns(), root=root)  # also one that has no file yet
    records.write(lambda c: registry.move(c, known.name, root))


def rename(state: Path, records: Database, known: registry.KnownDataset, new: str) -> None:
    """The dataset is called otherwise; its file keeps its own name."""
    if (state / "datasets" / known.file).exists():
        _tell(state, known, name=new)
    records.write(lambda c: registry.rename(c, known.name, new, time.time_ns()))


def _tell(state: Path, known: registry.KnownDataset, **values: Any) -> None:
    """Write into the dataset's file; a damaged one is set aside when it is opened."""
    try:
        with closing(open_database(state / "datasets" / known.file, "dataset")) as db:
            db.write(lambda c: meta.write(c, **values))
    except DamagedError:
        return
