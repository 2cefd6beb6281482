"""The verb behind the seed's generator: a manifest of any folder or file, with no dataset, no daemon and no state.

It runs the product's own refresh on a database in a private temporary folder, which is removed whatever happens: one
implementation of walking, fingerprints, racy files and the digest. Memory stays flat, nothing else is written.
``max_files`` keeps the first N regular files in the order of the paths' bytes, and what lies before the last of them;
nothing after it is read. Times are Unix nanoseconds.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from reprod.config import DatasetConfig, checks
from reprod.config.places import known_state_dir
from reprod.core import digest
from reprod.core.entry import Entry, Kind, Problem
from reprod.core.manifest import Header
from reprod.core.pattern import Selection
from reprod.core.redact import Redactor
from reprod.core.redact_known import secrets_of_variables
from reprod.errors import DatasetUnavailableError, StateError, UsageError
from reprod.fs.atomic import write_output
from reprod.fs.root import Root, open_root
from reprod.ops.cut import last_path
from reprod.ops.findings import Counts
from reprod.ops.plan import Order, select
from reprod.ops.refresh import Report, Settings, refresh, state_inodes
from reprod.store import index, listing
from reprod.store.connection import Database, open_database

T = TypeVar("T")

#: Of the temporary folder; with what tempfile adds it is unlike any name that a data set holds.
_FOLDER_PREFIX = "reprod-generate-"


@dataclass(frozen=True, slots=True)
class Generated:
    """A set that was read, valid until its ``with`` block ends.

    ``problems`` are the paths that have no digest; ``files`` and ``size`` (bytes) count them too.
    """

    header: Header
    files: int
    size: int
    problems: tuple[tuple[bytes, Problem], ...]
    seconds: float
    _db: Database
    _seq: int

    def read(self, take: Callable[[Iterator[Entry]], T]) -> T:
        """Return what ``take`` makes of the entries, which come in path byte order, each as it is needed."""
        return self._db.read(lambda c: take(_until_cut(listing.entries(c, self._seq), self.header.max_files)))


@contextmanager
def generate(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    algorithms: Sequence[str] = ("sha256",),
    max_files: int | None = None,
    metadata: dict[str, Any] | None = None,
    checkpoint: Callable[[], None] = lambda: None,
    progress: Callable[[Counts], None] = lambda _: None,
) -> Iterator[Generated]:
    """Read a folder or a file and yield what it holds.

    :param checkpoint: called often; raises to stop.
    :raises UsageError: a pattern, an algorithm or ``max_files`` is none.
    :raises DatasetUnavailableError: ``path`` is not there, may not be listed, or was replaced meanwhile.
    :raises StateError: there is no place for the temporary folder.
    """
    dataset = DatasetConfig(
        "manifest",
        _absolute(path),
        include=check_patterns(include, "include"),
        exclude=check_patterns(exclude, "exclude"),
        algorithms=check_algorithms(algorithms),
    )
    _check_max_files(max_files)
    began = time.monotonic()
    state = _state_for(dataset.path)
    with _folder() as folder:
        db = open_database(folder / "manifest.sqlite", "dataset")
        try:
            with _own_hints():
                reading, selection, cut = _plan(dataset, state, folder, max_files, checkpoint)
                report = refresh(db, reading, Order(), Settings(state), checkpoint=checkpoint, progress=progress)
            yield _generated(db, report, dataset, selection, metadata, max_files if cut else None, began)
        finally:
            db.close()


def check_algorithms(names: Sequence[str]) -> tuple[str, ...]:
    """Return hash algorithms without repeats, sha256 among them. Raises UsageError for one that is not known here."""
    known = [*checks.ALGORITHMS, "blake3"]
    names = [names] if isinstance(names, str) else list(names)
    try:
        return checks.algorithms(names)
    except checks.UnfitError as error:
        if "blake3" in names and all(name in known for name in names):
            raise UsageError("blake3 is not installed here", hint="pip install blake3") from error
        bad = next((name for name in names if name not in known), names)
        raise UsageError(
            f"{bad!r} is no hash algorithm", hint=" ".join(filter(None, [error.hint, f"known: {', '.join(known)}"]))
        ) from error


def check_patterns(patterns: Sequence[str], which: str) -> tuple[str, ...]:
    """Return patterns in gitignore syntax, a single one also if it is not in a list. Raises UsageError."""
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    try:
        return checks.patterns(listed)
    except checks.UnfitError as error:
        raise UsageError(f"{which}: expected {error.expected}, got {listed!r}", hint=error.hint) from error


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return metadata as JSON gives it back, secrets masked (law 10). Raises UsageError for what JSON does not hold."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise UsageError(f"metadata is a {type(metadata).__name__}", hint="pass a dictionary")
    try:
        text = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"metadata cannot be written as JSON: {error}", hint="keep to plain values") from error
    kept: dict[str, Any] = Redactor(tuple(secrets_of_variables(os.environ))).value(json.loads(text))
    return kept


def save(pieces: Iterable[bytes], path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Path:
    """Write a document to the file that a user named, and return its path.

    :raises UsageError: it is a folder, or in none. :raises StateError: it may not be written, or there is no space.
    """
    target = Path(os.fsdecode(path))
    try:
        write_output(target, pieces)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        what = "is a folder" if isinstance(error, IsADirectoryError) else "lies in no folder"
        raise UsageError(f"{target} {what}", hint="name a file in a folder that exists") from error
    except OSError as error:
        raise StateError(
            f"{target} cannot be written: {error.strerror}", hint="name another file, or free some space"
        ) from error
    return target


def _check_max_files(max_files: object) -> None:
    if max_files is not None and (not isinstance(max_files, int) or isinstance(max_files, bool) or max_files < 1):
        raise UsageError(f"max_files is {max_files!r}", hint="a whole number from 1, or nothing for all files")


def _absolute(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is no path", hint="the folder or file to describe")
    return os.path.abspath(text)


def _state_for(root: str) -> str:
    """Return reprod's own state, which is no part of any set; it cannot be the set itself either."""
    state = str(known_state_dir())
    if os.path.realpath(state) == os.path.realpath(root):
        raise UsageError(f"{root} is reprod's own state, which is part of no set", hint="name another folder")
    return state


@contextmanager
def _folder() -> Iterator[Path]:
    """Yield a temporary folder that only this user can enter."""
    try:
        folder = TemporaryDirectory(prefix=_FOLDER_PREFIX, ignore_cleanup_errors=True)
    except OSError as error:
        raise StateError(
            f"no temporary folder can be made: {error.strerror}", hint="point TMPDIR at a folder with free space"
        ) from error
    with folder as name:
        yield Path(name)


@contextmanager
def _own_hints() -> Iterator[None]:
    """Replace hints that speak of registered datasets."""
    try:
        yield
    except DatasetUnavailableError as error:
        raise DatasetUnavailableError(error.message, hint="check the path, and generate again") from error


def _plan(
    dataset: DatasetConfig, state: str, folder: Path, max_files: int | None, checkpoint: Callable[[], None]
) -> tuple[DatasetConfig, Selection, bool]:
    """Return what to read, the selection as a manifest says it, and whether ``max_files`` cuts it."""
    with open_root(dataset.path) as root:
        selection = select(dataset, root)
        reading = dataset
        if _lies_in(folder, root):
            reading = replace(dataset, exclude=(*dataset.exclude, f"{folder.name}/"))
        if max_files is None or root.only is not None:
            return reading, selection, False
        skip = state_inodes(state)
        last = last_path(root.fd, select(reading, root), max_files, skip=skip, checkpoint=checkpoint)
        return replace(reading, until=last), selection, last is not None


def _lies_in(folder: Path, root: Root) -> bool:
    """Whether a walk of the root would come by the folder: then it must not read its own database."""
    top = os.fstat(root.fd)
    return any(os.path.samestat(top, above.stat()) for above in folder.resolve().parents)


def _until_cut(entries: Iterator[Entry], max_files: int | None) -> Iterator[Entry]:
    """Yield entries up to the last file of a cut set: files may have come since the cut was looked for."""
    count = 0
    for entry in entries:
        yield entry
        count += entry.content.kind is Kind.FILE
        if max_files is not None and count == max_files:
            return


def _generated(
    db: Database,
    report: Report,
    dataset: DatasetConfig,
    selection: Selection,
    metadata: dict[str, Any] | None,
    max_files: int | None,
    began: float,
) -> Generated:
    version, counts, seconds = report.version, report.counts, time.monotonic() - began
    unlisted = tuple(path for path, _ in report.problems if _is_directory(db, path))
    whole = version.digest is not None and max_files is None
    header = Header(
        data_path=dataset.path,
        generated_ns=version.sealed_ns,
        algorithms=dataset.algorithms,
        digest=digest.text(version.digest) if whole and version.digest else None,
        processing_seconds=seconds,
        selection=selection.record(),
        max_files=max_files,
        metadata=metadata,
        hashed_files=counts.hashed_files,
        hashed_bytes=counts.hashed_bytes,
        unlisted=unlisted,
    )
    files = version.files if max_files is None else min(version.files, max_files)
    return Generated(header, files, version.size, report.problems, seconds, db, version.seq)


def _is_directory(db: Database, path: bytes) -> bool:
    known = db.read(lambda c: index.directory(c, path))
    return known is not None and known.present and known.problem is not None
