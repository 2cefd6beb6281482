"""Opens a manifest that anybody may have written, finds out its format, and returns what it claims.

Read are ``data_manifest.json`` (ours and the seed's), SHA256SUMS and its like, and both packed with gzip. What is read
is bounded before it is believed: the file's size, what it unpacks to, and how much smaller than that it is.
"""

import errno
import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import Any

from reprod.core.claims import Claims
from reprod.core.claims_document import HINT, DocumentReader
from reprod.core.claims_json import CHUNK, document_claims, read_document
from reprod.core.claims_sums import add_sums, check_sums, parse_sums
from reprod.errors import DamagedError, StateError, UsageError

#: Bytes of a document: ours takes 430 for a file, so this is as many files as claims.MAX_ENTRIES.
MAX_DOCUMENT = 4 << 30

#: Bytes of SHA256SUMS: as many files with names of 50 to 100 bytes.
MAX_SUMS = 2 << 30

#: How much smaller than its content a gzip may be. Digests do not compress: ours come to 4 (SHA256SUMS) and 10 (JSON).
MAX_RATIO = 50

#: Unpacked bytes from which the ratio counts; a small set of equal files packs better than any limit.
RATIO_COUNTS_FROM = 32 << 20


#: Called with ``(bytes read, bytes in all)``.
Progress = Callable[[int, int], None]

_GZIP = b"\x1f\x8b"

#: The one name that a head may refer to; it lies beside it. Any other is never opened.
SUMS_BESIDE = "SHA256SUMS.gz"


def read_claims(path: str | os.PathLike[str], progress: Progress = lambda _done, _size: None) -> Claims:
    """Return what the manifest at ``path`` claims.

    :param progress: called with the bytes that are read and the file's size.
    :raises DamagedError: it is damaged, hostile or of a newer format; the message says what and where.
    :raises UsageError: there is no such file, or it is no regular file. :raises StateError: it may not be read.
    """
    path = os.fspath(path)
    if not path:
        raise UsageError(
            "the path of the manifest is empty", hint="give the path of a data_manifest.json or SHA256SUMS"
        )
    name = os.path.basename(path)
    with closing(_chunks(path)) as chunks:
        first = next(chunks, b"")
    if not first:
        raise DamagedError(f"{name}: it is empty", hint="get a whole copy")
    chunks = _chunks(path, progress)
    if first[:3] == b"\xef\xbb\xbf" or first[:2] in {b"\xff\xfe", b"\xfe\xff"} or first.lstrip(b" \t\r\n")[:1] in b"{[":
        reader = read_document(_bounded(chunks, MAX_DOCUMENT, name), name)
        claims = _with_files_beside(reader, path) if reader.files_omitted else reader.finish()
    else:
        plain = name.removesuffix(".gz")
        check_sums(_bounded(_chunks(path), MAX_SUMS, name), plain)
        claims = parse_sums(_bounded(chunks, MAX_SUMS, name), plain)
    status = os.stat(path)
    return replace(claims, file=(status.st_dev, status.st_ino))


def claims_of(document: Mapping[str, Any]) -> Claims:
    """Return what a manifest in memory claims, checked as one from a file. :raises DamagedError: it cannot be taken."""
    return document_claims(document)


def is_manifest_file(ref: str) -> bool:
    """Whether a REF names a manifest file: it is a path, or the usual name of one that lies here."""
    if ref.startswith("run:"):
        return False
    usual = ref.endswith((".json", ".gz", ".txt")) or "SUMS" in ref.upper()
    return os.sep in ref or (usual and os.path.isfile(ref))


def _with_files_beside(reader: DocumentReader, path: str) -> Claims:
    """Add the files that are listed beside a head; its totals and its digest must be theirs."""
    beside = os.path.join(os.path.dirname(path), SUMS_BESIDE)
    if reader.files_in not in {None, SUMS_BESIDE} or not os.path.isfile(beside):
        raise DamagedError(
            f"{reader.name}: it lists no files; they are in {SUMS_BESIDE}, which is not beside it",
            hint=f"put {SUMS_BESIDE} of the same manifest into the same folder",
        )
    # With totals and a digest in the head, odd names are its own.
    check_sums(_bounded(_chunks(beside), MAX_SUMS, SUMS_BESIDE), SUMS_BESIDE, exact=True)
    add_sums(reader.builder, _bounded(_chunks(beside), MAX_SUMS, SUMS_BESIDE), SUMS_BESIDE, exact=True)
    return reader.finish()


def _chunks(path: str, progress: Progress = lambda _done, _size: None) -> Generator[bytes, None, None]:
    """Yield the content in pieces, unpacked if it is packed."""
    try:
        # A FIFO must not make us wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise StateError(f"{path} may not be read by this user", hint=f"let uid {os.geteuid()} read it") from error
    except OSError as error:
        missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
        raise UsageError(
            f"{path} does not exist" if missing else f"{path} cannot be opened: {error.strerror}",
            hint="give the path of a data_manifest.json or SHA256SUMS",
        ) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise UsageError(f"{path} is no regular file", hint="give the path of a data_manifest.json or SHA256SUMS")
    with open(fd, "rb", buffering=0) as file:
        name = os.path.basename(path)
        if status.st_size > MAX_DOCUMENT:
            raise _too_large(name, MAX_DOCUMENT)
        first = file.read(CHUNK)
        raw = _reported(chain([first], iter(lambda: file.read(CHUNK), b"")), status.st_size, progress)
        if first.startswith(_GZIP):
            yield from _unpacked(raw, name)
        else:
            if status.st_size > MAX_SUMS and first[:1] not in b" \t\r\n{":
                raise _too_large(name, MAX_SUMS)
            yield from raw


def _reported(chunks: Iterator[bytes], size: int, progress: Progress) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        done += len(chunk)
        progress(done, size)
        yield chunk


def _bounded(chunks: Iterator[bytes], limit: int, name: str) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise _too_large(name, limit)
        yield chunk


def _too_large(name: str, limit: int) -> DamagedError:
    return DamagedError(f"{name}: it has more than {limit:,} bytes", hint="split the set into several datasets")


def _unpacked(raw: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the content of all gzip members, each piece of at most CHUNK bytes."""
    packed = unpacked = 0
    member = zlib.decompressobj(wbits=31)  # 31: gzip with its checksum
    try:
        for data in raw:
            packed += len(data)
            left = data
            while left:
                if member.eof:
                    member = zlib.decompressobj(wbits=31)
                part = member.decompress(left, CHUNK)
                unpacked += len(part)
                if unpacked > RATIO_COUNTS_FROM and unpacked > MAX_RATIO * packed:
                    raise DamagedError(f"{name}: it unpacks to more than {MAX_RATIO} times its size", hint=HINT)
                if part:
                    yield part
                left = member.unused_data if member.eof else member.unconsumed_tail
    except zlib.error as error:
        raise DamagedError(f"{name}: damaged gzip: {error}", hint="get a whole copy") from error
    if not member.eof:
        raise DamagedError(f"{name}: the gzip ends in the middle", hint="get a whole copy; this one is truncated")
