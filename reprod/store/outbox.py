"""The outbox: what is owed to runs. A row before a task, at least once, idempotent.

    noticed ──publish──▶ waiting ──deliver──▶ ending ──run ended, params written──▶ done
                            │ ▲                  │
             a person must  ▼ │ retry            └── incomplete, and the history may still prove it: waiting again
                           failed

Functions take a connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from dataclasses import dataclass
from typing import Literal

State = Literal["noticed", "waiting", "ending", "done", "failed"]

FIRST_RETRY_NS = 1_000_000_000
LONGEST_RETRY_NS = (
    300_000_000_000  # five minutes: a server that is back is noticed soon enough, a dead one not hammered
)


#: Nothing is put off for longer: what is due later than that was written before the clock was set back, and is due.
FARTHEST_NS = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row. ``run`` and ``snapshot`` are JSON, ``prepared`` what the run already had before the first upload."""

    id: int
    tracking_uri: str
    run_id: str
    recorded: str
    run: bytes
    snapshot: bytes | None
    prepared: bytes | None
    state: State
    outcome: str | None
    attempts: int
    next_ns: int
    error: str | None
    created_ns: int


_COLUMNS = (
    "id, tracking_uri, run_id, recorded, run, snapshot, prepared, state, outcome, attempts, next_ns, error, created_ns"
)


def notice(db: sqlite3.Connection, tracking_uri: str, run_id: str, recorded: str, run: bytes, now_ns: int) -> bool:
    """Take a run in. False if it is there already."""
    cursor = db.execute(
        "INSERT OR IGNORE INTO delivery (tracking_uri, run_id, recorded, run, state, created_ns) "
        "VALUES (?, ?, ?, ?, 'noticed', ?)",
        (tracking_uri, run_id, recorded, run, now_ns),
    )
    return cursor.rowcount > 0


def due(db: sqlite3.Connection, tracking_uri: str, state: State, now_ns: int, limit: int = 100) -> list[Delivery]:
    """Return the rows in a state whose time has come, oldest first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM delivery WHERE tracking_uri = ? AND state = ? AND next_ns NOT BETWEEN ? AND ? "
        "ORDER BY id LIMIT ?",
        (tracking_uri, state, now_ns + 1, now_ns + FARTHEST_NS, limit),
    )
    return [Delivery(*row) for row in rows]


def next_due(db: sqlite3.Connection, tracking_uri: str, now_ns: int, doubted: int | None = None) -> Delivery | None:
    """Return the row to deliver next: of those that failed least often the oldest, so that one which fails comes last.

    What is of the same experiment as the row ``doubted`` comes after all others.
    """
    experiment = "json_extract(CAST(run AS TEXT), '$.experiment_id')"
    order = f"{experiment} IS (SELECT {experiment} FROM delivery WHERE id = ?4), " if doubted is not None else ""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM delivery WHERE id = (SELECT id FROM delivery WHERE tracking_uri = ?1 "
        f"AND state = 'waiting' AND next_ns NOT BETWEEN ?2 AND ?3 ORDER BY {order}attempts, id LIMIT 1)",
        (tracking_uri, now_ns + 1, now_ns + FARTHEST_NS, *([doubted] if doubted is not None else [])),
    ).fetchone()
    return Delivery(*row) if row else None


def get(db: sqlite3.Connection, delivery_id: int) -> Delivery | None:
    """Return one row."""
    row = db.execute(f"SELECT {_COLUMNS} FROM delivery WHERE id = ?", (delivery_id,)).fetchone()
    return Delivery(*row) if row else None


def find(db: sqlite3.Connection, run: str) -> list[Delivery]:
    """Return rows by run id, a unique prefix of it, or the run's name, newest first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM delivery WHERE run_id = ?1 "
        "OR (length(?1) >= 4 AND substr(run_id, 1, length(?1)) = ?1) "
        "OR json_extract(CAST(run AS TEXT), '$.name') = ?1 ORDER BY id DESC",
        (run,),
    )
    return [Delivery(*row) for row in rows]


Which = Literal["all", "waiting", "incomplete", "failed"]

_WHICH: dict[Which, str] = {
    "all": "1",
    "waiting": "state IN ('noticed', 'waiting')",
    "incomplete": "outcome = 'incomplete'",
    "failed": "state = 'failed'",
}


def listed(db: sqlite3.Connection, which: Which, limit: int) -> tuple[int, list[tuple[Delivery, int | None]]]:
    """Return how many rows there are, and the newest ``limit`` of them, each with when it was settled."""
    total: int = db.execute(f"SELECT count(*) FROM delivery WHERE {_WHICH[which]}").fetchone()[0]
    rows = db.execute(
        f"SELECT {_COLUMNS}, settled_ns FROM delivery WHERE {_WHICH[which]} ORDER BY id DESC LIMIT ?", (limit,)
    )
    return total, [(Delivery(*row[:-1]), row[-1]) for row in rows]


def retry(db: sqlite3.Connection, delivery_id: int) -> None:
    """Somebody asks for another try now: a failed row begins anew, an incomplete one is looked at again."""
    db.execute(
        "UPDATE delivery SET attempts = 0, outcome = NULL, "
        "state = CASE WHEN snapshot IS NULL THEN 'noticed' ELSE 'waiting' END WHERE id = ? AND state = 'failed'",
        (delivery_id,),
    )
    db.execute("UPDATE delivery SET next_ns = 0 WHERE id = ? AND state IN ('noticed', 'waiting')", (delivery_id,))
    db.execute(
        "UPDATE delivery SET next_ns = 1 WHERE id = ? AND state IN ('ending', 'done') AND outcome = 'incomplete'",
        (delivery_id,),
    )


def published(db: sqlite3.Connection, delivery_id: int, snapshot: bytes) -> None:
    """Freeze the snapshot: from here on every attempt writes the same; what was said of an earlier one's drift goes."""
    db.execute("DELETE FROM drift WHERE delivery = ?", (delivery_id,))
    db.execute(
        "UPDATE delivery SET snapshot = ?, state = 'waiting', next_ns = 0, error = NULL, attempts = 0 WHERE id = ?",
        (snapshot, delivery_id),
    )


def prepared(db: sqlite3.Connection, delivery_id: int, names: bytes) -> None:
    """Freeze what the run already had, before the first upload."""
    db.execute("UPDATE delivery SET prepared = ? WHERE id = ?", (names, delivery_id))


def delivered(db: sqlite3.Connection, delivery_id: int, outcome: str, *, ended: bool, now_ns: int) -> None:
    """The run has its state tag; ``ended`` says that the params are written too."""
    db.execute(
        "UPDATE delivery SET state = ?, outcome = ?, error = NULL, attempts = 0, settled_ns = ?, next_ns = 0 "
        "WHERE id = ?",
        ("done" if ended else "ending", outcome, now_ns, delivery_id),
    )


def failed(db: sqlite3.Connection, delivery_id: int, error: str, now_ns: int) -> None:
    """Trying again is useless; a person must act."""
    db.execute(
        "UPDATE delivery SET state = 'failed', outcome = 'failed', error = ?, settled_ns = ? WHERE id = ?",
        (error, now_ns, delivery_id),
    )


def postpone(db: sqlite3.Connection, delivery_id: int, error: str | None, now_ns: int) -> None:
    """Try again later: 1 s, then twice as long each time, up to five minutes."""
    attempts = db.execute("SELECT attempts FROM delivery WHERE id = ?", (delivery_id,)).fetchone()[0]
    wait = min(FIRST_RETRY_NS << min(attempts, 20), LONGEST_RETRY_NS)
    db.execute(
        "UPDATE delivery SET attempts = attempts + 1, next_ns = ?, error = ? WHERE id = ?",
        (now_ns + wait, error, delivery_id),
    )


def look_again(db: sqlite3.Connection, delivery_id: int, next_ns: int) -> None:
    """Look at a row again at a given time, without counting an attempt."""
    db.execute("UPDATE delivery SET next_ns = ? WHERE id = ?", (next_ns, delivery_id))


def hurry(db: sqlite3.Connection) -> None:
    """The server answered again: what waits for a retry is due now."""
    db.execute("UPDATE delivery SET next_ns = 0 WHERE state = 'waiting'")


def due_again(db: sqlite3.Connection, tracking_uri: str, now_ns: int, limit: int = 100) -> list[Delivery]:
    """Return runs recorded as incomplete that are worth another look now (see ``look_again``)."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM delivery WHERE tracking_uri = ? AND outcome = 'incomplete' "
        "AND state IN ('ending', 'done') AND next_ns > 0 AND next_ns NOT BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (tracking_uri, now_ns + 1, now_ns + FARTHEST_NS, limit),
    )
    return [Delivery(*row) for row in rows]


def ending(db: sqlite3.Connection, tracking_uri: str) -> list[Delivery]:
    """Return runs that have all but the params, which wait for the run's end."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM delivery WHERE tracking_uri = ? AND state = 'ending' ORDER BY id", (tracking_uri,)
    )
    return [Delivery(*row) for row in rows]


def ended(db: sqlite3.Connection, delivery_id: int) -> None:
    """The params are written too."""
    db.execute("UPDATE delivery SET state = 'done' WHERE id = ?", (delivery_id,))


def done_of(db: sqlite3.Connection, mark: str) -> list[Delivery]:
    """Return the settled rows in whose run the text ``mark`` occurs: where to look for those of one process."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM delivery WHERE state = 'done' AND outcome IN ('captured', 'incomplete') "
        "AND snapshot IS NOT NULL AND instr(CAST(run AS TEXT), ?) > 0",
        (mark,),
    )
    return [Delivery(*row) for row in rows]


def reopen(db: sqlite3.Connection, delivery_id: int) -> None:
    """There is more to write than params: it is looked at once more as a run that has just ended."""
    db.execute("UPDATE delivery SET state = 'ending' WHERE id = ? AND state = 'done'", (delivery_id,))


def hurry_incomplete(db: sqlite3.Connection) -> None:
    """A dataset became whole again: runs that wait for that are due now."""
    db.execute("UPDATE delivery SET next_ns = 1 WHERE outcome = 'incomplete' AND next_ns > 1")


def republish(db: sqlite3.Connection, delivery_id: int) -> None:
    """Bind a run again: what its snapshot refers to is lost."""
    db.execute("UPDATE delivery SET state = 'noticed', snapshot = NULL, next_ns = 0 WHERE id = ?", (delivery_id,))


def gone(db: sqlite3.Connection, delivery_id: int, now_ns: int) -> None:
    """The run was deleted: nothing is owed any more."""
    db.execute(
        "UPDATE delivery SET state = 'done', outcome = 'deleted', settled_ns = ?, next_ns = 0 WHERE id = ?",
        (now_ns, delivery_id),
    )


def withdraw(db: sqlite3.Connection, delivery_id: int) -> None:
    """The run does not name this any more: a row of which nothing is on the run goes, another rests."""
    db.execute(
        "DELETE FROM delivery WHERE id = ? AND (outcome IS NULL OR outcome = 'deleted') "
        "AND id NOT IN (SELECT delivery FROM drift)",
        (delivery_id,),
    )
    db.execute("UPDATE delivery SET state = 'done', next_ns = 0 WHERE id = ?", (delivery_id,))


def next_due_ns(db: sqlite3.Connection, tracking_uri: str) -> int | None:
    """Return when the next row that waits for delivery becomes due."""
    found: int | None = db.execute(
        "SELECT min(next_ns) FROM delivery WHERE tracking_uri = ? AND state = 'waiting'", (tracking_uri,)
    ).fetchone()[0]
    return found


@dataclass(frozen=True, slots=True)
class Counts:
    """How many runs wait, are recorded without a digest, or need a person; since when the oldest waits."""

    waiting: int
    incomplete: int
    failed: int
    oldest_ns: int | None


def counts(db: sqlite3.Connection) -> Counts:
    """Return the outbox in four numbers."""
    row = db.execute(
        "SELECT coalesce(sum(state IN ('noticed', 'waiting')), 0), coalesce(sum(outcome = 'incomplete'), 0), "
        "coalesce(sum(state = 'failed'), 0), min(CASE WHEN state IN ('noticed', 'waiting') THEN created_ns END) "
        "FROM delivery"
    ).fetchone()
    return Counts(*row)


def snapshots_newest_first(db: sqlite3.Connection) -> list[tuple[str, bytes]]:
    """Return ``(run id, snapshot)`` of every published run."""
    return db.execute("SELECT run_id, snapshot FROM delivery WHERE snapshot IS NOT NULL ORDER BY id DESC").fetchall()
