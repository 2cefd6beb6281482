"""The rows of a dataset as they are now: what a refresh compares with.

Every function takes a connection inside a transaction of the caller's. Paths and names are raw bytes. What writes these
rows is ``reprod.store.changes``.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from reprod.core.entry import Content, Kind, Problem

_KINDS = tuple(Kind)  # a tuple's item costs a fifth of an Enum's call; rebuilding a version makes one for each file


Connection = sqlite3.Connection


Stat = tuple[int, int, int, int, int]


#: ``(mode, size, mtime_ns, ctime_ns, inode, id, problem)``: the fingerprint first, so that a slice is a stat.
KnownFile = tuple[int, int, int, int, int, int, int | None]


@dataclass(frozen=True, slots=True)
class KnownDirectory:
    """A directory's row: its id, the ``(mtime_ns, ctime_ns, inode)`` it had, and whether it could be listed."""

    id: int
    stat: tuple[int | None, int | None, int | None]
    present: bool
    problem: int | None


def directory(db: sqlite3.Connection, path: bytes) -> KnownDirectory | None:
    """Return the row of a directory, None if it was never seen."""
    row = db.execute(
        "SELECT id, mtime_ns, ctime_ns, inode, present, problem FROM directory WHERE path = ?", (path,)
    ).fetchone()
    return None if row is None else KnownDirectory(row[0], (row[1], row[2], row[3]), bool(row[4]), row[5])


#: A range of names in a directory: ``after < name <= until``.
Range = tuple[bytes, bytes]


def files(db: sqlite3.Connection, directory_id: int, names: Range) -> dict[bytes, KnownFile]:
    """Return the present entries of one directory by name, within a range."""
    rows = db.execute(
        "SELECT name, mode, size, mtime_ns, ctime_ns, inode, id, problem FROM file "
        "WHERE directory = ? AND name > ? AND name <= ? AND kind != 0",
        (directory_id, *names),
    )
    return {row[0]: row[1:] for row in rows}


def stats(db: sqlite3.Connection, directory_id: int, names: Range) -> dict[bytes, Stat] | None:
    """Return the fingerprints of the present entries of one directory by name, within a range.

    None if an entry of the directory has a problem.
    """
    broken = "SELECT 1 FROM file WHERE directory = ? AND problem IS NOT NULL LIMIT 1"
    if db.execute(broken, (directory_id,)).fetchone() is not None:
        return None
    rows = db.execute(
        "SELECT name, mode, size, mtime_ns, ctime_ns, inode FROM file "
        "WHERE directory = ? AND name > ? AND name <= ? AND kind != 0",
        (directory_id, *names),
    )
    return {row[0]: row[1:] for row in rows}


def file(db: sqlite3.Connection, directory_id: int, name: bytes) -> KnownFile | None:
    """Return one present entry of a directory."""
    row: KnownFile | None = db.execute(
        "SELECT mode, size, mtime_ns, ctime_ns, inode, id, problem FROM file "
        "WHERE directory = ? AND name = ? AND kind != 0",
        (directory_id, name),
    ).fetchone()
    return row


def children(db: sqlite3.Connection, directory_id: int) -> dict[bytes, int]:
    """Return the present subdirectories of one directory: name to id."""
    rows = db.execute("SELECT path, id FROM directory WHERE parent = ? AND present = 1", (directory_id,))
    return {path.rpartition(b"/")[2]: child for path, child in rows}


def path_of_inode(db: sqlite3.Connection, inode: int, other_than: bytes) -> bytes | None:
    """Return the path of a present directory that had this inode, another than the one given."""
    row = db.execute(
        "SELECT path FROM directory WHERE inode = ? AND present = 1 AND path != ? LIMIT 1", (inode, other_than)
    ).fetchone()
    return None if row is None else bytes(row[0])


def files_below(db: sqlite3.Connection, directory_ids: Iterable[int]) -> int:
    """Return how many present entries there are in these directories and all below them."""
    query = (
        "WITH RECURSIVE below (id) AS (SELECT ?1 UNION ALL "
        "SELECT d.id FROM directory d JOIN below b ON d.parent = b.id WHERE d.present = 1) "
        "SELECT count(*) FROM file WHERE kind != 0 AND directory IN below"
    )
    return sum(db.execute(query, (one,)).fetchone()[0] for one in directory_ids)


def stamps_are_whole_seconds(db: sqlite3.Connection) -> bool:
    """Return whether the ctimes of all directories are whole seconds; False where there is none yet."""
    known = "SELECT 1 FROM directory WHERE present = 1 AND ctime_ns IS NOT NULL"
    fine = f"{known} AND ctime_ns % 1000000000 != 0"  # mostly the first row: each run asks, and there may be millions
    return db.execute(f"{fine} LIMIT 1").fetchone() is None and db.execute(f"{known} LIMIT 1").fetchone() is not None


def count_files(db: sqlite3.Connection) -> int:
    """Return how many regular files there are, also of the open version. Reads every row."""
    return int(db.execute("SELECT count(*) FROM file WHERE kind = 1").fetchone()[0])


def open_version(db: sqlite3.Connection) -> tuple[int, bool]:
    """Return the number that the next version will have, and whether there is a sealed one before it."""
    newest = db.execute("SELECT max(seq) FROM version").fetchone()[0]
    if newest is not None:
        return newest + 1, True
    row = db.execute("SELECT value FROM meta WHERE key = 'first_seq'").fetchone()
    return (int(row[0]) if row else 1), False


def content_of(kind: int, size: int, sha256: bytes | None, more: bytes | None, problem: int | None) -> Content:
    """Return the content in a row's columns."""
    if not problem and not more:
        return Content(_KINDS[kind], size, sha256)
    return Content(
        _KINDS[kind],
        size,
        sha256,
        Problem(problem) if problem else None,
        msgspec.msgpack.decode(more, type=dict[str, bytes]) if more else {},
    )


def contents(db: sqlite3.Connection, path: bytes, names: Range) -> dict[bytes, tuple[Stat, Content]]:
    """Return the present entries of a directory that were read clean, within a range: fingerprint and content."""
    rows = db.execute(
        "SELECT f.name, f.mode, f.size, f.mtime_ns, f.ctime_ns, f.inode, f.kind, f.sha256, f.more FROM file f "
        "JOIN directory d ON d.id = f.directory "
        "WHERE d.path = ? AND f.name > ? AND f.name <= ? AND f.kind != 0 AND f.problem IS NULL",
        (path, *names),
    )
    return {r[0]: ((r[1], r[2], r[3], r[4], r[5]), content_of(r[6], r[2], r[7], r[8], None)) for r in rows}
