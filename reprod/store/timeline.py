"""When what was known of a dataset: the marks that the binding rule reads, and the gaps in the watch.

A mark is a version, a touch (fingerprints changed, content did not) or a step of the clock; ``pending`` gathers what
the next one covers. The terms are those of ``reprod.core.binding``. Functions take a connection inside a transaction
of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

from reprod.core.binding import Mark
from reprod.store import meta, touches


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


def marks(db: sqlite3.Connection, since_ns: int = 0) -> list[Mark]:
    """Return the dataset's history as the binding rule reads it, in recording order.

    :param since_ns: nothing before the newest mark that is older than this is needed. Where the clock was ever set, all
        is: numbers say nothing of the order then.
    """
    if db.execute("SELECT 1 FROM mark WHERE kind = 'step' LIMIT 1").fetchone() is not None:
        since_ns = 0
    found = []
    for row in db.execute(_MARKS):
        found.append(_mark(row))
        if row[2] < since_ns:
            break
    found.reverse()
    return found


# Newest first: what a run needs is near the end, and a busy dataset has a million marks after some weeks.
_MARKS = (
    "SELECT m.seq, m.kind, m.sealed_ns, m.born_ns, m.root_since_ns, v.digest IS NOT NULL, m.walk_ns, "
    "m.low_ctime_ns, m.first_hint_ns, m.proved_ns, m.gap_from_ns, v.pruned "
    "FROM mark m JOIN version v ON v.seq = m.seq ORDER BY m.id DESC"
)


def _mark(row: tuple[Any, ...]) -> Mark:
    return Mark(
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


def proved_ns(db: sqlite3.Connection) -> int | None:
    """Return when the newest state was last confirmed by a full walk (the walk's start)."""
    row = db.execute("SELECT max(coalesce(proved_ns, 0), coalesce(walk_ns, 0)) FROM mark ORDER BY id DESC LIMIT 1")
    found = row.fetchone()
    return found[0] or None if found else None


def step(db: sqlite3.Connection, before_ns: int, after_ns: int, within_ns: int) -> None:
    """Record that the clock, which would show ``before_ns`` now, shows ``after_ns``, since at most ``within_ns`` ago.

    What is known is older than now, whatever the clock said when it was seen.
    """
    newest = db.execute("SELECT seq, born_ns, root_since_ns FROM mark ORDER BY id DESC LIMIT 1").fetchone()
    if newest is not None:
        db.execute(
            "INSERT INTO mark (seq, kind, sealed_ns, born_ns, root_since_ns, first_hint_ns, gap_from_ns, gap_kind) "
            "VALUES (?, 'step', ?, ?, ?, ?, ?, 'clock step')",
            (
                newest[0],
                after_ns,
                min(newest[1], after_ns),
                min(newest[2], after_ns),
                after_ns - within_ns,
                before_ns,
            ),
        )
    else:
        meta.write(db, unclear_ns=max(before_ns, after_ns, meta.read(db).unclear_ns or 0))
    open_gap(db, min(before_ns, after_ns) - within_ns, "clock step")  # hints of before carry times of before
    meta.write(db, heard_ns=None)


def open_gap(db: sqlite3.Connection, since_ns: int, kind: str) -> None:
    """Remember that the watch was not whole from ``since_ns`` on, until a full walk under a whole watch."""
    db.execute(
        "UPDATE pending SET gap_kind = CASE WHEN gap_from_ns IS NULL OR gap_from_ns > ?1 THEN ?2 ELSE gap_kind END, "
        "gap_from_ns = min(coalesce(gap_from_ns, ?1), ?1)",
        (since_ns, kind),
    )


def open_downtime(db: sqlite3.Connection, now_ns: int, boot_id: str, offset_ns: int, tolerance_ns: int) -> None:
    """Nobody watched since the last thing that is known: called when the file is opened by who will watch.

    The clock may have been set meanwhile. Within one boot its offset to the time since then tells; over a reboot only
    that it is behind what is known.
    """
    known = meta.read(db)
    meta.write(db, clock_boot=boot_id, clock_offset_ns=offset_ns)
    same_boot = known.clock_boot == boot_id and known.clock_offset_ns is not None
    moved_ns = offset_ns - (known.clock_offset_ns or 0) if same_boot else 0
    newest = db.execute(
        "SELECT max(sealed_ns, coalesce(proved_ns, 0), coalesce(walk_ns, 0)) FROM mark ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if abs(moved_ns) > tolerance_ns:
        would_be_ns = now_ns - moved_ns
        step(db, would_be_ns, now_ns, max(0, would_be_ns - newest[0]) if newest is not None else 0)
    elif newest is not None and now_ns < newest[0]:
        step(db, newest[0], now_ns, now_ns)  # nobody knows how long ago
    if newest is not None:
        open_gap(db, newest[0], "downtime")


def hear(db: sqlite3.Connection, moment_ns: int) -> None:
    """All that the watch told of up to ``moment_ns`` is in the newest mark; not noted where it may have lost some."""
    gap_from, touched = db.execute("SELECT gap_from_ns, touched FROM pending").fetchone()
    if gap_from is None and not touched:
        meta.write(db, heard_ns=moment_ns)


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
    cursor = db.execute(
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
    touches.take(db, int(cursor.lastrowid or 0), seq if kind == "version" else seq + 1)
    db.execute("UPDATE pending SET touched = 0, low_ctime_ns = NULL, high_ctime_ns = NULL, first_hint_ns = NULL")


def settle_gap(db: sqlite3.Connection, evidence: Evidence) -> None:
    """A full walk under a whole watch closes a gap; one without a watch opens the next at its own start."""
    if evidence.walk_ns is None:
        return
    if evidence.watch_whole:
        db.execute("UPDATE pending SET gap_from_ns = NULL, gap_kind = NULL")
    else:
        db.execute("UPDATE pending SET gap_from_ns = ?, gap_kind = 'not watched'", (evidence.walk_ns,))
