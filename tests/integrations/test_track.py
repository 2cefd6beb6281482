"""``reprod.track``: a block that says which dataset a run uses, and what was used in it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from control_seam import ControlSeam

import reprod
from reprod.errors import DaemonUnavailableError, StateError, UsageError

Script = Callable[..., Any]

pytestmark = pytest.mark.mlflow

START = """
import json, sys, mlflow, reprod
mlflow.set_experiment("t")
"""
TAGS = "print(json.dumps(mlflow.get_run(run.info.run_id).data.tags), flush=True)\n"


@pytest.fixture(autouse=True)
def tracking(environ: dict[str, str], database: str) -> None:
    environ["MLFLOW_TRACKING_URI"] = database


def test_a_block_tags_its_run_and_tells_what_it_used(control: ControlSeam, script: Script) -> None:
    """The tags are set at the entry; what was imported in the block is told at its exit, before the process ends."""
    code = START + (
        "with mlflow.start_run() as run:\n"
        "    with reprod.track('imagenet') as tracked:\n"
        "        assert tracked.tagged\n"
        "        assert mlflow.get_run(run.info.run_id).data.tags['reprod.dataset'] == 'imagenet'\n"
        "        import msgspec\n"
        "    " + TAGS + "    import os; os.kill(os.getpid(), 9)\n"
    )
    tags = json.loads(script(code).stdout)
    assert tags["reprod.dataset"] == "imagenet"
    (last,) = control.wait("handover execution")
    assert json.loads(tags["reprod.context"]) == last["context"]
    assert "msgspec" in {each["name"] for each in last["execution"]["imports"]["distributions"]}
    assert [each["dataset"] for each in control.of("announce")] == [None, "imagenet"]


def test_async_with_does_the_same(control: ControlSeam, script: Script) -> None:
    """The block may be an asynchronous one."""
    code = START + (
        "import asyncio\n"
        "async def train():\n"
        "    async with reprod.track('imagenet') as tracked: assert tracked.tagged\n"
        "with mlflow.start_run() as run: asyncio.run(train())\n" + TAGS
    )
    assert json.loads(script(code).stdout)["reprod.dataset"] == "imagenet"
    control.wait("handover execution")


def test_no_daemon_no_run_and_bad_names_are_a_warning_each(script: Script) -> None:
    """Without a daemon the block is silent; what is wrong with the call is one line, and the training goes on."""
    ended = script(START + "with mlflow.start_run() as run:\n    with reprod.track('imagenet'): pass\n" + TAGS)
    assert json.loads(ended.stdout)["reprod.dataset"] == "imagenet"
    assert "reprod" not in ended.stderr
    calls = ("reprod.track('imagenet')", "reprod.track('no name')", "reprod.track('x', run_id='0' * 32)")
    ended = script(START + "".join(f"with {call} as tracked: print(tracked.tagged)\n" for call in calls))
    assert (ended.returncode, ended.stdout) == (0, "False\n" * 3)
    assert len([line for line in ended.stderr.splitlines() if line.startswith("reprod: ")]) == 3, ended.stderr


def test_an_exception_of_the_block_is_the_users(control: ControlSeam, script: Script) -> None:
    """What the block raises comes out of it unchanged, strict or not."""
    code = START + "with mlflow.start_run():\n"
    for strict in (False, True):
        code += f"    try:\n        with reprod.track('imagenet', strict={strict}): raise KeyError('mine')\n"
        code += "    except KeyError as error: print(error)\n"
    assert script(code).stdout == "'mine'\n'mine'\n"


def test_strict_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """With strict the entry raises what tag_dataset raises, and the exit if the end could not be told."""
    with pytest.raises(UsageError), reprod.track("no name", strict=True):
        pass
    monkeypatch.setattr("reprod.api.tag_dataset", lambda *_, **__: True)
    monkeypatch.setattr("reprod.capture.handover.tell_used", lambda: False)
    with pytest.raises(StateError, match="could not be handed over"), reprod.track("imagenet", strict=True):
        pass
    with reprod.track("imagenet"):
        pass
    assert issubclass(DaemonUnavailableError, reprod.errors.ReprodError)
