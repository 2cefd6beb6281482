"""What a version holds below one directory of it: node, files, bytes, problems.

Of the newest version the index knows all four; of an older one they are computed from its entries, in one pass and flat
memory. Functions take a connection inside a transaction of the caller's.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace

from reprod.core.entry import Entry, Kind
from reprod.core.ordered import OrderedTree
from reprod.store import listing


@dataclass(frozen=True, slots=True)
class Subtree:
    """``node`` is None where something below has a problem. Symlinks are of the set, but not counted as files."""

    node: bytes | None
    files: int
    size: int
    problems: int


def subtree(db: sqlite3.Connection, seq: int, path: bytes) -> Subtree | None:
    """Return what a version holds below a directory, None if it has no such directory with anything in it.

    :raises NotFoundError: there is no such version. :raises IncompleteError: it was pruned, or nobody knows any more.
    """
    known = _indexed(db, seq, path)
    if known is not None:
        return known
    unlisted = sum(is_in(each, path) or is_in(path, each) for each in listing.unlisted(db, seq))
    tree, files, size, problems, empty = OrderedTree(), 0, 0, unlisted, True
    for entry in entries_below(db, seq, path):
        content = entry.content
        if content.kind is Kind.SPECIAL:
            continue
        empty = False
        problems += content.problem is not None
        if content.kind is Kind.FILE:
            files, size = files + 1, size + content.size
        if not problems and content.sha256 is not None:
            tree.add(entry.path, content.kind is Kind.LINK, content.sha256)
    if empty and not problems:
        return None
    return Subtree(None if problems else tree.root(), files, size, problems)


def entries_below(db: sqlite3.Connection, seq: int, path: bytes) -> Iterator[Entry]:
    """Yield the entries of a version below a directory, in order, their paths relative to it."""
    skip = len(path) + 1
    for entry in listing.entries(db, seq, under=path):
        yield replace(entry, path=entry.path[skip:])


def is_in(path: bytes, directory: bytes) -> bool:
    """Whether a path is a directory or something below it (``b""`` is the root)."""
    return not directory or path == directory or path.startswith(directory + b"/")


def _indexed(db: sqlite3.Connection, seq: int, path: bytes) -> Subtree | None:
    """Return what the index says, if it is of that version: the newest, while nothing of the next one is written."""
    newest, touched = db.execute("SELECT (SELECT max(seq) FROM version), touched FROM pending").fetchone()
    if seq != newest or touched:
        return None
    row = db.execute(
        "SELECT node, files, bytes, problems FROM directory WHERE path = ? AND present = 1 AND dirty = 0", (path,)
    ).fetchone()
    return Subtree(*row) if row is not None and row[0] is not None else None
