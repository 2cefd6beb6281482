"""Forget versions: mark them, fold their history into what is kept, and give the space back, in steps of bounded size.

Rule: a version is marked first, and from that transaction on nobody is told it. Every later step only moves or deletes
rows that no kept version needs, so each kept version can be rebuilt between any two of them, and whoever comes next
goes on where the rows say. Records, marks and the chain stay for ever. Functions take a connection inside a transaction
of the caller's; times are Unix nanoseconds, sizes bytes.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

#: What a row of history takes with its index entry: 83 B were measured for files with one digest.
HISTORY_ROW_BYTES = 83


@dataclass(frozen=True, slots=True)
class Sealed:
    """A version that is not forgotten; it was what the disk held from ``sealed_ns`` to ``until_ns`` (None: still)."""

    seq: int
    sealed_ns: int
    until_ns: int | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """A run's claim on a version. ``owner`` is ``TRACKING_URI#RUN_ID``."""

    seq: int
    owner: str
    made_ns: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a dataset's file holds: versions that can be told and that cannot any more, rows of history, sizes."""

    kept: int
    pruned: int
    newest: int | None
    rows: int
    used_bytes: int
    file_bytes: int
    pruned_ns: int | None


def summary(db: sqlite3.Connection) -> Summary:
    """Count. The rows of history take a scan of their index: 30 ms a million."""
    counts = dict(db.execute("SELECT pruned > 0, count(*) FROM version GROUP BY pruned > 0").fetchall())
    row = db.execute("SELECT value FROM meta WHERE key = 'pruned_ns'").fetchone()
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    return Summary(
        kept=counts.get(0, 0),
        pruned=counts.get(1, 0),
        newest=db.execute("SELECT max(seq) FROM version").fetchone()[0],
        rows=db.execute("SELECT count(*) FROM history").fetchone()[0],
        used_bytes=used_bytes(db),
        file_bytes=pages * db.execute("PRAGMA page_size").fetchone()[0],
        pruned_ns=int(row[0]) if row else None,
    )


def used_bytes(db: sqlite3.Connection) -> int:
    """Return how much of the file is in use; the rest is free pages."""
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def sealed(db: sqlite3.Connection) -> list[Sealed]:
    """Return the versions that are not forgotten, oldest first."""
    rows = db.execute(
        "SELECT v.seq, m.sealed_ns, lead(m.sealed_ns) OVER (ORDER BY v.seq), v.digest IS NOT NULL, v.pruned "
        "FROM version v JOIN mark m ON m.seq = v.seq AND m.kind = 'version' ORDER BY v.seq"
    )
    return [Sealed(seq, at, until, bool(complete)) for seq, at, until, complete, pruned in rows if not pruned]


def pins(db: sqlite3.Connection) -> list[Pin]:
    """Return every claim of a run."""
    return [Pin(*row) for row in db.execute("SELECT seq, owner, made_ns FROM pin ORDER BY seq, owner")]


def unpin(db: sqlite3.Connection, gone: Iterable[Pin]) -> None:
    """Drop claims that are void; one that was made again meanwhile stays."""
    db.executemany(
        "DELETE FROM pin WHERE seq = ? AND owner = ? AND made_ns = ?", [(p.seq, p.owner, p.made_ns) for p in gone]
    )


def forget(db: sqlite3.Connection, seqs: Iterable[int]) -> list[int]:
    """Mark versions as forgotten, but never the newest and none that a run has claimed by now; return which."""
    done = []
    for seq in seqs:
        cursor = db.execute(
            "UPDATE version SET pruned = 1 WHERE seq = ?1 AND pruned = 0 AND seq < (SELECT max(seq) FROM version) "
            "AND NOT EXISTS (SELECT 1 FROM pin WHERE pin.seq = ?1)",
            (seq,),
        )
        if cursor.rowcount:
            done.append(seq)
    return done


def fold(db: sqlite3.Connection, rows: int) -> bool:
    """Take up to ``rows`` rows of history of forgotten versions out; whether there may be more.

    Before the oldest kept version they go. Between two kept ones a row holds what the older one had there, unless an
    earlier row does: so the highest forgotten version comes first, and its rows replace those of its successor.
    """
    oldest = db.execute("SELECT min(seq) FROM version WHERE pruned = 0").fetchone()[0]
    highest = db.execute("SELECT max(seq) FROM version WHERE pruned = 1").fetchone()[0]
    if oldest is None or highest is None:
        return False
    if highest < oldest:
        return _cut(db, oldest, rows)
    successor = db.execute("SELECT min(seq) FROM version WHERE pruned = 0 AND seq > ?", (highest,)).fetchone()[0]
    files = [
        row[0]
        for row in db.execute("SELECT file FROM history WHERE version = ? ORDER BY file LIMIT ?", (highest, rows))
    ]
    moved = {"from": highest, "to": successor, "files": json.dumps(files)}
    db.execute(
        "UPDATE OR REPLACE history SET version = :to "
        "WHERE version = :from AND file IN (SELECT value FROM json_each(:files))",
        moved,
    )
    db.execute(_DROP_UNCHANGED, moved)
    if len(files) < rows:
        db.execute("UPDATE version SET pruned = 2 WHERE seq = ?", (highest,))
    return True


# What changed and came back between two kept versions has a row that says what stands there anyway.
_DROP_UNCHANGED = """
DELETE FROM history WHERE version = :to AND file IN (SELECT value FROM json_each(:files)) AND EXISTS (
  SELECT 1 FROM (
    SELECT kind, size, sha256, more, problem, mode, mtime_ns FROM (
      SELECT version, kind, size, sha256, more, problem, mode, mtime_ns FROM history AS later
      WHERE later.file = history.file AND later.version > :to
      UNION ALL
      SELECT 9223372036854775807, kind, size, sha256, more, problem, mode, mtime_ns FROM file WHERE id = history.file
      ORDER BY 1 LIMIT 1
    )
  ) AS after
  WHERE (after.kind = 0 AND history.kind = 0) OR (after.kind, after.size, after.sha256, after.more, after.problem,
    after.mode, after.mtime_ns) IS (history.kind, history.size, history.sha256, history.more, history.problem,
    history.mode, history.mtime_ns)
)
"""


def _cut(db: sqlite3.Connection, oldest: int, rows: int) -> bool:
    """Delete what only versions before ``oldest``, the first that is kept, needed."""
    cursor = db.execute(
        "DELETE FROM history WHERE (file, version) IN "
        "(SELECT file, version FROM history WHERE version <= ? ORDER BY version LIMIT ?)",
        (oldest, rows),
    )
    if cursor.rowcount < rows:
        db.execute("UPDATE version SET pruned = 2 WHERE pruned = 1 AND seq < ?", (oldest,))
    return True


def sweep(db: sqlite3.Connection, after: int, rows: int) -> int | None:
    """Forget up to ``rows`` names after the row id ``after`` that no kept version holds; None: that was the last.

    A present entry keeps its row whatever happens, so ids that a refresh works with stay good.
    """
    absent = [
        row[0] for row in db.execute("SELECT id FROM file WHERE kind = 0 AND id > ? ORDER BY id LIMIT ?", (after, rows))
    ]
    db.executemany(
        "DELETE FROM file WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM history WHERE file = ?1)",
        [(file_id,) for file_id in absent],
    )
    return absent[-1] if len(absent) == rows else None


def sweep_directories(db: sqlite3.Connection, rows: int) -> bool:
    """Forget up to ``rows`` directories that are gone and hold nothing; whether there may be more (their parents)."""
    cursor = db.execute(
        "DELETE FROM directory WHERE id IN (SELECT id FROM directory AS d INDEXED BY directory_absent "
        "WHERE present = 0 AND parent IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM file WHERE directory = d.id) "
        "AND NOT EXISTS (SELECT 1 FROM directory WHERE parent = d.id) LIMIT ?)",
        (rows,),
    )
    return cursor.rowcount > 0


def give_back(db: sqlite3.Connection, pages: int) -> bool:
    """Return up to ``pages`` free pages to the file system; whether there are more.

    One pragma a page: through this module SQLite moves no more at a time. 200 of them take 1 to 2 ms. The file itself
    shrinks when the log is folded in.
    """
    free: int = db.execute("PRAGMA freelist_count").fetchone()[0]
    for _ in range(min(free, pages)):
        db.execute("PRAGMA incremental_vacuum(1)")
    return pages < free and bool(db.execute("PRAGMA auto_vacuum").fetchone()[0])
