"""Compute the dt1 nodes of the directories that changed, and what each subtree holds.

A node is made from rows alone, so a lost event can make it old but never wrong. Rows come in the order of the listing,
a few thousand at a time, so that a directory of millions costs no memory. Functions take a connection inside a
transaction of the caller's.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from reprod.core import digest
from reprod.core.entry import Kind

#: Rows that are made into lines at once: 4 MB.
CHUNK_ROWS = 8192

_LINK = int(Kind.LINK)


@dataclass(slots=True)
class _Subtree:
    """What a directory and all below it hold; ``lines`` are those of its subdirectories by key."""

    files: int = 0
    size: int = 0
    problems: int = 0
    lines: list[tuple[bytes, bytes]] = field(default_factory=list)


def compute_nodes(db: sqlite3.Connection) -> tuple[bytes | None, int, int, int]:
    """Compute the nodes of all dirty directories, deepest first.

    Returns ``(node, files, bytes, problems)`` of the root.
    """
    dirty = db.execute("SELECT id FROM directory WHERE dirty = 1 ORDER BY length(path) DESC").fetchall()
    for (place,) in dirty:
        compute_node(db, place)
    root = db.execute("SELECT node, files, bytes, problems FROM directory WHERE path = x''").fetchone()
    return root if root is not None else (None, 0, 0, 0)


def compute_node(db: sqlite3.Connection, place: int) -> None:
    """Compute one directory from its direct children: node, and what the whole subtree holds."""
    present, own_problem = db.execute(
        "SELECT present, problem IS NOT NULL FROM directory WHERE id = ?", (place,)
    ).fetchone()
    below, node = _Subtree(problems=int(own_problem)), None
    if present:
        _add_directories(db, place, below)
        below.problems += db.execute(
            "SELECT count(*) FROM file WHERE directory = ? AND problem IS NOT NULL AND kind IN (1, 2)", (place,)
        ).fetchone()[0]
        if below.problems:
            _count_files(db, place, below)
        else:
            node = _hash_listing(db, place, below)
    db.execute(
        "UPDATE directory SET node = ?, files = ?, bytes = ?, problems = ?, dirty = 0 WHERE id = ?",
        (node, below.files, below.size, below.problems, place),
    )


def _add_directories(db: sqlite3.Connection, place: int, below: _Subtree) -> None:
    for path, node, files, size, problems in db.execute(
        "SELECT path, node, files, bytes, problems FROM directory WHERE parent = ? AND present = 1", (place,)
    ):
        name = path.rpartition(b"/")[2]
        below.files, below.size, below.problems = below.files + files, below.size + size, below.problems + problems
        if node is not None:
            below.lines.append((name + b"/", digest.directory_line(node, name)))
    below.lines.sort()


def _count_files(db: sqlite3.Connection, place: int, below: _Subtree) -> None:
    files, size = db.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM file WHERE directory = ? AND kind = 1", (place,)
    ).fetchone()
    below.files, below.size = below.files + files, below.size + size


def _hash_listing(db: sqlite3.Connection, place: int, below: _Subtree) -> bytes | None:
    """Return the digest of the listing, None for an empty one; count the files on the way."""
    listing, empty, directories = hashlib.sha256(), not below.lines, below.lines
    at = 0
    for names, digests, sizes, kinds in _rows(db, place):
        empty = False
        lines = digest.file_lines(names, digests)
        if _LINK in kinds:
            for i, kind in enumerate(kinds):
                if kind == _LINK:
                    lines[i] = b"#L " + lines[i]
                    below.files, below.size = below.files - 1, below.size - sizes[i]
        below.files, below.size = below.files + len(names), below.size + sum(sizes)
        until = at
        while until < len(directories) and directories[until][0] < names[-1]:
            until += 1
        if until > at:
            merged = sorted([*zip(names, lines, strict=True), *directories[at:until]])
            lines, at = [line for _, line in merged], until
        listing.update(b"".join(lines))
    listing.update(b"".join([line for _, line in directories[at:]]))
    return None if empty else listing.digest()


def _rows(
    db: sqlite3.Connection, place: int
) -> Iterator[tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[int, ...], tuple[int, ...]]]:
    """Yield names, digests, sizes and kinds of the set's entries in a directory, in columns, in order of the names."""
    rows = db.execute(
        "SELECT name, sha256, size, kind FROM file WHERE directory = ? AND kind IN (1, 2) ORDER BY name", (place,)
    )
    while some := rows.fetchmany(CHUNK_ROWS):
        names, digests, sizes, kinds = zip(*some, strict=True)
        yield names, digests, sizes, kinds
