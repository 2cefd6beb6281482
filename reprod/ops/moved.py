"""What was only renamed is not read again: a directory that is new by its path and known by its inode.

Renaming a directory changes nothing below it: its entries keep their inodes and ctimes. An entry whose fingerprint is
the one that the index has under the directory's old path holds what it held there, by the same rule by which an entry
in its place does. Entries of which a hint told, under either path, are read in any case (see ``reprod.ops.scan``).
"""

from collections.abc import Collection

from reprod.fs.read import Stat
from reprod.fs.walk import Part, join
from reprod.store import index
from reprod.store.connection import Database
from reprod.store.observation import Observation


def origin(db: Database, path: bytes, st: Stat) -> bytes | None:
    """Return under which other path the index knows the directory with this stat; None if under none."""
    return db.read(lambda c: index.path_of_inode(c, st[4], path))


def unchanged(
    db: Database, old: bytes, new: bytes, part: Part, hinted: Collection[bytes]
) -> tuple[list[Observation], dict[bytes, Stat]]:
    """Split the entries of a renamed directory: what the index knows from ``old``, and what has to be read."""
    known = db.read(lambda c: index.contents(c, old, part[:2]))
    moved: list[Observation] = []
    rest: dict[bytes, Stat] = {}
    for name, st in part.files.items():
        was, content = known.get(name, (None, None))
        if content is None or was != st or join(old, name) in hinted or join(new, name) in hinted:
            rest[name] = st
        else:
            moved.append(Observation(new, name, None, st, int(content.kind), content.sha256, content.more or None))
    return moved, rest
