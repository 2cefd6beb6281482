"""What a refresh saw, on its way into the index: values without a database.

Paths and names are raw bytes; times are Unix nanoseconds, sizes bytes.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from reprod.core.entry import Kind, Problem
from reprod.store.index import Stat


class Observation(NamedTuple):
    """What a refresh saw at one path: its stat and its content. ``known`` is the row's id, None for a new name.

    A flat tuple, because a first scan makes one for each file: with nested values it took twice as long.
    """

    directory: bytes
    name: bytes
    known: int | None
    stat: Stat
    kind: int
    sha256: bytes | None = None
    more: dict[str, bytes] | None = None
    problem: int | None = None


class NewFiles(NamedTuple):
    """Regular files of one directory that were read clean, and that the index did not know when they were asked for.

    In columns, as they came from the worker: ``stats`` are five integers a file, ``digests`` its sha256.
    """

    directory: bytes
    names: list[bytes]
    stats: "array[int]"
    digests: list[bytes]

    def size(self) -> int:
        """Return the bytes in all of them."""
        return sum(self.stats[1::5])

    def one_by_one(self) -> Iterator[Observation]:
        """Yield each as an observation."""
        for i, (name, sha256) in enumerate(zip(self.names, self.digests, strict=True)):
            mode, size, mtime, ctime, inode = self.stats[5 * i : 5 * i + 5]
            yield Observation(self.directory, name, None, (mode, size, mtime, ctime, inode), int(Kind.FILE), sha256)


@dataclass(frozen=True, slots=True)
class SeenDirectory:
    """A directory that is new or whose stat is another: ``(mtime_ns, ctime_ns, inode)``; None if even that failed."""

    path: bytes
    stat: tuple[int, int, int] | None
    problem: Problem | None = None
    foreign: bool = False  # on another device than the root
