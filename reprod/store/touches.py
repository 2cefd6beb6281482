"""What was touched though its content is the same, mark by mark: what drift needs beside the versions' differences.

Rule: entries count that were there before and whose fingerprint moved, also through another content and back. A
directory's own stat is no change, but a trace: it is dropped where a name that came or went in it explains it. Paths
are kept up to a bound, counts always. Functions take a connection inside a transaction of the caller's; paths are raw
bytes.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from reprod.store.observation import SeenDirectory

#: Paths of each kind that one mark keeps, and rows of all marks: 100 bytes each, so 10 MB a dataset at most.
MOST_OF_A_MARK = 1000
MOST_OF_ALL = 100_000


class What(IntEnum):
    """What a row of ``touched`` is about. The numbers are stored."""

    ENTRY = 1
    STAT = 2  # a directory's ctime alone: mode or owner changed, or it was moved away and back
    NAMES = 3  # names came or went in a directory, which ones is not known
    CHILD = 4  # a directory came or went in this one (of the coming mark only: it explains)
    REPLACED = 5  # another directory stands there


@dataclass(frozen=True, slots=True)
class Trace:
    """What one mark has: paths of entries, and directories whose own stat nothing explains.

    ``unlisted`` counts more of either, without a path; ``vanished`` names that came or went between two looks.
    """

    unlisted: int
    vanished: int
    paths: tuple[bytes, ...] = ()
    directories: tuple[bytes, ...] = ()


def note_entries(db: sqlite3.Connection, paths: Sequence[bytes]) -> None:
    """Entries that were there before were touched, and hold what they held."""
    if paths:
        _note(db, [(What.ENTRY, path) for path in paths], (What.ENTRY,))


def note_vanished(db: sqlite3.Connection, count: int) -> None:
    """Names came or went between two looks of one refresh."""
    db.execute("UPDATE trace SET vanished = vanished + ? WHERE mark = 0", (count,))


def note_directories(db: sqlite3.Connection, seen: Iterable[SeenDirectory]) -> None:
    """Take note of what is about to be written over the rows of these directories."""
    noted: list[tuple[What, bytes]] = []
    for directory in seen:
        row = db.execute(
            "SELECT present, mtime_ns, ctime_ns, inode FROM directory WHERE path = ?", (directory.path,)
        ).fetchone()
        if row is None or not row[0] or row[3] is None:
            if directory.path:
                noted.append((What.CHILD, directory.path.rpartition(b"/")[0]))
        elif directory.stat is None or row[3] != directory.stat[2]:
            noted.append((What.REPLACED, directory.path))
        elif row[1] != directory.stat[0]:
            noted.append((What.NAMES, directory.path))
        elif row[2] != directory.stat[1]:
            noted.append((What.STAT, directory.path))
    _note_directories(db, noted)


def note_child_gone(db: sqlite3.Connection, path: bytes) -> None:
    """A directory went: that explains its parent's stat."""
    _note_directories(db, [(What.CHILD, path.rpartition(b"/")[0])])


def _note_directories(db: sqlite3.Connection, noted: list[tuple[What, bytes]]) -> None:
    if noted:
        _note(db, noted, (What.STAT, What.NAMES, What.CHILD, What.REPLACED))


def _note(db: sqlite3.Connection, rows: Sequence[tuple[What, bytes]], kinds: tuple[What, ...]) -> None:
    marks = ", ".join("?" * len(kinds))
    here = db.execute(f"SELECT count(*) FROM touched WHERE mark = 0 AND what IN ({marks})", kinds).fetchone()[0]
    kept = rows[: max(0, MOST_OF_A_MARK - here)]
    db.executemany("INSERT INTO touched (mark, what, path) VALUES (0, ?, ?)", kept)
    if len(kept) < len(rows):
        db.execute("UPDATE trace SET unlisted = unlisted + ? WHERE mark = 0", (len(rows) - len(kept),))


def take(db: sqlite3.Connection, mark: int, seq: int) -> None:
    """Give what was noted to a mark that was just made, and begin the next. ``seq``: the open version."""
    db.execute("DELETE FROM trace WHERE mark = ?", (mark,))
    db.execute("UPDATE trace SET mark = ? WHERE mark = 0", (mark,))
    db.execute("INSERT INTO trace (mark) VALUES (0)")
    if db.execute("SELECT 1 FROM touched WHERE mark = 0 LIMIT 1").fetchone() is None:
        return
    # A directory cannot have been moved without its parent's names having changed.
    db.execute(
        "DELETE FROM touched WHERE mark = 0 AND what = ?1 AND path != x'' AND NOT EXISTS ("
        "SELECT 1 FROM directory d JOIN directory p ON p.id = d.parent JOIN touched t ON t.mark = 0 "
        "AND t.path = p.path AND t.what IN (?2, ?3, ?4) WHERE d.path = touched.path)",
        (What.STAT, What.NAMES, What.CHILD, What.REPLACED),
    )
    db.execute(
        "DELETE FROM touched WHERE mark = 0 AND what = ?1 AND path IN ("
        "SELECT path FROM touched WHERE mark = 0 AND what = ?2 UNION "
        "SELECT d.path FROM history h JOIN file f ON f.id = h.file JOIN directory d ON d.id = f.directory "
        "WHERE h.version = ?3 AND (h.kind = 0) != (f.kind = 0))",
        (What.NAMES, What.CHILD, seq),
    )
    db.execute("DELETE FROM touched WHERE mark = 0 AND what = ?", (What.CHILD,))
    db.execute("UPDATE touched SET mark = ? WHERE mark = 0", (mark,))
    _forget_oldest(db)


def _forget_oldest(db: sqlite3.Connection) -> None:
    """Keep the newest rows, and no trace of a mark whose rows are not all there."""
    query = "SELECT mark FROM touched WHERE id <= (SELECT max(id) FROM touched) - ? ORDER BY id DESC LIMIT 1"
    row = db.execute(query, (MOST_OF_ALL,)).fetchone()
    if row is not None:
        db.execute("DELETE FROM touched WHERE mark <= ?", row)
        db.execute("DELETE FROM trace WHERE mark BETWEEN 1 AND ?", row)


def traces(db: sqlite3.Connection, first: int, last: int) -> dict[int, Trace]:
    """Return what the marks ``first`` to ``last`` (their ids) have; one of format 1 is not in it."""
    rows = db.execute("SELECT mark, what, path FROM touched WHERE mark BETWEEN ? AND ?", (first, last)).fetchall()
    paths: dict[int, dict[bytes, None]] = {}
    directories: dict[int, dict[bytes, None]] = {}
    for mark, what, path in rows:
        kept = paths if what == What.ENTRY else directories
        kept.setdefault(mark, {})[path] = None
    counts = db.execute("SELECT mark, unlisted, vanished FROM trace WHERE mark BETWEEN ? AND ?", (first, last))
    return {
        mark: Trace(unlisted, vanished, tuple(paths.get(mark, ())), tuple(directories.get(mark, ())))
        for mark, unlisted, vanished in counts
    }
