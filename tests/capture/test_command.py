"""Which interpreter a command is: told from its words before it starts, and from its processes while they live."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_place import make_venv, put_package
from waiting import eventually

from reprod.capture.process.command import family, find_interpreter, identify, read_interpreter
from reprod.capture.process.named_interpreter import named_interpreter, prefix_of

WAIT = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    make_venv(tmp_path / "venv")
    return tmp_path / "venv"


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_the_words_of_a_command_name_its_interpreter(venv: Path, tmp_path: Path) -> None:
    """A Python, a script by its first line (also through env, also where that line is too long), and nothing else."""
    python = str(venv / "bin" / "python")
    path = f"{venv / 'bin'}:/usr/bin:/bin"
    direct = script(tmp_path / "direct", f"#!{python}\n")
    found_by_env = script(tmp_path / "by_env", "#!/usr/bin/env -S PYTHONHASHSEED=0 python -u\n")
    too_long = script(tmp_path / "long", f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n")
    shell = script(tmp_path / "shell", "#!/bin/sh\npython train.py\n")
    for command in (["python", "train.py"], [python], ["venv/bin/python"], [direct], ["./by_env"], [too_long]):
        assert named_interpreter(command, path, str(tmp_path)) == python, command
    assert found_by_env
    for command in ([shell], ["sh", "-c", "python train.py"], ["no-such-command"], ["/no/such/file"], [str(tmp_path)]):
        assert named_interpreter(command, path, str(tmp_path)) is None, command


def test_a_prefix_is_the_one_that_the_interpreter_finds(venv: Path) -> None:
    """Of a virtual environment, of its base, and through a link to the base from elsewhere."""
    show = [str(venv / "bin" / "python"), "-c", "import sys; print(sys.prefix); print(sys.base_prefix)"]
    prefix, base = subprocess.run(show, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    assert prefix_of(str(venv / "bin" / "python")) == prefix == str(venv)
    assert prefix_of(f"{base}/bin/python3") == base
    (venv / "elsewhere").mkdir()
    (venv / "elsewhere" / "python3").symlink_to(f"{base}/bin/python3")
    (venv / "pyvenv.cfg").unlink()
    assert prefix_of(str(venv / "elsewhere" / "python3")) == base


def test_a_python_below_a_shell_is_found_and_read(venv: Path, tmp_path: Path) -> None:
    """Of a shell's Python the packages, the script and the repository are those of its own environment."""
    put_package(venv, "colours", "1.5")
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(WAIT)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q", "-b", "paper"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=code, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    line = f"cd {code} && {venv}/bin/python train.py; true"
    installed_s = time.time()
    eventually(lambda: time.time() > installed_s + 1, 10, "what is installed is older than what starts")
    with subprocess.Popen(["sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        try:
            assert shell.stdout is not None
            assert shell.stdout.readline() == "up\n"
            first, *below = family(shell.pid)
            assert first == shell.pid
            assert find_interpreter(first) is None
            assert identify(first) != identify(below[0])
            (pid,) = below
            found = find_interpreter(pid)
            assert found is not None
            assert (found.context.pid, found.context.prefix) == (pid, str(venv))
            assert found.has_mlflow
            assert found.has("colours")
            assert not found.has("reprod")
            record = read_interpreter(found)
        finally:
            shell.communicate(timeout=30)
    packages = record.environment.packages
    assert packages is not None
    assert {(each.name, each.version) for each in packages.packages} == {("mlflow", "0.0"), ("colours", "1.5")}
    assert record.environment.git is not None
    assert record.environment.git.branch == "paper"
    assert record.execution.subject.pid == pid
    assert record.execution.subject.how == "files of the process, read for reprod run"


def test_what_has_ended_or_is_no_python_is_none() -> None:
    """A process that is gone is no interpreter, and has no identity; and the family of nobody is nobody."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait(30)
    assert find_interpreter(ended.pid) is None
    assert identify(ended.pid) is None
    assert family(ended.pid) == [ended.pid]
