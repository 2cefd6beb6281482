"""What the registry knows for many daemons on one server: which runs are settled, and whose boots it has seen.

Functions take a connection inside a transaction of the caller's.
"""

import sqlite3

#: A server before 3.11 cannot leave out what is done; it is told so many ids (``sinks.find_runs.HANDLED_AT_MOST``).
MOST_SETTLED = 5000


def settled_runs(db: sqlite3.Connection, tracking_uri: str, limit: int = MOST_SETTLED) -> tuple[str, ...]:
    """Return the newest runs of a server that carry a state, oldest first: a poll need not find them again."""
    rows = db.execute(
        "SELECT run_id FROM delivery WHERE tracking_uri = ? AND state IN ('ending', 'done', 'failed') "
        "ORDER BY id DESC LIMIT ?",
        (tracking_uri, limit),
    ).fetchall()
    return tuple(row[0] for row in reversed(rows))


def forget_boots(db: sqlite3.Connection) -> None:
    """This state was another machine's: a run that names one of its boots is not of this host."""
    db.execute("DELETE FROM boot")
