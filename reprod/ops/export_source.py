"""Which set a reference means: a sealed version of this host, or one that somebody else recorded."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reprod.config import Config
from reprod.core import digest
from reprod.core.entry import Entry, display
from reprod.errors import DamagedError, NotFoundError, UsageError
from reprod.ops import export_foreign
from reprod.ops.export_set import Consume, Source, altered_hint, common_algorithms, first_unknown
from reprod.ops.reference import Reference, open_version, resolve
from reprod.ops.version_claims import folder
from reprod.store import listing, meta, subtree, versions
from reprod.store.connection import Database
from reprod.store.files import Connection

T = TypeVar("T")

#: What a row raises whose columns hold what reprod never wrote.
_NO_ENTRY = (LookupError, TypeError, ValueError, msgspec.MsgspecError)


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
