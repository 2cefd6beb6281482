"""``reprod run``: the command takes its place, and its runs get their tags; reprod never stands in its way."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import psutil
import pytest
from control_seam import ControlSeam
from training_place import REPROD_RUN, make_venv
from waiting import eventually

from reprod.core.process import ProcessContext

Start = Callable[..., "subprocess.CompletedProcess[str]"]

SHOW = "import json, os; print(json.dumps([os.getpid(), os.environ.get('MLFLOW_RUN_CONTEXT'), sorted(os.environ)]))"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    places = {"REPROD_SOCKET": str(tmp_path / "c.sock"), "REPROD_STATE_DIR": str(tmp_path / "s"), "HOME": str(tmp_path)}
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | places


@pytest.fixture
def start(environ: dict[str, str], tmp_path: Path) -> Start:
    def run(*arguments: str, dataset: str = "imagenet", stdin: str = "", **more: str) -> Any:
        return subprocess.run(
            [*REPROD_RUN, "--dataset", dataset, *arguments],
            env=environ | more, cwd=tmp_path, input=stdin, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ControlSeam]:
    seam = ControlSeam(tmp_path / "c.sock", lambda _: {"known": False, "datasets": ["imagenet"], "tracking_uri": None})
    yield seam
    seam.close()


def watches() -> list[psutil.Process]:
    """Return the detached companions that live now, of whatever command."""
    found = []
    for process in psutil.process_iter():
        try:
            if any("training_watch" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_run_of_the_command_gets_the_dataset_and_who_the_command_is(start: Start, daemon: ControlSeam) -> None:
    """What MLflow reads names the datasets and the very process; the daemon hears of it from that process."""
    ended = start("--dataset", "coco/train", "--", sys.executable, "-c", SHOW)
    pid, given, _ = json.loads(ended.stdout)
    tags = json.loads(given)
    context = ProcessContext.parse(tags["reprod.context"])
    assert tags["reprod.dataset"] == "imagenet,coco/train"
    assert context is not None
    assert (context.pid, context.prefix) == (pid, sys.prefix if "mlflow" in _installed() else "/")
    (told,) = daemon.of("announce")
    assert told == {"context": context.to_object(), "dataset": "imagenet,coco/train"}
    assert daemon.peers[0] == pid


def _installed() -> str:
    return "mlflow" if any(Path(path, "mlflow", "__init__.py").exists() for path in sys.path) else ""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["sh", "-c", "exit 2"], 2),
        (["no-such-command"], 127),
        (["/etc/hostname"], 126),
        (["./broken"], 126),
        ([], 125),
    ],
)
def test_exit_codes_are_the_commands_and_own_ones_are_env_s(
    start: Start, tmp_path: Path, command: list[str], code: int
) -> None:
    """The command's code or signal comes out as it is; 127 is not found, 126 not executable, 125 reprod's own."""
    (tmp_path / "broken").write_text("#!/no/such/interpreter\n")
    (tmp_path / "broken").chmod(0o755)
    ended = start("--", *command)
    assert ended.returncode == code, ended.stderr
    assert ("error: " in ended.stderr) == (code in {125, 126, 127})


def test_the_command_has_the_input_signals_and_files_of_a_plain_start(start: Start) -> None:
    """Standard input is passed on, SIGPIPE ends it as ever, and no file or variable of reprod's is in it."""
    code = (
        "import os, signal, sys\n"
        "status = open('/proc/self/status').read()\n"
        "ignored = int(status.split('SigIgn:')[1].split()[0], 16)\n"
        "print(sys.stdin.read(), sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')), ignored)\n"
        "print(sorted(name for name in os.environ if name not in ('MLFLOW_RUN_CONTEXT', '_', 'PWD', 'SHLVL')))\n"
    )
    ours = start("--", "/bin/sh", "-c", 'exec "$0" -c "$1"', sys.executable, code, stdin="words", LANG="C")
    plain = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1"', sys.executable, code],
        env={"PATH": os.environ["PATH"], "LANG": "C", "HOME": "/", "REPROD_SOCKET": "", "REPROD_STATE_DIR": ""},
        input="words", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    # The test's own Python ignores SIGPIPE, and subprocess gives it back: so both begin alike.
    assert ours.stdout == plain.stdout


def test_what_was_in_the_variable_stays(start: Start) -> None:
    """Tags of an outer tool are kept, the nearest dataset wins; what MLflow cannot read is replaced, with a word."""
    outer = {"team": "vision", "reprod.dataset": "outer"}
    for given, kept in ((json.dumps(outer), "vision"), (json.dumps(list(outer.items())), "vision"), ("{broken", None)):
        ended = start("--", sys.executable, "-c", SHOW, MLFLOW_RUN_CONTEXT=given)
        tags = json.loads(json.loads(ended.stdout)[1])
        assert (tags["reprod.dataset"], tags.get("team")) == ("imagenet", kept)
        assert ("MLFLOW_RUN_CONTEXT" in ended.stderr) == (kept is None)


def test_without_a_daemon_it_starts_and_strict_does_not(start: Start, daemon: ControlSeam) -> None:
    """No daemon and an unknown dataset are one warning each; with --strict they are 125, and nothing is started."""
    for more, said in (({"REPROD_SOCKET": "/nowhere/c.sock"}, "no daemon answers"), ({}, "did you mean imagenet")):
        ended = start("--", "echo", "trained", dataset="imagenett", **more)
        assert (ended.returncode, ended.stdout) == (0, "trained\n")
        (line,) = ended.stderr.splitlines()
        assert line.startswith("reprod: warning: ")
        assert said in line
        strict = start("--strict", "--", "echo", "trained", dataset="imagenett", **more)
        assert (strict.returncode, strict.stdout) == (125, "")
        assert said in strict.stderr
    assert start("--", "true", dataset="no name").returncode == 125


def test_a_daemon_that_hangs_does_not_hold_the_command_up(start: Start, tmp_path: Path) -> None:
    """One that listens and says nothing costs a bounded moment and a warning."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen(1)
        ended = start("--", "echo", "trained", REPROD_SOCKET=str(tmp_path / "silent"))
    assert (ended.returncode, ended.stdout) == (0, "trained\n")
    assert "does not answer" in ended.stderr


def test_what_starts_elsewhere_is_not_said_to_be_here(start: Start, tmp_path: Path) -> None:
    """Behind srun the run is another machine's, perhaps: no context is claimed, and how to mend it is said."""
    (tmp_path / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    ended = start("--", "./srun", sys.executable, "-c", SHOW)
    assert list(json.loads(json.loads(ended.stdout)[1])) == ["reprod.dataset"]
    assert "put reprod run behind it" in ended.stderr


def test_the_watch_holds_nothing_and_ends_with_the_command(environ: dict[str, str], tmp_path: Path) -> None:
    """The companion is no child of the command, keeps no lock of the caller's open, and goes when the command goes."""
    before = {process.pid for process in watches()}
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [*REPROD_RUN, "--dataset", "d", "--", "sh", "-c", "echo up; read _; ls /proc/self/task/*/children"]
        process = subprocess.Popen(
            command, env=environ, cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, pass_fds=[lock.fileno()],
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (watch,) = eventually(lambda: [w for w in watches() if w.pid not in before], 20, "the watch is there")
    assert watch.ppid() != process.pid
    assert os.getsid(watch.pid) != os.getsid(process.pid)
    assert str(tmp_path / "lock") not in {each.path for each in watch.open_files()}
    process.communicate("\n", timeout=30)
    eventually(lambda: not watch.is_running() or watch.status() == psutil.STATUS_ZOMBIE, 30, "the watch has gone")


def test_a_wrong_command_line_is_said(environ: dict[str, str]) -> None:
    """Without a dataset nothing is started."""
    ended = subprocess.run([*REPROD_RUN, "--", "echo", "x"], env=environ, capture_output=True, text=True, timeout=60)
    assert (ended.returncode in {2, 125}, ended.stdout) == (True, "")
    assert "--dataset" in ended.stderr


def test_the_prefix_of_the_interpreter_is_claimed_where_it_has_mlflow(start: Start, tmp_path: Path) -> None:
    """A virtual environment's Python is told from the command; one without MLflow, and a shell, claim nothing."""
    with_it = make_venv(tmp_path / "with")
    without = make_venv(tmp_path / "without", mlflow=False)
    for python, prefix in ((with_it, str(tmp_path / "with")), (without, "/")):
        tags = json.loads(json.loads(start("--", str(python), "-c", SHOW).stdout)[1])
        assert json.loads(tags["reprod.context"])["prefix"] == prefix


def test_process_1_of_a_container_gets_no_child_to_wait_for(environ: dict[str, str], tmp_path: Path) -> None:
    """There every orphan is the command's: no watch is started, waiting for all children ends, and a line says so."""
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if which("unshare") is None or subprocess.run([*apart, "true"], capture_output=True, timeout=30).returncode:
        pytest.skip("user and pid namespaces are not to be had here")
    code = "import os\ntry: os.wait()\nexcept ChildProcessError: print('none')"
    command = [*apart, *REPROD_RUN, "--dataset", "d", "--", sys.executable, "-c", code]
    ended = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "none\n"), ended.stderr
    assert "docker run --init" in ended.stderr
