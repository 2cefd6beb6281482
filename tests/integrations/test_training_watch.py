"""``reprod run`` with nothing installed where it trains: the environment is the training's, found from outside."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from control_seam import ControlSeam
from training_place import REPROD_RUN, make_venv, put_package, settle
from waiting import eventually

#: A training that is there for as long as its standard input is.
TRAIN = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"


@pytest.fixture
def start(environ: dict[str, str], tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    def run(*command: str) -> "subprocess.Popen[str]":
        settle()
        return subprocess.Popen(
            [*REPROD_RUN, "--dataset", "imagenet", "--", *command],
            env=environ, cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    return run


def beside(*pythons: Path) -> str:
    """Return a shell's script that runs a training with each; a shell gives those in the background no input."""
    lines = [f"{python} -c '{TRAIN}' <&3 &" for python in pythons]
    return "\n".join(["exec 3<&0", *lines, "wait"])


def names(given: dict[str, Any]) -> set[str]:
    return {each["name"] for each in given["record"]["environment"]["packages"]["packages"]}


def pid_of(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_the_environment_is_that_of_the_trainings_own_interpreter(
    control: ControlSeam, start: Callable[..., Any], tmp_path: Path
) -> None:
    """The record is of the very process that was started, and holds its packages and not reprod's."""
    python = make_venv(tmp_path / "venv")
    put_package(tmp_path / "venv", "colours", "1.5")
    with start(str(python), "-c", TRAIN) as process:
        pid = pid_of(process)
        (given,) = control.wait("handover record")
        process.communicate("", timeout=30)
    assert names(given) == {"mlflow", "colours"}
    subject = given["record"]["execution"]["subject"]
    assert pid == process.pid == given["context"]["pid"] == subject["pid"]
    assert (given["context"]["prefix"], subject["prefix"]) == (str(tmp_path / "venv"),) * 2


def test_behind_a_shell_it_is_that_of_the_python_that_can_start_a_run(
    control: ControlSeam, start: Callable[..., Any], tmp_path: Path
) -> None:
    """A Python without MLflow is passed over; the record is given for the command, and names the process it is of."""
    tool = make_venv(tmp_path / "tool", mlflow=False)
    python = make_venv(tmp_path / "venv")
    put_package(tmp_path / "venv", "colours", "1.5")
    with start("sh", "-c", beside(tool, python)) as process:
        pids = {pid_of(process), pid_of(process)}
        (given,) = control.wait("handover record")
        process.communicate("", timeout=30)
    assert names(given) == {"mlflow", "colours"}
    assert given["context"]["pid"] == process.pid
    assert given["context"]["prefix"] == "/"
    assert given["record"]["execution"]["subject"]["pid"] in pids


def test_of_two_environments_that_could_start_a_run_both_are_told(
    control: ControlSeam, start: Callable[..., Any], tmp_path: Path
) -> None:
    """A command that trains with another environment after the first has that one told too, each once."""
    first, second = make_venv(tmp_path / "first"), make_venv(tmp_path / "second")
    put_package(tmp_path / "second", "colours", "1.5")
    with start("sh", "-c", beside(first, first, second)) as process:
        for _ in range(3):
            pid_of(process)
        given = control.wait("handover record", 2)
        process.communicate("", timeout=30)
    assert sorted(map(sorted, map(names, given))) == [["colours", "mlflow"], ["mlflow"]]


def test_what_runs_notebooks_leaves_the_run_to_a_kernel(
    control: ControlSeam, start: Callable[..., Any], tmp_path: Path
) -> None:
    """``jupyter nbconvert --execute``, itself beside an MLflow: the record is that of the kernel, elsewhere."""
    jupyter, kernel = make_venv(tmp_path / "jupyter"), make_venv(tmp_path / "kernel")
    put_package(tmp_path / "kernel", "colours", "1.5")
    program = tmp_path / "jupyter" / "bin" / "jupyter-nbconvert"
    program.write_text(f"import subprocess\nsubprocess.run({[str(kernel), '-c', TRAIN]!r}, check=True)\n")
    with start(str(jupyter), str(program), "--execute", "train.ipynb") as process:
        pid = pid_of(process)
        (given,) = control.wait("handover record")
        process.communicate("", timeout=30)
    assert names(given) == {"mlflow", "colours"}
    assert (given["context"]["pid"], given["context"]["prefix"]) == (process.pid, "/")
    assert given["record"]["execution"]["subject"]["pid"] == pid


def test_one_that_has_reprod_tells_itself(control: ControlSeam, start: Callable[..., Any], tmp_path: Path) -> None:
    """Where reprod is installed beside MLflow nothing is told from outside: the process knows better."""
    silent, told = make_venv(tmp_path / "silent"), make_venv(tmp_path / "told")
    put_package(tmp_path / "silent", "reprod", "0.1.0")
    with start("sh", "-c", beside(silent, told)) as process:
        for _ in range(2):
            pid_of(process)
        (given,) = control.wait("handover record")
        process.communicate("", timeout=30)
    assert names(given) == {"mlflow"}
    assert given["record"]["execution"]["subject"]["prefix"] == str(tmp_path / "told")


def test_without_a_daemon_it_waits_in_a_file(
    start: Callable[..., Any], environ: dict[str, str], tmp_path: Path
) -> None:
    """No daemon answers: the record is left in the user's own state, for one that comes."""
    python = make_venv(tmp_path / "venv")
    folder = Path(environ["REPROD_STATE_DIR"]) / "handover"
    with start(str(python), "-c", TRAIN) as process:
        (file,) = eventually(lambda: list(folder.glob("*.json")), 30, "the file is there")
        process.communicate("", timeout=30)
    assert names(json.loads(file.read_text())) == {"mlflow"}
