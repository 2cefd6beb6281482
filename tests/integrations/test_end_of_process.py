"""What a process really used is told at its end, by a child, and the process and its exit code notice nothing."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from control_seam import ControlSeam
from waiting import eventually

import reprod.capture.handover as handover
from reprod.core.process import ProcessContext

Script = Callable[..., Any]

ANNOUNCE = "from reprod.integrations.handover import announce; announce('run')\n"
SAY = "from reprod.capture.process.identity import current_context; print(current_context().to_json(), flush=True)\n"


def used(execution: dict[str, Any]) -> set[str]:
    return {each["name"] for each in execution["imports"]["distributions"]}


def own_files(execution: dict[str, Any], below: Path) -> list[str]:
    """Return the names of the user's own files; reprod's are among them where it is installed editable."""
    files = (Path(file) for file in execution["imports"]["local_files"])
    return [file.name for file in files if str(file).startswith(str(below))]


def test_what_was_imported_after_the_announcement_is_told(control: ControlSeam, script: Script, tmp_path: Path) -> None:
    """The end names the distributions and own files that were loaded last, the seeds' state, and the same process."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "model.py").write_text("")
    code = ANNOUNCE + SAY + "import random; random.seed(7)\nimport msgspec, model\n"
    ended = script(code, PYTHONHASHSEED="5")
    assert (ended.returncode, ended.stderr) == (0, "")
    (first,), (last,) = control.wait("handover record"), control.wait("handover execution")
    assert first["context"] == last["context"]
    assert ProcessContext.from_object(last["context"]) == ProcessContext.parse(ended.stdout)
    execution = last["execution"]
    assert "msgspec" in used(execution)
    assert execution["imports"]["complete"] is True
    assert execution["imports"]["how"] == "in-process"
    assert own_files(execution, tmp_path) == ["model.py", "train.py"]
    assert execution["numerics"]["hash_seed"] == "5"
    other = script(SAY + "import random; random.seed(7)\n" + ANNOUNCE, PYTHONHASHSEED="5")
    assert other.returncode == 0
    again = control.wait("handover execution", 2)[1]["execution"]
    assert again["random_state"]["python_sha256"] == execution["random_state"]["python_sha256"]


@pytest.mark.parametrize(
    ("last", "code", "told"),
    [
        ("", 0, True),
        ("raise SystemExit(3)", 3, True),
        ("1 / 0", 1, True),
        ("import os; os._exit(4)", 4, False),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, False),
        ("import atexit, os; atexit.register(lambda: os.write(1, b'mine'))", 0, True),
    ],
)
def test_the_exit_code_stays(control: ControlSeam, script: Script, last: str, code: int, told: bool) -> None:
    """However a script ends, it ends as it would without us; what cannot tell its end has its first record."""
    ended = script(ANNOUNCE + last)
    assert ended.returncode == code
    assert "reprod" not in ended.stderr
    control.wait("handover record")
    assert bool(told and control.wait("handover execution")) is told
    if not told:
        assert control.of("handover execution") == []


@pytest.mark.parametrize(
    "breakage",
    [
        "import sys; sys.modules['reprod.capture.used'] = None",
        "import sys; sys.modules['reprod.capture.detached'] = None",
        "import sys; X = type('X', (), {'__getattribute__': lambda s, n: 1/0}); sys.modules.update(a=None, b=1, c=X())",
        "import sys; sys.path[:] = [None, 1, b'x']",
        "import os, subprocess; subprocess.Popen = None",
        "import os; os.memfd_create = lambda *a: 1/0",
        "import builtins; builtins.open = lambda *a, **k: 1/0",
        "import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
    ],
)
def test_a_spoiled_interpreter_ends_all_the_same(control: ControlSeam, script: Script, breakage: str) -> None:
    """Whatever a script has done to its interpreter, the end of ours is silent."""
    ended = script(ANNOUNCE + breakage + "\nprint('done')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_a_forked_worker_does_not_tell_for_its_parent(control: ControlSeam, script: Script) -> None:
    """A worker that runs its exit functions has inherited ours: it says nothing; one that announced itself does."""
    code = ANNOUNCE + "import os, sys\nif os.fork() == 0: sys.exit(0)\nos.wait()\n"
    code += f"if os.fork() == 0:\n    {ANNOUNCE}    sys.exit(0)\nos.wait()\n" + SAY
    ended = script(code)
    assert ended.returncode == 0, ended.stderr
    context = ProcessContext.parse(ended.stdout)
    assert context is not None
    told = [each["context"]["pid"] for each in control.wait("handover execution", 2)]
    control.wait("handover record", 2)
    assert len(told) == len(set(told)) == 2
    assert context.pid in told


def test_without_an_announcement_nothing_is_told(control: ControlSeam, script: Script) -> None:
    """Importing reprod registers nothing."""
    code = (
        "import reprod, atexit\nfrom reprod.capture.handover import tell_used\nprint(tell_used(), atexit._ncallbacks())"
    )
    assert script(code).stdout == "False 0\n"
    assert control.messages == []


def test_a_daemon_that_came_up_meanwhile_sees_the_process_before_its_end(
    environ: dict[str, str], script: Script, tmp_path: Path
) -> None:
    """No daemon at the start, one at the end: the process announces itself again, while it can be seen."""
    (tmp_path / "work").mkdir()
    code = ANNOUNCE + "open('started', 'w').close()\nimport time, os\n"
    code += "while not os.path.exists('go'): time.sleep(0.02)\n"
    seams: list[ControlSeam] = []

    def come_up() -> None:
        eventually((tmp_path / "work" / "started").exists, 60, "the script has started")
        seams.append(ControlSeam(tmp_path / "control.sock"))
        (tmp_path / "work" / "go").write_text("")

    thread = threading.Thread(target=come_up)
    thread.start()
    ended = script(code)
    thread.join(90)
    assert ended.returncode == 0, ended.stderr
    (seam,) = seams
    (told,) = seam.wait("announce")
    (last,) = seam.wait("handover execution")
    (first,) = seam.wait("handover record")
    assert told["context"] == last["context"] == first["context"]
    seam.close()


def test_secrets_of_the_end_are_taken_out(control: ControlSeam, script: Script, tmp_path: Path) -> None:
    """A module in a directory that is named like a secret of the process is told without it."""
    secret = "CANARY7f3aCANARY"
    folder = tmp_path / secret
    folder.mkdir()
    (folder / "layer.py").write_text("")
    script(ANNOUNCE + f"import sys; sys.path.insert(0, {str(folder)!r}); import layer", HF_TOKEN=secret)
    execution = control.wait("handover execution")[0]["execution"]
    assert own_files(execution, tmp_path) == ["layer.py", "train.py"]
    control.wait("handover record")
    assert secret.encode() not in control.raw


def test_in_process(environ: dict[str, str], control: ControlSeam, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be asked for before the end; then once more it is what was used by then."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(handover, "_recorded_by", None)
    monkeypatch.setattr(handover, "_answered", None)
    assert not handover.tell_used()
    handover.ask("r", answer_s=60.0)
    assert handover.tell_used()
    assert handover.tell_used()
    told = control.wait("handover execution", 2)
    assert [each["context"]["pid"] for each in told] == [os.getpid(), os.getpid()]
    assert len(control.wait("announce")) == 1
    assert json.dumps(told[0])
