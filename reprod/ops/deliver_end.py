"""The verb that writes what can only be written when a run has ended: the params, and what its process told last."""

import shutil
import tempfile
from pathlib import Path

import msgspec

from reprod.core.run import Payload
from reprod.core.snapshot import Snapshot
from reprod.ops import payload
from reprod.ops.run_files import environment_files, put, record_of
from reprod.ops.taken import known_taken
from reprod.ops.upload import Server
from reprod.sinks.child import MlflowChild
from reprod.store import outbox
from reprod.store.connection import Database

#: The files that say what a process did, beside what it ran in.
_OF_THE_END = ("system_info.json", "environment.json")


def deliver_end(
    records: Database, delivery: outbox.Delivery, child: MlflowChild, scratch: Path, *, git_diff: str = "patch"
) -> None:
    """Write the params of a run that has ended by now, and what its process told at its end; the rest is on it."""
    snapshot = msgspec.json.decode(delivery.snapshot or b"", type=Snapshot)
    record = record_of(records, delivery, snapshot, git_diff)
    folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=scratch))
    try:
        told = record is not None and record.execution != snapshot.execution
        if record is not None and told:
            known = known_taken(delivery)
            files = environment_files(record, Server(records, child, delivery.tracking_uri, scratch))
            for name in _OF_THE_END:
                path = f"environment/{name}"
                place = folder / "reprod" if path in known.taken.artifacts_taken else folder
                put(place / path, files[name])
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
