"""``reprod.track``: a block that says which dataset a run uses, and what was used in it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from control_seam import ControlSeam

import reprod
from reprod.capture import tracked
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
    # One more without a dataset comes where the daemon's answers were late: then it may not know the process.
    assert [each["dataset"] for each in control.of("announce") if "dataset" in each] == [None, "imagenet"]


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
    monkeypatch.setattr("reprod.api._has_run", lambda: True)
    monkeypatch.setattr("reprod.api.tag_dataset", lambda *_, **__: True)
    monkeypatch.setattr("reprod.capture.handover.tell_used", lambda: False)
    with pytest.raises(StateError, match="could not be handed over"), reprod.track("imagenet", strict=True):
        pass
    with reprod.track("imagenet"):
        pass
    assert issubclass(DaemonUnavailableError, reprod.errors.ReprodError)


BLOCKS = """
import asyncio, os, threading
found = {}
def start(name, **more):
    with mlflow.start_run(**more) as run: pass
    found[name] = mlflow.get_run(run.info.run_id).data.tags.get("reprod.dataset")
with reprod.track("a") as block:
    assert not block.tagged
    start("inside")
    assert block.tagged
    with reprod.track("b/sub,a"): start("nested blocks")
    try:
        with reprod.track("c"): raise KeyError
    except KeyError: start("after an exception")
    start("own tag", tags={"reprod.dataset": "mine"})
    thread = threading.Thread(target=start, args=("another thread",)); thread.start(); thread.join()
    asyncio.run(asyncio.to_thread(start, "a thread with the context"))
    os.environ["MLFLOW_RUN_CONTEXT"] = '{"reprod.dataset": "of reprod run"}'
    start("inside reprod run")
start("outside, in reprod run")
del os.environ["MLFLOW_RUN_CONTEXT"]
start("outside")
@reprod.track("d")
def train(name): start(name); return 3
@reprod.track("e")
async def later(name, wait, ready):
    ready.set(); await wait.wait(); start(name); return 4
async def both():
    one, two = asyncio.Event(), asyncio.Event()
    async def other():
        await one.wait(); train("a function, beside a task"); two.set()
    found["results"] = (await asyncio.gather(later("a coroutine", two, one), other()))[0]
assert train("a function") == 3
asyncio.run(both())
with mlflow.start_run() as parent, reprod.track("f"):
    start("child", nested=True)
found["parent"] = mlflow.get_run(parent.info.run_id).data.tags.get("reprod.dataset")
print(json.dumps(found))
"""


def test_runs_that_start_inside_a_block_carry_its_dataset(script: Script) -> None:
    """Those of its own task and thread, of all blocks around; outside, and in other threads, none."""
    ended = script(START + BLOCKS)
    assert (ended.returncode, [line for line in ended.stderr.splitlines() if line.startswith("reprod: ")]) == (0, [])
    assert json.loads(ended.stdout) == {
        "inside": "a",
        "nested blocks": "a,b/sub",
        "after an exception": "a",
        "own tag": "mine",
        "another thread": None,
        "a thread with the context": "a",
        "inside reprod run": "a",
        "outside, in reprod run": "of reprod run",
        "outside": None,
        "a function": "d",
        "a function, beside a task": "d",
        "a coroutine": "e",
        "results": 4,
        "child": "f",
        "parent": "f",
    }


def test_a_block_in_which_no_run_starts_says_so(capsys: pytest.CaptureFixture[str], environ: dict[str, str]) -> None:
    """One line at its end, and an error with strict; what the block raises goes first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reprod.api._has_run", lambda: False)
        patch.setattr("reprod.api._doubt_before_run", lambda *_, **__: None)
        with reprod.track("imagenet") as block:
            pass
        assert not block.tagged
        (line,) = capsys.readouterr().err.splitlines()
        assert "no run started in the block of dataset 'imagenet'" in line
        with pytest.raises(UsageError, match="no run started"), reprod.track("imagenet", strict=True):
            pass
        with pytest.raises(KeyError), reprod.track("imagenet", strict=True):
            raise KeyError
        patch.setattr("reprod.api._doubt_before_run", lambda *_, **__: DaemonUnavailableError("none"))
        with pytest.raises(DaemonUnavailableError), reprod.track("imagenet", strict=True):
            pytest.fail("the block was entered")
    assert tracked.datasets() is None
