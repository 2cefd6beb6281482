"""Random changes of a tree, as fast as they can be made; a seed repeats them.

    python chaos.py ROOT OUTSIDE SEED NAMES run SECONDS
    python chaos.py ROOT OUTSIDE SEED NAMES step

The first makes changes for so long and prints JSON: how many, and the sha256 of every content that a file or a symlink
ever had. The second makes one change for each line that it is sent, and answers with its name once its system calls
have returned. NAMES is a JSON list. Nobody else may change the tree meanwhile, or contents go unrecorded.
"""

import hashlib
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import BinaryIO

SMALL, LARGE = 200, 300_000  # bytes; what is longer than a page can be met half written
MODES = (0o600, 0o640, 0o644)

#: Files at once that the process holds open, half written.
HALF_WRITTEN = 3

#: Changes between two looks at the tree, which cost as much as twenty of them; what is gone meanwhile fits no more.
LOOK_EVERY = 20
#: Entries; above it one of the root's goes.
MANY = 500


class Chaos:
    """Makes, changes, renames, moves out and back, copies and deletes; ``seed`` decides.

    ``contents`` has the sha256 of all that ever was in a file which was closed, and that of nothing. ``slowly``: so
    many files may be half written and open while other things happen, until ``finish``.
    """

    def __init__(self, root: Path, outside: Path, names: list[str], seed: int, slowly: int = 0) -> None:
        self.root, self.outside, self.names, self.slowly = root, outside, names, slowly
        self._open: list[tuple[BinaryIO, bytes]] = []
        self.random = random.Random(seed)
        self.count = self.done = 0
        self.contents = {hashlib.sha256(b"").hexdigest()}
        self._age = 0
        self._directories: list[Path] = []
        self._all: list[Path] = []

    def act(self) -> str | None:
        """Make one change; return what it was, None if it did not fit what was there."""
        acts = [self.write, self.write, self.make, self.make, self.rename, self.delete, self.move_out, self.move_in]
        acts += [self.copy, self.link, self.swap, self.append, self.truncate, self.overwrite, self.replace, self.chmod]
        acts += [self.write_slowly] * (2 if self.slowly else 0)
        self._look()
        act = self.thin_out if len(self._all) > MANY and self._age == 0 else self.random.choice(acts)
        try:
            act()
        except (OSError, shutil.Error):
            return None
        self.done += 1
        return act.__name__

    def _look(self) -> None:
        self._age = (self._age + 1) % LOOK_EVERY
        if self._age and self._all:
            return
        found = list(os.walk(self.root))
        self._directories = sorted(Path(folder) for folder, _, _ in found)
        self._all = sorted(Path(folder) / name for folder, names, files in found for name in names + files)

    def _new(self) -> Path:
        return self.random.choice(self._directories) / self.random.choice(self.names)

    def _old(self) -> Path:
        return self.random.choice(self._all or [self.root / "none"])

    def _file(self) -> Path:
        """Return a regular file. Raises FileNotFoundError if what was found is none: through a link all may lie."""
        path = self._old()
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError(path)
        return path

    def _content(self) -> bytes:
        """Return what no file had before."""
        self.count += 1
        size = LARGE if self.random.random() < 0.03 else SMALL
        content = (b"%d " % self.count) * self.random.randrange(1, size // 8)
        return self._had(content)

    def _had(self, content: bytes) -> bytes:
        self.contents.add(hashlib.sha256(content).hexdigest())
        return content

    def write(self) -> None:
        self._new().write_bytes(self._content())

    def write_slowly(self) -> None:
        """Half of a file now, and the rest when it is one too many: some milliseconds later."""
        content = self._content()
        file = self._new().open("w+b", buffering=0)
        file.write(content[: len(content) // 2])
        self._open.append((file, content[len(content) // 2 :]))
        if len(self._open) > self.slowly:
            self._complete(*self._open.pop(0))

    def finish(self) -> None:
        """Write the rest of what is half written."""
        while self._open:
            self._complete(*self._open.pop())

    def _complete(self, file: BinaryIO, rest: bytes) -> None:
        with file:
            file.write(rest)
            file.seek(0)
            self._had(file.read())  # others may have written to it too

    def replace(self) -> None:
        path = self._file()
        (self.outside / "next").write_bytes(self._content())
        (self.outside / "next").replace(path)

    def append(self) -> None:
        path = self._file()
        more = self._content()
        self._had(path.read_bytes() + more)
        with path.open("ab", buffering=0) as file:
            file.write(more)

    def overwrite(self) -> None:
        """Another content of the same length, in place."""
        path = self._file()
        size = path.stat().st_size
        new = self._had((self._content() * (size // 2 + 1))[:size])
        with path.open("r+b", buffering=0) as file:
            file.write(new)

    def truncate(self) -> None:
        path = self._file()
        content = path.read_bytes()
        os.truncate(path, len(self._had(content[: len(content) // 2])))

    def chmod(self) -> None:
        self._file().chmod(self.random.choice(MODES))

    def make(self) -> None:
        path = self._new().joinpath(*self.random.choices(self.names, k=self.random.randrange(4)))
        path.mkdir(parents=True)
        for name in self.random.sample(self.names, 2):
            (path / name).write_bytes(self._had(b"new"))

    def rename(self) -> None:
        self._old().rename(self._new())

    def delete(self) -> None:
        remove(self._old())

    def thin_out(self) -> None:
        remove(self.random.choice([path for path in self._all if path.parent == self.root]))

    def move_out(self) -> None:
        self._old().rename(self.outside / f"{self.random.randrange(5)}")

    def move_in(self) -> None:
        (self.outside / f"{self.random.randrange(5)}").rename(self._new())

    def copy(self) -> None:
        """``cp -r`` of a small directory: into the outside and in from there, or straight to where it is watched."""
        path, new = self._old(), self._new()
        if not path.is_dir() or path.is_symlink() or sum(1 for _ in os.walk(path)) >= 20 or new.is_relative_to(path):
            raise FileNotFoundError(path)
        if self.random.random() < 0.5:
            shutil.copytree(path, new, symlinks=True)
        else:
            shutil.rmtree(self.outside / "copy", ignore_errors=True)
            shutil.copytree(path, self.outside / "copy", symlinks=True)
            (self.outside / "copy").rename(new)
        for file in new.rglob("*") if self.slowly else ():
            if file.is_file() and not file.is_symlink():
                self._had(file.read_bytes())  # of what was half written it is the half

    def link(self) -> None:
        self._new().symlink_to(os.fsdecode(self._had(self.random.choice([b"..", b"nowhere", b"a"]))))

    def swap(self) -> None:
        """Two directories change places, with a third name for a moment."""
        one, other = self._old(), self._old()
        between = self.root / "between"
        one.rename(between)
        try:
            other.rename(one)
        finally:
            between.rename(other if not os.path.lexists(other) else one)


def remove(path: Path) -> None:
    """Remove whatever is there."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def main(root: str, outside: str, seed: str, names: str, how: str, seconds: str = "0") -> None:
    """Be the process that the module says."""
    slowly = HALF_WRITTEN if how == "run" else 0
    chaos = Chaos(Path(root), Path(outside), json.loads(names), int(seed), slowly)
    if how == "run":
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            chaos.act()
        chaos.finish()
        print(json.dumps({"operations": chaos.done, "contents": sorted(chaos.contents)}))
        return
    for _ in sys.stdin:
        while (did := chaos.act()) is None:
            pass
        print(did, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
