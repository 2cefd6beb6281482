"""Versions of a dataset: sealing, marks, reconstruction, differences.

The state of an entry at version v is its first ``history`` row with a higher version, else its row in ``file``. A seal
is one short transaction: directory nodes along what changed, one ``version`` row, one ``mark``. No change of content,
no version. Functions take a connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reprod.core import digest
from reprod.core.entry import Content, Entry
from reprod.errors import NotFoundError
from reprod.store import nodes, timeline
from reprod.store.index import content_of, open_version

CHAIN_PREFIX = b"reprod-chain-v1\n"


@dataclass(frozen=True, slots=True)
class Version:
    """What a sealed version says of itself. ``digest`` is None when the set is incomplete."""

    seq: int
    sealed_ns: int
    digest: bytes | None
    files: int
    size: int
    problems: int
    added: int
    removed: int
    modified: int
    reason: str
    chain: bytes
    pruned: bool


def seal(
    db: sqlite3.Connection, evidence: timeline.Evidence, described: dict[str, object], reason: str
) -> Version | None:
    """Seal the open version if it differs from the newest; else leave a touch or a proof. None: no new version.

    ``described`` goes into the version's record (root, selection). A ``reason`` other than ``change`` makes a version
    even when the entries are the same (the selection is part of what a version says).
    """
    seq, has_base = open_version(db)
    touched = db.execute("SELECT touched FROM pending").fetchone()[0] > 0
    changed = not has_base or reason != "change" or (touched and (_has_history(db, seq) or _heals_or_breaks(db)))
    version = None
    if changed:
        rebuilt = not has_base and seq > 1
        said = "rebuilt" if rebuilt else reason if has_base else "first"
        version = _insert_version(db, seq, evidence.now_ns, described, said)
        timeline.insert_mark(db, seq, "version", evidence)
    elif touched:
        timeline.insert_mark(db, seq - 1, "touch", evidence)
    elif evidence.walk_ns is not None:
        db.execute("UPDATE mark SET proved_ns = ? WHERE id = (SELECT max(id) FROM mark)", (evidence.walk_ns,))
    timeline.settle_gap(db, evidence)
    return version


def versions(db: sqlite3.Connection) -> list[Version]:
    """Return all sealed versions, oldest first."""
    return [_version(row) for row in db.execute(f"{_SELECT_VERSION} ORDER BY v.seq")]


def version(db: sqlite3.Connection, seq: int) -> Version:
    """Return one version. Raises NotFoundError."""
    row = db.execute(f"{_SELECT_VERSION} WHERE v.seq = ?", (seq,)).fetchone()
    if row is None:
        newest = db.execute("SELECT max(seq) FROM version").fetchone()[0]
        raise NotFoundError(f"there is no version {seq}", hint=f"the newest is {newest}" if newest else "scan it first")
    return _version(row)


def newest(db: sqlite3.Connection) -> Version | None:
    """Return the newest sealed version, None before the first."""
    row = db.execute(f"{_SELECT_VERSION} ORDER BY v.seq DESC LIMIT 1").fetchone()
    return None if row is None else _version(row)


def entries(db: sqlite3.Connection, seq: int) -> Iterator[Entry]:
    """Yield the entries of a version in full-path byte order, special files included."""
    rows = db.execute(
        # min(version) makes SQLite take the other columns from that very row (documented, SQLite only).
        "WITH older AS (SELECT file, min(version), kind, size, sha256, more, problem, mode, mtime_ns FROM history "
        "WHERE version > ?1 GROUP BY file) "
        "SELECT CASE WHEN d.path = x'' THEN f.name ELSE CAST(d.path || x'2f' || f.name AS BLOB) END AS path, "
        "o.file IS NOT NULL, o.kind, o.size, o.sha256, o.more, o.problem, o.mtime_ns, o.mode, "
        "f.kind, f.size, f.sha256, f.more, f.problem, f.mtime_ns, f.mode "
        "FROM file f JOIN directory d ON d.id = f.directory LEFT JOIN older o ON o.file = f.id ORDER BY path",
        (seq,),
    )
    for row in rows:
        at = row[2:9] if row[1] else row[9:16]
        if at[0]:
            yield Entry(row[0], content_of(*at[:5]), at[5], at[6])


def contents_between(db: sqlite3.Connection, a: int, b: int) -> tuple[dict[bytes, Content], dict[bytes, Content]]:
    """Return the entries that may differ between two versions, as they were at ``a`` and at ``b``."""
    low, high = sorted((a, b))
    ids = db.execute(
        "SELECT DISTINCT h.file, CASE WHEN d.path = x'' THEN f.name ELSE CAST(d.path || x'2f' || f.name AS BLOB) END "
        "FROM history h JOIN file f ON f.id = h.file JOIN directory d ON d.id = f.directory "
        "WHERE h.version > ? AND h.version <= ?",
        (low, high),
    ).fetchall()
    sides: tuple[dict[bytes, Content], dict[bytes, Content]] = ({}, {})
    for file_id, path in ids:
        for side, seq in zip(sides, (a, b), strict=True):
            content = _content_at(db, file_id, seq)
            if content is not None:
                side[path] = content
    return sides


def _content_at(db: sqlite3.Connection, file_id: int, seq: int) -> Content | None:
    row = db.execute(
        "SELECT kind, size, sha256, more, problem FROM history WHERE file = ? AND version > ? ORDER BY version LIMIT 1",
        (file_id, seq),
    ).fetchone()
    if row is None:
        row = db.execute("SELECT kind, size, sha256, more, problem FROM file WHERE id = ?", (file_id,)).fetchone()
    return content_of(*row) if row and row[0] else None


_SELECT_VERSION = (
    "SELECT v.seq, m.sealed_ns, v.digest, v.files, v.bytes, v.problems, v.added, v.removed, v.modified, v.reason, "
    "v.chain, v.pruned FROM version v JOIN mark m ON m.seq = v.seq AND m.kind = 'version'"
)


def _version(row: tuple[int, int, bytes | None, int, int, int, int, int, int, str, bytes, int]) -> Version:
    return Version(*row[:11], pruned=bool(row[11]))


def _has_history(db: sqlite3.Connection, seq: int) -> bool:
    """Whether an entry of the set differs; special files are listed but in no set (0 absent, 3 special)."""
    query = (
        "SELECT 1 FROM history h JOIN file f ON f.id = h.file "
        "WHERE h.version = ? AND NOT (h.kind IN (0, 3) AND f.kind IN (0, 3)) LIMIT 1"
    )
    return db.execute(query, (seq,)).fetchone() is not None


def _heals_or_breaks(db: sqlite3.Connection) -> bool:
    """Whether more or fewer places are unreadable than in the newest version: directories have no history rows."""
    known = db.execute("SELECT problems FROM version ORDER BY seq DESC LIMIT 1").fetchone()[0]
    return nodes.compute_nodes(db)[3] != int(known)


def _insert_version(
    db: sqlite3.Connection, seq: int, now_ns: int, described: dict[str, object], reason: str
) -> Version:
    node, files, size, problems = nodes.compute_nodes(db)
    added, removed, modified = _count_changes(db, seq)
    complete = problems == 0
    record = {
        "seq": seq,
        "sealed_ns": now_ns,
        "digest": digest.text(node or digest.EMPTY) if complete else None,
        "files": files,
        "bytes": size,
        "problems": problems,
        "reason": reason,
        **described,
    }
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    last = db.execute("SELECT chain FROM version ORDER BY seq DESC LIMIT 1").fetchone()
    start = db.execute("SELECT value FROM meta WHERE key = 'first_chain'").fetchone()
    previous: bytes = last[0] if last else (start[0] if start else b"")
    chain = hashlib.sha256(CHAIN_PREFIX + previous.hex().encode() + b"\n" + text.encode() + b"\n").digest()
    root = (node or digest.EMPTY) if complete else None
    db.execute(
        "INSERT INTO version (seq, digest, files, bytes, problems, added, removed, modified, reason, record, chain) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (seq, root, files, size, problems, added, removed, modified, reason, text, chain),
    )
    return Version(seq, now_ns, root, files, size, problems, added, removed, modified, reason, chain, False)


def _count_changes(db: sqlite3.Connection, seq: int) -> tuple[int, int, int]:
    if db.execute("SELECT 1 FROM version LIMIT 1").fetchone() is None:
        return db.execute("SELECT count(*) FROM file WHERE kind IN (1, 2)").fetchone()[0], 0, 0
    row = db.execute(
        "SELECT coalesce(sum(h.kind IN (0, 3) AND f.kind IN (1, 2)), 0), "
        "coalesce(sum(h.kind IN (1, 2) AND f.kind IN (0, 3)), 0), "
        "coalesce(sum(h.kind IN (1, 2) AND f.kind IN (1, 2)), 0) "
        "FROM history h JOIN file f ON f.id = h.file WHERE h.version = ?",
        (seq,),
    ).fetchone()
    return row[0], row[1], row[2]


def pin(db: sqlite3.Connection, seq: int, owner: str, now_ns: int) -> None:
    """Keep a version for a run: it is never pruned."""
    db.execute("INSERT OR IGNORE INTO pin (seq, owner, made_ns) VALUES (?, ?, ?)", (seq, owner, now_ns))


def record(db: sqlite3.Connection, seq: int) -> dict[str, Any]:
    """Return what was written into the chain for a version: root and selection among others."""
    row = db.execute("SELECT record FROM version WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no version {seq}", hint="reprod log")
    found: dict[str, Any] = json.loads(row[0])
    return found
