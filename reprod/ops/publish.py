"""The verb that answers a tagged run: bind its datasets, find its environment, freeze both, owe them to the run.

Pins go into the datasets' files first, then one registry transaction holds the snapshot: a crash between leaves a pin
that expires, never a snapshot whose version may be pruned. Nothing here touches the tracking server.
"""

import os
import time
from dataclasses import dataclass

import msgspec

from reprod.capture.environment import read_process
from reprod.capture.process.identity import boot_id
from reprod.config import DatasetConfig
from reprod.core import digest
from reprod.core.binding import LOCAL_SLACK_NS, Assurance, Binding, bind
from reprod.core.described import described
from reprod.core.entry import display
from reprod.core.environment import Record, encode
from reprod.core.execution import Execution, Subject
from reprod.core.hosts import Host, Parts
from reprod.core.manifest import rfc3339
from reprod.core.process import ProcessContext
from reprod.core.redact import plain
from reprod.core.run import PendingRun
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.errors import DamagedError, IncompleteError, ReprodError
from reprod.fs import mounts
from reprod.fs.openness import is_shown
from reprod.fs.read import WHOLE_SECOND_SLACK_NS
from reprod.ops import handover_folder
from reprod.ops.disks import with_disks
from reprod.ops.handovers import decode_execution, take_in
from reprod.store import index, meta, outbox, snapshots, subtree, timeline, versions
from reprod.store.connection import Database


@dataclass(frozen=True, slots=True)
class Walked:
    """A dataset whose full walk for this run has ended: its file, and how long it took or why it could not.

    ``path`` is the subdirectory that the run names, None for the whole.
    """

    config: DatasetConfig
    db: Database
    seconds: float
    error: ReprodError | None = None
    path: str | None = None

    @property
    def named(self) -> str:
        """As the run names it."""
        return self.config.name if self.path is None else f"{self.config.name}/{self.path}"


def slack_ns(context: ProcessContext | None, known_boots: frozenset[str], configured_s: float) -> int:
    """Return how far the run's clock may be from ours: a tick on this host, else what is configured."""
    if context is not None and context.boot_id in known_boots:
        return LOCAL_SLACK_NS
    return int(configured_s * 1e9)


def publish(
    records: Database,
    delivery: outbox.Delivery,
    run: PendingRun,
    walked: list[Walked],
    parts: Parts,
    slack: int,
    host: Host,
) -> Snapshot:
    """Freeze what ``run`` started on, and queue it for delivery.

    A run that was recorded as incomplete may come again: then only a snapshot that says more replaces the first.
    """
    start_ns = run.start_ms * 1_000_000
    owner = f"{delivery.tracking_uri}#{delivery.run_id}"
    datasets = tuple(_bind(item, start_ns, slack, owner, delivery.created_ns) for item in walked)
    found = find_environment(records, run.context, start_ns)
    snapshot = Snapshot(
        created_ns=time.time_ns(),
        host=host.name,
        host_id=host.id,
        contested=tuple(parts.contested.values()),
        rivals=parts.rivals,
        datasets=datasets,
        environment=found.digest,
        execution=with_disks(found.execution, [item.config.path for item in walked if item.config.publish != "digest"]),
        environment_unknown=found.unknown,
        unknown_names=parts.unknown,
        source=run.source,
    )
    again = delivery.snapshot is not None
    if not again or snapshot.state == "captured":
        records.write(lambda c: outbox.published(c, delivery.id, msgspec.json.encode(snapshot)))
    return snapshot


def copy_at_start(item: Walked, run: PendingRun, slack: int, owner: str, noticed_ns: int) -> BoundDataset:
    """Return what this host's copy of a dataset was when a run of another host started, and pin that version."""
    return _bind(item, run.start_ms * 1_000_000, slack, owner, noticed_ns)


def _bind(item: Walked, start_ns: int, slack: int, owner: str, noticed_ns: int) -> BoundDataset:
    """Return what one dataset was when the run started, and pin that version."""
    fs_type = _fs_type(item.db)
    slack = max(slack, _stamp_slack_ns(item.db, fs_type))

    def decide(c: snapshots.Connection) -> tuple[Binding, _Held | None]:
        known = meta.read(c)
        found = bind(
            timeline.marks(c, start_ns - slack),
            start_ns,
            slack,
            noticed_ns=noticed_ns,
            heard_ns=known.heard_ns if item.config.barrier == "events" else None,
            unclear_ns=known.unclear_ns,
        )
        if found.seq is None:
            return found, None
        versions.pin(c, found.seq, owner, time.time_ns())
        return found, _held(versions.version(c, found.seq))

    # One transaction: between the verdict and its pin the version must not be pruned.
    binding, held = item.db.write(decide)
    if held is not None and item.path is not None:
        held = _held_below(item.db, held.version, item.path)
    complete = held is not None and held.node is not None
    return BoundDataset(
        name=item.config.name,
        root=item.config.path if held is None else _root_of(item.db, held.version.seq),
        bound=binding.bound,
        assurance=_assurance(binding, fs_type) if complete else None,
        seq=binding.seq,
        digest=digest.text(held.node) if held is not None and held.node is not None else None,
        files=held.files if held else None,
        bytes=held.size if held else None,
        sealed_ns=held.version.sealed_ns if held else None,
        chain=held.version.chain.hex() if held else None,
        algorithms=item.config.algorithms,
        processing_seconds=round(item.seconds, 3),
        error=_why(item, binding, held),
        retry=not complete and (item.error is not None or binding.incomplete),
        candidates=() if complete or item.path else tuple(_candidate(item.db, seq) for seq in binding.candidates),
        path=item.path,
        publish=item.config.publish or ("full" if is_shown(item.config.path) else "summary"),
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """What a version holds, or what it holds below the directory that was named (``node`` None: no digest)."""

    version: versions.Version
    node: bytes | None
    files: int
    size: int
    problems: int
    there: bool = True


def _held(version: versions.Version) -> _Held:
    return _Held(version, version.digest, version.files, version.size, version.problems)


def _held_below(db: Database, version: versions.Version, path: str) -> _Held:
    found = db.read(lambda c: subtree.subtree(c, version.seq, os.fsencode(path)))
    if found is None:
        return _Held(version, None, 0, 0, 0, there=False)
    return _Held(version, found.node, found.files, found.size, found.problems)


def _root_of(db: Database, seq: int) -> str:
    """Return where the data lay when the version was sealed: it may have moved since."""
    return str(db.read(lambda c: versions.record(c, seq))["root"])


def _fs_type(db: Database) -> str | None:
    """Return which file system the root is on, None before the first look."""
    identity = db.read(meta.read).identity
    return msgspec.json.decode(identity, type=described(mounts.RootIdentity)).fs_type if identity is not None else None


def _stamp_slack_ns(db: Database, fs_type: str | None) -> int:
    """Return how coarse the ctimes are: where they are whole seconds, a change after the start may look older.

    The type of a file system promises too much at times: ext4 with inodes of 128 bytes has no finer ones either, and a
    name that came and went within a second leaves no stamp behind.
    """
    found_ns = WHOLE_SECOND_SLACK_NS if db.read(index.stamps_are_whole_seconds) else 0
    return max(found_ns, mounts.settle_slack_ns(fs_type) if fs_type is not None else 0)


def _assurance(binding: Binding, fs_type: str | None) -> Assurance | None:
    return "network" if fs_type is not None and mounts.is_network(fs_type) else binding.assurance


def _candidate(db: Database, seq: int) -> tuple[int, str | None]:
    version = db.read(lambda c: versions.version(c, seq))
    return seq, digest.text(version.digest) if version.digest is not None else None


def _why(item: Walked, binding: Binding, held: _Held | None) -> str | None:
    """Say, for a person, why there is no digest."""
    if held is not None and held.node is not None:
        return None
    name = item.config.name
    if held is not None and not held.there:
        return f"version {held.version.seq} of {name} has no folder '{display(os.fsencode(item.path or ''))}'"
    if item.error is not None:
        return f"unavailable: {item.error.message} ({item.error.hint or f'reprod status {name}'})"
    if held is not None:
        return (
            f"version {held.version.seq} holds {held.problems} unreadable or unstable entries "
            f"(reprod status {name} names them)"
        )
    cure = "a run that starts from now on is recorded"
    if len(binding.candidates) > 1:
        first, second = (f"{name}@{seq}" for seq in binding.candidates[:2])
        cure = f"reprod diff {first} {second} shows what changed around the start"
    return f"not provable ({binding.bound}): {binding.reason} ({cure})"


@dataclass(frozen=True, slots=True)
class Found:
    """The digest of a stored environment and the execution that it was seen in; else why it is unknown."""

    digest: str | None = None
    execution: Execution | None = None
    unknown: str | None = None


def find_environment(records: Database, context_tag: str | None, start_ns: int) -> Found:
    """Return the environment that the run's process had.

    In this order: the record that the process handed over, or left in a file while no daemon answered; its files, while
    that very process lives; the timer's history of its prefix, if equal samples bracket the start; what every user may
    see of the process. Never the daemon's own.
    """
    context = ProcessContext.parse(context_tag or "")
    if context is None:
        return Found(
            unknown="the run does not say which process it is (no reprod.context): install reprod beside MLflow there"
        )
    handed = _handed_over(records, context)
    if handed is not None and handed.digest is not None and handed.execution is not None:
        execution = decode_execution(handed.execution)
        if "interpreter" in execution.unknown:  # `reprod run` met several
            return Found(unknown=execution.unknown["interpreter"])
        return Found(handed.digest, execution)
    record: Record | None = None
    try:
        record = read_process(context, start_ns)
    except (IncompleteError, DamagedError) as error:
        reason = error.message
    else:
        if record.environment.packages is not None:
            return _keep(records, record)
        reason = record.environment.unknown["packages"]
    sample = records.read(lambda c: snapshots.bracketing(c, context.prefix, start_ns))
    if sample is not None and context.boot_id == boot_id():
        how = f"files of the prefix, unchanged from {rfc3339(sample.first_ns)} to {rfc3339(sample.last_ns)}"
        subject = Subject("interpreter", plain(context.host), context.boot_id, how, prefix=plain(context.prefix))
        return Found(sample.digest, Execution(subject, sample.first_ns))
    if record is not None:
        return _keep(records, record)
    reasons = ("the process handed over nothing", reason, f"no equal samples of {context.prefix} bracket the start")
    return Found(unknown=plain("; ".join(reasons)))


def _handed_over(records: Database, context: ProcessContext) -> snapshots.Handover | None:
    """Return what the process said of itself, to this daemon or to a file while it was down."""
    handed = records.read(lambda c: snapshots.handover(c, context.key))
    if (handed is None or handed.digest is None) and not handover_folder.is_empty(records.path.parent):
        take_in(records)
        handed = records.read(lambda c: snapshots.handover(c, context.key))
    return handed


def _keep(records: Database, record: Record) -> Found:
    """Store what was read of a process."""
    key, now_ns = record.environment.digest(), time.time_ns()
    records.write(lambda c: snapshots.keep_environment(c, key, encode(record.environment), now_ns, record.files))
    return Found(key, record.execution)
