"""The rows of directories: made with their parents, written as they were seen, and marked where their nodes are old.

What is marked, ``reprod.store.nodes`` computes anew. Functions take a connection inside a transaction of the caller's;
paths are raw bytes.
"""

import sqlite3

from reprod.store.observation import SeenDirectory


def see_directory(db: sqlite3.Connection, seen: SeenDirectory) -> tuple[int, bool]:
    """Write one directory; return its id, and whether its ctime tells since when it is there: a mount leaves none."""
    place = ensure_directory(db, seen.path)
    old, was = db.execute("SELECT problem, inode FROM directory WHERE id = ?", (place,)).fetchone()
    problem = int(seen.problem) if seen.problem else None
    mtime, ctime, inode = seen.stat or (None, None, None)
    db.execute(
        "UPDATE directory SET mtime_ns = ?, ctime_ns = ?, inode = ?, problem = ? WHERE id = ?",
        (mtime, ctime, inode, problem, place),
    )
    if old != problem:
        mark_dirty(db, place)
    return place, inode is not None and not seen.foreign and was in {None, inode}


def ensure_directory(db: sqlite3.Connection, path: bytes) -> int:
    """Return the id of a directory, making it and its parents as needed."""
    row = db.execute("SELECT id, present FROM directory WHERE path = ?", (path,)).fetchone()
    if row is not None and row[1]:
        return int(row[0])
    parent = ensure_directory(db, path.rpartition(b"/")[0]) if path else None
    if row is not None:
        db.execute("UPDATE directory SET present = 1 WHERE id = ?", (row[0],))
        mark_dirty(db, row[0])
        return int(row[0])
    cursor = db.execute("INSERT INTO directory (parent, path) VALUES (?, ?)", (parent, path))
    if parent is not None:
        mark_dirty(db, parent)
    return int(cursor.lastrowid or 0)


def mark_dirty(db: sqlite3.Connection, directory_id: int | None) -> None:
    """Mark a directory and its parents, up to one that is marked already (then all above it are)."""
    while directory_id is not None:
        row = db.execute("SELECT parent, dirty FROM directory WHERE id = ?", (directory_id,)).fetchone()
        db.execute("UPDATE directory SET dirty = 1 WHERE id = ?", (directory_id,))
        parent: int | None = row[0]
        if row[1] and (
            parent is None or db.execute("SELECT dirty FROM directory WHERE id = ?", (parent,)).fetchone()[0]
        ):
            return
        directory_id = parent
