"""Owns which documents there are and what is in them. Rule: the manifest is made first, by the same code as every other
manifest of reprod, and only bytes with a digest that it names are taken: what is indexed is what the manifest says.

A folder stands for the text files in it that the patterns take; files are grouped by the folder they lie in. Paths are
raw bytes and absolute, sizes bytes.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiofiles

from reprod.core.entry import Entry, Kind, display
from reprod.core.manifest import document
from reprod.errors import DatasetUnavailableError, UsageError
from reprod.ops.generate import generate

AnyPath = str | os.PathLike[str]

#: What is taken from a folder: text that is written to be read. Other patterns can be given.
PATTERNS = ("*.md", "*.markdown", "*.rst", "*.txt", "*.adoc", "*.org")
#: The longest books are a third of this; what is larger is data, and would be chunked in memory.
MAX_BYTES = 16 << 20

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Document:
    """A file as the manifest has it: where it is, and the sha256 of its bytes."""

    path: bytes
    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document that is not searched, and why in a few words."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A folder to read and the gitignore patterns of what belongs to the corpus. ``name`` is unlike the others'.

    ``files`` are the names that were asked for, none where it was the folder.
    """

    root: str
    name: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """All documents at one moment. ``complete`` says that nothing was unreadable, so what is absent is gone."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]
    manifests: dict[str, dict[str, Any]]
    complete: bool


def find_sources(documents: AnyPath | Iterable[AnyPath], patterns: Sequence[str], keep_out: Path) -> list[Source]:
    """Return the folders to read for these files and folders; ``keep_out`` is never part of one (the index itself).

    :raises DatasetUnavailableError: one is not there. :raises UsageError: none is given, or a name is not UTF-8.
    """
    given = [documents] if isinstance(documents, (str, bytes, os.PathLike)) else list(documents)
    folders: set[str] = set()
    files: dict[str, set[str]] = {}
    for item in given:
        path = _absolute(item)
        if not os.path.lexists(path):
            raise DatasetUnavailableError(f"{path} is not there", hint="give files and folders that exist")
        if os.path.isdir(path):
            folders.add(path)
        else:
            folder, name = os.path.split(path)
            files.setdefault(folder, set()).add(name)
    if not given:
        raise UsageError("there are no documents to index", hint="give at least one file or folder")
    inner = {path for path in folders if any(path.startswith(other.rstrip("/") + "/") for other in folders)}
    found = [Source(path, "", tuple(patterns), _without(path, keep_out)) for path in folders - inner]
    for folder, names in files.items():
        # Nothing below the folder is listed: only the files themselves were asked for.
        asked = tuple(sorted(names))
        found.append(Source(folder, "", tuple("/" + _literal(name) for name in asked), ("/*/",), asked))
    return list(_named(sorted(found, key=lambda source: (source.root, source.include))))


def take_stock(sources: Sequence[Source], metadata: dict[str, Any], checkpoint: Callable[[], None]) -> Corpus:
    """Read every document once and return what there is. Raises what ``generate`` raises."""
    found: dict[bytes, Document] = {}
    skipped: dict[bytes, str] = {}
    manifests: dict[str, dict[str, Any]] = {}
    complete = True
    for source in sources:
        with generate(
            source.root, include=source.include, exclude=source.exclude, metadata=metadata, checkpoint=checkpoint
        ) as read:
            entries = read.read(list)
            manifests[source.name] = document(read.header, entries)
            complete = complete and not read.problems
            unlisted = read.header.unlisted
        for path in unlisted:
            skipped[_joined(source, path)] = "the folder cannot be listed"
        for name in {os.fsencode(file) for file in source.files} - {entry.path for entry in entries}:
            skipped[_joined(source, name)] = "gone, or left out by a .reprodignore"
        for entry in entries:
            path = _joined(source, entry.path)
            reason = _unfit(entry)
            if reason:
                skipped[path] = reason
            else:
                found[path] = Document(path, entry.content.sha256 or b"", entry.content.size)
    documents = tuple(found[path] for path in sorted(found))
    told = tuple(Skipped(display(path), reason) for path, reason in sorted(skipped.items()))
    return Corpus(documents, told, manifests, complete)


async def read_bytes(wanted: Document) -> bytes | None:
    """Return the document's bytes; None if they are not those of the manifest any more."""
    try:
        async with aiofiles.open(wanted.path, "rb", opener=lambda path, _: os.open(path, _FLAGS)) as file:
            data: bytes = await file.read(wanted.size + 1)
    except OSError:
        return None
    return data if len(data) == wanted.size else None


def decode(data: bytes, wanted: Document) -> str | None:
    """Return the text; None if the bytes are not those of the manifest. Raises ValueError for what is no text."""
    if hashlib.sha256(data).digest() != wanted.digest:
        return None
    if b"\0" in data:
        raise ValueError("not text: it holds a NUL")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None


def _unfit(entry: Entry) -> str:
    """Return why an entry cannot be indexed, nothing if it can."""
    content = entry.content
    if content.problem is not None:
        return content.problem.word
    if content.kind is not Kind.FILE:
        return "a symlink: give what it points to" if content.kind is Kind.LINK else "not a regular file"
    return f"larger than {MAX_BYTES >> 20} MiB" if content.size > MAX_BYTES else ""


def _absolute(item: AnyPath) -> str:
    path = os.fspath(item) if isinstance(item, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise UsageError(f"{item!r} is no path", hint="give files and folders, as text or Path")
    return os.path.abspath(path)


def _literal(name: str) -> str:
    """Return the gitignore pattern that matches this name alone."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the name {display(os.fsencode(name))!r} is not UTF-8", hint="give its folder") from error
    return "".join("\\" + character if character in "\\*?[]! #" else character for character in name)


def _without(root: str, keep_out: Path) -> tuple[str, ...]:
    """Return the pattern that keeps a folder out of a root, if it lies in it."""
    inside = os.path.relpath(os.path.realpath(keep_out), os.path.realpath(root))
    if inside == ".." or inside.startswith("../"):
        return ()
    if inside == ".":
        raise UsageError(f"{root} is the folder of the index itself", hint="give index_dir another folder")
    return ("/" + "/".join(_literal(part) for part in inside.split("/")) + "/",)


def _named(sources: Iterable[Source]) -> Iterator[Source]:
    """Give each source a name for its manifest: the folder's, with a number where two are called alike."""
    taken: set[str] = set()
    for source in sources:
        plain = display(os.path.basename(source.root).encode("utf-8", "surrogateescape")) or "root"
        name, number = plain, 1
        while name in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name)
        yield replace(source, name=name)


def _joined(source: Source, path: bytes) -> bytes:
    return os.path.join(os.fsencode(source.root), path)
