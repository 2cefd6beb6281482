"""The verb that writes a snapshot to its run, through the MLflow child. Idempotent: every attempt writes the same.

Files are made anew from the pinned version and the stored environment for each attempt, in a folder of STATE that is
removed afterwards: both never change, and the times in them are frozen in the snapshot. A large manifest is stored
first, once for all runs (``reprod.ops.upload``), and the run refers to it.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from reprod.core import digest, manifest
from reprod.core.entry import Entry, Kind
from reprod.core.environment import PREFIX, Record, decode, trimmed
from reprod.core.environment_files import artifacts
from reprod.core.manifest import Header
from reprod.core.run import ENDED, Payload, PendingRun
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import DamagedError
from reprod.ops import payload
from reprod.ops.handovers import last_word
from reprod.ops.upload import CHECK_AGAIN_S, Server, Stored, ensure_stored
from reprod.ops.upload_environment import apart, ensure_environment_stored
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import STORE_EXPERIMENT, SinkError, Taken
from reprod.store import listing, outbox, snapshots, versions
from reprod.store.connection import Database

#: Opens the file that holds a version, for reading: ``(name, version, when the name was recorded)``, since names and
#: roots change. With a connection of its own: a large manifest must not hold up a seal.
OpenDataset = Callable[[str, int, int], Database]

#: The files that say what a process did, beside what it ran in.
_OF_THE_END = ("system_info.json", "environment.json")


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was written: the run's state, whether the params are on it too, and params whose name the user had."""

    state: str
    ended: bool
    renamed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    """The names that were looked up on a run before we wrote to it, and which of them it had by then."""

    artifacts: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    taken: Taken = field(default_factory=Taken)


def deliver(
    records: Database,
    delivery: outbox.Delivery,
    child: MlflowChild,
    open_dataset: OpenDataset,
    scratch: Path,
    *,
    max_inline_files: int,
    git_diff: str = "patch",
    check_again_s: float = CHECK_AGAIN_S,
) -> Delivered:
    """Write the frozen snapshot of ``delivery`` to its run: artifacts, input, metrics, tags, params if ended, state.

    ``git_diff`` says how much of uncommitted code goes up. Manifests that were uploaded before are looked for again
    after ``check_again_s`` seconds.

    :raises SinkError: the tracking server is unreachable, refuses, or the run is gone; ``kind`` says which.
    """
    snapshot = msgspec.json.decode(delivery.snapshot or b"", type=Snapshot)
    record = _record(records, delivery, snapshot, git_diff)
    run = _current(child, delivery)
    ended = run.status in ENDED
    server = Server(records, child, delivery.tracking_uri, scratch, check_again_s)
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=scratch))
    try:
        files = _write_files(folder, snapshot, record, server, open_dataset, max_inline_files)
        metrics = payload.metrics(snapshot)
        taken = _prepared(records, delivery, child, files, metrics)
        for path in set(files).intersection(taken.artifacts_taken):  # the user's own: ours goes beside it
            target = folder / "reprod" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / path).rename(target)
        result = child.deliver(
            Payload(
                run_id=delivery.run_id,
                state=snapshot.state,
                timestamp_ms=snapshot.created_ns // 1_000_000,
                tags=payload.tags(snapshot, delivery.recorded, record.environment if record else None),
                remove_tags=payload.stale_tags(snapshot, delivery.recorded, record.environment if record else None),
                metrics={f"reprod.{k}" if k in taken.metrics_taken else k: v for k, v in metrics.items()},
                params=payload.params(snapshot, record.environment if record else None) if ended else None,
                inputs=tuple(payload.dataset_input(d) for d in snapshot.datasets if d.digest is not None),
                artifacts_dir=str(folder),
            )
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Delivered(snapshot.state, ended, result.params_renamed)


def deliver_end(
    records: Database, delivery: outbox.Delivery, child: MlflowChild, scratch: Path, *, git_diff: str = "patch"
) -> None:
    """Write the params of a run that has ended by now, and what its process told at its end; the rest is on it."""
    snapshot = msgspec.json.decode(delivery.snapshot or b"", type=Snapshot)
    record = _record(records, delivery, snapshot, git_diff)
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=scratch))
    try:
        told = record is not None and record.execution != snapshot.execution
        if record is not None and told:
            known = msgspec.json.decode(delivery.prepared, type=_Asked) if delivery.prepared is not None else _Asked()
            files = _environment_files(record, Server(records, child, delivery.tracking_uri, scratch))
            for name in _OF_THE_END:
                path = f"environment/{name}"
                place = folder / "reprod" if path in known.taken.artifacts_taken else folder
                _put(place / path, files[name])
        child.deliver(
            Payload(
                run_id=delivery.run_id,
                state=snapshot.state,
                timestamp_ms=snapshot.created_ns // 1_000_000,
                params=payload.params(snapshot, record.environment if record else None),
                artifacts_dir=str(folder) if told else None,
            )
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _current(child: MlflowChild, delivery: outbox.Delivery) -> PendingRun:
    now = child.runs([delivery.run_id])
    if now.missing:
        raise SinkError("gone", f"run {delivery.run_id} was deleted")
    if now.denied or not now.runs:
        raise SinkError(
            "denied", f"run {delivery.run_id} may not be read", hint="give reprod's user write access to it"
        )
    return now.runs[0].run


def _prepared(
    records: Database, delivery: outbox.Delivery, child: MlflowChild, files: Iterable[str], metrics: Iterable[str]
) -> Taken:
    """Return which of these names are the user's: asked once each, before our first use of it, and frozen.

    Later our own things are there too. A second capture of the run may have names that the first had not.
    """
    known = msgspec.json.decode(delivery.prepared, type=_Asked) if delivery.prepared is not None else _Asked()
    ask = _Asked(
        artifacts=tuple(path for path in files if path not in known.artifacts),
        metrics=tuple(key for key in metrics if key not in known.metrics),
    )
    if not ask.artifacts and not ask.metrics:
        return known.taken
    found = child.prepare(delivery.run_id, ask.artifacts, ask.metrics)
    taken = Taken(
        artifacts_taken=known.taken.artifacts_taken + found.artifacts_taken,
        metrics_taken=known.taken.metrics_taken + found.metrics_taken,
    )
    asked = _Asked(known.artifacts + ask.artifacts, known.metrics + ask.metrics, taken)
    records.write(lambda c: outbox.prepared(c, delivery.id, msgspec.json.encode(asked)))
    return taken


def _record(records: Database, delivery: outbox.Delivery, snapshot: Snapshot, git_diff: str) -> Record | None:
    """Return the environment of the snapshot, and of its process what is known by now."""
    key, execution = snapshot.environment, records.read(lambda c: last_word(c, delivery, snapshot))
    if key is None or execution is None:
        return None
    kept, files = records.read(lambda c: (snapshots.environment(c, key), snapshots.environment_files(c, key)))
    return trimmed(Record(execution, decode(kept), files), git_diff) if kept is not None else None


def _write_files(
    folder: Path,
    snapshot: Snapshot,
    record: Record | None,
    server: Server,
    open_dataset: OpenDataset,
    max_inline_files: int,
) -> list[str]:
    """Write every artifact below ``folder``; return their paths on the run."""
    if record is not None:
        for name, content in _environment_files(record, server).items():
            _put(folder / "environment" / name, content)
    else:
        reason = {"environment": None, "reason": snapshot.environment_unknown}
        _put(folder / "reprod" / "environment_unknown.json", json.dumps(reason, indent=2).encode())
    several = len(snapshot.datasets) > 1
    for dataset in snapshot.datasets:
        if dataset.digest is not None and dataset.seq is not None:
            target = folder / "data_manifest" / dataset.name if several else folder / "data_manifest"
            target.mkdir(parents=True, exist_ok=True)
            with closing(open_dataset(dataset.name, dataset.seq, snapshot.created_ns)) as db:
                _require_same(db, dataset, dataset.seq)
                _write_manifest(target / "data_manifest.json", dataset, snapshot, db, server, max_inline_files)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _environment_files(record: Record, server: Server) -> dict[str, bytes]:
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


def _require_same(db: Database, dataset: BoundDataset, seq: int) -> None:
    """Raise DamagedError if the file has another content under this number: then the run is bound again."""
    found = db.read(lambda c: versions.version(c, seq)).digest
    if found is None or digest.text(found) != dataset.digest:
        raise DamagedError(f"{dataset.name}@{seq} is not the version that was recorded", hint="it is bound again")


def _write_manifest(
    path: Path, dataset: BoundDataset, snapshot: Snapshot, db: Database, server: Server, max_inline_files: int
) -> None:
    """Write ``data_manifest.json``: all files up to the limit, above it a header that refers to a store run."""
    seq = dataset.seq or 0
    header = Header(
        data_path=dataset.root,
        generated_ns=snapshot.created_ns,
        algorithms=dataset.algorithms,
        digest=dataset.digest,
        processing_seconds=dataset.processing_seconds,
        dataset=dataset.name,
        version=seq,
        selection=db.read(lambda c: versions.record(c, seq))["selection"],
    )
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
    seq = dataset.seq or 0
    found = db.read(lambda c: list(islice(listing.entries(c, seq), 2 * limit + 1)))
    others = sum(entry.content.kind is not Kind.FILE for entry in found)
    return found if len(found) <= 2 * limit and others <= limit else None


def _referring(header: Header, dataset: BoundDataset, server: Server, db: Database) -> dict[str, Any]:
    """Return the manifest of a large version: what is listed lies on a store run, which is found by the digest."""
    node = bytes.fromhex((dataset.digest or "").removeprefix(digest.PREFIX))
    stored = ensure_stored(server, Stored(dataset.name, dataset.seq or 0, node, db))
    document = manifest.document(header, (), list_files=False)
    size = dataset.bytes or 0
    document["summary"] |= {
        "total_files": dataset.files,
        "total_size_bytes": size,
        "total_size_human": manifest.human_size(size),
    }
    document["reference"] = {"digest": dataset.digest, "experiment": STORE_EXPERIMENT, "run_id": stored.run_id}
    return document


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
