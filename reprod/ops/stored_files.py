"""The files of a store run in a folder: written from a version's rows, read back as if anybody had written them.

Formats are those of ``reprod.core.stored``; ``*.gz`` files have no name and no time in them, so equal rows give equal
bytes. Rule: reading is bounded by what the packed file may honestly unpack to, and never holds more than a line and the
changes of a delta. Whatever is not as it was written is DamagedError.
"""

import heapq
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from reprod.core import manifest, stored
from reprod.core.entry import Entry
from reprod.errors import DamagedError

#: A checkpoint has the first two, and ``links.jsonl`` if there are links; a delta has the last alone.
SUMS, SIZES, LINKS, DELTA = "SHA256SUMS.gz", "sizes.gz", "links.jsonl", "delta.jsonl.gz"

#: What gzip may make of one byte: paths in order that share long beginnings come to some 100, zeros to 1000.
LARGEST_RATIO = 200
ALWAYS_UNPACKED = 64 << 20

#: A path has at most 4096 bytes, six characters each where JSON escapes it.
LONGEST_LINE = 1 << 16

CHUNK = 1 << 18

BATCH = 4096


def write_checkpoint(folder: Path, entries: Iterable[Entry]) -> None:
    """Write all rows of a version of any size, in one pass; ``entries`` are in path order."""
    links = 0
    with _packed(folder / SUMS) as sums, _packed(folder / SIZES) as sizes, open(folder / LINKS, "wb") as file:
        for some in _batched(entries):
            sums(b"".join(manifest.sums(some)))
            sizes(b"".join(stored.size_lines(some)))
            links += file.write(b"".join(stored.link_lines(some)))
    if not links:
        (folder / LINKS).unlink()


def write_delta(folder: Path, delta: stored.Delta) -> int:
    """Write a delta; return its size in bytes."""
    path = folder / DELTA
    with _packed(path) as write:
        for line in stored.delta_lines(delta):
            write(line)
    return path.stat().st_size


@contextmanager
def _packed(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield what writes to a gzip file; the filtered strategy makes hex digests 12 % smaller (measured)."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31, zlib.DEF_MEM_LEVEL, zlib.Z_FILTERED)
    file: BinaryIO
    with open(path, "wb") as file:
        yield lambda data: file.write(packer.compress(data))
        file.write(packer.flush())


def _batched(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while some := list(islice(rest, BATCH)):
        yield some


def read_delta(path: Path) -> stored.Delta:
    """Return the delta in a file."""
    return stored.read_delta(_lines(path))


def read(folder: Path, changes: stored.Changes) -> Iterator[Entry]:
    """Yield a checkpoint's rows with the changes applied, in path order."""
    files = stored.read_files(_lines(folder / SUMS), _lines(folder / SIZES, ratio=None))
    links = stored.read_links(_split(_chunks(folder / LINKS)))
    return stored.overlay(heapq.merge(files, links, key=lambda entry: entry.path), changes)


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield the pieces of a file; nothing if there is none."""
    if path.exists():
        with open(path, "rb") as file:
            while piece := file.read(CHUNK):
                yield piece


def _lines(path: Path, ratio: int | None = LARGEST_RATIO) -> Iterator[bytes]:
    """Yield the lines of a gzip file, with LF; raises DamagedError for another file, a cut one, or a bomb.

    ``ratio`` None: the reader takes a bounded number of lines, so a file may be as even as it likes.
    """
    limit = max(ALWAYS_UNPACKED, path.stat().st_size * ratio) if ratio is not None else None
    yield from _split(_unpack(path, limit))


def _unpack(path: Path, limit: int | None) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(31)
    unpacked = 0
    with open(path, "rb") as file:
        data = file.read(CHUNK)
        while data and not unpacker.eof:
            try:
                piece = unpacker.decompress(data, CHUNK)
            except zlib.error as error:
                raise DamagedError(f"{path.name} of a store run cannot be unpacked", hint=stored.HINT) from error
            unpacked += len(piece)
            if limit is not None and unpacked > limit:
                raise DamagedError(f"{path.name} of a store run unpacks to too much", hint=stored.HINT)
            yield piece
            data = unpacker.unconsumed_tail or file.read(CHUNK)
    if not unpacker.eof or unpacker.unused_data or data:
        raise DamagedError(f"{path.name} of a store run is cut off, or goes on after its end", hint=stored.HINT)


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LONGEST_LINE or any(len(line) > LONGEST_LINE for line in lines):
            raise DamagedError("a line of a store run is too long", hint=stored.HINT)
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest
