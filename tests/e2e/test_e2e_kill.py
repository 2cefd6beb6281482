"""kill -9 of the daemon around each request of a delivery: the same final state as without."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Daemon, Tracker, eventually, is_running, let_slack_pass, running_daemon
from mlflow_proxy import Proxy, When

from reprod.capture.process.identity import current_context

#: Every how many-th place to cut at is tried, besides those at the end; ``make torture`` has 1. Four seconds each.
STRIDE = int(os.environ.get("REPROD_STRIDE", "4"))

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(120 + 480 // STRIDE)]

#: What may differ between two captures: when they were made, and how long the walk took.
TIMES = {"free_bytes", "generated_at", "timestamp", "processing_time_seconds", "taken_ns", "started_ns"}


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """Yield a proxy to the real server."""
    proxy = Proxy(mlflow_server)
    yield proxy
    proxy.go_away()


def test_kill_around_each_request_gives_the_same_final_state(
    tmp_path: Path, proxy: Proxy, tracker: Tracker, data: Path, name: str
) -> None:
    """A daemon that is killed before any request of a delivery, or after the answer to any that writes, finishes the
    run after its restart: tags, params, metrics, inputs and artifacts are those of a run that was not cut. (Each fourth
    place, unless ``REPROD_STRIDE`` says otherwise; always those around the state and after all.)"""
    context = current_context().to_json()
    with running_daemon(tmp_path / "d", proxy.url, {name: data}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        for _ in range(2):  # the first one brings the environment's large files to the server, for all
            proxy.requests.clear()
            uncut = tracker.finished_run(name, context=context)
            tracker.wait_state(uncut)
            daemon.wait_event("run.finished", run_id=uncut)
        requests = list(proxy.requests)
        state = max(i for i, request in enumerate(requests) if request.endswith("/runs/set-tag"))
        wanted = final_state(tracker, uncut, tmp_path / "uncut")
        points = [point for point in cut_points(requests) if point[0] <= state] + [(len(requests) - 1, "after")]
        assert len(points) >= 10, requests
        for number, when in points[:-3:STRIDE] + points[-3:]:
            proxy.cut_at(number, when, lambda: kill_all(daemon))
            run_id = tracker.finished_run(name, context=context)
            said = f"{when} {requests[number]}"
            eventually(proxy.was_cut.is_set, 30, lambda said=said: f"the delivery comes to {said}; {daemon.tail()}")
            settled = number > state or (number == state and when == "after")
            assert tracker.ours(run_id).get("reprod.state") == ("captured" if settled else None)
            daemon.kill()  # reaps it
            daemon.start()
            daemon.wait_event("run.finished", 30, run_id=run_id)
            assert final_state(tracker, run_id, tmp_path / f"{number}{when}") == wanted, said


def test_params_of_a_run_that_ended_while_no_daemon_ran(
    tmp_path: Path, tracker: Tracker, data: Path, name: str
) -> None:
    """A run that was captured while it trained, and ends after a kill -9, gets its params from the next daemon."""
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        run_id = tracker.start_run(name)
        daemon.wait_event("run.captured", run_id=run_id, params_written=False)
        daemon.kill()
        tracker.client.set_terminated(run_id)
        daemon.start()
        assert tracker.wait_params(run_id, "data_path")["data_path"] == str(data)
        assert tracker.history(run_id, "data_files_count") == [6]


def cut_points(requests: list[str]) -> list[tuple[int, When]]:
    """Return where to cut: after each request that writes (which is before the next), and before the first of each
    stretch of reads; two uploads stand for all."""
    points: list[tuple[int, When]] = []
    uploads = 0
    for number, request in enumerate(requests):
        writes = not request.startswith("GET ")
        upload = request.startswith("PUT ")
        uploads += upload
        if upload and uploads > 2:
            continue
        if writes:
            points.append((number, "after"))
        if writes and not upload:
            points.append((number, "before"))
        if not writes and (number == 0 or not requests[number - 1].startswith("GET ")):
            points.append((number, "before"))
    return points


def kill_all(daemon: Daemon) -> None:
    """SIGKILL the daemon, and wait until its MLflow child, which nobody signals, has ended by itself."""
    children = [child.pid for child in psutil.Process(daemon.pid).children(recursive=True)]
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in children), 10, "the child ends with its parent")


def final_state(tracker: Tracker, run_id: str, into: Path) -> dict[str, Any]:
    """Return all that a run carries, without what differs from run to run."""
    run = tracker.client.get_run(run_id)
    files = tracker.artifacts(run_id)
    return {
        "tags": tracker.ours(run_id) | {"reprod.drift": "said"},  # what could be seen of it differs with the downtime
        "params": dict(run.data.params),
        "metrics": {
            key: (len(tracker.history(run_id, key)), None if key == "data_processing_time" else value)
            for key, value in run.data.metrics.items()
        },
        "inputs": [
            (i.dataset.name, i.dataset.digest, i.dataset.source, i.dataset.profile, [(t.key, t.value) for t in i.tags])
            for i in run.inputs.dataset_inputs
        ],
        "artifacts": {path: timeless(path, tracker.read(run_id, path, into)) for path in files},
    }


def timeless(path: str, content: bytes) -> Any:
    """Return a file's content without its times."""
    if path.endswith("drift.json"):  # of another run, over another time
        return sorted(json.loads(content))
    if path.endswith(".json"):
        return without_times(json.loads(content))
    if path.endswith(".html"):  # it names the run and the one before it
        return content.startswith(b"<!DOCTYPE html>"), content.endswith(b"</html>\n")
    return re.sub(rb"(?m)^# Captured by reprod at .*$", b"", content)


def without_times(value: Any) -> Any:
    """Return a JSON value without the keys of ``TIMES``."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value
