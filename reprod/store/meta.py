"""What a dataset's file knows of the dataset as a whole: root, selection, the last walk. Key and value rows.

Values are JSON, but for paths, which are raw bytes.
"""

import sqlite3
from dataclasses import dataclass, fields
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Meta:
    """All of it; None where it was never written. ``*_ns`` are wall-clock nanoseconds."""

    root: bytes | None = None
    identity: bytes | None = None  # RootIdentity as JSON; with boot_id, because its ids change over a reboot
    boot_id: str | None = None
    root_since_ns: int | None = None
    selection: dict[str, Any] | None = None  # of the newest full walk
    pending_root: bool = False  # another root was seen, but no full walk has ended on it yet
    pending_selection: bool = False  # another selection was seen, but no full walk has ended under it yet
    algorithms: list[str] | None = None
    last_walk_ns: int | None = None
    first_seq: int | None = None  # where numbering begins in a rebuilt file
    first_chain: bytes | None = None
    name: str | None = None  # after a rename: the file is called as the dataset was at first
    first_reason: str | None = None  # what its first version says of itself, where it is not the dataset's first
    epoch_ns: int | None = None  # since when the name stands for this root: nothing is bound across that moment
    moving: str | None = None  # "ordered": another root is to be taken as this one; "seen": taken, not walked whole yet
    held_ns: int | None = None  # when a walk began that lost so much that a second one has to confirm it
    pruned_ns: int | None = None  # when old versions were last looked through
    clock_boot: str | None = None  # under which boot the clock was looked at last, and how far it was ahead of that
    clock_offset_ns: int | None = None
    unclear_ns: int | None = None  # the clock was set before the first version: what it showed until then says nothing
    heard_ns: int | None = None  # up to when all that the watch told of is in the newest version


_RAW = frozenset({"root", "identity", "first_chain"})


def read(db: sqlite3.Connection) -> Meta:
    """Return everything that is known."""
    rows = dict(db.execute("SELECT key, value FROM meta").fetchall())
    known = {field.name for field in fields(Meta)}
    return Meta(
        **{key: value if key in _RAW else msgspec.json.decode(value) for key, value in rows.items() if key in known}
    )


def write(db: sqlite3.Connection, **values: Any) -> None:
    """Write the named values; names are those of Meta."""
    db.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, value if key in _RAW else msgspec.json.encode(value)) for key, value in values.items()],
    )
