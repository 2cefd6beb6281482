"""A version as documents: the seed's ``data_manifest.json`` and the canonical ``SHA256SUMS``.

``document`` keeps the seed's fields, names and nesting; further keys are ours and documented in docs/manifest.md. Sizes
are bytes, times RFC 3339 UTC. Nothing here reads a file: entries come in, JSON values and lines go out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reprod.core.digest import file_line
from reprod.core.entry import Entry, Kind, display, named

MANIFEST_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Header:
    """What a manifest says of the set as a whole. ``data_path`` is the root as registered."""

    data_path: str
    generated_ns: int
    algorithms: tuple[str, ...]
    digest: str | None
    processing_seconds: float
    dataset: str | None = None
    version: int | None = None
    selection: dict[str, Any] | None = None


def rfc3339(ns: int) -> str:
    """Return a time as RFC 3339 UTC with microseconds."""
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def human_size(size: float) -> str:
    """Return a size as the seed writes it: ``1.50 MB``, in units of 1024."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024 or unit == "TB":
            return f"{size:.2f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def document(header: Header, entries: Iterable[Entry], *, list_files: bool = True) -> dict[str, Any]:
    """Return ``data_manifest.json``. With ``list_files=False`` only the header and the summary, and it says so."""
    files: list[dict[str, Any]] = []
    lists: dict[str, list[dict[str, Any]]] = {"symlinks": [], "special": [], "unreadable": [], "unstable": []}
    count = total = 0
    for entry in entries:
        if entry.content.problem is not None:
            lists[entry.content.problem.word].append(_named(entry.path))
        if entry.content.kind is Kind.FILE:
            count, total = count + 1, total + entry.content.size
            if list_files and entry.content.problem is None:
                files.append(_file(header.data_path, entry))
        elif entry.content.kind is Kind.LINK:
            lists["symlinks"].append({**_named(entry.path), "target_sha256": (entry.content.sha256 or b"").hex()})
        else:
            lists["special"].append(_named(entry.path))
    seconds = header.processing_seconds
    return {
        "manifest_version": MANIFEST_VERSION,
        "generated_at": rfc3339(header.generated_ns),
        "data_path": header.data_path,
        "hash_algorithms": list(header.algorithms),
        **({"dataset": header.dataset, "version": header.version} if header.dataset else {}),
        "digest": header.digest,
        "complete": header.digest is not None,
        "selection": header.selection,
        "files": files,
        "files_omitted": not list_files,
        **lists,
        "summary": {
            "total_files": count,
            "total_size_bytes": total,
            "total_size_human": human_size(total),
            "processing_time_seconds": round(seconds, 6),
        },
    }


def sums(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the lines of SHA256SUMS: regular files only, in the order of ``entries``, which must be path byte order."""
    for entry in entries:
        if entry.content.kind is Kind.FILE and entry.content.sha256 is not None:
            yield file_line(entry.content.sha256, entry.path)


def _named(path: bytes) -> dict[str, Any]:
    """Return a path under the seed's key; bytes that are not UTF-8 are also in ``path_b64``."""
    fields = named(path, "relative_path")
    return {{"relative_path_b64": "path_b64"}.get(key, key): value for key, value in fields.items()}


def _file(root: str, entry: Entry) -> dict[str, Any]:
    content = entry.content
    hashes = {"sha256": (content.sha256 or b"").hex(), **{name: value.hex() for name, value in content.more.items()}}
    return {
        "path": f"{root.rstrip('/')}/{display(entry.path)}",
        **_named(entry.path),
        "size_bytes": content.size,
        "size_human": human_size(content.size),
        "modified_time": rfc3339(entry.mtime_ns),
        "permissions": f"{entry.mode & 0o7777:04o}",
        "hashes": hashes,
    }
