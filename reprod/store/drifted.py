"""What happened to a dataset after a version, as its file tells it: marks with their traces, and changes path by path.

A path is told against the version that a run is bound to (``base``): whether it was there then, and what each later
version did to it. Functions take a connection inside a transaction of the caller's; paths are raw bytes.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from reprod.core.entry import Kind

_IN_SET = frozenset({int(Kind.FILE), int(Kind.LINK)})


@dataclass(frozen=True, slots=True)
class Row:
    """A mark's own number, and of the version that it seals (None for other marks) what that says of itself."""

    id: int
    version: int | None
    reason: str
    pruned: bool
    taken: int  # paths that the version changed or removed


def rows(db: sqlite3.Connection, count: int) -> list[Row]:
    """Return the newest ``count`` marks, oldest first: those that ``timeline.marks`` gave."""
    found = db.execute(
        "SELECT m.id, iif(m.kind = 'version', m.seq, NULL), v.reason, v.pruned > 0, v.removed + v.modified "
        "FROM mark m JOIN version v ON v.seq = m.seq ORDER BY m.id DESC LIMIT ?",
        (count,),
    ).fetchall()
    return [Row(id_, seq, reason, bool(pruned), taken) for id_, seq, reason, pruned, taken in reversed(found)]


@dataclass(frozen=True, slots=True)
class Event:
    """A version changed a path: it was of the set ``before``, and is ``after``."""

    version: int
    before: bool
    after: bool


@dataclass(frozen=True, slots=True)
class Path:
    """What the versions did to one path, in their order; ``existed`` says that it was of the set at the base."""

    path: bytes
    existed: bool
    events: tuple[Event, ...]


def paths(db: sqlite3.Connection, base: int, last: int) -> Iterator[Path]:
    """Yield each path that a version after ``base`` up to ``last`` changed, in no special order."""
    found = db.execute(_EVENTS, {"base": base, "last": last})
    for _, some in groupby(found, key=lambda row: row[0]):
        changes = list(some)
        events = tuple(Event(row[2], row[3] in _IN_SET, row[4] in _IN_SET) for row in changes)
        seen = tuple(event for event in events if event.before or event.after)
        if seen:
            yield Path(changes[0][1], changes[0][5] in _IN_SET, seen)


# The state of an entry at a version is its first history row with a higher one, else its row in `file`.
_EVENTS = """
SELECT h.file, CASE WHEN d.path = x'' THEN f.name ELSE CAST(d.path || x'2f' || f.name AS BLOB) END,
  h.version, h.kind, iif(n.file IS NULL, f.kind, n.kind), b.kind
FROM history h JOIN file f ON f.id = h.file JOIN directory d ON d.id = f.directory
JOIN history b ON b.file = h.file
  AND b.version = (SELECT min(version) FROM history WHERE file = h.file AND version > :base)
LEFT JOIN history n ON n.file = h.file
  AND n.version = (SELECT min(version) FROM history WHERE file = h.file AND version > h.version)
WHERE h.version > :base AND h.version <= :last
ORDER BY h.file, h.version
"""


def existed(db: sqlite3.Connection, path: bytes, base: int) -> bool:
    """Whether a path was of the set at a version."""
    directory, _, name = path.rpartition(b"/")
    row = db.execute(
        "SELECT coalesce("
        "(SELECT kind FROM history WHERE file = f.id AND version > ? ORDER BY version LIMIT 1), f.kind) "
        "FROM file f JOIN directory d ON d.id = f.directory WHERE d.path = ? AND f.name = ?",
        (base, directory, name),
    ).fetchone()
    return row is not None and row[0] in _IN_SET
