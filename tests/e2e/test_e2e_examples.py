"""The examples, run as a user runs them against a real daemon and server.

Those with torch are not in the suite: they fetch 1 GB from the package index that pip is configured for, and take
minutes. ``REPROD_HEAVY=1`` runs them, in a virtual environment of their own, or with the Python that
``REPROD_EXAMPLES_PYTHON`` names, which has all of ``WANTED`` and reprod.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Tracker, eventually, let_slack_pass, running_daemon

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(300)]  # MLflow and scikit-learn are imported: a minute when busy

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
#: Together they decide on versions; the CPU build of torch first, or several GB of CUDA come along.
WANTED = (["torch==2.13.0"], ["mlflow<4", "scikit-learn", "lightning", "transformers", "accelerate"])


@dataclass(frozen=True, slots=True)
class Bed:
    """A daemon that has the points as ``name``, and the experiment that the example's run will be in."""

    tracker: Tracker
    name: str
    data: Path
    variables: dict[str, str]
    folder: Path

    def train(self, python: str, example: str, *, timeout_s: float = 200) -> tuple[dict[str, str], set[str]]:
        """Run one example; return the tags of its run when it is captured, and the packages of its environment."""
        done = subprocess.run(
            [python, EXAMPLES / example, self.data, self.name],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "reprod: warning" not in done.stderr
        client, experiment = self.tracker.client, self.tracker.experiment
        (run,) = eventually(lambda: client.search_runs([experiment]), 30, "the run is there")
        tags = self.tracker.wait_state(run.info.run_id)
        text = self.tracker.read(run.info.run_id, "environment/requirements.txt", self.folder / "got").decode()
        return tags, {line.partition("==")[0] for line in text.splitlines()}


@pytest.fixture
def bed(tmp_path: Path, mlflow_server: str, tracker: Tracker, name: str) -> Iterator[Bed]:
    data = tmp_path / "points"
    subprocess.run([sys.executable, EXAMPLES / "make_points.py", data], check=True, timeout=60)
    with running_daemon(tmp_path / "d", mlflow_server, {name: data}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        experiment = tracker.client.get_experiment(tracker.experiment)
        variables = {
            **daemon.place.variables(),
            "MLFLOW_TRACKING_URI": tracker.uri,
            "MLFLOW_EXPERIMENT_ID": tracker.experiment,
            "MLFLOW_EXPERIMENT_NAME": experiment.name,  # as transformers' callback wants it
            "GIT_PYTHON_REFRESH": "quiet",
            "HF_HUB_OFFLINE": "1",
        }
        yield Bed(tracker, name, data, variables, tmp_path)


def test_the_scikit_learn_example_is_captured(bed: Bed) -> None:
    """The run that starts inside ``track`` has its dataset bound at the start and the environment with scikit-learn."""
    pytest.importorskip("sklearn")
    tags, packages = bed.train(sys.executable, "sklearn_train.py")
    assert (tags["reprod.dataset"], tags["reprod.bound"]) == (bed.name, "start")
    assert {"scikit-learn", "mlflow"} <= packages


@pytest.fixture(scope="module")
def heavy_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a Python with torch, the tools that the examples use, and this reprod."""
    if given := os.environ.get("REPROD_EXAMPLES_PYTHON"):
        return given
    venv = tmp_path_factory.mktemp("examples") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
    for wanted in (*WANTED, [str(ROOT)]):
        subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted], check=True, timeout=1800)
    return str(venv / "bin" / "python")


@pytest.mark.skipif(os.environ.get("REPROD_HEAVY") != "1", reason="fetches 1 GB from a package index: REPROD_HEAVY=1")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("example", "package"),
    [("pytorch_train.py", "torch"), ("lightning_train.py", "lightning"), ("hf_trainer.py", "transformers")],
)
def test_the_examples_with_torch_are_captured(bed: Bed, heavy_python: str, example: str, package: str) -> None:
    """A loop, Lightning's logger and the Trainer's own run: dataset bound at the start, environment with torch."""
    if example == "lightning_train.py":  # its logger takes no experiment from a variable
        bed = _in_experiment(bed, "points")
    tags, packages = bed.train(heavy_python, example, timeout_s=600)
    assert (tags["reprod.dataset"], tags["reprod.bound"]) == (bed.name, "start")
    assert {"torch", "mlflow", package} <= packages
    assert json.loads(tags["reprod.context"])["prefix"] == str(Path(heavy_python).parents[1])


def _in_experiment(bed: Bed, name: str) -> Bed:
    found = bed.tracker.client.get_experiment_by_name(name)
    assert found is None, "another test has made it"
    experiment = bed.tracker.client.create_experiment(name)
    return Bed(Tracker(bed.tracker.client, bed.tracker.uri, experiment), bed.name, bed.data, bed.variables, bed.folder)
