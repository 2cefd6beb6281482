"""``reprod run`` end to end: a training environment without reprod, real MLflow there, a real daemon and server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from harness import Daemon, Tracker, let_slack_pass, running_daemon
from training_place import REPROD_RUN, copy_mlflow, make_venv, put_package, settle

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.timeout(300),
]  # MLflow is imported twice, cold: a minute on a busy machine

TRAIN = """
import importlib.util, mlflow, sys
assert importlib.util.find_spec("reprod") is None
with mlflow.start_run(experiment_id=sys.argv[1]) as run:
    print(run.info.run_id, flush=True)
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with MLflow and without reprod."""
    venv = tmp_path_factory.mktemp("training") / "venv"
    make_venv(venv, mlflow=False)
    copy_mlflow(venv)
    put_package(venv, "colours", "1.5")
    return venv


@pytest.fixture
def daemon(tmp_path: Path, mlflow_server: str, data: Path, name: str) -> Iterator[Daemon]:
    with running_daemon(tmp_path / "d", mlflow_server, {name: data}) as running:
        running.sealed(name, 1)
        let_slack_pass()
        yield running


@pytest.mark.parametrize("behind", ["", "shell"])
def test_a_run_of_an_environment_without_reprod_is_captured_with_that_environment(
    daemon: Daemon, tracker: Tracker, name: str, training: Path, tmp_path: Path, behind: str
) -> None:
    """The dataset is bound at the start, and the environment is the training's, also behind a shell's script."""
    (tmp_path / "train.py").write_text(TRAIN)
    command = [str(training / "bin" / "python"), "train.py", tracker.experiment]
    if behind:
        (tmp_path / "train.sh").write_text(f"{sys.executable} -c pass\n{' '.join(command)}\n")
        command = ["sh", "train.sh"]
    settle()
    done = subprocess.run(
        [*REPROD_RUN, "--dataset", name, "--", *command],
        cwd=tmp_path,
        env={**daemon.place.variables(), "MLFLOW_TRACKING_URI": tracker.uri, "GIT_PYTHON_REFRESH": "quiet"},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split()[0]
    tags = tracker.wait_state(run_id)
    assert (tags["reprod.dataset"], tags["reprod.bound"]) == (name, "start")
    requirements = tracker.read(run_id, "environment/requirements.txt", tmp_path / "got").decode()
    assert "colours" in requirements
    assert f"mlflow=={version('mlflow')}" in requirements.splitlines()
    assert "reprod==" not in requirements
    system = json.loads(tracker.read(run_id, "environment/system_info.json", tmp_path / "got"))
    assert system["subject"]["prefix"] == str(training)
