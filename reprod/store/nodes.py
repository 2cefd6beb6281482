"""Compute the dt1 nodes of the directories that changed, and what each subtree holds.

A node is made from rows alone, so a lost event can make it old but never wrong. Functions take a connection inside a
transaction of the caller's.
"""

import sqlite3

from reprod.core import digest


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
