"""The verbs that give a dataset another place or another name, up to the change of its configuration.

An intent is a row in the registry first: then the file in datasets.d changes, and whoever reads it next carries the
intent out (``reprod.store.rehome``). A crash between leaves an intent that waits, never a history in two parts.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from reprod.config import DatasetConfig
from reprod.errors import UsageError
from reprod.store import registry, rehome
from reprod.store.connection import Database


def intend(records: Database, name: str, moving_to: str | None, renaming_to: str | None) -> bool:
    """Note what is wanted of a dataset; neither: nothing any more. False: there is no history that could be split.

    :raises UsageError: the new name has a history of its own.
    """
    if renaming_to is not None and records.read(lambda c: registry.dataset(c, renaming_to)) is not None:
        raise UsageError(
            f"the name {renaming_to} has a history already, of a dataset that was removed",
            hint=f"choose another name, or forget it first: reprod dataset remove {renaming_to} --purge",
        )
    if records.read(lambda c: registry.dataset(c, name)) is None:
        return False
    root = os.fsencode(moving_to) if moving_to is not None else None
    records.write(lambda c: registry.intend(c, name, moving_to=root, renaming_to=renaming_to))
    return True


def settle(state: Path, records: Database, configured: Iterable[DatasetConfig]) -> None:
    """Carry out what was wanted and is configured by now. :raises StateError: a file cannot be written."""
    rehome.settle(state, records, {item.name: os.fsencode(item.path) for item in configured})
