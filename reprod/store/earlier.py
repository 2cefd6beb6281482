"""Which run on a dataset began before another: what a run's data and environment are compared with.

Rule: the newest by its start that has a digest of the same data, of the same tracking server, under the names that the
datasets have now (``registry.Names``). Looked for among what was recorded last only: older runs are no news. Functions
take a connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from reprod.core.described import described
from reprod.store import outbox, registry
from reprod.store.uses import REFERENCES

#: Rows that are read, and runs on the same data among them of which the newest is taken: 25 ms where all are read.
MOST_ROWS, MOST_RUNS = 2000, 50

#: A dataset's name, and the subdirectory of it that a run named.
Data = tuple[str, str | None]


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


def runs_before(
    db: sqlite3.Connection, delivery: outbox.Delivery, start_ns: int, data: Iterable[Data], named_ns: int
) -> dict[Data, Earlier]:
    """Return for each of ``data`` the newest run on it that began before ``start_ns``; those without one are left out.

    All in one pass: a run may name hundreds of datasets.

    :param named_ns: when the names in ``data`` were written down: names change.
    """
    follow = registry.Names(db)
    wanted = {(follow.present(name, named_ns), path): (name, path) for name, path in data}
    found: dict[Data, list[Earlier]] = {each: [] for each in wanted}
    for row in _recorded_last(db, delivery):
        if all(len(runs) >= MOST_RUNS for runs in found.values()):
            break
        snapshot, run = REFERENCES.decode(row[2]), _RUN.decode(row[3])
        if run.start_ms * 1_000_000 >= start_ns:
            continue
        for bound in snapshot.datasets:
            each = (follow.present(bound.name, snapshot.created_ns), bound.path)
            if each not in found or bound.digest is None or bound.seq is None or len(found[each]) >= MOST_RUNS:
                continue
            if not follow.purged(bound.name, snapshot.created_ns):
                then = (run.start_ms * 1_000_000, snapshot.created_ns, bound.seq, bound.digest)
                found[each].append(Earlier(row[0], row[1], run.name, *then))
    newest = {each: max(runs, key=lambda run: (run.start_ns, run.delivery_id)) for each, runs in found.items() if runs}
    return {wanted[each]: run for each, run in newest.items()}


def _recorded_last(db: sqlite3.Connection, delivery: outbox.Delivery) -> Iterator[tuple[int, str, bytes, bytes]]:
    yield from db.execute(
        "SELECT id, run_id, snapshot, run FROM delivery WHERE tracking_uri = ? AND run_id != ? "
        "AND snapshot IS NOT NULL AND outcome IS NOT 'deleted' ORDER BY id DESC LIMIT ?",
        (delivery.tracking_uri, delivery.run_id, MOST_ROWS),
    )
