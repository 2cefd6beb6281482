"""The verb that makes a run's report page from the tracking server alone, as the daemon makes it at delivery.

The runs before it are found by the dataset, the newest that began before it; what became of the data since is read out
of both manifests. What could not be had is said on the page.
"""

from collections.abc import Callable
from typing import Any

from reprod.core.delta import compare
from reprod.core.environment_diff import compare as compare_environments
from reprod.core.profile import DataProfile, profile
from reprod.core.report import page_of
from reprod.core.report_since import DatasetSince, EarlierRun, EnvironmentSince, Since, since_delta
from reprod.core.run import key_of, split_name
from reprod.core.run_record import RunRecord, UsedDataset
from reprod.errors import DamagedError, IncompleteError, NotFoundError, UsageError
from reprod.ops.fetch import fetch_manifest
from reprod.ops.fetch_environment import fetch_environment
from reprod.ops.fetch_run import fetch_run, find_run
from reprod.ops.run_diff import differing
from reprod.sinks.child import MlflowChild
from reprod.sinks.run_messages import RunHead

Report = Callable[[dict[str, Any]], None]

#: What the server may not have any more, or never had.
_LOST = (DamagedError, IncompleteError, NotFoundError)


def make_page(child: MlflowChild, ref: str, report: Report = lambda _: None) -> tuple[RunRecord, bytes]:
    """Return a run and its page.

    :raises NotFoundError: no such run. :raises UsageError: it is several. :raises IncompleteError: nothing is recorded
    of it. :raises TrackingError: the server cannot be reached.
    """
    report({"phase": f"asking the tracking server for {ref}"})
    run = fetch_run(child, find_run(child, ref).run_id)
    if run.state is None:
        named = run.tags.get("reprod.dataset")
        hint = f"reprod status, where {named} is, says what it waits for" if named else "tag it with reprod.dataset"
        raise IncompleteError(f"nothing is recorded of run {run.run_id}", hint=hint)
    profiles: dict[str, DataProfile | str] = {}
    for used in run.datasets:
        report({"phase": f"reading the manifest of {used.name}"})
        profiles[used.name] = _profile(child, run.run_id, used)
    return run, page_of(run, profiles, _since(child, run, report))


def _profile(child: MlflowChild, run_id: str, used: UsedDataset) -> DataProfile | str:
    try:
        with fetch_manifest(child, run_id, used.name) as fetched:
            return profile(fetched.entries())
    except (*_LOST, UsageError) as error:
        return error.message


def _since(child: MlflowChild, run: RunRecord, report: Report) -> Since:
    datasets: list[DatasetSince] = []
    newest: RunHead | None = None
    for used in run.datasets:
        report({"phase": f"looking for the run before it on {used.name}"})
        found = _before(child, run, used.name)
        if found is None:
            datasets.append(DatasetSince(used.name))
            continue
        head, tags = found
        newest = head if newest is None or head.start_ms > newest.start_ms else newest
        datasets.append(_dataset_since(child, run, used, head, tags))
    return Since(tuple(datasets), _environment_since(child, run, newest) if newest is not None else None)


def _before(child: MlflowChild, run: RunRecord, name: str) -> tuple[RunHead, dict[str, str]] | None:
    """Return the newest run with a digest of the dataset that began before this one."""
    best: tuple[RunHead, dict[str, str]] | None = None
    page: str | None = ""
    while page is not None:
        answer = child.runs_on(split_name(name)[0], page)
        for head, tags in answer.runs:
            earlier = head.start_ms * 1_000_000 < run.start_ns and head.run_id != run.run_id
            if (
                earlier
                and f"reprod.digest.{key_of(name)}" in tags
                and (best is None or head.start_ms > best[0].start_ms)
            ):
                best = head, tags
        page = answer.next
    return best


def _dataset_since(
    child: MlflowChild, run: RunRecord, used: UsedDataset, head: RunHead, tags: dict[str, str]
) -> DatasetSince:
    earlier = EarlierRun(head.run_id, head.name, head.start_ms * 1_000_000)
    digest, number = (tags.get(f"reprod.{key}.{key_of(used.name)}") for key in ("digest", "version"))
    version = int(number) if number and number.isascii() and number.isdigit() and len(number) < 19 else None
    if used.digest is None:
        return DatasetSince(used.name, earlier, version, digest, unknown="this run has no digest to compare with")
    if digest == used.digest:
        return DatasetSince(used.name, earlier, version, digest)
    try:
        with (
            fetch_manifest(child, head.run_id, used.name) as before,
            fetch_manifest(child, run.run_id, used.name) as after,
        ):
            delta = compare(*differing(before.entries(), after.entries()))
    except _LOST as error:
        return DatasetSince(used.name, earlier, version, digest, unknown=error.message)
    return since_delta(used.name, earlier, version, digest, delta)


def _environment_since(child: MlflowChild, run: RunRecord, head: RunHead) -> EnvironmentSince:
    earlier = EarlierRun(head.run_id, head.name, head.start_ms * 1_000_000)
    if run.environment is None:
        return EnvironmentSince(earlier, unknown=run.environment_unknown or "that of this run is not recorded")
    try:
        before = fetch_environment(child, head.run_id)
    except _LOST as error:
        return EnvironmentSince(earlier, unknown=error.message)
    return EnvironmentSince(earlier, compare_environments(before, run.environment))
