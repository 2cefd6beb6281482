"""When what was known of a dataset: the marks that the binding rule reads, and the gaps in the watch.

A mark is a version, a touch (fingerprints changed, content did not) or a step of the clock; ``pending`` gathers what
the next one covers. The terms are those of ``reprod.core.binding``. Functions take a connection inside a transaction
of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from dataclasses import dataclass

from reprod.core.binding import Mark


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the refresh that seals knows of its moment; see ``core.binding.Mark`` for the terms.

    ``watch_whole`` says that the watch was armed before the walk began and lost nothing that is known of.
    """

    now_ns: int
    walk_ns: int | None
    root_since_ns: int
    first_hint_ns: int | None
    gap_from_ns: int | None
    gap_kind: str | None
    watch_whole: bool


def marks(db: sqlite3.Connection) -> list[Mark]:
    """Return the dataset's history as the binding rule reads it, in recording order."""
    rows = db.execute(
        "SELECT m.seq, m.kind, m.sealed_ns, m.born_ns, m.root_since_ns, v.digest IS NOT NULL, m.walk_ns, "
        "m.low_ctime_ns, m.first_hint_ns, m.proved_ns, m.gap_from_ns, v.pruned "
        "FROM mark m JOIN version v ON v.seq = m.seq ORDER BY m.id"
    )
    return [
        Mark(
            seq=row[0],
            kind=row[1],
            sealed_ns=row[2],
            born_ns=row[3],
            root_since_ns=row[4],
            complete=bool(row[5]),
            walk_ns=row[6],
            low_ctime_ns=row[7],
            first_hint_ns=row[8],
            proved_ns=row[9],
            gap_from_ns=row[10],
            pruned=bool(row[11]),
        )
        for row in rows
    ]


def proved_ns(db: sqlite3.Connection) -> int | None:
    """Return when the newest state was last confirmed by a full walk (the walk's start)."""
    row = db.execute("SELECT max(coalesce(proved_ns, 0), coalesce(walk_ns, 0)) FROM mark ORDER BY id DESC LIMIT 1")
    found = row.fetchone()
    return found[0] or None if found else None


def step(db: sqlite3.Connection, low_ns: int, high_ns: int, now_ns: int) -> None:
    """Record that the clock was set: times between ``low_ns`` and ``high_ns`` may be of either side.

    ``gap_from_ns`` holds the end of that span which is not now, so that the mark spans all of it.
    """
    here_ns, there_ns = (now_ns, low_ns) if now_ns >= high_ns else (low_ns, high_ns)
    newest = db.execute("SELECT seq, born_ns, root_since_ns FROM mark ORDER BY id DESC LIMIT 1").fetchone()
    if newest is not None:
        db.execute(
            "INSERT INTO mark (seq, kind, sealed_ns, born_ns, root_since_ns, gap_from_ns, gap_kind) "
            "VALUES (?, 'step', ?, ?, ?, ?, 'clock step')",
            (newest[0], here_ns, newest[1], newest[2], there_ns),
        )


def open_gap(db: sqlite3.Connection, since_ns: int, kind: str) -> None:
    """Remember that the watch was not whole from ``since_ns`` on, until a full walk under a whole watch."""
    db.execute(
        "UPDATE pending SET gap_kind = CASE WHEN gap_from_ns IS NULL OR gap_from_ns > ?1 THEN ?2 ELSE gap_kind END, "
        "gap_from_ns = min(coalesce(gap_from_ns, ?1), ?1)",
        (since_ns, kind),
    )


def open_downtime(db: sqlite3.Connection) -> None:
    """Nobody watched since the last thing that is known: called when the file is opened by who will watch."""
    row = db.execute(
        "SELECT max(sealed_ns, coalesce(proved_ns, 0), coalesce(walk_ns, 0)) FROM mark ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is not None:
        open_gap(db, row[0], "downtime")


def insert_mark(db: sqlite3.Connection, seq: int, kind: str, evidence: Evidence) -> None:
    """Write a mark of all that is pending, and begin the next."""
    low, high, hint, gap_from, gap_kind = db.execute(
        "SELECT low_ctime_ns, high_ctime_ns, first_hint_ns, gap_from_ns, gap_kind FROM pending"
    ).fetchone()
    hints = [h for h in (hint, evidence.first_hint_ns) if h is not None]
    if evidence.gap_from_ns is not None and (gap_from is None or evidence.gap_from_ns < gap_from):
        gap_from, gap_kind = evidence.gap_from_ns, evidence.gap_kind
    last = db.execute("SELECT born_ns FROM mark ORDER BY id DESC LIMIT 1").fetchone()
    born = max(last[0] if last else 0, high or 0)
    db.execute(
        "INSERT INTO mark (seq, kind, sealed_ns, born_ns, root_since_ns, walk_ns, low_ctime_ns, first_hint_ns, "
        "gap_from_ns, gap_kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            seq,
            kind,
            evidence.now_ns,
            born,
            evidence.root_since_ns,
            evidence.walk_ns,
            low,
            min(hints) if hints else None,
            gap_from,
            gap_kind,
        ),
    )
    db.execute("UPDATE pending SET touched = 0, low_ctime_ns = NULL, high_ctime_ns = NULL, first_hint_ns = NULL")


def settle_gap(db: sqlite3.Connection, evidence: Evidence) -> None:
    """A full walk under a whole watch closes a gap; one without a watch opens the next at its own start."""
    if evidence.walk_ns is None:
        return
    if evidence.watch_whole:
        db.execute("UPDATE pending SET gap_from_ns = NULL, gap_kind = NULL")
    else:
        db.execute("UPDATE pending SET gap_from_ns = ?, gap_kind = 'not watched'", (evidence.walk_ns,))
