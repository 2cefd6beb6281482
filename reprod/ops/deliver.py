"""The verb that writes a snapshot to its run, through the MLflow child. Idempotent: every attempt writes the same.

Files are made anew from the pinned version and the stored environment for each attempt, in a folder of STATE that is
removed afterwards: both never change, and the times in them are frozen in the snapshot. A large manifest is stored
first, once for all runs (``reprod.ops.upload``), and the run refers to it.
"""

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from reprod.core.described import described
from reprod.core.run import ENDED, Payload, Source
from reprod.core.snapshot import Snapshot
from reprod.ops import payload, report
from reprod.ops.nested import SAME_AS, Part, part_of
from reprod.ops.report import report_page
from reprod.ops.run_files import OpenDataset, put, record_of, write_files, write_values
from reprod.ops.taken import Asked, ask_taken, note_of
from reprod.ops.upload import CHECK_AGAIN_S, Server
from reprod.sinks.child import MlflowChild
from reprod.sinks.many_hosts import WRITING
from reprod.sinks.protocol import RunRow, SinkError
from reprod.store import outbox
from reprod.store.connection import Database


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was written: the run's state, whether the params are on it too, and params whose name the user had.

    ``left_out`` are files, metrics and params that have no place on the run, because it has its own of both names.
    """

    state: str
    ended: bool
    renamed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


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
) -> Delivered | None:
    """Write the frozen snapshot of ``delivery`` to its run: artifacts, input, metrics, tags, params if ended, state.

    ``git_diff`` says how much of uncommitted code goes up. Manifests that were uploaded before are looked for again
    after ``check_again_s`` seconds. Returns None, and has written nothing, if the run does not name this any more.

    :raises SinkError: the tracking server is unreachable, refuses, or the run is gone; ``kind`` says which.
    """
    snapshot = msgspec.json.decode(delivery.snapshot or b"", type=described(Snapshot))
    now = _current(child, delivery)
    if not _is_named(now.tags, delivery.recorded, snapshot.source):
        _take_claim_back(child, delivery, now.tags, snapshot)
        return None
    record = record_of(records, delivery, snapshot, git_diff)
    environment = record.environment if record else None
    ended = now.run.status in ENDED
    part = part_of(records, delivery, snapshot)
    tags = payload.tags(snapshot, delivery.recorded, environment) | ({SAME_AS: part.parent} if part.parent else {})
    server = Server(records, child, delivery.tracking_uri, scratch, check_again_s)
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=scratch))
    try:
        files: list[str] = []
        if part.parent is None:
            files = write_files(folder, snapshot, record, server, open_dataset, max_inline_files)
            files += write_values(folder, payload.too_long(snapshot, delivery.recorded, environment))
            page = report_page(snapshot, record, delivery, now.run, open_dataset, records, git_diff=git_diff)
            put(folder / report.PATH, page)
            files.append(report.PATH)
        metrics = payload.metrics(snapshot) if part.has_params else {}
        asked = ask_taken(records, delivery, child, map(part.path_of, files), metrics)
        _place(folder, files, part, asked)
        tags |= note_of(asked.left_out)
        result = child.deliver(
            Payload(
                run_id=delivery.run_id,
                state=snapshot.state,
                timestamp_ms=snapshot.created_ns // 1_000_000,
                host_id=snapshot.host_id,
                rivals=snapshot.rivals,
                tags=tags,
                remove_tags=payload.stale_tags(now.tags, tags, delivery.recorded, snapshot),
                metrics={key: value for name, value in metrics.items() if (key := asked.key_of(name))},
                params=payload.params(snapshot, environment) if ended and part.has_params else None,
                inputs=tuple(payload.dataset_input(d) for d in snapshot.datasets if d.digest is not None),
                artifacts_dir=str(folder) if files else None,
            )
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    left_out = (*asked.left_out, *result.artifacts_left_out, *result.params_refused)
    return Delivered(snapshot.state, ended, result.params_renamed, left_out)


def _place(folder: Path, files: Iterable[str], part: Part, asked: Asked) -> None:
    """Put each file where it goes on the run; what has no place there is removed."""
    for path in files:
        place = asked.place_of(part.path_of(path))
        if place is None:
            (folder / path).unlink()
        elif place != path:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).rename(folder / place)


def _is_named(tags: Mapping[str, str], recorded: str, source: Source) -> bool:
    """Whether a run wants what is owed to it: not if it names something else by now, or nothing before we wrote to it.

    What an experiment or a rule says counts for the runs that started meanwhile: only a run's own tag takes that back.
    """
    named = tags.get("reprod.dataset")
    if named:
        return named == recorded
    return tags.get("reprod.recorded") == recorded or (named is None and source != "run")


def _take_claim_back(
    child: MlflowChild, delivery: outbox.Delivery, tags: Mapping[str, str], snapshot: Snapshot
) -> None:
    """Remove what an earlier try, which was cut off, said to other hosts: that this one is about to write."""
    if snapshot.host_id is not None and tags.get(WRITING, "").startswith(snapshot.host_id):
        child.deliver(Payload(delivery.run_id, None, snapshot.created_ns // 1_000_000, remove_tags=(WRITING,)))


def _current(child: MlflowChild, delivery: outbox.Delivery) -> RunRow:
    now = child.runs([delivery.run_id])
    if now.missing:
        raise SinkError("gone", f"run {delivery.run_id} was deleted")
    if now.denied or not now.runs:
        raise SinkError(
            "denied", f"run {delivery.run_id} may not be read", hint="give reprod's user write access to it"
        )
    return now.runs[0]
