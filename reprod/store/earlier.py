"""Which run on a dataset began before another: what a run's data and environment are compared with.

Rule: the newest by its start that has a digest of the same data, of the same tracking server, under the names that the
datasets have now (``registry.Names``). Looked for among what was recorded last only: older runs are no news. Functions
take a connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from reprod.core.described import described
from reprod.store import outbox, registry
from reprod.store.uses import REFERENCES

#: Rows that are read, and runs on the same data among them of which the newest is taken: 25 ms where all are read.
MOST_ROWS, MOST_RUNS = 2000, 50


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run that began before; ``seq`` and ``digest`` are of the data in question, ``created_ns`` of its snapshot."""

    delivery_id: int
    run_id: str
    name: str
    start_ns: int
    created_ns: int
    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class _Run:
    start_ms: int
    name: str = ""


_RUN = msgspec.json.Decoder(described(_Run))


def run_before(
    db: sqlite3.Connection, delivery: outbox.Delivery, start_ns: int, name: str, path: str | None, named_ns: int
) -> Earlier | None:
    """Return the newest run that began before ``start_ns`` on the dataset ``name`` (below ``path``), None if none did.

    :param named_ns: when that name was written down: names change.
    """
    follow = registry.Names(db)
    present = follow.present(name, named_ns)
    found: list[Earlier] = []
    for each in _recorded_last(db, delivery):
        if len(found) == MOST_RUNS:
            break
        snapshot, run = REFERENCES.decode(each[2]), _RUN.decode(each[3])
        if run.start_ms * 1_000_000 >= start_ns:
            continue
        for bound in snapshot.datasets:
            if bound.path != path or bound.digest is None or bound.seq is None:
                continue
            if follow.purged(bound.name, snapshot.created_ns):
                continue
            if follow.present(bound.name, snapshot.created_ns) == present:
                then = (run.start_ms * 1_000_000, snapshot.created_ns, bound.seq, bound.digest)
                found.append(Earlier(each[0], each[1], run.name, *then))
    return max(found, key=lambda each: (each.start_ns, each.delivery_id), default=None)


def _recorded_last(db: sqlite3.Connection, delivery: outbox.Delivery) -> Iterator[tuple[int, str, bytes, bytes]]:
    yield from db.execute(
        "SELECT id, run_id, snapshot, run FROM delivery WHERE tracking_uri = ? AND run_id != ? "
        "AND snapshot IS NOT NULL AND outcome IS NOT 'deleted' ORDER BY id DESC LIMIT ?",
        (delivery.tracking_uri, delivery.run_id, MOST_ROWS),
    )
