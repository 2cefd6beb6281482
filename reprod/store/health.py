"""What a check-up reads from the databases: counts and rows that say whether something is wrong, nothing that changes.

Functions take a connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that could not be recorded, and that nobody tries again by itself."""

    run_id: str
    recorded: str
    error: str


@dataclass(frozen=True, slots=True)
class StoreRun:
    """A store run that this host believes to be on a tracking server."""

    run_id: str
    file: str
    seq: int


def directories(db: sqlite3.Connection) -> int:
    """Return how many directories a dataset has: each takes a watch of inotify."""
    return int(db.execute("SELECT count(*) FROM directory WHERE present = 1").fetchone()[0])


def clock_steps(db: sqlite3.Connection, since_ns: int, until_ns: int) -> list[int]:
    """Return when the wall clock was seen to be set, by what it showed then, oldest first.

    A clock that was years ahead for a moment left a step of then: not within these bounds, as the one back is.
    """
    rows = db.execute(
        "SELECT sealed_ns FROM mark WHERE kind = 'step' AND sealed_ns BETWEEN ? AND ? ORDER BY id", (since_ns, until_ns)
    )
    return [int(row[0]) for row in rows]


def failed_runs(db: sqlite3.Connection, limit: int) -> tuple[int, list[FailedRun]]:
    """Return how many runs failed, and the newest of them."""
    count = db.execute("SELECT count(*) FROM delivery WHERE state = 'failed'").fetchone()[0]
    rows = db.execute(
        "SELECT run_id, recorded, coalesce(error, '') FROM delivery WHERE state = 'failed' ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return int(count), [FailedRun(*row) for row in rows]


def store_runs(db: sqlite3.Connection, tracking_uri: str, limit: int) -> tuple[int, list[StoreRun]]:
    """Return how many whole store runs are known of a tracking server, and those seen there longest ago."""
    where = "WHERE tracking_uri = ? AND kind != 'begun'"
    count = db.execute(f"SELECT count(*) FROM upload {where}", (tracking_uri,)).fetchone()[0]
    rows = db.execute(
        f"SELECT run_id, file, seq FROM upload {where} ORDER BY checked_ns LIMIT ?", (tracking_uri, limit)
    )
    return int(count), [StoreRun(*row) for row in rows]
