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
from reprod.core.binding import Mark
from reprod.core.entry import Content, Entry
from reprod.errors import NotFoundError
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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the refresh that seals knows of its moment; see ``core.binding.Mark`` for the terms.

    ``watch_whole`` says that the watch was armed before the walk began and lost nothing that is known of.
    """

    now_ns: int
    walk_ns: int | None
    root_since_ns: int
    first_hint_ns: int | None
    gap_from_ns: int | None
    gap_kind: str | None
    watch_whole: bool


def seal(db: sqlite3.Connection, evidence: Evidence, described: dict[str, object], reason: str) -> Version | None:
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
        _insert_mark(db, seq, "version", evidence)
    elif touched:
        _insert_mark(db, seq - 1, "touch", evidence)
    elif evidence.walk_ns is not None:
        db.execute("UPDATE mark SET proved_ns = ? WHERE id = (SELECT max(id) FROM mark)", (evidence.walk_ns,))
    _settle_gap(db, evidence)
    return version


def step(db: sqlite3.Connection, low_ns: int, high_ns: int, now_ns: int) -> None:
    """Record that the clock was set: times between ``low_ns`` and ``high_ns`` may be of either side.

    ``gap_from_ns`` holds the end of that span which is not now, so that the mark spans all of it.
    """
    before_ns = low_ns if now_ns >= high_ns else high_ns
    newest = db.execute("SELECT seq, born_ns, root_since_ns FROM mark ORDER BY id DESC LIMIT 1").fetchone()
    if newest is not None:
        db.execute(
            "INSERT INTO mark (seq, kind, sealed_ns, born_ns, root_since_ns, gap_from_ns, gap_kind) "
            "VALUES (?, 'step', ?, ?, ?, ?, 'clock step')",
            (newest[0], now_ns if before_ns == low_ns else low_ns, newest[1], newest[2], before_ns),
        )


def open_gap(db: sqlite3.Connection, since_ns: int, kind: str) -> None:
    """Remember that the watch was not whole from ``since_ns`` on, until a full walk under a whole watch."""
    db.execute(
        "UPDATE pending SET gap_kind = CASE WHEN gap_from_ns IS NULL OR gap_from_ns > ?1 THEN ?2 ELSE gap_kind END, "
        "gap_from_ns = min(coalesce(gap_from_ns, ?1), ?1)",
        (since_ns, kind),
    )


def marks(db: sqlite3.Connection) -> list[Mark]:
    """Return the dataset's history as the binding rule reads it, in recording order."""
    rows = db.execute(
        "SELECT m.seq, m.kind, m.sealed_ns, m.born_ns, m.root_since_ns, v.digest IS NOT NULL, m.walk_ns, "
        "m.low_ctime_ns, m.first_hint_ns, m.proved_ns, m.gap_from_ns, v.pruned "
        "FROM mark m JOIN version v ON v.seq = m.seq ORDER BY m.id"
    )
    return [
        Mark(
            seq=row[0],
            kind=row[1],
            sealed_ns=row[2],
            born_ns=row[3],
            root_since_ns=row[4],
            complete=bool(row[5]),
            walk_ns=row[6],
            low_ctime_ns=row[7],
            first_hint_ns=row[8],
            proved_ns=row[9],
            gap_from_ns=row[10],
            pruned=bool(row[11]),
        )
        for row in rows
    ]


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


def proved_ns(db: sqlite3.Connection) -> int | None:
    """Return when the newest state was last confirmed by a full walk (the walk's start)."""
    row = db.execute("SELECT max(coalesce(proved_ns, 0), coalesce(walk_ns, 0)) FROM mark ORDER BY id DESC LIMIT 1")
    found = row.fetchone()
    return found[0] or None if found else None


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
    return compute_nodes(db)[3] != int(known)


def _insert_version(
    db: sqlite3.Connection, seq: int, now_ns: int, described: dict[str, object], reason: str
) -> Version:
    node, files, size, problems = compute_nodes(db)
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


def compute_nodes(db: sqlite3.Connection) -> tuple[bytes | None, int, int, int]:
    """Compute the nodes of all dirty directories, deepest first.

    Returns ``(node, files, bytes, problems)`` of the root.
    """
    dirty = db.execute("SELECT id FROM directory WHERE dirty = 1 ORDER BY length(path) DESC").fetchall()
    for (place,) in dirty:
        _compute_node(db, place)
    root = db.execute("SELECT node, files, bytes, problems FROM directory WHERE path = x''").fetchone()
    return root if root is not None else (None, 0, 0, 0)


def _compute_node(db: sqlite3.Connection, place: int) -> None:
    """Compute one directory from its direct children: node, and what the whole subtree holds."""
    present, own_problem = db.execute(
        "SELECT present, problem IS NOT NULL FROM directory WHERE id = ?", (place,)
    ).fetchone()
    lines: list[tuple[bytes, bytes]] = []
    files, size, problems = 0, 0, int(own_problem)
    if present:
        files, size, broken = db.execute(
            "SELECT count(*) FILTER (WHERE kind = 1), coalesce(sum(size) FILTER (WHERE kind = 1), 0), count(problem) "
            "FROM file WHERE directory = ? AND kind IN (1, 2)",
            (place,),
        ).fetchone()
        problems += broken
        for path, node, below, below_bytes, below_problems in db.execute(
            "SELECT path, node, files, bytes, problems FROM directory WHERE parent = ? AND present = 1", (place,)
        ):
            name = path.rpartition(b"/")[2]
            files, size, problems = files + below, size + below_bytes, problems + below_problems
            if node is not None:
                lines.append((name + b"/", digest.directory_line(node, name)))
    if present and not problems:
        select = "SELECT name, sha256 FROM file WHERE directory = ? AND kind = ?"
        lines += digest.file_lines(db.execute(select, (place, 1)).fetchall())
        lines += [(name, digest.link_line(sha, name)) for name, sha in db.execute(select, (place, 2))]
    node = digest.node(lines) if lines and not problems else None
    db.execute(
        "UPDATE directory SET node = ?, files = ?, bytes = ?, problems = ?, dirty = 0 WHERE id = ?",
        (node, files, size, problems, place),
    )


def _insert_mark(db: sqlite3.Connection, seq: int, kind: str, evidence: Evidence) -> None:
    low, high, hint, gap_from, gap_kind = db.execute(
        "SELECT low_ctime_ns, high_ctime_ns, first_hint_ns, gap_from_ns, gap_kind FROM pending"
    ).fetchone()
    hints = [h for h in (hint, evidence.first_hint_ns) if h is not None]
    if evidence.gap_from_ns is not None and (gap_from is None or evidence.gap_from_ns < gap_from):
        gap_from, gap_kind = evidence.gap_from_ns, evidence.gap_kind
    last = db.execute("SELECT born_ns FROM mark ORDER BY id DESC LIMIT 1").fetchone()
    born = max(last[0] if last else 0, high or 0)
    db.execute(
        "INSERT INTO mark (seq, kind, sealed_ns, born_ns, root_since_ns, walk_ns, low_ctime_ns, first_hint_ns, "
        "gap_from_ns, gap_kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            seq,
            kind,
            evidence.now_ns,
            born,
            evidence.root_since_ns,
            evidence.walk_ns,
            low,
            min(hints) if hints else None,
            gap_from,
            gap_kind,
        ),
    )
    db.execute("UPDATE pending SET touched = 0, low_ctime_ns = NULL, high_ctime_ns = NULL, first_hint_ns = NULL")


def _settle_gap(db: sqlite3.Connection, evidence: Evidence) -> None:
    """A full walk under a whole watch closes a gap; one without a watch opens the next at its own start."""
    if evidence.walk_ns is None:
        return
    if evidence.watch_whole:
        db.execute("UPDATE pending SET gap_from_ns = NULL, gap_kind = NULL")
    else:
        db.execute("UPDATE pending SET gap_from_ns = ?, gap_kind = 'not watched'", (evidence.walk_ns,))


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


def open_downtime(db: sqlite3.Connection) -> None:
    """Nobody watched since the last thing that is known: called when the file is opened by who will watch."""
    row = db.execute(
        "SELECT max(sealed_ns, coalesce(proved_ns, 0), coalesce(walk_ns, 0)) FROM mark ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is not None:
        open_gap(db, row[0], "downtime")
