"""A version as documents: the seed's ``data_manifest.json`` and the canonical ``SHA256SUMS``.

``document_chunks`` writes the seed's fields, names and nesting, entry by entry, so that a million files need no memory;
``document`` is the same as JSON values. Further keys are ours and documented in docs/manifest.md. Sizes are bytes,
times RFC 3339 UTC. Nothing here reads a file: entries come in, JSON and lines go out, in ASCII (a name may hold what a
terminal would act on).
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from reprod.core.digest import file_line
from reprod.core.entry import Entry, Kind, display, named
from reprod.core.spelling import Lookalikes, warning

MANIFEST_VERSION = "1.0"

#: Entries joined into one piece: some 64 KiB, so that writing it costs one call for many entries.
PIECE_ENTRIES = 128

#: A set that was unpacked with another normalisation has as many as it has files; these show what is wrong.
MAX_WARNINGS = 100

#: Parts of json's own writer joined into one piece, for the same reason.
PIECE_PARTS = 8192


@dataclass(frozen=True, slots=True)
class Header:
    """What a manifest says of the set as a whole. ``data_path`` is the root as registered.

    ``max_files`` is set only if the set was cut there. ``unlisted`` are directories that could not be listed (``b""``
    is the root). ``hashed_bytes`` and ``hashed_files`` are what was read in ``processing_seconds``, None where that
    says nothing of the speed. ``schema`` is the first key if set: what ``--json`` promises.
    """

    data_path: str
    generated_ns: int
    algorithms: tuple[str, ...]
    digest: str | None
    processing_seconds: float
    dataset: str | None = None
    version: int | None = None
    selection: dict[str, Any] | None = None
    max_files: int | None = None
    metadata: dict[str, Any] | None = None
    hashed_files: int | None = None
    hashed_bytes: int | None = None
    unlisted: tuple[bytes, ...] = ()
    schema: str | None = None

    @property
    def folder(self) -> str:
        """The directory that relative paths are relative to, ending in a slash, as it is shown."""
        single = self.selection is not None and "only" in self.selection
        path = os.path.dirname(self.data_path) if single else self.data_path
        return display(os.fsencode(path)).rstrip("/") + "/"


@dataclass(slots=True)
class _Totals:
    files: int = 0
    size: int = 0


def rfc3339(ns: int) -> str:
    """Return a time as RFC 3339 UTC with whole microseconds, later digits cut off."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(4096)  # files of one set often share their second, and making its text is half the cost of an entry
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def human_size(size: float) -> str:
    """Return a size as the seed writes it: ``1.50 MB``, in units of 1024."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024 or unit == "TB":
            return f"{size:.2f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def document(header: Header, entries: Iterable[Entry], *, list_files: bool = True) -> dict[str, Any]:
    """Return ``data_manifest.json``. With ``list_files=False`` only the header and the summary, and it says so."""
    found: dict[str, Any] = json.loads(b"".join(document_chunks(header, entries, list_files=list_files)))
    return found


def document_chunks(header: Header, entries: Iterable[Entry], *, list_files: bool = True) -> Iterator[bytes]:
    """Yield ``data_manifest.json`` in pieces: what ``json.dumps(document(...), indent=2)`` and a newline would give.

    ``entries`` are taken once, in their order. Files are never held; symlinks, special files and problems are, as text,
    until all files are written.
    """
    totals = _Totals()
    warnings: list[str] = []
    entries = looked_at(entries, warnings)
    lists: dict[str, list[str]] = {"symlinks": [], "special": [], "unreadable": [], "unstable": []}
    files = _files(header.folder, entries, totals, lists, list_files=list_files)
    yield _text(_head(header))[:-2].encode() + b",\n"  # without the closing brace
    yield from _list("files", files)
    yield b'  "files_omitted": %b,\n' % (b"false" if list_files else b"true")
    lists["unreadable"] += [_item({**named_item(path or b"."), "kind": "directory"}) for path in header.unlisted]
    for key, items in lists.items():
        yield from _list(key, items)
    if warnings:
        yield from _list("warnings", [f"    {quoted(text)}" for text in warnings])
    summary = {
        "total_files": totals.files,
        "total_size_bytes": totals.size,
        "total_size_human": human_size(totals.size),
        "processing_time_seconds": round(header.processing_seconds, 6),
    }
    yield _text({"summary": summary})[2:].encode() + b"\n"


def sums(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the lines of SHA256SUMS: regular files only, in the order of ``entries``, which must be path byte order."""
    for entry in entries:
        if entry.content.kind is Kind.FILE and entry.content.sha256 is not None:
            yield file_line(entry.content.sha256, entry.path)


def named_item(path: bytes) -> dict[str, str]:
    """Return a path under the seed's key; bytes that are not UTF-8 are also in ``path_b64``."""
    fields = named(path, "relative_path")
    return {{"relative_path_b64": "path_b64"}.get(key, key): value for key, value in fields.items()}


def _head(header: Header) -> dict[str, Any]:
    """Return the keys before ``files``; what is not known or does not apply is absent, but for digest and selection."""
    head: dict[str, Any] = {"schema": header.schema} if header.schema else {}
    head |= {
        "manifest_version": MANIFEST_VERSION,
        "generated_at": rfc3339(header.generated_ns),
        **named(os.fsencode(header.data_path), "data_path"),
        "hash_algorithms": list(header.algorithms),
    }
    if header.dataset:
        head |= {"dataset": header.dataset, "version": header.version}
    head |= {"digest": header.digest, "complete": header.digest is not None}
    if header.max_files is not None:
        # How many files there are beyond the cut nobody counted: the walk ended there.
        head["cut"] = {"max_files": header.max_files, "total_files": None}
    head["selection"] = header.selection
    if header.metadata is not None:
        head["metadata"] = header.metadata
    seconds = header.processing_seconds
    if header.hashed_bytes is not None and header.hashed_files is not None and seconds > 0:
        head["throughput_bytes_per_second"] = round(header.hashed_bytes / seconds, 1)
        head["throughput_files_per_second"] = round(header.hashed_files / seconds, 1)
    return head


def _files(
    folder: str, entries: Iterable[Entry], totals: _Totals, lists: dict[str, list[str]], *, list_files: bool
) -> Iterator[str]:
    """Yield the text of each regular file that was read; count it, and put everything else into its list."""
    start = quoted(folder)[:-1]
    for entry in entries:
        content = entry.content
        if content.problem is not None:
            lists[content.problem.word].append(_item(named_item(entry.path)))
        elif content.kind is Kind.FILE:
            totals.files += 1
            totals.size += content.size
            if list_files:
                yield _file(start, entry)
        elif content.kind is Kind.LINK:
            target = (content.sha256 or b"").hex()
            lists["symlinks"].append(_item({**named_item(entry.path), "target_sha256": target}))
        else:
            lists["special"].append(_item(named_item(entry.path)))


def looked_at(entries: Iterable[Entry], warnings: list[str]) -> Iterator[Entry]:
    """Pass entries on and write down which names some systems take for one."""
    lookalikes = Lookalikes()
    for entry in entries:
        found = lookalikes.check(entry.path)
        if found is not None and len(warnings) < MAX_WARNINGS:
            warnings.append(warning(*found))
        yield entry


def _file(start: str, entry: Entry) -> str:
    """Return one object of ``files``, written out: json's own indentation costs eight times as much."""
    content, path = entry.content, entry.path
    fields = named(path)
    shown = quoted(fields["path"])
    encoded = f',\n      "path_b64": "{fields["path_b64"]}"' if len(fields) > 1 else ""
    more = "".join(f',\n        "{name}": "{value.hex()}"' for name, value in content.more.items())
    return (
        f'    {{\n      "path": {start}{shown[1:]},\n      "relative_path": {shown}{encoded},\n'
        f'      "size_bytes": {content.size},\n      "size_human": "{human_size(content.size)}",\n'
        f'      "modified_time": "{rfc3339(entry.mtime_ns)}",\n      "permissions": "{entry.mode & 0o7777:04o}",\n'
        f'      "hashes": {{\n        "sha256": "{(content.sha256 or b"").hex()}"{more}\n      }}\n    }}'
    )


def _item(fields: dict[str, str]) -> str:
    inner = ",\n".join(f'      "{key}": {quoted(value)}' for key, value in fields.items())
    return f"    {{\n{inner}\n    }}"


def _list(key: str, items: Iterable[str]) -> Iterator[bytes]:
    """Yield one list of the document with its key and a comma."""
    piece: list[str] = []
    before = f'  "{key}": [\n'
    for item in items:
        piece.append(item)
        if len(piece) == PIECE_ENTRIES:
            yield (before + ",\n".join(piece)).encode()
            before, piece = ",\n", []
    if piece:
        yield (before + ",\n".join(piece)).encode()
        before = ",\n"
    yield b"\n  ],\n" if before == ",\n" else f'  "{key}": [],\n'.encode()


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2)


def text_pieces(manifest: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield a document in memory as ``document_chunks`` would have written it. Raises TypeError, ValueError."""
    encoder = json.JSONEncoder(indent=2, allow_nan=False)
    piece: list[str] = []
    for part in encoder.iterencode(manifest):
        piece.append(part)
        if len(piece) == PIECE_PARTS:
            yield "".join(piece).encode()
            piece.clear()
    yield "".join(piece).encode() + b"\n"


def logged_params(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the params that a run gets of a manifest; what it does not say is absent."""
    params = {key: manifest[key] for key in ("data_path", "manifest_version") if isinstance(manifest.get(key), str)}
    algorithms = manifest.get("hash_algorithms")
    if isinstance(algorithms, (list, tuple)) and algorithms:
        params["hash_algorithms"] = ",".join(map(str, algorithms))
    return params


def logged_metrics(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that a run gets of a manifest; what it does not say is absent."""
    summary = manifest.get("summary")
    if not isinstance(summary, Mapping):
        return {}
    return {
        metric: float(summary[key])
        for metric, key in (
            ("data_files_count", "total_files"),
            ("data_size_bytes", "total_size_bytes"),
            ("data_processing_time", "processing_time_seconds"),
        )
        if isinstance(summary.get(key), (int, float))
    }
