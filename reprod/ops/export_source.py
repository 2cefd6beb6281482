"""What is exported: a sealed version, or a set that somebody else recorded, as one frozen set in path order.

Rule: a set comes from the record, never from the files as they are now. What is asked twice is the same both times,
and a set that is not whole says so. Paths are raw bytes, sizes bytes (below 0: not known), times Unix nanoseconds.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from reprod.config import Config
from reprod.core import digest
from reprod.core.entry import Entry, Kind, display
from reprod.errors import IncompleteError, NotFoundError, UsageError
from reprod.ops.reference import Reference, open_version, resolve
from reprod.store import listing, meta, versions
from reprod.store.connection import Database

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

    @property
    def whole(self) -> bool:
        """Whether nothing of the set is missing."""
        return not self.why_not

    def each(self, consume: Callable[[Iterator[Entry]], T]) -> T:
        """Return what ``consume`` makes of the entries. Each keeps, of its further digests, those in ``more``."""
        result: T = self.stream(lambda entries: consume(_trimmed(entries, self.more)))
        return result

    def require_whole(self) -> None:
        """Raise IncompleteError for a set with something missing: a list that silently lacks files is a wrong one."""
        if not self.whole:
            raise IncompleteError(
                f"{self.title} is not complete: {self.why_not}",
                hint="--format json says what is known and what is not; or export an earlier version (reprod log)",
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
            elif content.kind is Kind.LINK:
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
        yield export_foreign.of_manifest(text)
        return
    try:
        reference = resolve(state, text, name=dataset)
        if dataset is not None and reference.run_id is None and reference.name != dataset:
            raise UsageError(
                f"{text} is no version of {dataset}", hint="--dataset picks one of the datasets of a run:ID"
            )
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

    def stream(consume: Consume) -> Any:
        return db.read(lambda c: consume(listing.entries(c, seq)))

    root = _root(db, str(record["root"]))
    return Source(
        title=f"{reference.name}@{seq}",
        name=reference.name,
        seq=seq,
        run_id=reference.run_id,
        data_path=root,
        root=root,
        digest=digest.text(version.digest) if version.digest else None,
        frozen_ns=version.sealed_ns,
        selection=record["selection"],
        files=version.files,
        size=version.size,
        why_not="" if version.digest else _missing(stream, version.problems),
        more=stream(common_algorithms),
        stated=True,
        stream=stream,
    )


def _root(db: Database, recorded: str) -> str:
    """Return the root of a version as a path: the record shows bytes that are not UTF-8 escaped."""
    raw = db.read(meta.read).root
    return os.fsdecode(raw) if raw is not None and display(raw) == recorded else recorded


def _missing(stream: Callable[[Consume], Any], problems: int) -> str:
    """Say what of a version was not known."""

    def first(entries: Iterator[Entry]) -> list[str]:
        found = []
        for entry in entries:
            if entry.content.problem is not None:
                found.append(f"'{display(entry.path)}' was {entry.content.problem.word}")
                if len(found) == MAX_SHOWN:
                    break
        return found

    shown: list[str] = stream(first)
    rest = problems - len(shown)
    if not shown:
        return "a folder could not be listed"
    return ", ".join(shown) + (f", and {rest} more" if rest > 0 else "")


def _trimmed(entries: Iterator[Entry], more: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the entries with no digests but sha256 and ``more``, in that order."""
    for entry in entries:
        content = entry.content
        if tuple(content.more) == more or content.kind is not Kind.FILE or content.problem is not None:
            yield entry
        else:
            yield replace(entry, content=replace(content, more={name: content.more[name] for name in more}))
