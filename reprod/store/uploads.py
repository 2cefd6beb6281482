"""What was uploaded where: the manifest of a version, as a store run of a tracking server.

A row says which store run holds the manifest of ``(file, seq)`` and on which others it rests: ``chain`` are the run ids
from this run down to its checkpoint. ``file`` is the name of the dataset's own database: a name that was given to
another root has another file, and is never mixed up. The digest is the reference, run ids are hints that may be lost.
Functions take a connection inside a transaction of the caller's; times are Unix nanoseconds, sizes bytes as uploaded.
"""

import sqlite3
from dataclasses import dataclass
from typing import Literal

Connection = sqlite3.Connection

Kind = Literal["checkpoint", "delta"]

#: Versions that are looked at for a base: a long history of lost store runs must not make one delivery slow.
MOST_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A whole manifest on a server. ``size`` is this run's, ``checkpoint_size`` that of the end of its chain."""

    tracking_uri: str
    file: str
    seq: int
    digest: bytes
    run_id: str
    kind: Kind
    base: bytes | None
    chain: tuple[str, ...]
    size: int
    checkpoint_size: int
    checked_ns: int


_COLUMNS = "tracking_uri, file, seq, digest, run_id, kind, base, chain, bytes, checkpoint_bytes, checked_ns"


def begin(db: sqlite3.Connection, tracking_uri: str, file: str, seq: int, digest: bytes, run_id: str) -> None:
    """Note the run that an upload goes to, before its first byte: an attempt that ends here goes on in the same run."""
    db.execute(
        f"INSERT OR REPLACE INTO upload ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, 'begun', NULL, ?, 0, 0, 0)",
        (tracking_uri, file, seq, digest, run_id, run_id),
    )


def begun(db: sqlite3.Connection, tracking_uri: str, file: str, seq: int, digest: bytes) -> str | None:
    """Return the run of an upload that was begun and is not known to have ended."""
    row = db.execute(
        "SELECT run_id FROM upload WHERE tracking_uri = ? AND file = ? AND seq = ? AND digest = ? AND kind = 'begun'",
        (tracking_uri, file, seq, digest),
    ).fetchone()
    return row[0] if row else None


def keep(db: sqlite3.Connection, upload: Upload) -> None:
    """Note a whole upload, in place of what was known of that version."""
    fields = [getattr(upload, name) for name in ("tracking_uri", "file", "seq", "digest", "run_id", "kind", "base")]
    db.execute(
        f"INSERT OR REPLACE INTO upload ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*fields, " ".join(upload.chain), upload.size, upload.checkpoint_size, upload.checked_ns),
    )


def find(db: sqlite3.Connection, tracking_uri: str, digest: bytes) -> Upload | None:
    """Return where the manifest of a digest lies, whichever dataset and version it was uploaded for."""
    return _first(db, "digest = ?", (tracking_uri, digest))


def by_run(db: sqlite3.Connection, tracking_uri: str, run_id: str) -> Upload | None:
    """Return what lies on a store run, if this host knows."""
    return _first(db, "run_id = ?", (tracking_uri, run_id))


def earlier(db: sqlite3.Connection, tracking_uri: str, file: str, seq: int) -> list[Upload]:
    """Return the uploads of earlier versions of the same file, nearest first, at most ``MOST_CANDIDATES``."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM upload WHERE tracking_uri = ? AND file = ? AND seq < ? AND kind != 'begun' "
        "ORDER BY seq DESC LIMIT ?",
        (tracking_uri, file, seq, MOST_CANDIDATES),
    )
    return [_upload(row) for row in rows]


def checked(db: sqlite3.Connection, upload: Upload, now_ns: int) -> None:
    """Note that every run of an upload's chain was seen on the server."""
    db.execute(
        "UPDATE upload SET checked_ns = ? WHERE tracking_uri = ? AND run_id = ?",
        (now_ns, upload.tracking_uri, upload.run_id),
    )


def forget(db: sqlite3.Connection, tracking_uri: str, run_id: str) -> None:
    """A store run is lost, or of no use: nothing is known of what was on it."""
    db.execute("DELETE FROM upload WHERE tracking_uri = ? AND run_id = ?", (tracking_uri, run_id))


def replace(db: sqlite3.Connection, tracking_uri: str, lost: str, found: str) -> None:
    """What rested on a lost run rests on another with the same manifest now."""
    db.execute(
        "UPDATE upload SET chain = replace(chain, ?, ?) WHERE tracking_uri = ? AND instr(chain, ?)",
        (lost, found, tracking_uri, lost),
    )


def _first(db: sqlite3.Connection, condition: str, values: tuple[str, object]) -> Upload | None:
    row = db.execute(
        f"SELECT {_COLUMNS} FROM upload WHERE tracking_uri = ? AND {condition} AND kind != 'begun' "
        "ORDER BY checked_ns DESC LIMIT 1",
        values,
    ).fetchone()
    return _upload(row) if row else None


def _upload(row: tuple[str, str, int, bytes, str, Kind, bytes | None, str, int, int, int]) -> Upload:
    return Upload(*row[:7], tuple(row[7].split()), *row[8:])
