"""What a ``data_manifest.json`` says of its set beside its files: root, cut, metadata, and all that is not in the set.

``read_claims`` judges a manifest and keeps what a verification needs; this reads the rest from the same file, which it
has accepted. Rule: what is copied here is told on, never believed: the root is never opened. Paths are raw bytes.
"""

import gzip
import os
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from reprod.core.claims import Claims, Refused, check_path
from reprod.core.claims_fields import parse_path
from reprod.core.claims_json import CHUNK, MAX_ELEMENT, MAX_MEMBER, _Window
from reprod.core.entry import Content, Entry, Kind, Problem, display
from reprod.errors import DamagedError, StateError
from reprod.ops.manifest_file import MAX_DOCUMENT

_GZIP = b"\x1f\x8b"

_PROBLEMS = {"unreadable": Problem.UNREADABLE, "unstable": Problem.UNSTABLE}

_LISTS = frozenset({"files", "symlinks", "special", *_PROBLEMS})


@dataclass(slots=True)
class Stated:
    """``others`` are special files and what could not be read, ``unlisted`` directories (``b""`` is the root).

    ``data_path`` is the root as it is claimed, ``complete`` what the manifest says of itself (None: nothing), ``cut``
    the limit at which it was cut: True where it does not say which.
    """

    data_path: str = "."
    complete: bool | None = None
    cut: int | bool = False
    metadata: dict[str, Any] | None = None
    others: dict[bytes, Entry] = field(default_factory=dict)
    unlisted: list[bytes] = field(default_factory=list)


def read_stated(path: str, claims: Claims) -> Stated:
    """Return what the manifest at ``path`` says, which ``claims`` are from; nothing for SHA256SUMS and its like.

    :raises DamagedError: it was altered since. :raises StateError: it was replaced, or cannot be read any more.
    """
    name, stated = os.path.basename(path), Stated()
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) != claims.file:
                raise StateError(f"{path} was replaced while it was read", hint="export it again")
            packed = file.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
            chunks = _chunks(gzip.GzipFile(fileobj=file) if packed else file, name)
            first = next(chunks, b"")
            if first.lstrip(b" \t\r\n")[:1] == b"{":
                _read(_Window(_joined(first, chunks), name), stated)
    except Refused as error:
        raise DamagedError(f"{name}: {error}", hint="it was altered while it was read; export it again") from None
    except (OSError, EOFError) as error:
        raise StateError(f"{path} cannot be read: {error}", hint="export it again") from error
    return stated


def _chunks(file: "BinaryIO | gzip.GzipFile", name: str) -> Iterator[bytes]:
    total = 0
    while chunk := file.read(CHUNK):
        total += len(chunk)
        if total > MAX_DOCUMENT:
            raise DamagedError(f"{name}: it has more than {MAX_DOCUMENT:,} bytes", hint="split the set")
        yield chunk


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _read(window: _Window, stated: Stated) -> None:
    """Take the members one by one; the files are passed over, they are in the claims."""
    members: dict[str, Any] = {}
    window.expect("{")
    while window.next() != "}":
        if window.next() == ",":
            window.expect(",")
        key = str(window.value(MAX_ELEMENT))
        window.expect(":")
        if key in _LISTS and window.next() == "[":
            _elements(window, key, stated)
        else:
            members[key] = window.value(MAX_MEMBER)
    stated.data_path = _data_path(members)
    stated.complete = members["complete"] if isinstance(members.get("complete"), bool) else None
    stated.cut = _cut(members.get("cut"))
    if isinstance(members.get("metadata"), dict):
        stated.metadata = members["metadata"]


def _elements(window: _Window, key: str, stated: Stated) -> None:
    window.expect("[")
    while window.next() != "]":
        if window.next() == ",":
            window.expect(",")
        element = window.value(MAX_ELEMENT)
        if key != "files" and isinstance(element, dict):
            _take(key, element, stated)
    window.expect("]")


def _take(key: str, element: dict[str, Any], stated: Stated) -> None:
    """Keep what is no member of the set: a special file, or what could not be read."""
    if key == "symlinks" and element.get("target_sha256") != "":
        return
    directory = key in _PROBLEMS and element.get("kind") == "directory"
    if directory and element.get("relative_path") == ".":
        stated.unlisted.append(b"")
        return
    path = check_path(parse_path(element), exact="path_b64" in element)
    if directory:
        stated.unlisted.append(path)
    elif key == "special":
        stated.others[path] = Entry(path, Content(Kind.SPECIAL, 0))
    else:
        kind = Kind.LINK if key == "symlinks" else Kind.FILE
        stated.others[path] = Entry(path, Content(kind, 0, None, _PROBLEMS.get(key, Problem.UNREADABLE)))


def _data_path(members: dict[str, Any]) -> str:
    """Return the root as it is claimed, ``.`` where that is no path."""
    shown, encoded = members.get("data_path"), members.get("data_path_b64")
    try:
        if isinstance(shown, str) and isinstance(encoded, str):
            raw = b64decode(encoded, validate=True)
            if display(raw) == shown and b"\0" not in raw:
                return os.fsdecode(raw)
        if isinstance(shown, str) and shown and "\0" not in shown and shown.encode():
            return shown
    except (Base64Error, ValueError):  # also half a character
        pass
    return "."


def _cut(value: object) -> int | bool:
    limit = value.get("max_files") if isinstance(value, dict) else None
    return limit if type(limit) is int and limit > 0 else bool(value)
