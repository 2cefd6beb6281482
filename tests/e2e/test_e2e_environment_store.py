"""The large files of an environment lie on the tracking server once, however many runs had it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Tracker, eventually, let_slack_pass, running_daemon

from reprod.core.environment import PREFIX
from reprod.ops.fetch_environment import fetch_environment
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import ENVIRONMENT_TAG, STORE_EXPERIMENT

pytestmark = pytest.mark.mlflow

#: A training script: its run's process lives until it is told to end.
TRAIN = "import mlflow, sys; mlflow.start_run(); print(mlflow.active_run().info.run_id, flush=True); sys.stdin.read()"


def stored(tracker: Tracker, digest: str) -> list[str]:
    """Return the store runs of an environment."""
    experiment = tracker.client.get_experiment_by_name(STORE_EXPERIMENT)
    if experiment is None:
        return []
    query = f"tags.`{ENVIRONMENT_TAG}` = '{digest}'"
    return [run.info.run_id for run in tracker.client.search_runs([experiment.experiment_id], query)]


def test_two_runs_of_one_environment_store_it_once(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """Two processes with the same environment: one store run with the list of packages, a reference on each run also
    after its end, and the whole record comes back from the server alone."""
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        environ = {"MLFLOW_TRACKING_URI": tracker.uri, "PYTHONHASHSEED": "0"}
        runs = []
        for _ in range(2):
            with subprocess.Popen(
                [sys.executable, "-c", TRAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                cwd=tmp_path, env={**daemon.place.variables(), **environ},
            ) as process:  # fmt: skip
                assert process.stdout is not None
                run_id = process.stdout.readline().strip()
                tracker.tag(run_id, name)
                tracker.wait_state(run_id)
                process.communicate(timeout=60)
            runs.append(run_id)
        for run_id in runs:
            eventually(lambda r=run_id: "python_version" in tracker.client.get_run(r).data.params, 30, daemon.tail)
        documents = [json.loads(tracker.read(r, "environment/environment.json", tmp_path / r)) for r in runs]
        (digest,) = {document["digest"] for document in documents}
        assert digest.startswith(PREFIX)
        (store,) = stored(tracker, digest)
        for run_id, document in zip(runs, documents, strict=True):
            assert document["reference"]["run_id"] == store
            header = json.loads(tracker.read(run_id, "environment/packages.json", tmp_path / run_id))
            assert header["reference"]["run_id"] == store
            assert "packages" not in header
        child = MlflowChild(tracker.uri)
        try:
            records = [fetch_environment(child, run_id) for run_id in runs]
        finally:
            child.close()
        assert records[0].environment == records[1].environment
        assert PREFIX + records[0].environment.digest() == digest
        assert "mlflow" in {package.name for package in records[0].environment.packages.packages}
        assert records[0].execution.subject.pid != records[1].execution.subject.pid
