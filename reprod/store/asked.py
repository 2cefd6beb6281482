"""Which datasets runs are said to use: what an experiment's tag or a rule says, since when, and changes of mind.

Functions take a connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from collections.abc import Iterable

#: Values of ``reprod.recorded`` that are asked for when tags may have changed: each is one question to the server.
MOST_RECORDED = 100

#: A run that is found so long after it was recorded has lost its record: no answer to a poll is as old as that. Also
#: how often at most a record is made again that does not stay: somebody or something removes it.
LOST_NS = 600_000_000_000


def implied(db: sqlite3.Connection, tracking_uri: str) -> dict[tuple[str, str, str], int]:
    """Return since when it is known of which experiment: ``{(experiment id, source, dataset): since_ns}``."""
    rows = db.execute(
        "SELECT experiment_id, source, dataset, since_ns FROM implied WHERE tracking_uri = ?", (tracking_uri,)
    )
    return {(experiment, source, dataset): since for experiment, source, dataset, since in rows}


def keep_implied(
    db: sqlite3.Connection, tracking_uri: str, present: Iterable[tuple[str, str, str]], since_ns: int
) -> None:
    """Take over what is said now: what is new counts from ``since_ns`` on, what is said no more is forgotten."""
    known, now = implied(db, tracking_uri), set(present)
    db.executemany(
        "DELETE FROM implied WHERE tracking_uri = ? AND experiment_id = ? AND source = ? AND dataset = ?",
        [(tracking_uri, *key) for key in known.keys() - now],
    )
    db.executemany(
        "INSERT OR IGNORE INTO implied (tracking_uri, experiment_id, source, dataset, since_ns) VALUES (?, ?, ?, ?, ?)",
        [(tracking_uri, *key, since_ns) for key in sorted(now - known.keys())],
    )


def recorded_values(db: sqlite3.Connection, tracking_uri: str) -> list[str]:
    """Return what was recorded on runs of a server, the latest first: where a tag may have been changed since."""
    rows = db.execute(
        "SELECT recorded FROM delivery WHERE tracking_uri = ? AND outcome IS NOT NULL "
        "GROUP BY recorded ORDER BY max(id) DESC LIMIT ?",
        (tracking_uri, MOST_RECORDED),
    )
    return [row[0] for row in rows]


def notice(db: sqlite3.Connection, tracking_uri: str, run_id: str, recorded: str, run: bytes, now_ns: int) -> bool:
    """Take in that a run names these datasets. False if that is known, and nothing else was named since.

    What it named before is superseded: what was not written yet never is, and what was is not looked at again. A run
    that goes back to what it named earlier gets what was frozen then; so does one that was deleted and restored, and
    one whose record is gone, because the server was restored from a backup or somebody removed the tags.
    """
    row = db.execute(_KNOWN, (now_ns - LOST_NS, tracking_uri, run_id, recorded)).fetchone()
    db.execute(
        "UPDATE delivery SET state = CASE WHEN state = 'ending' THEN 'ending' ELSE 'done' END, "
        "outcome = CASE WHEN outcome = 'captured' THEN 'captured' ELSE 'superseded' END, next_ns = 0 "
        "WHERE tracking_uri = ? AND run_id = ? AND recorded != ?",
        (tracking_uri, run_id, recorded),
    )
    if row is None:
        db.execute(
            "INSERT INTO delivery (tracking_uri, run_id, recorded, run, state, created_ns) "
            "VALUES (?, ?, ?, ?, 'noticed', ?)",
            (tracking_uri, run_id, recorded, run, now_ns),
        )
        return True
    delivery_id, state, unbound, again = row
    if again and state in {"done", "ending", "failed"}:
        deliver_again(db, delivery_id, unbound=unbound)
        return True
    return False


# `again`: another was named since this was settled; or the run was deleted and is there; or its record is not.
_KNOWN = """
SELECT id, state, snapshot IS NULL, outcome = 'deleted' OR (outcome IN ('captured', 'incomplete') AND settled_ns < ?)
  OR EXISTS (SELECT 1 FROM delivery o WHERE o.tracking_uri = d.tracking_uri AND o.run_id = d.run_id AND o.id != d.id
    AND coalesce(o.settled_ns, o.created_ns) > coalesce(d.settled_ns, d.created_ns))
FROM delivery d WHERE tracking_uri = ? AND run_id = ? AND recorded = ?
"""


def deliver_again(db: sqlite3.Connection, delivery_id: int, *, unbound: bool) -> None:
    """Owe a run its record anew, and its drift with it; ``unbound``: it was never published."""
    db.execute("DELETE FROM drift WHERE delivery = ?", (delivery_id,))
    db.execute(
        "UPDATE delivery SET state = ?, outcome = nullif(outcome, 'deleted'), attempts = 0, next_ns = 0 WHERE id = ?",
        ("noticed" if unbound else "waiting", delivery_id),
    )


def place_of(db: sqlite3.Connection, delivery_id: int) -> int:
    """Return the how-manieth that a run named this is, from 1: params and metrics are those of the first.

    What it named before does not count if it named that for so short a time that nothing was uploaded.
    """
    found: int = db.execute(
        "SELECT count(*) FROM delivery d JOIN delivery own ON own.id = ?1 "
        "WHERE d.tracking_uri = own.tracking_uri AND d.run_id = own.run_id "
        "AND (d.id = own.id OR d.id < own.id AND d.prepared IS NOT NULL)",
        (delivery_id,),
    ).fetchone()[0]
    return found


def snapshot_of(db: sqlite3.Connection, tracking_uri: str, run_id: str) -> bytes | None:
    """Return the snapshot that was frozen last for a run."""
    row = db.execute(
        "SELECT snapshot FROM delivery WHERE tracking_uri = ? AND run_id = ? AND snapshot IS NOT NULL "
        "ORDER BY id DESC LIMIT 1",
        (tracking_uri, run_id),
    ).fetchone()
    return row[0] if row else None


def snapshots_of_children(db: sqlite3.Connection, tracking_uri: str, run_id: str) -> list[bytes]:
    """Return the snapshots of the runs that are nested in a run."""
    rows = db.execute(
        "SELECT snapshot FROM delivery WHERE tracking_uri = ? AND snapshot IS NOT NULL AND outcome != 'superseded' "
        "AND json_extract(CAST(run AS TEXT), '$.parent') = ?",
        (tracking_uri, run_id),
    )
    return [row[0] for row in rows]
