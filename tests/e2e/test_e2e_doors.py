"""The ways in besides polling: the library's tag_dataset, the command line, and the daemon's own tracking server."""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import STOPPED_S, Daemon, Tracker, dt1, eventually, is_running, let_slack_pass, running_daemon

pytestmark = pytest.mark.mlflow

SCRIPT = """
import sys, mlflow, reprod
with mlflow.start_run(experiment_id={experiment!r}) as run:
    assert reprod.tag_dataset({name!r}, strict=True)
print(run.info.run_id, reprod.wait_captured(run.info.run_id, 60))
"""


@pytest.fixture
def daemon(tmp_path: Path, mlflow_server: str, data: Path, name: str) -> Iterator[Daemon]:
    """Yield a daemon that polls once in ten minutes: what comes sooner came through the socket."""
    with running_daemon(tmp_path / "d", mlflow_server, {name: data}, mlflow={"poll_seconds": 600}) as running:
        running.sealed(name, 1)
        eventually(lambda: running.status()["tracking"]["state"] == "reachable", 20, "the first poll has ended")
        let_slack_pass()
        yield running


def test_tag_dataset_is_noticed_at_once(daemon: Daemon, tracker: Tracker, data: Path, name: str) -> None:
    """``reprod.tag_dataset`` in a script wakes the daemon, and ``wait_captured`` returns the state."""
    variables = {**daemon.place.variables(), "MLFLOW_TRACKING_URI": tracker.uri, "GIT_PYTHON_REFRESH": "quiet"}
    script = SCRIPT.format(experiment=tracker.experiment, name=name)
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    run_id, state = done.stdout.split()[-2:]
    assert state == "captured"
    assert "warning" not in done.stderr
    assert tracker.ours(run_id)["reprod.digest"] == dt1(data)


def test_an_announcement_of_another_daemons_dataset_asks_the_server_nothing(daemon: Daemon, name: str) -> None:
    """Who announces what this daemon does not have, in vain or to keep it busy, makes it poll no sooner."""

    def polled() -> Any:
        return daemon.status()["tracking"]["last_poll_at"]

    def rests() -> Any:
        """Return when it was polled last, if not within a second: the start may have asked for one more."""
        last, until = polled(), time.monotonic() + 1
        eventually(lambda: time.monotonic() > until, 2, "time passes")
        return last if polled() == last else None

    before = eventually(rests, 20, "it polls no more")
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert daemon.call("announce", dataset="unknown, other/sub")["known"] is False
    assert polled() == before
    assert daemon.call("announce", dataset=f"unknown, {name}")["known"] is False
    eventually(lambda: polled() != before, 10, "of one that it has it does")


def test_snapshot_for_a_run_tags_it(daemon: Daemon, tracker: Tracker, data: Path, name: str) -> None:
    """``reprod snapshot NAME --run RUN`` prints the version and has the run recorded; an unknown run is exit 4."""
    run_id = tracker.finished_run()
    done = daemon.place.cli("snapshot", name, "--run", run_id, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == dt1(data)
    assert tracker.wait_state(run_id)["reprod.digest"] == dt1(data)
    assert daemon.place.cli("snapshot", name, "--run", "0" * 32).returncode == 4


def test_the_daemons_own_server(tmp_path: Path, data: Path, name: str) -> None:
    """With tracking_uri = "local" the daemon's server records a run; SIGTERM leaves no process, the run stays, and a
    server whose daemon is killed ends by itself, also while it starts."""
    from mlflow import MlflowClient

    with running_daemon(tmp_path / "d", "local", {name: data}) as daemon:
        tracker = own_tracker(daemon)
        daemon.sealed(name, 1)
        let_slack_pass()
        run_id = tracker.finished_run(name)
        assert tracker.wait_state(run_id)["reprod.digest"] == dt1(data)
        assert str(daemon.place.state) not in tracker.uri
        children = daemon.children()
        code, seconds = daemon.terminate()
        assert (code, seconds < STOPPED_S) == (0, True), (seconds, daemon.tail())
        eventually(lambda: not [pid for pid in children if is_running(pid)], 10, "no process is left")

        daemon.start()
        children = eventually(daemon.children, 20, daemon.tail)
        kept = MlflowClient(f"sqlite:///{daemon.place.state}/mlflow.db")
        assert kept.get_run(run_id).data.tags["reprod.state"] == "captured"
        daemon.kill()
        eventually(lambda: not [pid for pid in children if is_running(pid)], 10, "the server ends with its daemon")


def own_tracker(daemon: Daemon) -> Tracker:
    """Wait for the daemon's own server; return it with a fresh experiment."""
    from mlflow import MlflowClient

    def reachable() -> Any:
        tracking = daemon.status()["tracking"]
        return tracking["uri"] if tracking["state"] == "reachable" else None

    uri = eventually(reachable, 60, lambda: f"the local server answers; {daemon.tail()}")
    client = MlflowClient(uri)
    return Tracker(client, uri, client.create_experiment(uuid.uuid4().hex))


def test_no_door_tells_the_password_of_the_tracking_server(tmp_path: Path) -> None:
    """A password in the tracking URI is in no answer that a local user can get, and not in the log."""
    with running_daemon(tmp_path / "d", "http://somebody:s3cret-word@127.0.0.1:9") as daemon:
        answers = [daemon.call(method) for method in ("hello", "announce", "status", "runs")]
        assert "127.0.0.1:9" in answers[1]["tracking_uri"]
        shown = json.dumps(answers) + daemon.place.cli("status").stdout + daemon.place.cli("doctor").stdout
        assert "s3cret-word" not in shown + daemon.tail()
