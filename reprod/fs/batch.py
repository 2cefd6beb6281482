"""A batch of files on its way through a worker: what was asked, and what came back, column by column.

A first scan handles each file some ten times in a few microseconds; so a batch stays in columns from the worker to the
database (one list of names, one array of stats, one string of digests), and rows are made only where somebody wants to
look at files one by one.
"""

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reprod.fs.hash import OUTCOMES, Hashed, Outcome
from reprod.fs.read import CLEAN, Stat, new_hash
from reprod.fs.worker import Batch

BATCH_FILES = 256  # some 2 ms of work: small enough to share evenly, large enough that a hop does not count
BATCH_BYTES = 8 << 20
BATCH_NAMES = 16 << 10  # bytes of names and paths as they are sent
NAME_OVERHEAD = 1  # the NUL after a name
GROUP_OVERHEAD = 6  # those around a directory's path, and the frame's head

#: What a caller hangs on a file and gets back with its result.
Tag = Any

#: A file with its result: ``(directory, name, tag, hashed)``.
Row = tuple[bytes, bytes, Tag, Hashed]


@dataclass(slots=True)
class Group:
    """Names of one directory, with a tag each, or one for all of them."""

    directory: bytes
    names: list[bytes]
    tags: list[Tag] | None
    tag: Tag = None


@dataclass(slots=True)
class OpenBatch:
    """Directories with names and tags; filled here, read (or only stat'ed) elsewhere."""

    read: bool = True
    groups: list[Group] = field(default_factory=list)
    files: int = 0
    size: int = 0
    names: int = 0
    attempts: int = 0

    def add(self, directory: bytes, name: bytes, size: int, tag: Tag) -> bool:
        """Take one file; whether the batch is full now."""
        last = self.groups[-1] if self.groups else None
        if last is None or last.tags is None or last.directory != directory:
            last = Group(directory, [], [])
            self.groups.append(last)
            self.names += len(directory) + GROUP_OVERHEAD
        last.names.append(name)
        if last.tags is not None:
            last.tags.append(tag)
        self.files += 1
        self.size += size
        self.names += len(name) + NAME_OVERHEAD
        return self.files >= BATCH_FILES or self.size >= BATCH_BYTES or self.names >= BATCH_NAMES

    def has_room_for(self, files: int, names: int) -> bool:
        """Whether so many more files, with names of so many bytes, fit."""
        return self.files + files <= BATCH_FILES and self.names + names <= BATCH_NAMES

    def add_group(self, group: Group, names: int) -> None:
        """Take names that have one tag."""
        self.groups.append(group)
        self.files += len(group.names)
        self.names += names

    def asked(self) -> Batch:
        """Return what a worker is sent."""
        return [(group.directory, group.names) for group in self.groups]


class Clean(NamedTuple):
    """The clean results of one group: ``stats`` are five integers a file, ``digests`` its sha256."""

    group: Group
    stats: "array[int]"
    digests: list[bytes]


class Results:
    """What became of a batch, in its order. Raises ValueError for a body that does not fit it.

    :param body: the columns that ``reprod.fs.worker.pack_answers`` wrote.
    """

    __slots__ = ("_digests", "_errors", "_foreseen", "_more", "_outcomes", "_stats", "clean", "files", "groups", "read")

    def __init__(self, batch: OpenBatch, body: bytes, extra: tuple[str, ...]) -> None:
        n, self.read = batch.files, batch.read
        sizes = [32, *(new_hash(algorithm).digest_size for algorithm in extra)] if batch.read else []
        if len(body) != n * (1 + 40 + 2 + sum(sizes)):
            raise ValueError(f"{len(body)} bytes are no answer for {n} files")
        self.groups, self.files, self._foreseen = batch.groups, n, batch.size
        self._outcomes = body[:n]
        self.clean = not any(self._outcomes)
        self._stats = array("q", body[n : 41 * n])
        self._errors = array("H", body[41 * n : 43 * n])
        self._digests = body[43 * n : 75 * n]
        self._more: list[tuple[str, int, bytes]] = []
        at = 75 * n
        for algorithm, size in zip(extra, sizes[1:], strict=False):
            self._more.append((algorithm, size, body[at : at + n * size]))
            at += n * size

    def __len__(self) -> int:
        return self.files

    def __iter__(self) -> Iterator[Row]:
        i = 0
        for group in self.groups:
            tags = group.tags or [group.tag] * len(group.names)
            for name, tag in zip(group.names, tags, strict=True):
                yield group.directory, name, tag, self._hashed(i)
                i += 1

    @property
    def has_more(self) -> bool:
        """Whether there are further digests than sha256."""
        return bool(self._more)

    def size(self) -> int:
        """Return how many bytes were read."""
        if not self.read:
            return 0
        sizes = self._stats[1::5]
        if self.clean:
            return sum(sizes)
        return sum([size for size, outcome in zip(sizes, self._outcomes, strict=True) if outcome == CLEAN])

    def unforeseen(self) -> int:
        """Return how many bytes more were read than was known when they were asked for."""
        return max(0, self.size() - self._foreseen)

    def by_group(self) -> Iterator[Clean]:
        """Yield each group with its columns; only if all of it is clean."""
        i, digests = 0, self._digests
        for group in self.groups:
            j = i + len(group.names)
            yield Clean(group, self._stats[5 * i : 5 * j], [digests[k : k + 32] for k in range(32 * i, 32 * j, 32)])
            i = j

    def stats(self) -> dict[bytes, Stat]:
        """Return what a batch of stats gave, by name: what is there. Raises OSError if one could not be stat'ed."""
        names = self.groups[0].names
        error = max(self._errors, default=0)
        if error:
            raise OSError(error, os.strerror(error))
        numbers = iter(self._stats)
        found = dict(zip(names, zip(numbers, numbers, numbers, numbers, numbers, strict=False), strict=False))
        if not self.clean:
            found = {name: st for name, st in found.items() if st[0]}
        return found

    def _hashed(self, i: int) -> Hashed:
        outcome = OUTCOMES[self._outcomes[i]]
        mode, size, mtime, ctime, inode = self._stats[5 * i : 5 * i + 5]
        st = (mode, size, mtime, ctime, inode) if mode else None
        if outcome is not Outcome.CLEAN:
            return Hashed(outcome, st, error=self._errors[i])
        more = {algorithm: column[i * size : (i + 1) * size] for algorithm, size, column in self._more}
        return Hashed(outcome, st, self._digests[32 * i : 32 * i + 32], more or None)
