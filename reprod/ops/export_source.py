"""What is exported: a sealed version, or a set that somebody else recorded, as one frozen set in path order.

Rule: a set comes from the record, never from the files as they are now. What is asked twice is the same both times,
and a set that is not whole says so. Paths are raw bytes, sizes bytes (below 0: not known), times Unix nanoseconds.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reprod.config import Config
from reprod.core import digest
from reprod.core.entry import Entry, Kind, display
from reprod.core.run import split_name
from reprod.errors import DamagedError, IncompleteError, NotFoundError, UsageError
from reprod.ops.export_proof import Expected, proven
from reprod.ops.reference import Reference, open_version, resolve
from reprod.ops.version_claims import folder
from reprod.store import listing, meta, subtree, versions
from reprod.store.connection import Database
from reprod.store.files import Connection

T = TypeVar("T")
Consume = Callable[[Iterator[Entry]], Any]
Progress = Callable[[dict[str, Any]], None]

#: A size that a manifest does not state.
UNKNOWN = -1

#: Names of unreadable entries that a message shows; ``status`` tells the rest.
MAX_SHOWN = 3

#: What a row raises whose columns hold what reprod never wrote.
_NO_ENTRY = (LookupError, TypeError, ValueError, msgspec.MsgspecError)

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


@contextmanager
def open_source(
    state: Path, text: str, dataset: str | None = None, config: Callable[[], Config] | None = None
) -> Iterator[Source]:
    """Yield what a reference means: ``NAME`` (its newest version), ``NAME@N``, ``run:ID``, or a manifest file.

    :param dataset: picks one of the datasets of a run.
    :param config: says where the tracking server is; asked only for a run that this host does not know.
    :raises NotFoundError: no such dataset, version or run. :raises IncompleteError: the version was pruned.
    :raises DamagedError: a damaged or hostile manifest. :raises TrackingError: the server cannot be reached.
    """
    from reprod.ops import export_foreign

    if export_foreign.is_manifest(text):
        if dataset is not None:
            raise UsageError(f"{text} is a manifest file", hint="--dataset picks one of the datasets of a run:ID")
        yield export_foreign.of_manifest(text)
        return
    try:
        reference = resolve(state, text, name=dataset)
        db = open_version(state, reference)
    except NotFoundError:
        if not text.startswith("run:") or config is None or not (asked := config()).mlflow.tracking_uri:
            raise
        with export_foreign.fetched(asked, text, dataset) as source:
            yield source
        return
    try:
        yield _of_version(db, reference)
    finally:
        db.close()


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


def _of_version(db: Database, reference: Reference) -> Source:
    newest = db.read(versions.newest)
    if newest is None:
        raise NotFoundError(f"{reference.name} has no version yet", hint=f"reprod scan {reference.name}")
    seq = reference.seq if reference.seq is not None else newest.seq
    version = db.read(lambda c: versions.version(c, seq))
    record = db.read(lambda c: versions.record(c, seq))

    title = f"{reference.named}@{seq}"
    _require_sealed(version, record, title, reference.name)
    damaged = DamagedError(f"the records of {title} are damaged", hint=altered_hint(reference.name))
    root, top = _root(db, str(record["root"])), os.fsencode(reference.below or "")
    if reference.below is not None:
        root, version = f"{root.rstrip('/')}/{reference.below}", folder(db, reference, version)
    unlisted = () if version.digest else _checked(damaged, lambda: db.read(lambda c: listing.unlisted(c, seq)))

    def stream(consume: Consume) -> Any:
        def read(c: Connection) -> Any:
            entries = subtree.entries_below(c, seq, top) if top else listing.entries(c, seq, unlisted)
            return consume(_readable(entries, damaged))

        return db.read(read)

    return Source(
        title=title,
        name=reference.named,
        seq=seq,
        run_id=reference.run_id,
        data_path=root,
        root=root,
        digest=digest.text(version.digest) if version.digest else None,
        frozen_ns=version.sealed_ns,
        selection=record["selection"],
        files=version.files,
        size=version.size,
        why_not="" if version.digest else _missing(stream, unlisted, version.problems),
        more=stream(common_algorithms),
        stated=True,
        stream=stream,
        unlisted=unlisted,
    )


def altered_hint(name: str) -> str:
    """Return what to do about records that are not what was sealed."""
    return f"the database was altered; reprod verify {name} --chain says since when"


def _require_sealed(version: versions.Version, record: dict[str, Any], title: str, name: str) -> None:
    """Raise DamagedError unless a version's columns are what its record, which is in the chain, says."""
    known = version.digest is None or (isinstance(version.digest, bytes) and len(version.digest) == len(digest.EMPTY))
    said = digest.text(version.digest) if known and version.digest is not None else None
    found = {"digest": said, "files": version.files, "bytes": version.size, "problems": version.problems}
    wrong = [key for key, value in found.items() if record.get(key) != value]
    if wrong or not known:
        raise DamagedError(f"{title} has another {(wrong or ['digest'])[0]} than was sealed", hint=altered_hint(name))


def _readable(entries: Iterator[Entry], damaged: DamagedError) -> Iterator[Entry]:
    """Pass on entries; a row that is no entry is damage."""
    try:
        yield from entries
    except _NO_ENTRY as error:
        raise damaged from error


def _checked(damaged: DamagedError, read: Callable[[], T]) -> T:
    try:
        return read()
    except _NO_ENTRY as error:
        raise damaged from error


def _root(db: Database, recorded: str) -> str:
    """Return the root of a version as a path: the record shows bytes that are not UTF-8 escaped."""
    raw = db.read(meta.read).root
    return os.fsdecode(raw) if raw is not None and display(raw) == recorded else recorded


def _missing(stream: Callable[[Consume], Any], unlisted: tuple[bytes, ...], problems: int) -> str:
    """Say what of a version was not known."""
    shown: list[str] = stream(lambda entries: first_unknown(unlisted, entries))
    rest = problems - len(shown)
    if not shown:
        return "a folder could not be listed"
    return ", ".join(shown) + (f", and {rest} more" if rest > 0 else "")


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
