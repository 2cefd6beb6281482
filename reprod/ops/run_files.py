"""The files that a delivery puts on a run: the environment's, and each dataset's manifest.

Made anew from the pinned version and the stored environment for each attempt: both never change, and the times in them
are frozen in the snapshot. What is large is stored once for all runs, and the run refers to it.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from reprod.capture.sections import Sections
from reprod.core import digest, manifest
from reprod.core.entry import Entry, Kind
from reprod.core.environment import PREFIX, Record, decode, trimmed
from reprod.core.environment_files import artifacts
from reprod.core.manifest import Header
from reprod.core.redact_paths import Curtain
from reprod.core.redact_record import hidden
from reprod.core.run import key_of
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import DamagedError
from reprod.ops import payload
from reprod.ops.handovers import last_word
from reprod.ops.upload import Server, Stored, ensure_stored
from reprod.ops.upload_environment import apart, ensure_environment_stored
from reprod.sinks.protocol import STORE_EXPERIMENT
from reprod.store import listing, outbox, snapshots, subtree, versions
from reprod.store.connection import Database

#: Opens the file that holds a version, for reading: ``(name, version, when the name was recorded)``, since names and
#: roots change. With a connection of its own: a large manifest must not hold up a seal.
OpenDataset = Callable[[str, int, int], Database]


def record_of(records: Database, delivery: outbox.Delivery, snapshot: Snapshot, git_diff: str) -> Record | None:
    """Return the environment of the snapshot, and of its process what is known by now, as a run is told it.

    That is without a path of a dataset whose names are not published: what is told of an environment comes from here.
    """
    key, execution = snapshot.environment, records.read(lambda c: last_word(c, delivery, snapshot))
    if key is None or execution is None:
        return None
    kept, files = records.read(lambda c: (snapshots.environment(c, key), snapshots.environment_files(c, key)))
    if kept is None:
        return None
    return trimmed(hidden(Record(execution, decode(kept), files), curtain_of(snapshot)), git_diff)


def curtain_of(snapshot: Snapshot) -> Curtain:
    """Return what hides the paths of those datasets of a run whose names, or even whose roots, stay here."""
    return Curtain([replace(each, roots=_with_resolved(each.roots)) for each in snapshot.reserved])


def _with_resolved(roots: tuple[str, ...]) -> tuple[str, ...]:
    """Return roots also as the kernel tells a directory, with links resolved; on a dead server that may never come."""
    found = (Sections().take(root, partial(os.path.realpath, root)) for root in roots)
    return tuple(dict.fromkeys([*roots, *(root for root in found if root is not None)]))


def write_files(
    folder: Path,
    snapshot: Snapshot,
    record: Record | None,
    server: Server,
    open_dataset: OpenDataset,
    max_inline_files: int,
) -> list[str]:
    """Write every artifact below ``folder``; return their paths on the run."""
    if record is not None:
        for name, content in environment_files(record, server).items():
            put(folder / "environment" / name, content)
    else:
        reason = {"environment": None, "reason": curtain_of(snapshot).text(snapshot.environment_unknown or "")}
        put(folder / "reprod" / "environment_unknown.json", json.dumps(reason, indent=2).encode())
    several = len(snapshot.datasets) > 1
    for dataset in snapshot.datasets:
        if dataset.digest is not None and dataset.seq is not None:
            target = folder / "data_manifest" / key_of(dataset.named) if several else folder / "data_manifest"
            target.mkdir(parents=True, exist_ok=True)
            with closing(open_dataset(dataset.name, dataset.seq, snapshot.created_ns)) as db:
                _require_same(db, dataset, dataset.seq)
                _write_manifest(target / "data_manifest.json", dataset, snapshot, db, server, max_inline_files)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def environment_files(record: Record, server: Server) -> dict[str, bytes]:
    """Return what of an environment is on the run itself; the rest is stored once, and referred to."""
    files = artifacts(record)
    large = apart(files)
    if not large:
        return files
    digest_hex = record.environment.digest()
    run_id = ensure_environment_stored(server, digest_hex, large)
    where = {"experiment": STORE_EXPERIMENT, "run_id": run_id, "files": sorted(large)}
    reference = {"digest": PREFIX + digest_hex, **where}
    kept = {name: content for name, content in artifacts(record, reference).items() if name not in large}
    if "packages.json" in large:  # as for a large manifest: a header that says where the list is
        whole = json.loads(files["packages.json"])
        header = {name: whole[name] for name in ("schema", "timestamp", "digest")}
        count = {"packages_count": len(whole["packages"])}
        kept["packages.json"] = json.dumps({**header, **count, "reference": reference}, indent=2).encode()
    return kept


def write_values(folder: Path, values: dict[str, dict[str, str]]) -> list[str]:
    """Write the values that are too long for tags and params; return the paths on the run."""
    if values:
        put(folder / payload.VALUES, json.dumps(values, indent=2).encode())
    return [payload.VALUES] if values else []


def _require_same(db: Database, dataset: BoundDataset, seq: int) -> None:
    """Raise DamagedError if the file has another content under this number: then the run is bound again."""
    if dataset.path is None:
        found = db.read(lambda c: versions.version(c, seq)).digest
    else:
        below = db.read(lambda c: subtree.subtree(c, seq, os.fsencode(dataset.path or "")))
        found = below.node if below is not None else None
    if found is None or digest.text(found) != dataset.digest:
        raise DamagedError(f"{dataset.named}@{seq} is not the version that was recorded", hint="it is bound again")


def _write_manifest(
    path: Path, dataset: BoundDataset, snapshot: Snapshot, db: Database, server: Server, max_inline_files: int
) -> None:
    """Write ``data_manifest.json``: all files up to the limit, above it a header that refers to a store run.

    Where a dataset's names are not published, there are totals alone, or nothing but the digest.
    """
    seq = dataset.seq or 0
    header = Header(
        data_path=dataset.data_path,
        generated_ns=snapshot.created_ns,
        algorithms=dataset.algorithms,
        digest=dataset.digest,
        processing_seconds=dataset.processing_seconds,
        dataset=dataset.named,
        version=seq,
        selection=db.read(lambda c: versions.record(c, seq))["selection"],
    )
    if dataset.publish != "full":
        path.write_bytes(json.dumps(_reserved(header, dataset), indent=2).encode())
        return
    entries = _few_entries(dataset, db, max_inline_files)
    if entries is not None:
        path.write_bytes(b"".join(manifest.document_chunks(header, entries)))
    else:
        document = _referring(header, dataset, server, db)
        path.write_bytes(json.dumps(document, indent=2).encode())


def _few_entries(dataset: BoundDataset, db: Database, limit: int) -> list[Entry] | None:
    """Return a version's entries if it has at most ``limit`` files, and as many of all else that would be listed."""
    if (dataset.files or 0) > limit:
        return None
    found = db.read(lambda c: list(islice(_entries(c, dataset), 2 * limit + 1)))
    others = sum(entry.content.kind is not Kind.FILE for entry in found)
    return found if len(found) <= 2 * limit and others <= limit else None


def _entries(c: snapshots.Connection, dataset: BoundDataset) -> Iterator[Entry]:
    if dataset.path is None:
        return listing.entries(c, dataset.seq or 0)
    return subtree.entries_below(c, dataset.seq or 0, os.fsencode(dataset.path))


#: What only a person who may read the data may know, where nothing but a digest is published.
_NOT_OF_A_DIGEST = ("data_path", "data_path_b64", "selection", "summary")


def _reserved(header: Header, dataset: BoundDataset) -> dict[str, Any]:
    """Return the manifest of a dataset whose names, or even whose totals, stay here."""
    document = _with_totals(manifest.document(header, (), list_files=False), dataset)
    document["published"] = dataset.publish
    if dataset.publish == "digest":
        document = {key: value for key, value in document.items() if key not in _NOT_OF_A_DIGEST}
    return document


def _with_totals(document: dict[str, Any], dataset: BoundDataset) -> dict[str, Any]:
    size = dataset.bytes or 0
    document["summary"] |= {
        "total_files": dataset.files,
        "total_size_bytes": size,
        "total_size_human": manifest.human_size(size),
    }
    return document


def _referring(header: Header, dataset: BoundDataset, server: Server, db: Database) -> dict[str, Any]:
    """Return the manifest of a large version: what is listed lies on a store run, which is found by the digest.

    Of a subdirectory it is the whole dataset's that is stored, unless that has no digest: then nothing is.
    """
    document = _with_totals(manifest.document(header, (), list_files=False), dataset)
    node = db.read(lambda c: versions.version(c, dataset.seq or 0)).digest
    if node is None:
        return document
    stored = ensure_stored(server, Stored(dataset.name, dataset.seq or 0, node, db))
    reference = {"digest": digest.text(node), "experiment": STORE_EXPERIMENT, "run_id": stored.run_id}
    document["reference"] = reference if dataset.path is None else {**reference, "path": dataset.path}
    return document


def put(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
