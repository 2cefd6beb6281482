"""The verb that writes what can only be written when a run has ended: the params, what its process told last, drift."""

import json
import shutil
import tempfile
from pathlib import Path

import msgspec

from reprod.core.described import described
from reprod.core.drift import Drift
from reprod.core.drift_document import to_document
from reprod.core.environment import Record
from reprod.core.run import Payload, PendingRun, key_of
from reprod.core.snapshot import Snapshot
from reprod.ops import payload, report
from reprod.ops.nested import part_of
from reprod.ops.report import report_page
from reprod.ops.run_files import OpenDataset, environment_files, put, record_of
from reprod.ops.taken import ask_taken, note_of
from reprod.ops.upload import Server
from reprod.sinks.child import MlflowChild
from reprod.store import outbox
from reprod.store.connection import Database

#: The files that say what a process did, beside what it ran in.
_OF_THE_END = ("system_info.json", "environment.json")


def deliver_end(
    records: Database,
    delivery: outbox.Delivery,
    child: MlflowChild,
    scratch: Path,
    *,
    drift: Drift | None = None,
    ended: bool = True,
    git_diff: str = "patch",
    run: PendingRun | None = None,
    open_dataset: OpenDataset | None = None,
) -> tuple[str, ...]:
    """Write the params of a run that has ended by now, what its process told at its end, and its drift.

    The rest is on it already. Idempotent: a later drift takes the place of an earlier one. Returns the files and params
    of ours that have no place on the run, because it has its own of both names.

    :param ended: False for a run that is RUNNING, but whose process is gone: it may go on and log params of its own,
        so it gets its drift and no more.
    :raises SinkError: the tracking server is unreachable, refuses, or the run is gone; ``kind`` says which.
    """
    snapshot = msgspec.json.decode(delivery.snapshot or b"", type=described(Snapshot))
    kept = record_of(records, delivery, snapshot, git_diff)
    record = kept if ended else None
    part = part_of(records, delivery, snapshot)
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=scratch))
    try:
        files = _last_words(Server(records, child, delivery.tracking_uri, scratch), snapshot, record)
        if drift is not None and part.parent is None:
            files["data_manifest/drift.json"] = json.dumps(
                to_document(report.reserved(drift, snapshot)), indent=2
            ).encode()
            if run is not None and open_dataset is not None:
                files[report.PATH] = report_page(
                    snapshot, kept, delivery, run, open_dataset, records, drift, git_diff=git_diff
                )
        asked = ask_taken(records, delivery, child, map(part.path_of, files))
        for path, content in files.items():
            place = asked.place_of(part.path_of(path))
            if place is not None:
                put(folder / place, content)
        params = None
        if ended and part.has_params:
            params = payload.params(snapshot, record.environment if record else None)
        result = child.deliver(
            Payload(
                run_id=delivery.run_id,
                state=None,  # the run has it; one that names other datasets by now has another
                timestamp_ms=snapshot.created_ns // 1_000_000,
                host_id=snapshot.host_id,
                tags=(drift_tags(drift) if drift is not None else {}) | note_of(asked.left_out),
                params=params,
                artifacts_dir=str(folder) if files else None,
            )
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return *asked.left_out, *result.artifacts_left_out, *result.params_refused


def drift_tags(drift: Drift) -> dict[str, str]:
    """Return the tags that say a run's drift; with several datasets also that of each."""
    each = {f"reprod.drift.{key_of(of.name)}": of.verdict for of in drift.datasets}
    return {"reprod.drift": drift.verdict, **(each if len(each) > 1 else {})}


def _last_words(server: Server, snapshot: Snapshot, record: Record | None) -> dict[str, bytes]:
    """Return the files, by their path, that hold more since the process told of its end."""
    if record is None or record.execution == snapshot.execution:
        return {}
    files = environment_files(record, server)
    return {f"environment/{name}": files[name] for name in _OF_THE_END}
