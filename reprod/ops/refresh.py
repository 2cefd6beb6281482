"""The verb that makes versions: make the index equal the files, then seal.

Looks at all of a dataset or at what was hinted at, hashes what differs, checks that the root is still the same, takes
in the deletions, and seals in one short transaction. Interrupted at any point it has lost at most one batch of hashing.
Every version is made here and nowhere else (law 2).
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from reprod.config import DatasetConfig
from reprod.core.entry import Problem, display
from reprod.core.pattern import Selection
from reprod.errors import DatasetUnavailableError
from reprod.fs import clock, mounts
from reprod.fs.disk import gains_from_readers
from reprod.fs.pace import Limits
from reprod.fs.pool import HashPool
from reprod.fs.root import open_root
from reprod.ops.findings import Counts, Findings
from reprod.ops.loss import hold_large_loss, is_covered
from reprod.ops.plan import Order, Plan, make_plan, select
from reprod.ops.scan import Scan
from reprod.store import changes, index, meta, touches, versions
from reprod.store.connection import Database
from reprod.store.timeline import Evidence
from reprod.store.versions import Version


@dataclass(frozen=True, slots=True)
class Hints:
    """What the watch has said up to now: path (relative, a directory means its subtree) to when that changed at the
    earliest. A hint is handed over later than what it tells of: by the later time, two writes in one batch with the
    start of a run between them would look like one after it. ``closed`` are files that were open for writing: they are
    known one by one also where ``paths`` names only their directory, or everything.
    """

    paths: Mapping[bytes, int] = field(default_factory=dict)
    everything: bool = False
    first_ns: int | None = None
    closed: frozenset[bytes] = frozenset()


class Watch(Protocol):
    """What a refresh asks of whoever watches the dataset."""

    def whole_since_ns(self) -> int | None:
        """Since when hints have come without a known loss; None: not watched (polled, or not armed)."""

    def hints(self) -> Hints:
        """Return what this refresh was told, without waiting."""

    def settled(self) -> Hints:
        """Wait until hints of everything before this call have arrived (bounded), and return all of this refresh."""


class Unwatched:
    """No watch at all: the command line, the library, polling."""

    def whole_since_ns(self) -> int | None:
        """Never whole."""
        return None

    def hints(self) -> Hints:
        """Nothing was ever hinted at."""
        return Hints()

    settled = hints


@dataclass(frozen=True, slots=True)
class Settings:
    """What a refresh needs to know of its host."""

    state_dir: str
    workers: int = 0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Report:
    """What a refresh did. ``version`` is the newest version after it; ``sealed`` whether this refresh made it."""

    version: Version
    sealed: bool
    touched: bool
    full: bool
    walk_ns: int
    counts: Counts
    problems: tuple[tuple[bytes, Problem], ...]
    unannounced: int
    seconds: float
    fs_type: str


def refresh(
    db: Database,
    dataset: DatasetConfig,
    order: Order,
    settings: Settings,
    *,
    watch: Watch | None = None,
    checkpoint: Callable[[], None] = lambda: None,
    progress: Callable[[Counts], None] = lambda _: None,
) -> Report:
    """Make the index of ``dataset`` equal its files and seal a version if the content changed.

    :param checkpoint: called often, raises to stop; nothing that was committed is lost then.
    :raises DatasetUnavailableError: the root is missing, another one, or changed under the walk. Nothing is forgotten.
    """
    watch = watch or Unwatched()
    began, offset = time.time_ns(), clock.offset_ns()
    whole_since, told = watch.whole_since_ns(), watch.hints()
    with open_root(dataset.path) as root:
        selection = select(dataset, root)
        plan = make_plan(db, root, selection, order, began, dataset.name)
        slack_ns = mounts.settle_slack_ns(root.identity.fs_type)
        network = mounts.is_network(root.identity.fs_type)
        gains = gains_from_readers(root.identity.fs_type, root.identity.device)
        with HashPool(
            root.fd,
            slack_ns=slack_ns,
            unseen_ns=mounts.unseen_writes_ns(root.identity.fs_type),
            extra=tuple(a for a in dataset.algorithms if a != "sha256"),
            workers=settings.workers,
            sync=network,
            slow=not gains,
            pace=settings.limits.reads,
        ) as pool:
            scan = Scan(
                db,
                root.fd,
                selection,
                pool,
                slack_ns,
                checkpoint,
                progress,
                skip=state_inodes(settings.state_dir),
                rehash=plan.rehash,
                hinted=frozenset(told.paths) | told.closed,
                pace=settings.limits.stats,
                share_stats=pool.workers > 1 and (gains or network),
                sync=network,
            )
            if plan.full:
                scan.everything()
            else:
                scan.paths(order.paths or ())
            scan.finish()
            found = scan.found
        if not root.is_still_there():
            raise DatasetUnavailableError(
                f"{dataset.path} was replaced or unmounted while it was walked",
                hint="nothing was forgotten; the next walk decides",
            )
    hints = watch.settled() if plan.full else watch.hints()
    if plan.full and plan.reason == "change" and not order.accept_root:
        hold_large_loss(db, found, hints.paths, began)
    if clock.was_set(offset, clock.offset_ns()):  # nobody can say since when this is proven: the next walk does
        plan = replace(plan, full=False)
    whole = whole_since is not None and whole_since < began and watch.whole_since_ns() == whole_since
    evidence = _evidence(db, found, hints, plan, began if plan.full else None, whole=whole)
    sealed = db.write(lambda c: _seal(c, found, evidence, plan, dataset, selection, began))
    newest = sealed or db.read(versions.newest)
    if newest is None:  # cannot be: the first refresh always seals
        raise DatasetUnavailableError(f"{dataset.path} has no version", hint="reprod scan")
    return Report(
        version=newest,
        sealed=sealed is not None,
        touched=found.counts.touched > 0,
        full=plan.full,
        walk_ns=began,
        counts=found.counts,
        problems=tuple(found.problems),
        unannounced=0 if evidence.gap_kind != "unannounced" else 1,
        seconds=(time.time_ns() - began) / 1e9,
        fs_type=root.identity.fs_type,
    )


def state_inodes(state_dir: str) -> frozenset[tuple[int, int]]:
    """Return what a walk never enters: STATE is no part of a dataset, wherever it lies."""
    try:
        st = os.stat(state_dir)
    except OSError:
        return frozenset()
    return frozenset({(st.st_dev, st.st_ino)})


def _evidence(db: Database, found: Findings, hints: Hints, plan: Plan, walk_ns: int | None, *, whole: bool) -> Evidence:
    gap_kind = None
    if not whole:
        gap_kind = "not watched"
    elif walk_ns is not None and plan.reason == "change" and not _announced(found, hints):
        gap_kind = "unannounced"  # a walk found what no event told of: the watch lost something
    # Nobody knows since when, but the last walk saw everything.
    gap_from = (db.read(meta.read).last_walk_ns or 0) if gap_kind else None
    seen = found.changed_paths or found.changed_directories
    return Evidence(
        now_ns=time.time_ns(),
        walk_ns=walk_ns,
        root_since_ns=plan.root_since_ns,
        first_hint_ns=hints.first_ns if seen else None,
        gap_from_ns=gap_from,
        gap_kind=gap_kind,
        watch_whole=whole,
    )


def _announced(found: Findings, hints: Hints) -> bool:
    """Whether all that the walk found had been hinted at: the path, a directory above it, or a directory's child."""
    moved = found.gone_files or found.gone_directories or found.changed_directories
    if hints.everything or not (found.counts.changed or found.counts.touched or moved):  # it was only read again
        return True
    parents = {path.rpartition(b"/")[0] for path in hints.paths}
    return all(is_covered(path, hints.paths) for path in found.changed_paths if path not in found.doubtful) and all(
        path in parents or is_covered(path, hints.paths) for path in found.changed_directories
    )


def _seal(
    c: index.Connection,
    found: Findings,
    evidence: Evidence,
    plan: Plan,
    dataset: DatasetConfig,
    selection: Selection,
    began: int,
) -> Version | None:
    """One transaction: deletions, version or touch or proof, and what the next refresh compares with."""
    seq, has_base = index.open_version(c)
    for file_id in dict.fromkeys(found.gone_files):
        changes.remove_file(c, file_id, seq, has_base)
    for directory_id in dict.fromkeys(found.gone_directories):
        changes.remove_directory(c, directory_id, seq, has_base)
    if found.gone_files or found.gone_directories:
        changes.note_touched(c, len(found.gone_files) + len(found.gone_directories))
    if plan.born_now or plan.reason == "selection":
        changes.note_pending(c, [evidence.now_ns], 1)
    if found.vanished:  # it happened during this scan, and no ctime says when
        changes.note_pending(c, [began, evidence.now_ns], found.vanished)
        touches.note_vanished(c, found.vanished)
    described: dict[str, object] = {"root": display(os.fsencode(dataset.path)), "selection": selection.record()}
    version = versions.seal(c, evidence, described, plan.reason)
    if plan.full:
        meta.write(
            c,
            selection=selection.record(),
            algorithms=list(selection.algorithms),
            pending_root=False,
            pending_selection=False,
            last_walk_ns=began,
        )
    return version
