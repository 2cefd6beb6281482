"""What the registry knows of environments, read for people: which there are, who had them and when, and for what runs.

Reading only; how they come here and go is ``reprod.store.snapshots``. Functions take a connection inside a transaction
of the caller's; digests are hex without their prefix, times Unix nanoseconds.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from reprod.core.described import described
from reprod.core.execution import Execution
from reprod.store import snapshots

T = TypeVar("T")

#: Enough of a digest to mean one.
SHORTEST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Kept:
    """One stored environment in a few words; ``packages`` is how many there are. None where it is not known."""

    digest: str
    kept_ns: int
    python: str | None
    packages: int | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """That an environment was there from ``first_ns`` to ``last_ns``.

    Seen by the timer (``sampled`` is a prefix or ``host``), or by a process whose ``execution`` it was, perhaps of run
    ``run_id``; the execution is None where another version of reprod wrote it.
    """

    digest: str
    first_ns: int
    last_ns: int
    sampled: str | None = None
    execution: Execution | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Python:
    version: str | None = None


@dataclass(frozen=True, slots=True)
class _Packages:
    packages: tuple[msgspec.Raw, ...] = ()


@dataclass(frozen=True, slots=True)
class _Environment:
    python: _Python | None = None
    packages: _Packages | None = None


@dataclass(frozen=True, slots=True)
class _Refers:
    created_ns: int = 0
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    execution: Execution | None = None


def kept(db: sqlite3.Connection) -> list[Kept]:
    """Return every stored environment, the first one first; 1000 of 64 KB take 0.25 s."""
    found = []
    for digest, kept_ns, record in db.execute("SELECT digest, kept_ns, record FROM environment ORDER BY kept_ns"):
        env = _decoded(record, _Environment) or _Environment()
        version = env.python.version if env.python else None
        found.append(Kept(digest, kept_ns, version, len(env.packages.packages) if env.packages else None))
    return found


def matching(db: sqlite3.Connection, prefix: str) -> list[str]:
    """Return the digests that begin with ``prefix``."""
    rows = db.execute(
        "SELECT digest FROM environment WHERE substr(digest, 1, length(?1)) = ?1 ORDER BY digest", (prefix,)
    )
    return [row[0] for row in rows]


def sightings(db: sqlite3.Connection) -> Iterator[Sighting]:
    """Yield all that was seen of environments: by the timer, by processes themselves, for runs."""
    for sample in snapshots.samples(db):
        yield Sighting(sample.digest, sample.first_ns, sample.last_ns, sampled=sample.subject)
    for digest, taken_ns, execution in db.execute(
        "SELECT digest, taken_ns, execution FROM handover WHERE digest IS NOT NULL ORDER BY taken_ns"
    ):
        yield Sighting(digest, taken_ns, taken_ns, execution=_decoded(execution or b"null", Execution))
    for run_id, snapshot in db.execute("SELECT run_id, snapshot FROM delivery WHERE snapshot IS NOT NULL ORDER BY id"):
        refers = _decoded(snapshot, _Refers)
        if refers is not None and refers.environment is not None:
            seen = _decoded(snapshot, _Seen)
            execution = seen.execution if seen else None
            at_ns = execution.taken_ns if execution else refers.created_ns
            yield Sighting(refers.environment, at_ns, at_ns, execution=execution, run_id=run_id)


def _decoded(data: bytes, shape: type[T]) -> T | None:
    try:
        return msgspec.json.decode(data, type=described(shape))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # of another version; its digest is known
        return None
