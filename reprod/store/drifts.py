"""What is known of the ends of runs, and what was said of their drift: a row beside that of the outbox.

Functions take a connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import json
import sqlite3
from dataclasses import astuple, dataclass

from reprod.store.outbox import Delivery, get


@dataclass(frozen=True, slots=True)
class Said:
    """The last judgement of a delivery's drift. ``ended`` is the run's status then, or how else its end was known.

    ``ended`` None: the run was resumed since, and ``end_ms`` is what it says of the end before. The run was last seen
    RUNNING at ``running_ns`` and first seen ended at ``ended_ns``. It is judged again at ``again_ns`` (0: not before
    the run changes); the tracking server was last asked for it at ``asked_ns``.
    """

    delivery: int
    ended: str | None
    end_ms: int | None
    running_ns: int
    ended_ns: int
    verdict: str
    judged_ns: int
    again_ns: int
    asked_ns: int


_COLUMNS = "delivery, ended, end_ms, running_ns, ended_ns, verdict, judged_ns, again_ns, asked_ns"


def say(db: sqlite3.Connection, said: Said) -> None:
    """Keep a judgement in place of the one before."""
    db.execute(f"INSERT OR REPLACE INTO drift ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(said))


def said(db: sqlite3.Connection, delivery_id: int) -> Said | None:
    """Return the last judgement of a delivery's drift."""
    row = db.execute(f"SELECT {_COLUMNS} FROM drift WHERE delivery = ?", (delivery_id,)).fetchone()
    return Said(*row) if row else None


def verdicts(db: sqlite3.Connection, deliveries: list[int]) -> dict[int, str]:
    """Return what was last said of these, where something was."""
    query = "SELECT delivery, verdict FROM drift WHERE delivery IN (SELECT value FROM json_each(?))"
    return dict(db.execute(query, (json.dumps(deliveries),)).fetchall())


def to_ask(
    db: sqlite3.Connection, tracking_uri: str, now_ns: int, spacing_ns: int, since_ns: int, limit: int
) -> list[Delivery]:
    """Return settled runs judged after ``since_ns`` that may have been resumed, or are to be judged again.

    A run is asked for after ``spacing_ns``, and the longer ago it was judged the less often: after a tenth of that.
    """
    rows = db.execute(
        "SELECT delivery FROM drift JOIN delivery ON delivery.id = drift.delivery "
        "WHERE tracking_uri = ?1 AND state = 'done' AND judged_ns > ?4 AND ("
        "(again_ns > 0 AND again_ns <= ?2) OR asked_ns > ?2 OR asked_ns + max(?3, (?2 - judged_ns) / 10) <= ?2) "
        "ORDER BY asked_ns LIMIT ?5",
        (tracking_uri, now_ns, spacing_ns, since_ns, limit),
    ).fetchall()
    return [found for (row,) in rows if (found := get(db, row)) is not None]


def asked(db: sqlite3.Connection, deliveries: list[int], now_ns: int) -> None:
    """The tracking server was asked for the status of these."""
    db.executemany("UPDATE drift SET asked_ns = ? WHERE delivery = ?", [(now_ns, each) for each in deliveries])


def resumed(db: sqlite3.Connection, delivery_id: int, now_ns: int) -> None:
    """A run that had ended is RUNNING: it is looked at again as one whose end is still to come."""
    db.execute("UPDATE drift SET ended = NULL, running_ns = ?, again_ns = 0 WHERE delivery = ?", (now_ns, delivery_id))
    db.execute("UPDATE delivery SET state = 'ending' WHERE id = ? AND state = 'done'", (delivery_id,))


def lost(db: sqlite3.Connection, delivery_id: int) -> None:
    """What was said of a run's end is not on it any more: that is written anew, as if it had just ended."""
    db.execute("DELETE FROM drift WHERE delivery = ?", (delivery_id,))
    db.execute("UPDATE delivery SET state = 'ending' WHERE id = ? AND state = 'done'", (delivery_id,))


def deleted(db: sqlite3.Connection, tracking_uri: str, since_ns: int, after_id: int, limit: int) -> list[Delivery]:
    """Return runs that were seen deleted after ``since_ns``, by their number from ``after_id`` on."""
    rows = db.execute(
        "SELECT id FROM delivery WHERE tracking_uri = ? AND state = 'done' AND outcome = 'deleted' "
        "AND settled_ns > ? AND id > ? ORDER BY id LIMIT ?",
        (tracking_uri, since_ns, after_id, limit),
    ).fetchall()
    return [found for (row,) in rows if (found := get(db, row)) is not None]


def hurry(db: sqlite3.Connection) -> None:
    """A dataset was walked: what waits for that is judged again now."""
    db.execute("UPDATE drift SET again_ns = 1 WHERE again_ns > 1")
