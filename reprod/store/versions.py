"""Versions of a dataset: sealing, marks, reconstruction, differences.

The state of an entry at version v is its first ``history`` row with a higher version, else its row in ``file``. A seal
is one short transaction: directory nodes along what changed, one ``version`` row, one ``mark``. No change of content,
no version. Functions take a connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from reprod.core import digest
from reprod.core.entry import Content, named
from reprod.errors import DamagedError, IncompleteError, NotFoundError
from reprod.store import meta, nodes, timeline
from reprod.store.index import content_of, open_version

CHAIN_PREFIX = b"reprod-chain-v1\n"

#: Directories that a record names, and the bytes of their paths in all: it is kept for ever, of pruned versions too.
MAX_UNLISTED, MAX_UNLISTED_BYTES = 1000, 64 << 10


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


@dataclass(frozen=True, slots=True)
class Recorded:
    """A version with what was hashed into the chain for it: what a check compares. ``sealed_ns`` None: no mark."""

    seq: int
    sealed_ns: int | None
    digest: bytes | None
    files: int
    size: int
    problems: int
    reason: str
    pruned: bool
    record: bytes
    chain: bytes


def recorded(db: sqlite3.Connection) -> list[Recorded]:
    """Return every version with its record, oldest first, forgotten ones included."""
    rows = db.execute(
        "SELECT v.seq, m.sealed_ns, v.digest, v.files, v.bytes, v.problems, v.reason, v.pruned > 0, "
        "CAST(v.record AS BLOB), v.chain "
        "FROM version v LEFT JOIN mark m ON m.seq = v.seq AND m.kind = 'version' ORDER BY v.seq"
    )
    return [Recorded(*(*row[:7], bool(row[7]), *row[8:])) for row in rows]


def link(previous: bytes, record: bytes) -> bytes:
    """Return the chain's value after a record."""
    return hashlib.sha256(CHAIN_PREFIX + previous.hex().encode() + b"\n" + record + b"\n").digest()


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
        said = (meta.read(db).first_reason or "rebuilt") if rebuilt else reason if has_base else "first"
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
    # Not ORDER BY ... LIMIT 1: that reads every mark there ever was.
    row = db.execute(f"{_SELECT_VERSION} WHERE v.seq = (SELECT max(seq) FROM version)").fetchone()
    return None if row is None else _version(row)


def require_kept(db: sqlite3.Connection, seq: int) -> None:
    """Raise unless a version can still be told from the rows: a forgotten one is never answered by its neighbour.

    :raises NotFoundError: there is no such version. :raises IncompleteError: it was pruned.
    """
    row = db.execute("SELECT pruned FROM version WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        version(db, seq)
    elif row[0]:
        raise IncompleteError(f"version {seq} was pruned: not provable any more", hint="reprod log shows what is kept")


def contents_between(db: sqlite3.Connection, a: int, b: int) -> tuple[dict[bytes, Content], dict[bytes, Content]]:
    """Return the entries that differ between two versions, as they were at ``a`` and at ``b``.

    Raises as ``require_kept``. One query for both sides: 2,000 changes in 200,000 files took 10 ms, 17 file by file.
    """
    require_kept(db, a)
    require_kept(db, b)
    low, high = sorted((a, b))
    older: dict[bytes, Content] = {}
    newer: dict[bytes, Content] = {}
    rows = db.execute(_BETWEEN, {"low": low, "high": high})
    for path, kind, size, sha256, more, problem, kind_b, size_b, sha256_b, more_b, problem_b in rows:
        if kind:
            older[path] = content_of(kind, size, sha256, more, problem)
        if kind_b:
            newer[path] = content_of(kind_b, size_b, sha256_b, more_b, problem_b)
    return (older, newer) if a <= b else (newer, older)


# What changed after the older version has its state there in its first row since; its state at the newer one is in its
# first row after that, else in `file`. Unchanged in the end: left out, unless nobody knows its bytes (no digest).
_BETWEEN = """
WITH older AS (
  SELECT file, min(version), kind, size, sha256, more, problem
  FROM history WHERE version > :low AND version <= :high GROUP BY file
)
SELECT CASE WHEN d.path = x'' THEN f.name ELSE CAST(d.path || x'2f' || f.name AS BLOB) END,
  o.kind, o.size, o.sha256, o.more, o.problem,
  iif(n.file IS NULL, f.kind, n.kind), iif(n.file IS NULL, f.size, n.size),
  iif(n.file IS NULL, f.sha256, n.sha256), iif(n.file IS NULL, f.more, n.more),
  iif(n.file IS NULL, f.problem, n.problem)
FROM older o JOIN file f ON f.id = o.file JOIN directory d ON d.id = f.directory
LEFT JOIN history n ON n.file = o.file
  AND n.version = (SELECT min(version) FROM history WHERE file = o.file AND version > :high)
WHERE (o.kind = iif(n.file IS NULL, f.kind, n.kind) AND o.sha256 = iif(n.file IS NULL, f.sha256, n.sha256)) IS NOT TRUE
"""


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
    if not complete:
        record["unlisted"] = _unlisted(db)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    last = db.execute("SELECT chain FROM version ORDER BY seq DESC LIMIT 1").fetchone()
    start = db.execute("SELECT value FROM meta WHERE key = 'first_chain'").fetchone()
    previous: bytes = last[0] if last else (start[0] if start else b"")
    chain = link(previous, text.encode())
    root = (node or digest.EMPTY) if complete else None
    db.execute(
        "INSERT INTO version (seq, digest, files, bytes, problems, added, removed, modified, reason, record, chain) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (seq, root, files, size, problems, added, removed, modified, reason, text, chain),
    )
    return Version(seq, now_ns, root, files, size, problems, added, removed, modified, reason, chain, False)


def _unlisted(db: sqlite3.Connection) -> list[dict[str, str]] | None:
    """Return the directories that cannot be listed, None if they are too many; only now can anybody tell."""
    query = "SELECT path FROM directory WHERE present = 1 AND problem IS NOT NULL ORDER BY path LIMIT ?"
    paths = [path for (path,) in db.execute(query, (MAX_UNLISTED + 1,))]
    if len(paths) > MAX_UNLISTED or sum(map(len, paths)) > MAX_UNLISTED_BYTES:
        return None
    return [named(path) for path in paths]


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
    """Keep a version for a run: it is never pruned. Raises as ``require_kept``: a pin can save nothing afterwards."""
    require_kept(db, seq)
    db.execute("INSERT OR REPLACE INTO pin (seq, owner, made_ns) VALUES (?, ?, ?)", (seq, owner, now_ns))


def record(db: sqlite3.Connection, seq: int) -> dict[str, Any]:
    """Return what was written into the chain for a version: root and selection among others."""
    row = db.execute("SELECT CAST(record AS BLOB) FROM version WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no version {seq}", hint="reprod log")
    try:
        found: dict[str, Any] = json.loads(row[0])
    except ValueError as error:
        raise DamagedError(
            f"the record of version {seq} is not what was sealed", hint="reprod verify NAME --chain says what else"
        ) from error
    return found
