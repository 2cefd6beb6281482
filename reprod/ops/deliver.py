"""The verb that writes a snapshot to its run, through the MLflow child. Idempotent: every attempt writes the same.

Files are made anew from the pinned version and the stored environment for each attempt, in a folder of STATE that is
removed afterwards: both never change, and the times in them are frozen in the snapshot. A large manifest is stored
first, once for all runs (``reprod.ops.upload``), and the run refers to it.
"""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from reprod.core.described import described
from reprod.core.run import ENDED, Payload
from reprod.core.snapshot import Snapshot
from reprod.ops import payload, report
from reprod.ops.nested import SAME_AS, count_children, shared_with
from reprod.ops.report import report_page
from reprod.ops.run_files import OpenDataset, put, record_of, write_files, write_values
from reprod.ops.taken import ask_taken
from reprod.ops.upload import CHECK_AGAIN_S, Server
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import RunRow, SinkError
from reprod.store import outbox
from reprod.store.asked import place_of
from reprod.store.connection import Database


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was written: the run's state, whether the params are on it too, and params whose name the user had."""

    state: str
    ended: bool
    renamed: tuple[str, ...] = ()


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
    snapshot = msgspec.json.decode(delivery.snapshot or b"", type=described(Snapshot))
    record = record_of(records, delivery, snapshot, git_diff)
    environment = record.environment if record else None
    now = _current(child, delivery)
    ended = now.run.status in ENDED
    place, parent = records.read(lambda c: place_of(c, delivery.id)), shared_with(records, delivery, snapshot)
    tags = payload.tags(snapshot, delivery.recorded, environment) | ({SAME_AS: parent} if parent else {})
    first = place == 1 and parent is None
    server = Server(records, child, delivery.tracking_uri, scratch, check_again_s)
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=scratch))
    try:
        files: list[str] = []
        if parent is None:
            files = write_files(folder, snapshot, record, server, open_dataset, max_inline_files)
            files += write_values(folder, payload.too_long(snapshot, delivery.recorded, environment))
            children = count_children(records, delivery.tracking_uri, delivery.run_id)
            page = report_page(
                snapshot, record, delivery, now.run, open_dataset, records, children=children, git_diff=git_diff
            )
            put(folder / report.PATH, page)
            files.append(report.PATH)
        if place > 1:
            files = _set_apart(folder, files, f"reprod/{place}")
        metrics = payload.metrics(snapshot) if first else {}
        taken = ask_taken(records, delivery, child, files, metrics)
        _set_beside(folder, set(files).intersection(taken.artifacts_taken))
        result = child.deliver(
            Payload(
                run_id=delivery.run_id,
                state=snapshot.state,
                timestamp_ms=snapshot.created_ns // 1_000_000,
                host_id=snapshot.host_id,
                rivals=snapshot.rivals,
                tags=tags,
                remove_tags=payload.stale_tags(now.tags, tags, delivery.recorded, snapshot),
                metrics={f"reprod.{k}" if k in taken.metrics_taken else k: v for k, v in metrics.items()},
                params=payload.params(snapshot, environment) if ended and first else None,
                inputs=tuple(payload.dataset_input(d) for d in snapshot.datasets if d.digest is not None),
                artifacts_dir=str(folder) if files else None,
            )
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Delivered(snapshot.state, ended, result.params_renamed)


def _set_beside(folder: Path, taken: Iterable[str]) -> None:
    """Put ours below reprod/ where the user has files of these names."""
    for path in taken:
        target = folder / "reprod" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / path).rename(target)


def _set_apart(folder: Path, files: list[str], prefix: str) -> list[str]:
    """Put what a run gets again, because it names other datasets now, where it does not cover what it got before."""
    for path in files:
        target = folder / prefix / path.removeprefix("reprod/")
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / path).rename(target)
    return [f"{prefix}/{path.removeprefix('reprod/')}" for path in files]


def _current(child: MlflowChild, delivery: outbox.Delivery) -> RunRow:
    now = child.runs([delivery.run_id])
    if now.missing:
        raise SinkError("gone", f"run {delivery.run_id} was deleted")
    if now.denied or not now.runs:
        raise SinkError(
            "denied", f"run {delivery.run_id} may not be read", hint="give reprod's user write access to it"
        )
    return now.runs[0]
