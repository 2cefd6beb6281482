"""A manifest as it lies on the tracking server: a checkpoint of all rows, or a delta on an earlier version.

    checkpoint   SHA256SUMS   regular files, the lines of GNU sha256sum, in path byte order
                 sizes        one decimal a line, in bytes, for the lines of SHA256SUMS in turn
                 links.jsonl  symlinks in path order: {"path", "sha256", "size"}
    delta        a header {"schema", "base", "digest", "changed", "removed"}, then in path order
                 {"path", "kind", "size", "sha256"}, where "sha256": null removes the path

A name that is not UTF-8 has ``path_b64`` beside its display form. Rule: what is read here was written by anybody. Lines
of another shape, paths that leave the root and rows out of order are DamagedError; that the rows are the right ones is
shown only by ``root``, their dt1. Nothing here does I/O: lines come in and go out as bytes, LF included.
"""

import stat
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from reprod.core import digest
from reprod.core.described import described
from reprod.core.entry import Content, Entry, Kind, named
from reprod.core.ordered import ordered_tree
from reprod.errors import DamagedError

DELTA_SCHEMA = "reprod.delta/1"

#: Changes of one delta, held in memory by its reader (about 300 B each). More than these go into a checkpoint.
MAX_CHANGES = 500_000

HINT = "what lies on the tracking server is not what was uploaded"

Changes = Mapping[bytes, Content | None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_WORDS: dict[Kind, Literal["file", "link"]] = {Kind.FILE: "file", Kind.LINK: "link"}
_KINDS = {word: kind for kind, word in _WORDS.items()}


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of links.jsonl or of a delta."""

    path: str
    sha256: str | None
    kind: Literal["file", "link"] = "link"
    size: int = 0
    path_b64: str | None = None


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of a delta."""

    schema: str
    base: str
    digest: str
    changed: int
    removed: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What leads from ``base`` to ``digest`` (both ``dt1:...``): new content by path, None for what was removed."""

    base: str
    digest: str
    changes: Changes


def size_lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the sizes of the regular files among ``entries``."""
    for entry in entries:
        if entry.content.kind is Kind.FILE and entry.content.sha256 is not None:
            yield b"%d\n" % entry.content.size


def link_lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the symlinks among ``entries``."""
    for entry in entries:
        content = entry.content
        if content.kind is Kind.LINK and content.sha256 is not None:
            yield _line({**named(entry.path), "sha256": content.sha256.hex(), "size": content.size})


def changes_between(before: Mapping[bytes, Content], after: Mapping[bytes, Content]) -> dict[bytes, Content | None]:
    """Return what differs for dt1, in path order: the two sides of ``versions.contents_between``."""
    changes: dict[bytes, Content | None] = {}
    for path in sorted(before.keys() | after.keys()):
        old, new = _member(before.get(path)), _member(after.get(path))
        if old != new:
            changes[path] = after[path] if new is not None else None
    return changes


def _member(content: Content | None) -> tuple[Kind, bytes | None] | None:
    return None if content is None or content.kind not in _WORDS else (content.kind, content.sha256)


def delta_lines(delta: Delta) -> Iterator[bytes]:
    """Yield a delta's header and rows."""
    removed = sum(content is None for content in delta.changes.values())
    head = {"schema": DELTA_SCHEMA, "base": delta.base, "digest": delta.digest}
    yield _line({**head, "changed": len(delta.changes) - removed, "removed": removed})
    for path, content in delta.changes.items():
        if content is None:
            yield _line({**named(path), "sha256": None})
        else:
            fields = {"kind": _WORDS[content.kind], "size": content.size, "sha256": (content.sha256 or b"").hex()}
            yield _line({**named(path), **fields})


def read_files(sums: Iterable[bytes], sizes: Iterable[bytes]) -> Iterator[Entry]:
    """Yield the regular files of a checkpoint; raises DamagedError."""
    rest = iter(sizes)
    for line in sums:
        size = next(rest, b"").removesuffix(b"\n")
        if not size.isdigit() or len(size) > 19:  # up to 2**63: what a file can have
            raise _damaged("a size is missing or is no number")
        yield Entry(*_file_row(line, int(size)))
    if next(rest, None) is not None:
        raise _damaged("there are more sizes than files")


def _file_row(line: bytes, size: int) -> tuple[bytes, Content]:
    escaped = line.startswith(b"\\")
    sha256, separator, name = line.removesuffix(b"\n").removeprefix(b"\\").partition(b"  ")
    if not separator or not line.endswith(b"\n"):
        raise _damaged("a line of SHA256SUMS has another form")
    return _safe(_unescape(name) if escaped else name), Content(Kind.FILE, size, _digest(sha256.decode("latin-1")))


def _unescape(name: bytes) -> bytes:
    parts = name.split(b"\\\\")
    plain = b"\\".join(part.replace(b"\\n", b"\n").replace(b"\\r", b"\r") for part in parts)
    if digest.escape(plain)[1] != name:
        raise _damaged("a name in SHA256SUMS is not escaped as sha256sum does")
    return plain


def read_links(lines: Iterable[bytes]) -> Iterator[Entry]:
    """Yield the symlinks of a checkpoint; raises DamagedError."""
    for line in lines:
        row = _row(line)
        if row.sha256 is None:
            raise _damaged("a link has no digest")
        yield Entry(_path(row), Content(Kind.LINK, row.size, _digest(row.sha256)))


def read_delta(lines: Iterable[bytes]) -> Delta:
    """Return a delta; raises DamagedError, also if its rows are not as many as it says."""
    rest = iter(lines)
    try:
        head = msgspec.json.decode(next(rest, b""), type=described(_Head))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(f"the delta's header cannot be read: {error}") from error
    if head.schema != DELTA_SCHEMA:
        raise _damaged(f"the delta is of schema {head.schema[:40]!r}, this reprod knows {DELTA_SCHEMA}")
    changes: dict[bytes, Content | None] = {}
    last = b""
    for line in rest:
        row = _row(line)
        path = _path(row)
        if path <= last or len(changes) == MAX_CHANGES:
            raise _damaged("the delta's paths are not in order, or too many")
        changes[path] = Content(_KINDS[row.kind], row.size, _digest(row.sha256)) if row.sha256 is not None else None
        last = path
    removed = sum(content is None for content in changes.values())
    if (len(changes) - removed, removed) != (head.changed, head.removed):
        raise _damaged("the delta is not whole")
    return Delta(head.base, head.digest, changes)


def overlay(entries: Iterable[Entry], changes: Changes) -> Iterator[Entry]:
    """Yield ``entries`` (in path order) with ``changes`` applied, in path order."""
    news = iter(sorted(changes.items()))
    new = next(news, None)
    for entry in entries:
        while new is not None and new[0] < entry.path:
            if new[1] is not None:
                yield Entry(new[0], new[1])
            new = next(news, None)
        if new is None or new[0] != entry.path:
            yield entry
    while new is not None:
        if new[1] is not None:
            yield Entry(new[0], new[1])
        new = next(news, None)


def root(entries: Iterable[Entry]) -> bytes:
    """Return the dt1 root node (32 bytes) of entries in strict path order; memory grows with the depth only.

    Raises DamagedError for entries out of order, special ones, and those without a digest.
    """
    try:
        return ordered_tree(_member_rows(entries))
    except ValueError as error:
        raise _damaged("paths are not in order, or one comes twice") from error


def _member_rows(entries: Iterable[Entry]) -> Iterator[tuple[bytes, bool, bytes]]:
    for entry in entries:
        content = entry.content
        if content.sha256 is None or content.kind not in _WORDS:
            raise _damaged("an entry has no digest")
        yield entry.path, content.kind is Kind.LINK, content.sha256


def read_document(document: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Return the files and symlinks listed in a ``data_manifest.json``, in path order; raises DamagedError.

    A link's size is not in it and is 0 here.
    """
    try:
        files = [_listed_file(item) for item in document["files"]]
        links = [_listed_link(item) for item in document["symlinks"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(f"data_manifest.json has another shape: {type(error).__name__} {error}"[:200]) from error
    return tuple(sorted(files + links, key=lambda entry: entry.path))


def _listed_file(item: Mapping[str, Any]) -> Entry:
    hashes = {str(name): bytes.fromhex(value) for name, value in item["hashes"].items()}
    size, mode = item["size_bytes"], int(item["permissions"], 8)
    if type(size) is not int or size < 0 or not 0 <= mode <= 0o7777:
        raise ValueError("a size or mode out of range")
    changed = datetime.fromisoformat(item["modified_time"]) - _EPOCH
    mtime_ns = ((changed.days * 86_400 + changed.seconds) * 1_000_000 + changed.microseconds) * 1000
    content = Content(Kind.FILE, size, _digest(item["hashes"]["sha256"]), more=hashes)
    del hashes["sha256"]
    return Entry(_listed_path(item), content, mtime_ns, stat.S_IFREG | mode)


def _listed_link(item: Mapping[str, Any]) -> Entry:
    return Entry(_listed_path(item), Content(Kind.LINK, 0, _digest(item["target_sha256"])))


def _listed_path(item: Mapping[str, Any]) -> bytes:
    return _path(_Row(item["relative_path"], None, path_b64=item.get("path_b64")))


def _row(line: bytes) -> _Row:
    try:
        row = msgspec.json.decode(line, type=described(_Row))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(f"a row cannot be read: {error}") from error
    if row.size < 0:
        raise _damaged("a size is negative")
    return row


def _path(row: _Row) -> bytes:
    if row.path_b64 is None:
        return _safe(row.path.encode())
    try:
        return _safe(b64decode(row.path_b64, validate=True))
    except (Base64Error, ValueError) as error:
        raise _damaged("a path cannot be decoded") from error


def _safe(path: bytes) -> bytes:
    """Return a path that stays below any root it is joined to."""
    parts = path.split(b"/")
    if b"\0" in path or b"" in parts or b"." in parts or b".." in parts:
        raise _damaged("a path leaves the dataset, or is none")
    return path


def _digest(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError as error:
        raise _damaged("a digest is not hexadecimal") from error
    if len(found) != 32 or len(text) != 64:  # fromhex skips white space
        raise _damaged("a digest has another length")
    return found


def _line(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode(fields) + b"\n"


def _damaged(what: str) -> DamagedError:
    return DamagedError(f"the manifest is damaged: {what}", hint=HINT)
