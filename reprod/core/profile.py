"""What a set of files is made of, for a picture of it: totals, largest files, sizes, types and top directories.

Rule: one pass over the entries, in memory that does not grow with them; entries in path order (as ``store.listing`` and
``ops.fetch`` give them) give the same profile each time. Sizes are bytes, times Unix nanoseconds. Names are displayed
ones (``core.entry.display``), escaped for no medium: whoever shows them does that.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from reprod.core.entry import Entry, Kind, display

#: What fits a picture; the rest is one bar.
MOST_SHARES, MOST_LARGEST = 12, 10

#: Types or top directories that are counted apart (some 10 MB of them); any that come up later are the rest.
MOST_KEYS = 65_536

#: Largest candidates are sorted when so many are there: cheaper than a heap, because most files are none.
_CANDIDATES = 1024

#: Upper ends of the classes of sizes: 1 KiB, then 16 times as much each. Empty files are a class of their own.
SIZE_CLASSES = (1, *(1 << bits for bits in range(10, 35, 4)))
_CLASS_OF_BITS = tuple(0 if not bits else max(1, (bits - 7) // 4 + 1) for bits in range(39)) + (len(SIZE_CLASSES),) * 26

#: A longer suffix, or one without a letter, is a part of a name: ``.0001``, ``.Meier and Sons``.
_LONGEST_TYPE = 12

#: What is packed keeps what it was: ``.csv.gz``.
_PACKED = frozenset({b"gz", b"bz2", b"xz", b"zst", b"lz4"})


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the set. ``name`` is ``.jpg`` or a top directory, empty for files without a type or at the top."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SizeClass:
    """How many files are smaller than ``below`` bytes and in no class before; ``below`` None: all larger ones."""

    below: int | None
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SizedFile:
    """A file and its size."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class DataProfile:
    """What a set is made of. ``files`` and ``bytes`` are of the regular files that could be read.

    ``problems`` counts what could not. ``sizes`` are the classes from the first to the last that holds a file.
    ``types`` and ``directories`` are the largest by bytes, ``other_types`` and ``other_directories`` the rest, if any.
    ``oldest_ns`` and ``newest_ns`` are modification times.
    """

    files: int = 0
    bytes: int = 0
    links: int = 0
    special: int = 0
    problems: int = 0
    sizes: tuple[SizeClass, ...] = ()
    largest: tuple[SizedFile, ...] = ()
    types: tuple[Share, ...] = ()
    other_types: Share | None = None
    directories: tuple[Share, ...] = ()
    other_directories: Share | None = None
    oldest_ns: int | None = None
    newest_ns: int | None = None


def profile(entries: Iterable[Entry]) -> DataProfile:
    """Return the profile of ``entries``, which are taken once."""
    counts = _Counts()
    for entry in entries:
        content = entry.content
        if content.problem is not None:
            counts.problems += 1
        elif content.kind is Kind.FILE:
            counts.add(entry.path, content.size, entry.mtime_ns)
        else:
            counts.links += content.kind is Kind.LINK
            counts.special += content.kind is Kind.SPECIAL
    return counts.finish()


class _Tally:
    """Files and bytes by key, for a bounded number of keys."""

    __slots__ = ("counts", "rest")

    def __init__(self) -> None:
        self.counts: dict[bytes, list[int]] = {}
        self.rest = [0, 0]

    def add(self, key: bytes, size: int) -> None:
        """Count a file."""
        slot = self.counts.get(key)
        if slot is None:
            slot = self.rest if len(self.counts) >= MOST_KEYS else self.counts.setdefault(key, [0, 0])
        slot[0] += 1
        slot[1] += size

    def shares(self) -> tuple[tuple[Share, ...], Share | None]:
        """Return the largest shares, and all others as one."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
        if len(ranked) <= MOST_SHARES + 1 and not self.rest[0]:
            return tuple(Share(display(key), *count) for key, count in ranked), None
        others = [self.rest, *(count for _, count in ranked[MOST_SHARES:])]
        rest = Share("", sum(files for files, _ in others), sum(size for _, size in others))
        return tuple(Share(display(key), *count) for key, count in ranked[:MOST_SHARES]), rest


@dataclass(slots=True)
class _Counts:
    links: int = 0
    special: int = 0
    problems: int = 0
    types: _Tally = field(default_factory=_Tally)
    tops: _Tally = field(default_factory=_Tally)
    sizes: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in range(len(SIZE_CLASSES) + 1)])
    largest: list[tuple[int, bytes]] = field(default_factory=list)
    floor: int = 0
    oldest: int = 0
    newest: int = 0

    def add(self, path: bytes, size: int, mtime_ns: int) -> None:
        """Count a regular file."""
        top, slash, _ = path.partition(b"/")
        self.tops.add(top if slash else b"", size)
        self.types.add(_type(path), size)
        of_size = self.sizes[_CLASS_OF_BITS[min(size.bit_length(), 64)]]
        of_size[0] += 1
        of_size[1] += size
        if size >= self.floor:
            self.largest.append((-size, path))
            if len(self.largest) >= _CANDIDATES:
                self._cut()
        if mtime_ns:  # 0: nobody knows it
            self.newest = max(mtime_ns, self.newest)
            if mtime_ns < self.oldest or not self.oldest:
                self.oldest = mtime_ns

    def _cut(self) -> None:
        self.largest.sort()
        del self.largest[MOST_LARGEST:]
        self.floor = -self.largest[-1][0]

    def finish(self) -> DataProfile:
        """Return what was counted."""
        self.largest.sort()
        ends: tuple[int | None, ...] = (*SIZE_CLASSES, None)
        classes = [SizeClass(end, *count) for end, count in zip(ends, self.sizes, strict=True)]
        held = [i for i, each in enumerate(classes) if each.files]
        types, other_types = self.types.shares()
        tops, other_tops = self.tops.shares()
        return DataProfile(
            files=sum(each.files for each in classes),
            bytes=sum(each.bytes for each in classes),
            links=self.links,
            special=self.special,
            problems=self.problems,
            sizes=tuple(classes[held[0] : held[-1] + 1]) if held else (),
            largest=tuple(SizedFile(display(path), -negative) for negative, path in self.largest[:MOST_LARGEST]),
            types=types,
            other_types=other_types,
            directories=tops,
            other_directories=other_tops,
            oldest_ns=self.oldest or None,
            newest_ns=self.newest or None,
        )


def _type(path: bytes) -> bytes:
    """Return ``.jpg`` for ``a/B.JPG``, ``.csv.gz`` for ``a.csv.gz``; nothing for what has no such suffix."""
    name = path.rpartition(b"/")[2]
    stem, dot, suffix = name.rpartition(b".")
    if not dot or not stem or len(suffix) > _LONGEST_TYPE or not suffix.isalnum() or suffix.isdigit():
        return b""
    suffix = suffix.lower()
    if suffix in _PACKED:
        inner = _type(stem)
        return inner + b"." + suffix
    return b"." + suffix
