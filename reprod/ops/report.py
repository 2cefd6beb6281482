"""The verb that makes ``reprod/report.html`` for a delivery, from what this daemon knows: ``core.report`` writes it.

Rule: the page is made of what the run was given and of nothing that its datasets do not publish, in seconds even where
the data is large; what would take longer is counted and not drawn. A page that cannot be made says so: it never keeps a
run from its digest. Equal deliveries give equal pages, for the page is written again when the run has ended.
"""

import os
from collections import OrderedDict
from contextlib import closing
from dataclasses import replace

import msgspec

from reprod.core.delta import compare
from reprod.core.described import described
from reprod.core.drift import DatasetDrift, Drift
from reprod.core.entry import Content
from reprod.core.environment import Record
from reprod.core.environment_diff import compare as compare_environments
from reprod.core.profile import DataProfile, profile
from reprod.core.redact_known import redact_known
from reprod.core.redact_paths import Curtain
from reprod.core.redact_record import hidden
from reprod.core.report import bare_page, page_of
from reprod.core.report_since import DatasetSince, EarlierRun, EnvironmentSince, Since, since_delta
from reprod.core.run import PendingRun
from reprod.core.run_record import RunRecord, UsedDataset
from reprod.core.snapshot import BoundDataset, Publish, Snapshot
from reprod.errors import IncompleteError, NotFoundError, ReprodError
from reprod.ops.nested import count_children
from reprod.ops.run_files import OpenDataset, curtain_of, record_of
from reprod.store import listing, outbox, subtree, versions
from reprod.store.connection import Database
from reprod.store.earlier import Earlier, runs_before

#: Where the page is on a run.
PATH = "reprod/report.html"

#: Files of which a profile is made: 5 s of one core, once for each version.
MOST_PROFILED = 1_000_000

#: Changes that are looked up one by one; more are only counted.
MOST_COMPARED = 200_000

#: Profiles that are kept from the last runs: most runs use what the run before used. Some 5 KB each.
_KEPT_PROFILES = 64


class Profiles:
    """The profiles made last, by what they are of: a version never changes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], DataProfile] = OrderedDict()

    def of(self, db: Database, dataset: BoundDataset) -> DataProfile:
        """Return the profile of what a run was given."""
        key = (str(db.path), dataset.seq, dataset.path, dataset.digest)
        found = self._kept.get(key)
        if found is None:
            seq, path = dataset.seq or 0, dataset.path
            if path is None:
                found = db.read(lambda c: profile(listing.entries(c, seq)))
            else:
                found = db.read(lambda c: profile(subtree.entries_below(c, seq, os.fsencode(path))))
            self._kept[key] = found
            if len(self._kept) > _KEPT_PROFILES:
                self._kept.popitem(last=False)
        return found


#: One for the process: deliveries are made one after the other, and must not read a million rows for each.
_PROFILES = Profiles()


def report_page(
    snapshot: Snapshot,
    record: Record | None,
    delivery: outbox.Delivery,
    run: PendingRun,
    open_dataset: OpenDataset,
    records: Database,
    drift: Drift | None = None,
    *,
    git_diff: str = "patch",
) -> bytes:
    """Return the page of a run as UTF-8, at delivery and, with its ``drift``, at its end.

    :param record: the environment as it is kept on the run (``run_files.record_of``).
    :param run: as the tracking server tells it now.
    :param git_diff: how much of uncommitted code ``record`` was left with, so that it is compared with as much.
    """
    children = count_children(records, delivery.tracking_uri, delivery.run_id)
    told = run_record(snapshot, record, run, drift, children)
    try:
        told = _with_selections(told, snapshot, open_dataset)
        profiles = {each.named: _profile(each, snapshot, open_dataset) for each in snapshot.datasets if each.digest}
        return page_of(told, profiles, _since(snapshot, record, delivery, run, open_dataset, records, git_diff))
    except Exception as error:  # noqa: BLE001 - a page is no reason to keep back what it tells of
        why = redact_known(f"{type(error).__name__}: {error}", os.environ)
        return bare_page(told, curtain_of(snapshot).text(why))


def run_record(
    snapshot: Snapshot,
    record: Record | None,
    run: PendingRun,
    drift: Drift | None = None,
    children: dict[str, int] | None = None,
) -> RunRecord:
    """Return all that a daemon knows of a run; its params and metrics it does not."""
    curtain = curtain_of(snapshot)
    return RunRecord(
        run_id=run.run_id,
        name=run.name,
        experiment=run.experiment or None,
        status=run.status,
        start_ns=run.start_ms * 1_000_000,
        end_ns=run.end_ms * 1_000_000 if run.end_ms is not None else None,
        state=snapshot.state,
        recorded_ns=snapshot.created_ns,
        host=snapshot.host,
        assurance=snapshot.assurance,
        error="; ".join(snapshot.errors) or None,
        datasets=tuple(_used(each, curtain) for each in snapshot.datasets),
        drift=reserved(drift, snapshot) if drift else None,
        environment=record,
        environment_unknown=curtain.text(snapshot.environment_unknown or "") or None,
        children=children or {},
    )


def _used(dataset: BoundDataset, curtain: Curtain) -> UsedDataset:
    told = dataset.publish != "digest"
    return UsedDataset(
        name=dataset.named,
        digest=dataset.digest,
        version=dataset.seq,
        bound=dataset.bound,
        root=dataset.data_path if told else None,
        files=dataset.files if told else None,
        bytes=dataset.bytes if told else None,
        sealed_ns=dataset.sealed_ns,
        error=curtain.text(dataset.error) if dataset.error else None,
        candidates=dataset.candidates,
    )


def _with_selections(told: RunRecord, snapshot: Snapshot, open_dataset: OpenDataset) -> RunRecord:
    """Return a run with what was included and excluded of its datasets, as their versions say."""
    bound = {each.named: each for each in snapshot.datasets}
    return replace(
        told,
        datasets=tuple(
            replace(each, selection=_selection(bound[each.name], snapshot, open_dataset)) for each in told.datasets
        ),
    )


def _selection(dataset: BoundDataset, snapshot: Snapshot, open_dataset: OpenDataset) -> dict[str, object] | None:
    if dataset.seq is None or dataset.publish == "digest":
        return None
    seq = dataset.seq
    try:
        with closing(open_dataset(dataset.name, seq, snapshot.created_ns)) as db:
            found: dict[str, object] = db.read(lambda c: versions.record(c, seq))["selection"]
    except ReprodError:  # the page says at the pictures that there is no such file any more
        return None
    return found


def reserved(drift: Drift, snapshot: Snapshot) -> Drift:
    """Return a drift without what its datasets keep to themselves."""
    published = {each.named: each.publish for each in snapshot.datasets}
    return replace(drift, datasets=tuple(_reserved(each, published) for each in drift.datasets))


def _reserved(drift: DatasetDrift, published: dict[str, Publish]) -> DatasetDrift:
    """Return a drift without what its dataset keeps to itself."""
    match published.get(drift.name, "full"):
        case "full":
            return drift
        case "summary":
            return replace(drift, paths=(), place=None)
        case _:
            return replace(drift, paths=(), counts={}, reason="", place=None)


def _profile(dataset: BoundDataset, snapshot: Snapshot, open_dataset: OpenDataset) -> DataProfile | str:
    if dataset.publish == "digest":
        return "Of this dataset only the digest is published, no names and no totals."
    if (dataset.files or 0) > MOST_PROFILED:
        return f"Not drawn: {dataset.files:,} files are more than {MOST_PROFILED:,}."
    try:
        with closing(open_dataset(dataset.name, dataset.seq or 0, snapshot.created_ns)) as db:
            found = _PROFILES.of(db, dataset)
    except ReprodError as error:
        return f"Not drawn: {error.message}"
    if dataset.publish == "summary":  # names of files, folders and types stay where they are
        return replace(found, largest=(), types=(), other_types=None, directories=(), other_directories=None)
    return found


# --- the run before --------------------------------------------------------------------------------------------------


def _since(
    snapshot: Snapshot,
    record: Record | None,
    delivery: outbox.Delivery,
    run: PendingRun,
    open_dataset: OpenDataset,
    records: Database,
    git_diff: str,
) -> Since:
    start_ns = run.start_ms * 1_000_000
    data = [(each.name, each.path) for each in snapshot.datasets]
    found = records.read(lambda c: runs_before(c, delivery, start_ns, data, snapshot.created_ns))
    datasets = tuple(
        _dataset_since(each, found.get((each.name, each.path)), snapshot, open_dataset) for each in snapshot.datasets
    )
    newest = max(found.values(), key=lambda each: each.start_ns, default=None)
    return Since(datasets, _environment_since(records, record, snapshot, newest, git_diff) if newest else None)


def _dataset_since(
    dataset: BoundDataset, then: Earlier | None, snapshot: Snapshot, open_dataset: OpenDataset
) -> DatasetSince:
    if then is None:
        return DatasetSince(dataset.named)
    told = DatasetSince(dataset.named, EarlierRun(then.run_id, then.name, then.start_ns), then.seq, then.digest)
    if dataset.digest is None or dataset.seq is None:
        return replace(told, unknown="This run has no digest to compare with.")
    if dataset.digest == then.digest:
        return told
    if dataset.publish == "digest":
        return replace(told, unknown="The digests differ. What differs is not published.")
    try:
        with closing(open_dataset(dataset.name, dataset.seq, snapshot.created_ns)) as db:
            before, after = _between(db, then.seq, dataset.seq, dataset.path)
    except (NotFoundError, IncompleteError) as error:
        return replace(told, unknown=f"The digests differ. What differs cannot be told any more: {error.message}.")
    delta = since_delta(dataset.named, told.run, then.seq, then.digest, compare(before, after))  # type: ignore[arg-type]
    return delta if dataset.publish == "full" else replace(delta, sample=())


def _between(db: Database, a: int, b: int, path: str | None) -> tuple[dict[bytes, Content], dict[bytes, Content]]:
    """Return what differs between two versions, below a subdirectory if one was meant."""
    low, high = sorted((a, b))
    counts = (v.added + v.removed + v.modified for v in db.read(versions.versions) if low < v.seq <= high)
    if (total := sum(counts)) > MOST_COMPARED:
        raise IncompleteError(f"{total:,} changes lie between, more than are looked up")
    before, after = db.read(lambda c: versions.contents_between(c, a, b))
    if path is None:
        return before, after
    start = os.fsencode(path) + b"/"
    return _below(before, start), _below(after, start)


def _below(contents: dict[bytes, Content], start: bytes) -> dict[bytes, Content]:
    return {path[len(start) :]: content for path, content in contents.items() if path.startswith(start)}


def _environment_since(
    records: Database, record: Record | None, snapshot: Snapshot, then: Earlier, git_diff: str
) -> EnvironmentSince:
    told, curtain = EnvironmentSince(EarlierRun(then.run_id, then.name, then.start_ns)), curtain_of(snapshot)
    if record is None:
        return replace(told, unknown=curtain.text(snapshot.environment_unknown or "") or None)
    row = records.read(lambda c: outbox.get(c, then.delivery_id))
    stored = msgspec.json.decode(row.snapshot, type=described(Snapshot)) if row is not None and row.snapshot else None
    before = record_of(records, row, stored, git_diff) if row is not None and stored is not None else None
    if before is None:
        return replace(told, unknown="That of the run before is not known.")
    # What was published with the run before may be kept back by now.
    return replace(told, comparison=compare_environments(hidden(before, curtain), record))
