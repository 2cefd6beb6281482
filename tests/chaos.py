"""Random changes of a tree, as fast as they can be made; a seed repeats them."""

import os
import random
import shutil
from pathlib import Path


class Chaos:
    """Makes, changes, renames, moves out and back, copies and deletes; ``seed`` decides."""

    def __init__(self, root: Path, outside: Path, names: list[str], seed: int) -> None:
        self.root, self.outside, self.names = root, outside, names
        self.random = random.Random(seed)
        self.count = 0

    def act(self) -> None:
        acts = [self.write, self.write, self.make, self.make, self.rename, self.delete, self.move_out, self.move_in]
        try:
            self.random.choice([*acts, self.copy, self.link, self.swap])()
        except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, OSError, shutil.Error):
            return  # it did not fit what was there

    def _directories(self) -> list[Path]:
        return [Path(folder) for folder, _, _ in os.walk(self.root)]

    def _new(self) -> Path:
        return self.random.choice(self._directories()) / self.random.choice(self.names)

    def _old(self) -> Path:
        found = [Path(folder) / name for folder, names, files in os.walk(self.root) for name in names + files]
        return self.random.choice(found or [self.root / "none"])

    def write(self) -> None:
        self.count += 1
        self._new().write_bytes(b"%d" % self.count)

    def make(self) -> None:
        path = self._new().joinpath(*self.random.choices(self.names, k=self.random.randrange(4)))
        path.mkdir(parents=True)
        for name in self.random.sample(self.names, 2):
            (path / name).write_bytes(b"new")

    def rename(self) -> None:
        self._old().rename(self._new())

    def delete(self) -> None:
        path = self._old()
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def move_out(self) -> None:
        self._old().rename(self.outside / f"{self.random.randrange(5)}")

    def move_in(self) -> None:
        (self.outside / f"{self.random.randrange(5)}").rename(self._new())

    def copy(self) -> None:
        path = self._old()
        if path.is_dir() and not path.is_symlink() and sum(1 for _ in os.walk(path)) < 20:
            shutil.copytree(path, self.outside / "copy", symlinks=True)
            (self.outside / "copy").rename(self._new())

    def link(self) -> None:
        self._new().symlink_to(self.random.choice(["..", "nowhere", "a"]))

    def swap(self) -> None:
        """Two directories change places, with a third name for a moment."""
        one, other = self._old(), self._old()
        between = self.root / "between"
        one.rename(between)
        try:
            other.rename(one)
        finally:
            between.rename(other if not os.path.lexists(other) else one)
