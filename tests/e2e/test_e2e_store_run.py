"""kill -9 of the daemon while it brings a large manifest to the server: nothing half is ever found."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import Daemon, Tracker, dt1, eventually, is_running, let_slack_pass, running_daemon
from mlflow_proxy import Proxy, When

from reprod.ops.fetch import fetch_manifest
from reprod.sinks.child import MlflowChild

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(180)]

#: Requests that store a manifest, in order: made, filled, found.
STEPS = ("POST runs/create", "PUT SHA256SUMS.gz", "POST runs/set-tag")


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """Yield a proxy to the real server."""
    proxy = Proxy(mlflow_server)
    yield proxy
    proxy.go_away()


def test_a_kill_at_any_step_of_an_upload_leaves_nothing_half(
    tmp_path: Path, proxy: Proxy, tracker: Tracker, data: Path, name: str
) -> None:
    """A daemon that is killed around each request of an upload finishes the run after its restart; exactly one store
    run of each version is ever found, the unfinished one is gone on with, and every manifest is whole."""
    with running_daemon(tmp_path / "d", proxy.url, {name: data}, mlflow={"max_inline_files": 3}) as daemon:
        runs: dict[str, str] = {}
        for version in (1, 2):  # the first may also make the experiment
            make_version(daemon, data, name, version)
            proxy.requests.clear()
            uncut = tracker.finished_run(name)
            tracker.wait_state(uncut)
            daemon.wait_event("run.finished", run_id=uncut)
            runs[uncut] = dt1(data)
        numbers = [step_number(proxy.requests, step) for step in STEPS]
        assert numbers == sorted(numbers), proxy.requests
        points: list[tuple[int, When]] = [(number, "after") for number in numbers] + [(numbers[-1], "before")]
        for version, (number, when) in enumerate(points, 3):
            make_version(daemon, data, name, version)
            proxy.cut_at(number, when, lambda: kill_all(daemon))
            run_id = tracker.finished_run(name)
            eventually(proxy.was_cut.is_set, 30, lambda: f"the delivery comes to the cut; {daemon.tail()}")
            assert "reprod.state" not in tracker.ours(run_id)
            found = stored(tracker, dt1(data))
            assert len(found) == (1 if (number, when) == (numbers[-1], "after") else 0)
            daemon.kill()
            daemon.start()
            daemon.wait_event("run.finished", 30, run_id=run_id)
            assert len(stored(tracker, dt1(data))) == 1
            runs[run_id] = dt1(data)
    # One more than versions at most: the one that was made in the moment of a kill, and not noted before it.
    assert len(named(tracker, name)) <= len(runs) + 1
    child = MlflowChild(tracker.uri)
    try:
        for run_id, digest in runs.items():
            with fetch_manifest(child, run_id) as fetched:
                assert fetched.digest == digest
    finally:
        child.close()


def make_version(daemon: Daemon, data: Path, name: str, version: int) -> None:
    """Seal a version that a run which starts now is provably bound to."""
    if version > 1:
        (data / "sub" / "part-1.csv").write_text(f"version {version}")
    daemon.sealed(name, version)
    let_slack_pass()


def step_number(requests: list[str], step: str) -> int:
    """Return the number of the first request of a kind."""
    method, ending = step.split()
    return next(i for i, r in enumerate(requests) if r.startswith(method) and r.split("?")[0].endswith(ending))


def stored(tracker: Tracker, digest: str) -> list[str]:
    """Return the store runs that are found by a digest."""
    return search(tracker, f"tags.`reprod.manifest.digest` = '{digest}'")


def named(tracker: Tracker, name: str) -> list[str]:
    """Return all store runs that were made for a dataset, whole or not."""
    return search(tracker, f"attributes.run_name LIKE '{name} %'")


def search(tracker: Tracker, question: str) -> list[str]:
    experiment = tracker.client.get_experiment_by_name("reprod-datasets")
    found = tracker.client.search_runs([experiment.experiment_id], question, max_results=1000) if experiment else []
    return [run.info.run_id for run in found]


def kill_all(daemon: Daemon) -> None:
    """SIGKILL the daemon, and wait until its MLflow child, which nobody signals, has ended by itself."""
    children = [child.pid for child in psutil.Process(daemon.pid).children(recursive=True)]
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in children), 10, "the child ends with its parent")
