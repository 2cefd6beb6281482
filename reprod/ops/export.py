"""The verb that writes a version for other tools: ``sha256sums``, ``json``, ``bagit``, ``croissant`` or ``parquet``.

Rule: what is exported twice is equal byte for byte, so nothing in an export tells when it was made; times are those of
the version. A file appears only when it is whole. A set that is not complete has no export but ``json``, which can say
what is missing. No daemon is needed, and nothing but ``bagit`` reads the data. docs/exports.md describes each format.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from reprod.config import Config
from reprod.core import croissant, manifest
from reprod.core.entry import Entry, Kind
from reprod.core.manifest import rfc3339
from reprod.errors import IncompleteError, StateError, UsageError
from reprod.fs.atomic import write_output
from reprod.ops.export_set import Progress, Source, Tally
from reprod.ops.export_source import open_source

Format = Literal["sha256sums", "json", "bagit", "croissant", "parquet"]

FORMATS: tuple[str, ...] = get_args(Format)

#: Lines joined before they are written: some 128 KiB.
PIECE_LINES = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. ``dataset`` picks one of a run's; ``data`` is where the files are, if not at the root.

    ``link``: the payload of a bag is hard-linked where possible, else copied.
    """

    ref: str
    format: Format
    dataset: str | None = None
    data: str | None = None
    link: bool = False


def export(
    state: Path,
    request: Request,
    output: Path | BinaryIO,
    *,
    config: Callable[[], Config] | None = None,
    progress: Progress = lambda _: None,
    begin: Callable[[Source], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a version in a format; return the report that docs/exports.md describes.

    :param output: a path, or a binary stream that stays open. A bag needs the path of a new or empty folder.
    :param config: says where the tracking server is; asked only for a run that this host does not know.
    :param begin: told what is exported before the first byte is written.
    :raises UsageError: the format cannot hold this set, or ``output`` cannot be this. :raises NotFoundError: no such
        version. :raises IncompleteError: the version was pruned or is incomplete, or its files are not what it says.
    :raises DamagedError: a damaged or hostile manifest. :raises StateError: the output cannot be written.
    """
    if request.format not in FORMATS:
        raise UsageError(f"there is no format {request.format!r}", hint=f"one of {', '.join(FORMATS)}")
    _require_sense(request)
    if request.format == "parquet":
        from reprod.ops.export_parquet import require_pyarrow

        require_pyarrow()
    with open_source(state, request.ref, request.dataset, config) as found:
        source = found if request.data is None else replace(found, root=os.path.abspath(request.data))
        if request.format != "json":
            source.require_whole()
        elif not source.stated:
            raise IncompleteError(
                f"{source.title} does not state the sizes and times that json holds",
                hint="export sha256sums instead, or make a new manifest of the files: reprod manifest PATH",
            )
        if isinstance(output, Path) and request.format != "bagit":
            _require_place(output)
        begin(source)
        if request.format == "bagit":
            return _export_bag(source, request, output, progress)
        tally, make = Tally(), _PIECES[request.format]
        written = source.each(
            lambda entries: _write(output, make(source, tally.watch(entries, source.files, progress), tally))
        )
        return _report(source, request, output, files=tally.files, size=None if source.size is None else tally.size) | {
            "bytes_written": written,
            "sums_sha256": tally.sums_sha256() if source.whole else None,
            "symlinks": tally.links,
        }


def _require_sense(request: Request) -> None:
    """Raise UsageError for what only a bag can have: no other format reads the files."""
    if request.format != "bagit":
        for flag, asked in (("--link", request.link), ("--data", request.data is not None)):
            if asked:
                raise UsageError(
                    f"{flag} is for --format bagit: {request.format} does not hold the files", hint=f"leave {flag} out"
                )
    elif request.data is not None and (not request.data or "\0" in request.data):
        raise UsageError(f"--data {request.data!r} is no path", hint="where the files of the bag are")


def _export_bag(source: Source, request: Request, output: Path | BinaryIO, progress: Progress) -> dict[str, Any]:
    from reprod.ops.export_bag import write_bag

    if not isinstance(output, Path):
        raise UsageError("a bag is a folder", hint="name a new one: --output DIR")
    if source.root is None:
        raise UsageError(f"nothing on this host says where the files of {source.title} are", hint="--data PATH says it")
    tally = Tally()
    bag = write_bag(source, output, source.root, tally, link=request.link, progress=progress)
    return _report(source, request, output, files=bag.files, size=bag.size) | {
        "sums_sha256": tally.sums_sha256(),
        "bagit_version": bag.version,
        "linked_files": bag.linked,
        "symlinks": tally.links,
    }


def _report(
    source: Source, request: Request, output: Path | BinaryIO, *, files: int, size: int | None
) -> dict[str, Any]:
    return {
        "ref": request.ref,
        "name": source.name,
        "version": source.seq,
        "run_id": source.run_id,
        "format": request.format,
        "output": str(output) if isinstance(output, Path) else None,
        "files": files,
        "bytes": size,
        "digest": source.digest,
        "complete": source.whole,
        "missing": source.why_not or None,
    }


def _write(output: Path | BinaryIO, pieces: Iterable[bytes]) -> int:
    """Write to a file, which appears when it is whole, or to a stream; return how many bytes."""
    counted = _Counted(pieces)
    try:
        if not isinstance(output, Path):
            for piece in _one_late(counted):
                output.write(piece)
            output.flush()
        else:
            write_output(output, counted)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = output if isinstance(output, Path) else "standard output"
        raise StateError(
            f"cannot write {where}: {error.strerror}", hint="check its folder, its permissions and its space"
        ) from error
    return counted.size


def _one_late(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each piece when the next is there: the last one only if no damage was found at the end."""
    held = b""
    for piece in pieces:
        yield held
        held = piece
    yield held


class _Counted:
    """Passes pieces on and counts their bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.size += len(piece)
            yield piece


def _require_place(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="--output names the file to write")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hint="make it first, or choose another --output")


def _sums_pieces(_source: Source, entries: Iterator[Entry], _tally: Tally) -> Iterator[bytes]:
    lines = manifest.sums(entries)
    while piece := b"".join(islice(lines, PIECE_LINES)):
        yield piece


def _json_pieces(source: Source, entries: Iterator[Entry], _tally: Tally) -> Iterator[bytes]:
    header = manifest.Header(
        data_path=source.data_path,
        generated_ns=source.frozen_ns,
        algorithms=("sha256", *source.more),
        digest=source.digest,
        processing_seconds=0.0,  # nothing is read for it, and the same version makes the same bytes
        dataset=source.name if source.seq is not None else None,
        version=source.seq,
        selection=source.selection,
        max_files=source.max_files,
        metadata=source.metadata,
        unlisted=source.unlisted,
    )
    return manifest.document_chunks(header, entries)


def _croissant_pieces(source: Source, entries: Iterator[Entry], tally: Tally) -> Iterator[bytes]:
    files = (entry for entry in entries if entry.content.kind is Kind.FILE)
    listed: list[Entry] | None = list(islice(files, croissant.MAX_LISTED + 1))
    if listed is not None and len(listed) > croissant.MAX_LISTED:
        listed = None
        for _ in files:  # to the end, for the digest of the whole
            pass
    described = croissant.Described(
        source.name, source.seq, source.digest, rfc3339(source.frozen_ns), tally.files, source.size
    )
    sums = croissant.Sums(tally.sums_sha256(), tally.sums_size)
    # In ASCII: a name may hold what a terminal would act on.
    yield json.dumps(croissant.document(described, sums, listed), indent=2).encode() + b"\n"


def _parquet_pieces(source: Source, entries: Iterator[Entry], _tally: Tally) -> Iterator[bytes]:
    from reprod.ops.export_parquet import pieces

    return pieces(source, entries)


_PIECES: dict[str, Callable[[Source, Iterator[Entry], Tally], Iterator[bytes]]] = {
    "sha256sums": _sums_pieces,
    "json": _json_pieces,
    "croissant": _croissant_pieces,
    "parquet": _parquet_pieces,
}
