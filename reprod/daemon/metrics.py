"""What ``/metrics`` shows, for Prometheus: the state of everything, and what happened since the start.

Rules: a name never changes its meaning; units are in names (``_seconds``, ``_bytes``); an age is in seconds at the time
of the scrape; what is not known has no sample (a dataset that was never walked has no files). Blocking, in a thread:
two short reads of the registry, and a look at /proc and at the state's file system.
"""

import os
import platform
import resource
import time
from typing import TYPE_CHECKING

import psutil

import reprod
from reprod.daemon.exposition import CONTENT_TYPE, Family, Page
from reprod.daemon.work import DatasetWork
from reprod.errors import ReprodError
from reprod.store import outbox, registry

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

__all__ = ["CONTENT_TYPE", "FAMILIES", "STATES", "metrics"]

#: States of a dataset: of these one is 1, the others are 0.
STATES = ("new", "scanning", "current", "dirty", "incomplete", "unavailable", "failed", "misconfigured")


def _gauge(text: str) -> Family:
    return Family("gauge", text)


def _counter(text: str) -> Family:
    return Family("counter", text)


#: Every metric there is, in the order of the page.
FAMILIES = {
    "reprod_build_info": _gauge("Always 1; the versions are in the labels."),
    "reprod_start_time_seconds": _gauge("When the daemon started, as Unix time."),
    "reprod_datasets": _gauge("Datasets that are configured, misconfigured ones included."),
    "reprod_dataset_state": _gauge("1 for the state that the dataset is in, 0 for the others."),
    "reprod_dataset_files": _gauge("Files and links of the newest version."),
    "reprod_dataset_bytes": _gauge("Size of the newest version's files."),
    "reprod_dataset_problems": _gauge("Entries of the newest version that cannot be read or keep changing."),
    "reprod_dataset_version": _gauge("Number of the newest version."),
    "reprod_dataset_versions": _gauge("Versions that are kept."),
    "reprod_dataset_database_bytes": _gauge("Size of the dataset's database, counted once a day."),
    "reprod_dataset_watched": _gauge("1 if changes are told by the kernel, 0 if they are found by walking."),
    "reprod_dataset_last_change_seconds": _gauge("Seconds since the newest version was sealed."),
    "reprod_dataset_confirmed_seconds": _gauge("Seconds since a full walk last found the newest version to be true."),
    "reprod_dataset_progress_ratio": _gauge("How far the refresh under way is, from 0 to 1, where that is known."),
    "reprod_dataset_refreshes_total": _counter("Refreshes that ended well, by what they looked at."),
    "reprod_dataset_refresh_seconds_total": _counter("Seconds that these took."),
    "reprod_dataset_refresh_failures_total": _counter("Refreshes that failed, the dataset being unavailable included."),
    "reprod_dataset_sealed_versions_total": _counter("Versions that were sealed."),
    "reprod_dataset_hashed_files_total": _counter("Files that were read and hashed."),
    "reprod_dataset_hashed_bytes_total": _counter("Bytes that were read and hashed."),
    "reprod_dataset_unannounced_changes_total": _counter("Walks that found a change of which no event had told."),
    "reprod_dataset_watch_overflows_total": _counter("Times the kernel dropped events, so that all was walked."),
    "reprod_runs_waiting": _gauge("Runs that are not recorded yet."),
    "reprod_runs_incomplete": _gauge("Runs that are recorded without a digest for every dataset."),
    "reprod_runs_failed": _gauge("Runs that cannot be recorded until a person acts."),
    "reprod_oldest_waiting_run_seconds": _gauge("Seconds since the oldest waiting run was noticed; 0 for none."),
    "reprod_runs_captured_total": _counter("Times that a run was recorded with everything."),
    "reprod_deliveries_total": _counter("Times that a run was written to and got its state, whatever that is."),
    "reprod_delivery_postponements_total": _counter("Times that a run could not be recorded and was put off."),
    "reprod_delivery_failures_total": _counter("Times that a run was given up until a person acts."),
    "reprod_tracking_up": _gauge("1 if the tracking server answered the last poll; nothing if none is configured."),
    "reprod_last_poll_seconds": _gauge("Seconds since the tracking server answered a poll, or since the start."),
    "reprod_registry_writable": _gauge("0 if the registry could not be written lately (no space, read-only)."),
    "reprod_state_disk_free_bytes": _gauge("Space that is left for the daemon's user where the state is."),
    "reprod_state_disk_size_bytes": _gauge("Size of the file system where the state is."),
    "reprod_loop_lag_seconds": _gauge("By how much the event loop was late at most, within the last minute."),
    "reprod_process_resident_memory_bytes": _gauge("Resident memory of the daemon, without its child processes."),
    "reprod_process_cpu_seconds_total": _counter("Processor time of the daemon, without its child processes."),
    "reprod_process_open_fds": _gauge("Open file descriptors."),
    "reprod_process_max_fds": _gauge("The limit of these."),
    "reprod_process_threads": _gauge("Threads."),
}


def metrics(daemon: "Daemon") -> str:
    """Return the page. While the registry cannot be read the rest is told all the same."""
    page, now_ns = Page(FAMILIES), time.time_ns()
    page.add("reprod_build_info", 1, version=reprod.__version__, python=platform.python_version())
    page.add("reprod_start_time_seconds", daemon.started_ns / 1e9)
    _add_datasets(page, daemon, now_ns)
    _add_runs(page, daemon, now_ns)
    _add_place(page, daemon)
    _add_process(page)
    page.add("reprod_loop_lag_seconds", daemon.pulse.lag_s)
    return page.text()


def _add_datasets(page: Page, daemon: "Daemon", now_ns: int) -> None:
    works, misconfigured = list(daemon.works.values()), daemon.config.misconfigured
    page.add("reprod_datasets", len(works) + len(misconfigured))
    states = [(work.dataset.name, str(work.state)) for work in works]
    for name, state in [*states, *((bad.name, "misconfigured") for bad in misconfigured)]:
        for each in STATES:
            page.add("reprod_dataset_state", int(each == state), dataset=name, state=each)
    known = _known(daemon)
    for work in works:
        row = known.get(work.dataset.name)
        same = row is not None and row.root == os.fsencode(work.dataset.path)
        _add_dataset(page, work, row if same else None, now_ns)
        _add_history(page, daemon, work)
        _add_counts(page, daemon, work.dataset.name)


def _known(daemon: "Daemon") -> dict[str, registry.KnownDataset]:
    try:
        return {row.name: row for row in daemon.records.read(registry.datasets)}
    except ReprodError:
        return {}


def _add_dataset(page: Page, work: DatasetWork, known: registry.KnownDataset | None, now_ns: int) -> None:
    """Tell of a dataset what this daemon found, or what an earlier one did."""
    name, version = work.dataset.name, work.report.version if work.report else None
    page.add("reprod_dataset_watched", int(work.watch.mode in {"inotify", "watchfiles"}), dataset=name)
    if version is not None:
        seen: tuple[int | None, ...] = (version.files, version.size, version.seq, version.sealed_ns, work.confirmed_ns)
    elif known is not None and known.sealed_ns:
        seen = (known.files, known.size, known.seq, known.sealed_ns, known.proved_ns)
    else:
        seen = (None,) * 5
    files, size, seq, sealed_ns, confirmed_ns = seen
    page.add("reprod_dataset_files", files, dataset=name)
    page.add("reprod_dataset_bytes", size, dataset=name)
    page.add("reprod_dataset_version", seq, dataset=name)
    page.add("reprod_dataset_problems", version.problems if version else None, dataset=name)
    page.add("reprod_dataset_last_change_seconds", _age_s(sealed_ns, now_ns), dataset=name)
    page.add("reprod_dataset_confirmed_seconds", _age_s(confirmed_ns, now_ns), dataset=name)
    counts = work.progress
    expected = version.files if version else None
    if counts is not None and expected:
        page.add("reprod_dataset_progress_ratio", min(1.0, counts.files / expected), dataset=name)


def _add_history(page: Page, daemon: "Daemon", work: DatasetWork) -> None:
    history = daemon.pruner.document(work)
    if history is not None:
        page.add("reprod_dataset_versions", history["versions"], dataset=work.dataset.name)
        page.add("reprod_dataset_database_bytes", history["file_bytes"], dataset=work.dataset.name)


def _add_counts(page: Page, daemon: "Daemon", name: str) -> None:
    counts = daemon.counters.of(name)
    for kind, count, seconds in (("full", counts.full, counts.full_s), ("hinted", counts.hinted, counts.hinted_s)):
        page.add("reprod_dataset_refreshes_total", count, dataset=name, walk=kind)
        page.add("reprod_dataset_refresh_seconds_total", seconds, dataset=name, walk=kind)
    page.add("reprod_dataset_refresh_failures_total", counts.failed, dataset=name)
    page.add("reprod_dataset_sealed_versions_total", counts.sealed, dataset=name)
    page.add("reprod_dataset_hashed_files_total", counts.hashed_files, dataset=name)
    page.add("reprod_dataset_hashed_bytes_total", counts.hashed_bytes, dataset=name)
    page.add("reprod_dataset_unannounced_changes_total", counts.unannounced, dataset=name)
    page.add("reprod_dataset_watch_overflows_total", counts.overflows, dataset=name)


def _add_runs(page: Page, daemon: "Daemon", now_ns: int) -> None:
    counters, tracking = daemon.counters, daemon.tracking
    page.add("reprod_runs_captured_total", counters.captured)
    page.add("reprod_deliveries_total", counters.deliveries)
    page.add("reprod_delivery_postponements_total", counters.postponed)
    page.add("reprod_delivery_failures_total", counters.failed)
    if tracking.state != "none":
        page.add("reprod_tracking_up", int(tracking.state == "reachable"))
        page.add("reprod_last_poll_seconds", _age_s(tracking.last_poll_ns or daemon.started_ns, now_ns))
    try:
        counts = daemon.records.read(outbox.counts)
    except ReprodError:
        return
    page.add("reprod_runs_waiting", counts.waiting)
    page.add("reprod_runs_incomplete", counts.incomplete)
    page.add("reprod_runs_failed", counts.failed)
    page.add("reprod_oldest_waiting_run_seconds", _age_s(counts.oldest_ns, now_ns) or 0)


def _add_place(page: Page, daemon: "Daemon") -> None:
    page.add("reprod_registry_writable", int(daemon.stuck is None))
    try:
        disk = os.statvfs(daemon.config.state_dir)
    except OSError:
        return
    page.add("reprod_state_disk_free_bytes", disk.f_bavail * disk.f_frsize)
    page.add("reprod_state_disk_size_bytes", disk.f_blocks * disk.f_frsize)


def _add_process(page: Page) -> None:
    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        page.add("reprod_process_resident_memory_bytes", process.memory_info().rss)
        page.add("reprod_process_cpu_seconds_total", times.user + times.system)
        page.add("reprod_process_open_fds", process.num_fds())
        page.add("reprod_process_threads", process.num_threads())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    page.add("reprod_process_max_fds", limit if limit != resource.RLIM_INFINITY else None)


def _age_s(since_ns: int | None, now_ns: int) -> float | None:
    """Return how long ago a moment was; one that a clock since set back puts into the future was just now."""
    return max(0.0, (now_ns - since_ns) / 1e9) if since_ns else None
