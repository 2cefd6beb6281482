"""A frozen set in path order, as every export takes it, whoever recorded it.

Rule: a set comes from the record, never from the files as they are now. What is asked twice is the same both times,
and a set that is not whole says so. Paths are raw bytes, sizes bytes (below 0: not known), times Unix nanoseconds.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, TypeVar

from reprod.core import digest
from reprod.core.entry import Entry, Kind, display
from reprod.core.run import split_name
from reprod.errors import IncompleteError
from reprod.ops.export_proof import Expected, proven

T = TypeVar("T")
Consume = Callable[[Iterator[Entry]], Any]
Progress = Callable[[dict[str, Any]], None]

#: A size that a manifest does not state.
UNKNOWN = -1

#: Names of unreadable entries that a message shows; ``status`` tells the rest.
MAX_SHOWN = 3

#: Files between two progress reports.
REPORT_EVERY = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A set to export. ``title`` names it for people; ``data_path`` is the root as it was recorded.

    ``root`` is where files may be read: None unless this host's own record, or the user, says it. ``digest``
    (``dt1:...``) is None for a set that is not whole (``why_not`` says why) and for one that cannot prove it. ``more``
    are the algorithms, beside sha256, that every regular file has. ``stated`` is False where sizes, times or modes are
    missing; ``size`` is None if any size is. ``stream`` calls its argument with the entries, as often as it is asked.
    ``unlisted`` are directories of which nothing is known (``b""`` is the root); ``max_files`` is set if the set was
    cut there; ``metadata`` is what its maker gave.
    """

    title: str
    name: str
    seq: int | None
    run_id: str | None
    data_path: str
    root: str | None
    digest: str | None
    frozen_ns: int
    selection: dict[str, Any] | None
    files: int
    size: int | None
    why_not: str
    more: tuple[str, ...]
    stated: bool
    stream: Callable[[Consume], Any] = field(repr=False)
    unlisted: tuple[bytes, ...] = ()
    max_files: int | None = None
    metadata: dict[str, Any] | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing of the set is missing."""
        return not self.why_not

    def each(self, consume: Callable[[Iterator[Entry]], T]) -> T:
        """Return what ``consume`` makes of the entries. Each keeps, of its further digests, those in ``more``.

        :raises DamagedError: at their end, if they are not those that the set's digest stands for.
        """
        expected = self._expected()

        def take(entries: Iterator[Entry]) -> T:
            shown = entries if expected is None else proven(entries, expected)
            return consume(_trimmed(shown, self.more))

        result: T = self.stream(take)
        return result

    def prove(self) -> None:
        """Raise DamagedError if the entries are not those that the set's digest stands for; reads them all."""
        if self.digest is not None:
            self.each(lambda entries: deque(entries, maxlen=0))

    def _expected(self) -> Expected | None:
        if self.digest is None:
            return None
        hint = altered_hint(split_name(self.name)[0]) if self.seq is not None else "get the original, or make it anew"
        return Expected(self.title, hint, self.digest, self.files, self.size)

    def require_whole(self) -> None:
        """Raise IncompleteError for a set with something missing: a list that silently lacks files is a wrong one."""
        if not self.whole:
            raise IncompleteError(
                f"{self.title} is not complete: {self.why_not}",
                hint="--format json says what is known and what is not; or export "
                + ("an earlier version (reprod log)" if self.seq is not None else "a manifest of the whole set"),
            )


@dataclass(slots=True)
class Tally:
    """Counts the files (``size`` in bytes) and symlinks that pass, and digests the SHA256SUMS that they make."""

    files: int = 0
    size: int = 0
    links: int = 0
    sums_size: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def watch(self, entries: Iterator[Entry], total: int, progress: Progress) -> Iterator[Entry]:
        """Pass the entries on. ``total`` is how many files are expected."""
        for entry in entries:
            content = entry.content
            if content.kind is Kind.FILE and content.sha256 is not None:
                line = digest.file_line(content.sha256, entry.path)
                self._hash.update(line)
                self.sums_size += len(line)
                self.files += 1
                self.size += max(content.size, 0)
                if not self.files % REPORT_EVERY:
                    progress({"phase": "writing", "files": self.files, "total_files": total})
            elif content.kind is Kind.LINK and content.problem is None:
                self.links += 1
            yield entry

    def sums_sha256(self) -> str:
        """Return the sha256 of SHA256SUMS so far, in hex."""
        found: str = self._hash.hexdigest()
        return found


def common_algorithms(entries: Iterator[Entry]) -> tuple[str, ...]:
    """Return the algorithms, beside sha256, that every regular file has; reads on only while there is one."""
    common: dict[str, bytes] | None = None
    for entry in entries:
        if entry.content.kind is Kind.FILE and entry.content.problem is None:
            more = entry.content.more
            common = more if common is None else {name: common[name] for name in common if name in more}
            if not common:
                return ()
    return tuple(name for name in digest.ALGORITHMS if name in (common or {}))


def altered_hint(name: str) -> str:
    """Return what to do about records that are not what was sealed."""
    return f"the database was altered; reprod verify {name} --chain says since when"


def first_unknown(unlisted: Iterable[bytes], entries: Iterable[Entry]) -> list[str]:
    """Return the first few of what was not known, in words."""
    folders = (f"the folder '{display(path or b'.')}' could not be listed" for path in unlisted)
    bad = (entry for entry in entries if entry.content.problem is not None)
    names = (f"'{display(e.path)}' was {e.content.problem.word}" for e in bad if e.content.problem is not None)
    return list(islice(chain(folders, names), MAX_SHOWN))


def _trimmed(entries: Iterator[Entry], more: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the entries with no digests but sha256 and ``more``, in that order."""
    for entry in entries:
        content = entry.content
        if tuple(content.more) == more or content.kind is not Kind.FILE or content.problem is not None:
            yield entry
        else:
            yield replace(entry, content=replace(content, more={name: content.more[name] for name in more}))
