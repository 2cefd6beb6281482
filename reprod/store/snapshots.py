"""Environments by content, the timer's samples of them, and what processes handed over about themselves.

The same environment is stored once, however many runs. Records come here redacted. Functions take a connection inside a
transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from dataclasses import dataclass

Connection = sqlite3.Connection


@dataclass(frozen=True, slots=True)
class Handover:
    """What a process said of itself. ``digest`` is None while its record is still to come."""

    process: str
    uid: int
    digest: str | None
    taken_ns: int


@dataclass(frozen=True, slots=True)
class Sample:
    """An environment that the timer found unchanged from ``first_ns`` to ``last_ns``."""

    subject: str
    digest: str
    first_ns: int
    last_ns: int


def keep_environment(db: sqlite3.Connection, digest: str, record: bytes) -> None:
    """Store an environment under its digest, once."""
    db.execute("INSERT OR IGNORE INTO environment (digest, record) VALUES (?, ?)", (digest, record))


def environment(db: sqlite3.Connection, digest: str) -> bytes | None:
    """Return a stored environment's record."""
    row = db.execute("SELECT record FROM environment WHERE digest = ?", (digest,)).fetchone()
    return row[0] if row else None


def announce(db: sqlite3.Connection, process: str, uid: int, now_ns: int) -> None:
    """Note that a process made itself known; its record may follow."""
    db.execute(
        "INSERT OR IGNORE INTO handover (process, uid, digest, taken_ns) VALUES (?, ?, NULL, ?)", (process, uid, now_ns)
    )


def hand_over(db: sqlite3.Connection, process: str, uid: int, digest: str, taken_ns: int) -> None:
    """Keep a process's own record; the first one stands, because it is nearest to the start.

    A record counts for its own user only: another user's row is never replaced.
    """
    db.execute(
        "INSERT INTO handover (process, uid, digest, taken_ns) VALUES (?, ?, ?, ?) ON CONFLICT (process) DO UPDATE SET "
        "digest = excluded.digest, taken_ns = excluded.taken_ns "
        "WHERE handover.digest IS NULL AND handover.uid = excluded.uid",
        (process, uid, digest, taken_ns),
    )


def handover(db: sqlite3.Connection, process: str) -> Handover | None:
    """Return what a process handed over."""
    row = db.execute("SELECT process, uid, digest, taken_ns FROM handover WHERE process = ?", (process,)).fetchone()
    return Handover(*row) if row else None


def keep_sample(db: sqlite3.Connection, subject: str, digest: str, now_ns: int) -> bool:
    """Note what the timer saw: a new row on change, else only the time. Whether it changed."""
    last = db.execute(
        "SELECT digest, first_ns FROM sample WHERE subject = ? ORDER BY first_ns DESC LIMIT 1", (subject,)
    ).fetchone()
    if last is not None and last[0] == digest:
        db.execute("UPDATE sample SET last_ns = ? WHERE subject = ? AND first_ns = ?", (now_ns, subject, last[1]))
        return False
    db.execute(
        "INSERT INTO sample (subject, digest, first_ns, last_ns) VALUES (?, ?, ?, ?)", (subject, digest, now_ns, now_ns)
    )
    return True


def samples(db: sqlite3.Connection, subject: str | None = None) -> list[Sample]:
    """Return the samples of one subject, or of all, oldest first."""
    rows = db.execute(
        "SELECT subject, digest, first_ns, last_ns FROM sample WHERE ?1 IS NULL OR subject = ?1 ORDER BY first_ns",
        (subject,),
    )
    return [Sample(*row) for row in rows]


def bracketing(db: sqlite3.Connection, subject: str, at_ns: int) -> Sample | None:
    """Return the sample whose equal sightings lie on both sides of a moment: then it held at that moment."""
    row = db.execute(
        "SELECT subject, digest, first_ns, last_ns FROM sample WHERE subject = ? AND first_ns <= ? AND last_ns >= ?",
        (subject, at_ns, at_ns),
    ).fetchone()
    return Sample(*row) if row else None
