"""The verb that writes a snapshot to its run, through the MLflow child. Idempotent: every attempt writes the same.

Files are made anew from the pinned version and the stored environment for each attempt, in a folder of STATE that is
removed afterwards: both never change, and the times in them are frozen in the snapshot. A large manifest is stored
first, once for all runs (``reprod.ops.upload``), and the run refers to it.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from reprod.core.run import ENDED, Payload, PendingRun
from reprod.core.snapshot import Snapshot
from reprod.ops import payload
from reprod.ops.run_files import OpenDataset, record_of, write_files
from reprod.ops.taken import ask_taken
from reprod.ops.upload import CHECK_AGAIN_S, Server
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import SinkError
from reprod.store import outbox
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
    snapshot = msgspec.json.decode(delivery.snapshot or b"", type=Snapshot)
    record = record_of(records, delivery, snapshot, git_diff)
    run = _current(child, delivery)
    ended = run.status in ENDED
    server = Server(records, child, delivery.tracking_uri, scratch, check_again_s)
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=scratch))
    try:
        files = write_files(folder, snapshot, record, server, open_dataset, max_inline_files)
        metrics = payload.metrics(snapshot)
        taken = ask_taken(records, delivery, child, files, metrics)
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


def _current(child: MlflowChild, delivery: outbox.Delivery) -> PendingRun:
    now = child.runs([delivery.run_id])
    if now.missing:
        raise SinkError("gone", f"run {delivery.run_id} was deleted")
    if now.denied or not now.runs:
        raise SinkError(
            "denied", f"run {delivery.run_id} may not be read", hint="give reprod's user write access to it"
        )
    return now.runs[0].run
