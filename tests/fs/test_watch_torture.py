"""Random changes, as fast as they can be made: whoever looks where the hints say ends with what is on the disk."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import Chaos
from watch_area import Area

from reprod.fs.watch import Hint

ROUNDS, CHANGES = 8, 150

Found = dict[bytes, tuple[str, bytes]]  # path -> kind and content


class Reader:
    """Knows only what it saw at start and where hints sent it."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)
        self.known = look(self.root, b"")

    def follow(self, paths: set[bytes]) -> None:
        for path in paths:
            below = path + b"/" if path else b""
            for known in [one for one in self.known if one == path or one.startswith(below)]:
                del self.known[known]
            self.known |= look(self.root, path)


def look(root: bytes, path: bytes) -> Found:
    """Return what is at ``path`` and below it; nothing if only a symlink leads there."""
    full = os.path.join(root, path)
    if os.path.realpath(os.path.dirname(full)) != os.path.dirname(full):
        return {}
    try:
        mode = os.lstat(full).st_mode
    except OSError:  # gone, or below a file or a link that leads nowhere
        return {}
    if stat.S_ISLNK(mode):
        return {path: ("link", os.readlink(full))}
    if not stat.S_ISDIR(mode):
        with open(full, "rb") as file:
            return {path: ("file", file.read())}
    found: Found = {path: ("directory", b"")} if path else {}
    for name in os.listdir(full):
        found |= look(root, os.path.join(path, name))
    return found


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Area]:
    made = Area(tmp_path, os.environ.get("REPROD_TORTURE_BACKEND", "inotify"))
    yield made
    for watcher in made.watchers:
        watcher.stop()


#: A directory that is found below itself, as far as the events before say: the tree of watches had a circle then.
CIRCLE = 112


@pytest.mark.parametrize("seed", sorted({*range(int(os.environ.get("REPROD_TORTURE", "3"))), CIRCLE}))
def test_following_the_hints_leads_to_what_is_there(area: Area, tmp_path: Path, seed: int) -> None:
    """After each burst of changes, made while directories are still being armed, the reader knows the whole tree."""
    outside = tmp_path / "outside"
    outside.mkdir()
    names = ["a", "b", "c", "d", "e\nf", "g h"] + (["\udcff", "\udc80x"] if area.backend == "inotify" else [])
    chaos = Chaos(area.root, outside, names, seed)
    for _ in range(CHANGES):
        chaos.act()
    area.start()
    reader = Reader(area.root)
    for round_ in range(ROUNDS):
        for _ in range(CHANGES):
            chaos.act()
        area.quiesce()
        assert not area.told.failures()
        reader.follow({item.path for item in area.told.take() if isinstance(item, Hint)})
        assert reader.known == look(reader.root, b""), f"round {round_}"
