"""The processes of the demo: what a training that fails says, and that none of them is left."""

import os
import sys
from pathlib import Path

import pytest
from waiting import eventually

from reprod.cli import demo_process
from reprod.cli.demo_process import Command, Ran, StepFailedError, Training


def _training(tmp_path: Path, script: str) -> Training:
    return Training([sys.executable, "-c", script], os.environ, tmp_path, tmp_path / "training")


def test_a_training_tells_its_run_and_then_its_accuracy(tmp_path: Path) -> None:
    """It is read while it runs, and goes on until it is told to end."""
    training = _training(tmp_path, "import sys; print('r1', flush=True); sys.stdin.read(); print(0.5)")
    try:
        eventually(lambda: training.run_id() == "r1", 30, "its run is told")
        assert training.accuracy() == ""
        training.end()
        eventually(lambda: training.accuracy() == "0.5", 30, "its accuracy is told")
        assert training.run_id() == "r1"
    finally:
        training.kill()


@pytest.mark.parametrize(
    "script", ["raise SystemExit('no data')", "print('r1', flush=True); raise SystemExit('no data')"]
)
def test_a_training_that_fails_says_why(tmp_path: Path, script: str) -> None:
    """Its last words are the error, before its run has started and after."""
    training = _training(tmp_path, script)

    def failed() -> bool:
        try:
            return training.accuracy() == "never"
        except StepFailedError as error:
            return "no data" in error.message

    try:
        eventually(failed, 30, "the failure is told")
    finally:
        training.kill()


def test_a_training_that_ends_without_a_result_has_failed(tmp_path: Path) -> None:
    """Exit code 0 without an accuracy is no success."""
    training = _training(tmp_path, "print('r1')")

    def failed() -> bool:
        try:
            training.accuracy()
        except StepFailedError as error:
            return "exit code 0" in error.message
        return False

    try:
        eventually(failed, 30, "the failure is told")
    finally:
        training.kill()


def test_a_killed_training_is_gone(tmp_path: Path) -> None:
    """One that does not listen is ended all the same, and killing it twice is fine."""
    training = _training(tmp_path, "import time; print('r1', flush=True); time.sleep(600)")
    eventually(lambda: bool(training.run_id()), 30, "it runs")
    training.kill()
    training.kill()
    with pytest.raises(StepFailedError, match="exit code -9"):
        training.run_id()


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails with the command that hung, and its process is gone."""
    monkeypatch.setattr(demo_process, "COMMAND_S", 0.2)
    command = Command([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, tmp_path)
    with pytest.raises(StepFailedError, match=r"had not ended after 0\.2 s: .*sleep"):
        command.ran()
    assert command._process.poll() == -9


def test_what_is_no_json_is_shown(tmp_path: Path) -> None:
    """A command that was to print JSON and did not is quoted."""
    ran = Command([sys.executable, "-c", "print('oops')"], os.environ, tmp_path).ran()
    assert ran == Ran(0, "oops\n", "")
    with pytest.raises(StepFailedError, match="no JSON came, exit code 0: oops"):
        _ = ran.document
