"""The entries of a version in path order, a directory at a time: what streams a million of them in flat memory.

The order is that of the paths' bytes, which is also the order of a depth-first walk in which a directory ``d`` has its
place as ``d/``. So nothing is sorted but the subdirectories of one directory; a sort over the whole set would hold it
(150 MiB for a million files) before the first entry comes, and is no faster.
"""

import sqlite3
from base64 import b64decode
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from reprod.core.entry import Entry, Kind
from reprod.errors import DamagedError, IncompleteError
from reprod.store import versions
from reprod.store.index import content_of

# The state of an entry at a version is its first history row with a higher one, else its row in `file`.
_FILES = (
    "SELECT f.name, h.file IS NOT NULL, h.kind, h.size, h.sha256, h.more, h.problem, h.mtime_ns, h.mode, "
    "f.kind, f.size, f.sha256, f.more, f.problem, f.mtime_ns, f.mode "
    "FROM file f LEFT JOIN history h ON h.file = f.id "
    "AND h.version = (SELECT min(version) FROM history WHERE file = f.id AND version > ?) "
    "WHERE f.directory = ? ORDER BY f.name"
)


@dataclass(slots=True)
class _Level:
    """A directory that is being listed: its path with a slash, its files with the next of them, its directories."""

    start: bytes
    rows: Iterator[Any]
    next_row: Any
    directories: list[tuple[bytes, int]]


def entries(db: sqlite3.Connection, seq: int, without: Collection[bytes] = (), under: bytes = b"") -> Iterator[Entry]:
    """Yield the entries of a version in full-path byte order, special files included.

    Takes a connection inside a transaction of the caller's, and is read to its end within it.

    :param without: directories that are passed over with all below them (``b""`` is the root).
    :param under: only what is below this directory; nothing if there is none.
    :raises NotFoundError: there is no such version. :raises IncompleteError: it was pruned.
    """
    versions.require_kept(db, seq)
    top = db.execute("SELECT id FROM directory WHERE path = ?", (under,)).fetchone()
    levels = [_open(db, seq, top[0], under and under + b"/", without)] if top and under not in without else []
    while levels:
        level = levels[-1]
        start, rows, row = level.start, level.rows, level.next_row
        until = level.directories[-1][0] if level.directories else None
        while row is not None:
            path = start + row[0]
            if until is not None and until < path:
                break
            at = row[2:9] if row[1] else row[9:16]
            if at[0]:
                yield Entry(path, content_of(*at[:5]), at[5], at[6])
            row = next(rows, None)
        level.next_row = row
        if level.directories:
            path, place = level.directories.pop()
            levels.append(_open(db, seq, place, path, without))
        else:
            levels.pop()


def unlisted(db: sqlite3.Connection, seq: int) -> tuple[bytes, ...]:
    """Return the directories that could not be listed when a version was sealed, in path order (``b""`` is the root).

    What the index has below one is only remembered from earlier. Directories have no history: the version's record
    says so. Where it does not (it is older than that, or they were too many), this is known of the newest version
    alone, while nothing of the next one is written.

    :raises NotFoundError: there is no such version. :raises IncompleteError: it was pruned, or nobody knows any more.
    :raises DamagedError: its record is not what was sealed.
    """
    versions.require_kept(db, seq)
    problems = versions.version(db, seq).problems
    if not problems:
        return ()
    recorded = versions.record(db, seq).get("unlisted")
    if recorded is not None:
        return _recorded(recorded, seq)
    kinds = {Kind.FILE, Kind.LINK}
    if problems == sum(e.content.problem is not None and e.content.kind in kinds for e in entries(db, seq)):
        return ()
    newest, touched = db.execute("SELECT (SELECT max(seq) FROM version), touched FROM pending").fetchone()
    if seq != newest or touched:
        raise IncompleteError(
            f"version {seq} is not complete, and which of its folders could not be listed is not known any more",
            hint="reprod log shows complete versions; a scan makes a new one",
        )
    rows = db.execute("SELECT path FROM directory WHERE present = 1 AND problem IS NOT NULL ORDER BY path")
    return tuple(bytes(path) for (path,) in rows)


def _recorded(directories: list[dict[str, str]], seq: int) -> tuple[bytes, ...]:
    """Return the paths that a record names."""
    try:
        return tuple(b64decode(d["path_b64"]) if "path_b64" in d else d["path"].encode() for d in directories)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DamagedError(
            f"the record of version {seq} is not what was sealed", hint="reprod verify NAME --chain says what else"
        ) from error


def _open(db: sqlite3.Connection, seq: int, place: int, start: bytes, without: Collection[bytes]) -> _Level:
    """Begin to list a directory; those below it are held with a slash at their end, the last one first."""
    below = db.execute("SELECT path, id FROM directory WHERE parent = ?", (place,)).fetchall()
    rows = iter(db.execute(_FILES, (seq, place)))
    directories = [(path + b"/", child) for path, child in below if path not in without]
    return _Level(start, rows, next(rows, None), sorted(directories, reverse=True))
