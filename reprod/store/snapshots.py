"""Environments by content, the timer's samples of them, and what processes handed over about themselves.

The same environment is stored once, however many runs. Records come here redacted. Functions take a connection inside a
transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from reprod.core.described import described
from reprod.core.process import ProcessContext
from reprod.store import outbox

Connection = sqlite3.Connection


@dataclass(frozen=True, slots=True)
class Handover:
    """What a process said of itself. ``digest`` is None while its record is still to come.

    ``execution`` (JSON) is None until something came; without a digest it is what the process found at its end.
    """

    process: str
    uid: int
    digest: str | None
    taken_ns: int
    execution: bytes | None


#: A run may be tagged, or its server be reached, long after its process ended; after a month it will not be.
KEPT_NS = 30 * 86_400 * 1_000_000_000
#: What no run needs may take as much sooner, so that nobody can fill the disk within that month.
MOST_UNNEEDED_BYTES = 1 << 30
YOUNG_NS = 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted."""

    environments: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Run:
    context: str | None = None


@dataclass(frozen=True, slots=True)
class _Snapshot:
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """An environment that the timer found unchanged from ``first_ns`` to ``last_ns``."""

    subject: str
    digest: str
    first_ns: int
    last_ns: int


def keep_environment(
    db: sqlite3.Connection, digest: str, record: bytes, now_ns: int, files: Mapping[str, bytes] | None = None
) -> None:
    """Store an environment and the files that belong to it under its digest, once."""
    new = db.execute(
        "INSERT OR IGNORE INTO environment (digest, record, kept_ns) VALUES (?, ?, ?)", (digest, record, now_ns)
    )
    if new.rowcount:
        rows = [(digest, name, content) for name, content in (files or {}).items()]
        db.executemany("INSERT INTO environment_file (environment, name, content) VALUES (?, ?, ?)", rows)


def environment(db: sqlite3.Connection, digest: str) -> bytes | None:
    """Return a stored environment's record."""
    row = db.execute("SELECT record FROM environment WHERE digest = ?", (digest,)).fetchone()
    return row[0] if row else None


def environment_files(db: sqlite3.Connection, digest: str) -> dict[str, bytes]:
    """Return the contents of the files that belong to an environment, by name."""
    return dict(db.execute("SELECT name, content FROM environment_file WHERE environment = ? ORDER BY name", (digest,)))


def announce(db: sqlite3.Connection, process: str, uid: int, now_ns: int, *, outranks: bool = False) -> None:
    """Note that a process made itself known; its record may follow.

    ``outranks``: that it is this user's is certain, so what another user said of it counts no more.
    """
    if outranks:
        db.execute("DELETE FROM handover WHERE process = ? AND uid != ?", (process, uid))
    db.execute(
        "INSERT OR IGNORE INTO handover (process, uid, digest, taken_ns) VALUES (?, ?, NULL, ?)", (process, uid, now_ns)
    )


def hand_over(
    db: sqlite3.Connection, process: str, uid: int, digest: str, taken_ns: int, execution: bytes | None = None
) -> None:
    """Keep a process's own record; the first one stands, because it is nearest to the start.

    A record counts for its own user only: another user's row is never replaced.
    """
    db.execute(
        "INSERT INTO handover (process, uid, digest, taken_ns, execution) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (process) DO UPDATE SET "
        "digest = excluded.digest, taken_ns = excluded.taken_ns, execution = excluded.execution "
        "WHERE handover.digest IS NULL AND handover.uid = excluded.uid",
        (process, uid, digest, taken_ns, execution),
    )


def keep_execution(db: sqlite3.Connection, process: str, uid: int, execution: bytes, now_ns: int) -> None:
    """Keep what is known by now of a process beside its environment, whose record may still be to come.

    Another user's row is never changed.
    """
    db.execute(
        "INSERT INTO handover (process, uid, digest, taken_ns, execution) VALUES (?, ?, NULL, ?, ?) "
        "ON CONFLICT (process) DO UPDATE SET execution = excluded.execution WHERE handover.uid = excluded.uid",
        (process, uid, now_ns, execution),
    )


def handover(db: sqlite3.Connection, process: str) -> Handover | None:
    """Return what a process handed over."""
    columns = "process, uid, digest, taken_ns, execution"
    row = db.execute(f"SELECT {columns} FROM handover WHERE process = ?", (process,)).fetchone()
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


def forget_unneeded(db: sqlite3.Connection, tracking_uri: str, now_ns: int) -> Forgotten | None:
    """Delete what was handed over and no run needs; None: not while one of this tracking server's is being recorded.

    A run needs the environment of its snapshot, and what its process said: it may be bound again. The rest goes after
    ``KEPT_NS``, and the oldest after a day already where there are over ``MOST_UNNEEDED_BYTES`` of it.
    """
    # One that is due may have found its environment and not yet named it.
    if outbox.due(db, tracking_uri, "noticed", now_ns, 1) or outbox.due_again(db, tracking_uri, now_ns, 1):
        return None
    processes, needed = _needed(db)
    gone, freed, total = [], 0, 0
    for digest, size, taken_ns in _newest_first(db, needed):
        total += size
        if taken_ns < now_ns - KEPT_NS or (total > MOST_UNNEEDED_BYTES and taken_ns < now_ns - YOUNG_NS):
            gone.append(digest)
            freed += size
    db.executemany("DELETE FROM environment_file WHERE environment = ?", [(digest,) for digest in gone])
    db.executemany("DELETE FROM environment WHERE digest = ?", [(digest,) for digest in gone])
    db.executemany("DELETE FROM handover WHERE digest = ?", [(digest,) for digest in gone])
    said = db.execute("SELECT process FROM handover WHERE taken_ns < ?", (now_ns - KEPT_NS,)).fetchall()
    db.executemany("DELETE FROM handover WHERE process = ?", [row for row in said if row[0] not in processes])
    return Forgotten(len(gone), freed)


def _needed(db: sqlite3.Connection) -> tuple[set[str], set[str]]:
    """Return the processes that runs name, and the environments that runs, those processes and samples refer to."""
    digests = {row[0] for row in db.execute("SELECT DISTINCT digest FROM sample")}
    processes = set()
    for run, snapshot in db.execute("SELECT run, snapshot FROM delivery"):
        context = ProcessContext.parse(_RUN.decode(run).context or "")
        if context is not None:
            processes.add(context.key)
        if snapshot is not None:
            digests.add(_SNAPSHOT.decode(snapshot).environment)
    said = db.execute("SELECT process, digest FROM handover WHERE digest IS NOT NULL")
    return processes, digests | {digest for process, digest in said if process in processes}


def _newest_first(db: sqlite3.Connection, needed: set[str]) -> list[tuple[str, int, int]]:
    """Return ``(digest, bytes, time)`` of the environments that are not needed; the time is when it was last seen."""
    rows = db.execute(
        "SELECT digest, length(record) + ifnull(files, 0), ifnull(seen_ns, kept_ns) FROM environment "
        "LEFT JOIN (SELECT digest, max(taken_ns) AS seen_ns FROM handover GROUP BY digest) USING (digest) "
        "LEFT JOIN (SELECT environment AS digest, sum(length(content)) AS files FROM environment_file "
        "GROUP BY environment) USING (digest)"
    )
    return sorted((row for row in rows.fetchall() if row[0] not in needed), key=lambda each: each[2], reverse=True)


_RUN = msgspec.json.Decoder(described(_Run))
_SNAPSHOT = msgspec.json.Decoder(described(_Snapshot))
