"""Real notebooks: ``jupyter nbconvert --execute`` with a kernel, in environments with and without reprod.

Not in the suite: nbconvert, ipykernel and MLflow's client are fetched from the package index that pip is configured for
(300 MB). ``REPROD_HEAVY=1 pytest tests/heavy/test_notebook.py`` runs it; with ``REPROD_HEAVY_KEPT=FOLDER`` the
environment is made there, or taken from there.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from heavy_place import IS_WANTED, Here, python_with
from training_place import REPROD_RUN, make_venv, put_package, settle, site
from waiting import eventually

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.skipif(not IS_WANTED, reason="fetches notebooks from a package index: REPROD_HEAVY=1"),
    pytest.mark.timeout(900),
]

#: The last cell gives the companion of ``reprod run`` the time that a training takes it.
PLAIN = (
    "import mlflow, os, time",
    "with mlflow.start_run(experiment_id=os.environ['EXPERIMENT']) as run:\n    time.sleep(3)",
    "open('run', 'w').write(run.info.run_id)",
)
TRACKED = (
    "import mlflow, os, reprod",
    "with reprod.track(os.environ['DATASET']), mlflow.start_run(experiment_id=os.environ['EXPERIMENT']) as run: pass",
    "import colours",
    "open('run', 'w').write(run.info.run_id)",
)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an environment with nbconvert, a kernel and MLflow, and without reprod."""
    wanted = ["nbconvert", "ipykernel", f"mlflow-skinny=={version('mlflow')}"]
    return python_with(wanted, "notebook", tmp_path_factory.mktemp("notebook")).parent.parent


def notebook(path: Path, kernel: str, *cells: str) -> None:
    """Write a notebook as Jupyter saves it."""
    empty = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    metadata = {"kernelspec": {"display_name": kernel, "language": "python", "name": kernel}}
    content = [{**empty, "id": f"cell{number}", "source": text} for number, text in enumerate(cells)]
    path.write_text(json.dumps({"cells": content, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))


def put_kernel(here: Here, name: str, venv: Path) -> None:
    """Make the environment at ``venv`` a kernel that notebooks name."""
    spec = here.base / "kernels" / "kernels" / name
    spec.mkdir(parents=True)
    argv = [str(venv / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": "python"}))


def execute(here: Here, venv: Path, *, before: tuple[str, ...] = ()) -> str:
    """Execute ``train.ipynb`` in a folder with a git repository; return the id of its run."""
    home = here.base / "home"
    (home / ".ipython").mkdir(parents=True, exist_ok=True)
    settle()
    command = [*before, str(venv / "bin" / "jupyter"), "nbconvert", "--to", "notebook", "--execute"]
    variables = {"EXPERIMENT": here.tracker.experiment, "DATASET": here.name, "HOME": str(home)}
    done = subprocess.run(
        [*command, "--output", "done.ipynb", "train.ipynb"],
        cwd=here.base / "code",
        env=here.variables(**variables, JUPYTER_PATH=str(here.base / "kernels"), GIT_PYTHON_REFRESH="quiet"),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (here.base / "code" / "run").read_text()


def put_code(here: Here, kernel: str, *cells: str) -> str:
    """Commit the notebook to a repository of its own; return the commit."""
    (here.base / "code").mkdir()
    notebook(here.base / "code" / "train.ipynb", kernel, *cells)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "train.ipynb"], ["commit", "-qm", "a notebook"]):
        subprocess.run([*git, *words], cwd=here.base / "code", check=True, timeout=60)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here.base / "code", capture_output=True, text=True)
    return done.stdout.strip()


def names_in(here: Here, run_id: str) -> set[str]:
    text = here.tracker.read(run_id, "environment/requirements.txt", here.base / "read" / run_id).decode()
    return {line.split("==")[0] for line in text.splitlines()}


def test_the_environment_is_the_kernels_not_nbconverts(here: Here, jupyter: Path) -> None:
    """``reprod run -- jupyter nbconvert`` with a kernel of another environment: that one, its process and its code."""
    other = here.base / "other"
    make_venv(other, mlflow=False)
    (site(other) / "packages.pth").write_text(f"{site(jupyter)}\n")
    put_package(other, "colours", "1.5")
    put_kernel(here, "other", other)
    commit = put_code(here, "other", *PLAIN)
    run_id = execute(here, jupyter, before=(*REPROD_RUN, "--dataset", here.name, "--"))
    record = here.record(run_id)
    execution, environment = record["execution"], record["environment"]
    assert execution["subject"]["prefix"] == str(other)
    assert execution["invocation"]["entry"] == {"kind": "notebook", "name": None}
    assert [each["name"] for each in execution["invocation"]["launchers"]][:2] == ["ipykernel", "nbconvert"]
    assert "train.ipynb" in execution["invocation"]["launchers"][1]["arguments"]
    assert environment["git"]["commit"] == commit
    assert {"colours", "mlflow-skinny"} <= names_in(here, run_id)
    assert here.tracker.ours(run_id)["reprod.bound"] == "start"


def test_a_block_of_track_in_a_cell_records_the_kernel_and_what_it_imported(here: Here, jupyter: Path) -> None:
    """With reprod in the kernel's environment nothing else is needed, and at the end the imports are complete."""
    own = here.base / "own"
    make_venv(own, mlflow=False)
    installed = [Path(entry) for entry in sys.path if entry.endswith("site-packages")]
    # As installed: the package, and the record by which MLflow finds its context provider.
    (site(own) / "reprod").symlink_to(REPOSITORY / "reprod")
    record = next(found for each in installed for found in each.glob("reprod-*.dist-info"))
    (site(own) / record.name).symlink_to(record)
    put_package(own, "colours", "1.5")
    (site(own) / "packages.pth").write_text("\n".join(map(str, [site(jupyter), *installed])))
    put_kernel(here, "own", own)
    commit = put_code(here, "own", *TRACKED)
    run_id = execute(here, jupyter)
    found = here.record(run_id)
    assert found["execution"]["subject"]["prefix"] == str(own)
    assert found["execution"]["subject"]["how"] == "handover"
    assert found["execution"]["invocation"]["entry"]["kind"] == "notebook"
    assert found["environment"]["git"]["commit"] == commit

    def imported() -> bool:
        said = here.record(run_id)["execution"]["imports"]  # None until the end was told, of a process so short
        return said is not None and said["complete"] and "colours" in {each["name"] for each in said["distributions"]}

    eventually(imported, 60, lambda: f"the import is known: {here.record(run_id)['execution']['imports']}")
