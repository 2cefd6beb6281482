"""Entries in path order, a directory at a time, are the entries that the definition gives."""

import random
from pathlib import Path

from ops_place import Place

from reprod.core.entry import Entry
from reprod.store import versions
from reprod.store.index import Connection, content_of
from reprod.store.listing import entries

NAMES = [b"a", b"a-b", b"a.b", b"a0", b"b", b"\xff", b"new\nline", b"z"]


def change(place: Place, choose: random.Random) -> None:
    """Write, remove or replace something in a tree of few names, so that files take the places of directories."""
    path = place.root.joinpath(*(name.decode("latin-1") for name in choose.choices(NAMES, k=choose.randint(1, 4))))
    if path.is_dir() and not path.is_symlink():
        if choose.random() < 0.3:
            import shutil

            shutil.rmtree(path)
        return
    for parent in reversed(path.parents):
        if parent.is_file() or parent.is_symlink():
            parent.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    action = choose.random()
    if action < 0.6:
        path.write_bytes(choose.randbytes(3))
    elif action < 0.8:
        path.symlink_to("somewhere")


def plainly(c: Connection, seq: int) -> list[Entry]:
    """The same by the definition, row by row: the first history row with a higher version, else the row in `file`."""
    found = []
    for file_id, folder, name in c.execute(
        "SELECT f.id, d.path, f.name FROM file f JOIN directory d ON d.id = f.directory"
    ).fetchall():
        columns = "kind, size, sha256, more, problem, mtime_ns, mode"
        row = (
            c.execute(
                f"SELECT {columns} FROM history WHERE file = ? AND version > ? ORDER BY version LIMIT 1", (file_id, seq)
            ).fetchone()
            or c.execute(f"SELECT {columns} FROM file WHERE id = ?", (file_id,)).fetchone()
        )
        if row[0]:
            found.append(Entry(folder + b"/" + name if folder else name, content_of(*row[:5]), row[5], row[6]))
    return sorted(found, key=lambda entry: entry.path)


def test_any_history_any_version(tmp_path: Path) -> None:
    """For every version of a random history both give the same entries in the same order, and that order is sorted."""
    choose = random.Random(7)
    place = Place(tmp_path)
    try:
        for _ in range(25):
            for _ in range(choose.randint(1, 12)):
                change(place, choose)
            place.refresh(watched=False)
        known = place.db.read(versions.versions)
        assert len(known) > 15
        for version in known:
            seq = version.seq
            found = place.db.read(lambda c, seq=seq: list(entries(c, seq)))  # type: ignore[misc]
            assert found == place.db.read(lambda c, seq=seq: plainly(c, seq))  # type: ignore[misc]
            assert [entry.path for entry in found] == sorted(entry.path for entry in found)
    finally:
        place.close()


def test_many_directories_between_files_and_a_deep_tree(tmp_path: Path) -> None:
    """Neither the number of directories in one nor the depth of the tree is bounded by the interpreter's stack."""
    place = Place(tmp_path)
    try:
        for i in range(1500):
            place.write(f"d{i}/f", b"")
            place.write(f"d{i}-x", b"")
        deep = [place.root]
        for _ in range(1100):
            deep.append(deep[-1] / "n")
            deep[-1].mkdir()
        place.write("/".join(["n"] * 1100 + ["f"]), b"")
        place.refresh(watched=False)
        found = place.db.read(lambda c: [entry.path for entry in entries(c, 1)])
        assert found == sorted(found)
        assert len(found) == 3001
        (deep[-1] / "f").unlink()
        for folder in reversed(deep[1:]):  # shutil.rmtree, with which pytest cleans up, would not come back from it
            folder.rmdir()
    finally:
        place.close()
