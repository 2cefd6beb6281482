"""Which versions runs refer to, as their frozen snapshots say, under the names that the datasets have now.

A snapshot keeps the name that a dataset had when it was frozen; ``registry.Names`` follows later renames, and knows
which histories were purged: a run on one of those refers to nothing. Read
only what is needed of a snapshot, so that a field more or less in it changes nothing here. Functions take a connection
inside a transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from reprod.core.described import described
from reprod.core.run import base_names
from reprod.store import registry


@dataclass(frozen=True, slots=True)
class Use:
    """A run's reference to a version. ``name`` is the dataset's present one, ``owner`` what its pin is called.

    ``digest`` is that of the whole version as the run recorded it, None if it has none or used a folder of it alone.
    """

    run_id: str
    owner: str
    name: str
    seq: int
    digest: str | None
    chain: str | None
    created_ns: int


@dataclass(frozen=True, slots=True)
class _Bound:
    name: str
    seq: int | None = None
    digest: str | None = None
    chain: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class _Snapshot:
    created_ns: int
    datasets: tuple[_Bound, ...] = ()


@dataclass(frozen=True, slots=True)
class _Run:
    start_ms: int
    dataset: str


#: Reads of a stored snapshot which versions it refers to, and nothing else.
REFERENCES = msgspec.json.Decoder(described(_Snapshot))
_RUN = msgspec.json.Decoder(described(_Run))


def uses(db: sqlite3.Connection, name: str | None = None) -> Iterator[Use]:
    """Yield what published runs refer to, the newest first; of one dataset if ``name`` is given."""
    follow = registry.Names(db)
    rows = db.execute("SELECT run_id, tracking_uri, snapshot FROM delivery WHERE snapshot IS NOT NULL ORDER BY id DESC")
    for run_id, tracking_uri, snapshot in rows:
        found = REFERENCES.decode(snapshot)
        for bound in found.datasets:
            if bound.seq is None or follow.purged(bound.name, found.created_ns):
                continue
            present = follow.present(bound.name, found.created_ns)
            if name is None or present == name:
                owner, whole = f"{tracking_uri}#{run_id}", bound.digest if bound.path is None else None
                yield Use(run_id, owner, present, bound.seq, whole, bound.chain, found.created_ns)


def published_owners(db: sqlite3.Connection) -> frozenset[str]:
    """Return the runs whose snapshots are frozen, every one of theirs: what they do not refer to, they do not need."""
    rows = db.execute(
        "SELECT tracking_uri || '#' || run_id FROM delivery GROUP BY tracking_uri, run_id "
        "HAVING sum(snapshot IS NULL) = 0"
    )
    return frozenset(row[0] for row in rows)


def unproven_since_ns(db: sqlite3.Connection, name: str) -> int | None:
    """Return the start of the oldest run on a dataset that still waits for its version, None if there is none.

    That is a run that was noticed and not bound yet, or one that was recorded as incomplete and is looked at again.
    """
    follow = registry.Names(db)
    starts = []
    rows = db.execute(
        "SELECT run, created_ns FROM delivery WHERE state = 'noticed' "
        "OR (outcome = 'incomplete' AND state IN ('ending', 'done') AND next_ns > 0)"
    )
    for run, created_ns in rows:
        found = _RUN.decode(run)
        if name in {follow.present(each, created_ns) for each in base_names(found.dataset)}:
            starts.append(found.start_ms * 1_000_000)
    return min(starts, default=None)
