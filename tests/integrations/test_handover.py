"""The handover: who a process is reaches the daemon, its record too, and the process notices nothing."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from control_seam import ControlSeam

import reprod
import reprod.capture.detached as detached
import reprod.capture.handover as handover
from reprod.capture.environment import capture_self
from reprod.capture.process.identity import current_context
from reprod.core.environment import Record, decode_record
from reprod.core.process import ProcessContext
from reprod.integrations.handover import announce

CANARY = "CANARY7f3a"
HAND_OVER = "from reprod.integrations.handover import announce; announce('run')"


@pytest.fixture
def here(environ, monkeypatch):
    """This test process in the environment of a user; it has not announced itself yet."""
    for name in list(os.environ):
        if name.startswith(("REPROD_", "XDG_")):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(handover, "_recorded_by", None)


def sent(environment: object) -> Record:
    return decode_record(json.dumps(environment).encode())


def test_announces_and_hands_over_the_own_record(here, control):
    """The daemon gets the identity, the run, and a record that equals what the process captures itself."""
    assert announce("run1", "imagenet", "http://h:5000")
    (told,) = control.wait("announce")
    assert told == {
        "context": current_context().to_object(),
        "run_id": "run1",
        "dataset": "imagenet",
        "tracking_uri": "http://h:5000",
        "takes_part": False,
    }
    (given,) = control.wait("handover record")
    assert ProcessContext.from_object(given["context"]) == current_context()
    record = sent(given["record"])
    environment = record.environment
    own = capture_self(git=False).environment
    assert record.execution.subject.how == "handover"
    assert record.execution.subject.pid == os.getpid()
    assert (environment.packages, environment.python) == (own.packages, own.python)
    assert environment.variables == own.variables
    assert (environment.system, environment.accelerators) == (own.system, own.accelerators)


def test_one_record_per_process(here, control, monkeypatch):
    """Every call is announced; the recording child is started once."""
    started = []
    real = detached.start
    monkeypatch.setattr(detached, "start", lambda what, given: (started.append(what), real(what, given)))
    for number in range(3):
        assert announce(f"run{number}")
    assert [told["run_id"] for told in control.wait("announce", 3)] == ["run0", "run1", "run2"]
    control.wait("handover record")
    assert started == ["record"]


def test_the_answer_comes_back(here, tmp_path):
    """An answer within its time is returned, a refusal or none at all is an empty one."""
    seam = ControlSeam(tmp_path / "control.sock", lambda message: {"known": True})
    assert handover.ask("r", answer_s=60.0) == {"known": True}
    seam.close()
    (tmp_path / "control.sock").unlink()
    seam = ControlSeam(tmp_path / "control.sock", lambda message: None)
    assert handover.ask("r", answer_s=60.0) == {}
    seam.close()


def test_another_process_s_run_is_only_announced(here, control):
    """Without identity the daemon is woken, and nobody's environment is handed over."""
    assert handover.ask("r", "d", "u", identify=False) is not None
    assert control.wait("announce")[0]["context"] is None
    assert handover._recorded_by is None


class TestNeverInTheWay:
    @pytest.mark.parametrize("backlog_full", [False, True])
    def test_a_hung_daemon_costs_under_50_ms(self, here, tmp_path, backlog_full):
        """A daemon that accepts nothing, or cannot even be connected to, is left behind in time."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "control.sock"))
            listener.listen(0)
            waiting = []
            while backlog_full:
                client = socket.socket(socket.AF_UNIX)
                waiting.append(client)
                client.setblocking(False)
                if client.connect_ex(str(tmp_path / "control.sock")):
                    break
            handover._recorded_by = os.getpid()  # the child is the next test's; here the waiting counts
            times = []
            for _ in range(5):
                begin = time.perf_counter()
                assert announce("run", "d", "u")
                times.append(time.perf_counter() - begin)
                if not backlog_full:
                    listener.accept()[0].close()
            for client in waiting:
                client.close()
        assert sorted(times)[2] < 4.0  # it waits for nobody; the 50 ms are measured in tests/benchmarks

    def test_the_first_call_with_its_child_costs_under_50_ms(self, here, tmp_path, monkeypatch):
        """Starting the recording child fits into the same bound, although nobody answers."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "control.sock"))
            listener.listen(64)
            times = []
            for _ in range(5):
                monkeypatch.setattr(handover, "_recorded_by", None)
                begin = time.perf_counter()
                assert announce("run", "d", "u")
                times.append(time.perf_counter() - begin)
        assert sorted(times)[2] < 4.0  # it waits for nobody; the 50 ms are measured in tests/benchmarks

    def test_no_daemon(self, here, monkeypatch):
        """Without a daemon nothing is lost but milliseconds; the record is made all the same, once."""
        times = []
        for _ in range(5):
            monkeypatch.setattr(handover, "_recorded_by", None)
            begin = time.perf_counter()
            assert not announce("run")
            times.append(time.perf_counter() - begin)
            assert not announce("run")
        assert sorted(times)[2] < 4.0  # it waits for nobody; the 50 ms are measured in tests/benchmarks
        assert handover._recorded_by == os.getpid()

    def test_the_first_living_socket_counts(self, here, tmp_path, monkeypatch):
        """Dead files, too long paths and missing directories are passed over."""
        monkeypatch.delenv("REPROD_SOCKET", raising=False)
        monkeypatch.delenv("REPROD_STATE_DIR", raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 200)))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        (tmp_path / "reprod").mkdir()
        seam = ControlSeam(tmp_path / "reprod" / "control.sock")
        assert announce("run")
        assert seam.wait("announce")[0]["run_id"] == "run"
        assert handover.sockets() == [
            f"{tmp_path}/{'x' * 200}/reprod/control.sock",
            f"{tmp_path}/reprod/control.sock",
            "/run/reprod/control.sock",
            "/var/lib/reprod/control.sock",
        ]
        seam.wait("handover record")
        seam.close()

    def test_a_named_state_means_that_daemon_alone(self, here, tmp_path, monkeypatch):
        """With a socket or a state directory named, no other daemon is ever asked."""
        monkeypatch.delenv("REPROD_SOCKET", raising=False)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "state"))
        assert handover.sockets() == [f"{tmp_path}/state/control.sock"]
        monkeypatch.setenv("REPROD_SOCKET", str(tmp_path / "dead.sock"))
        assert handover.sockets() == [str(tmp_path / "dead.sock")]
        assert not announce("run")

    def test_no_child_is_left_to_the_user(self, control, script):
        """The user's own os.wait() never meets a process of ours."""
        code = "from reprod.capture import detached; detached.SHELL_S = 50\n"  # a busy machine's shell takes longer
        code += HAND_OVER + "\nimport os\ntry: print(os.wait())\nexcept ChildProcessError: print('none')"
        ended = script(code)
        assert ended.stdout == "none\n", ended.stderr
        control.wait("handover record")

    def test_a_frozen_application_is_not_started_again(self, here, control, monkeypatch):
        """Where sys.executable is the application itself, no child is started."""
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        assert announce("run")
        monkeypatch.delattr(sys, "frozen")
        monkeypatch.setattr(sys, "executable", "/opt/blender/blender")
        assert announce("run")
        assert handover._recorded_by is None

    def test_anything_unforeseen_stays_inside(self, here, control, monkeypatch):
        """An error in the middle is False, never an exception."""

        def broken(*_):
            raise MemoryError

        monkeypatch.setattr(handover, "_context", broken)
        assert announce("run") is False


def test_a_script_that_ends_at_once_hands_over(control, script):
    """The record arrives although its process is long gone, and it names that process."""
    ended = script("import os; print(os.getpid())\n" + HAND_OVER)
    assert (ended.returncode, ended.stderr) == (0, "")
    (given,) = control.wait("handover record")
    assert given["context"]["pid"] == int(ended.stdout)
    assert not Path(f"/proc/{ended.stdout.strip()}").exists()
    assert sent(given["record"]).environment.packages


def test_modules_of_the_user_s_directory_do_not_run_in_the_child(control, script, tmp_path):
    """A json.py beside the script, and startup variables, break neither the child nor run in it."""
    work = tmp_path / "work"
    work.mkdir()
    for name in ("signal", "psutil", "msgspec", "sitecustomize"):
        (work / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    code = "import sys; sys.path.append(sys.path.pop(0))\n" + HAND_OVER
    ended = script(code, PYTHONWARNINGS="error", PYTHONSTARTUP="/nowhere")
    assert ended.returncode == 0, ended.stderr
    assert sent(control.wait("handover record")[0]["record"]).environment.packages
    assert not (tmp_path / "ran").exists()


def test_git_is_that_of_the_script(control, script, tmp_path, environ):
    """The child runs as the user and tells the commit of the user's code."""
    work = tmp_path / "work"
    work.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (
        ["init", "-q", "-b", "main"],
        ["commit", "-q", "--allow-empty", "-m", "x"],
        ["remote", "add", "origin", f"https://{CANARY}@h/o/r"],
    ):
        subprocess.run([*git, *command], cwd=work, env=environ, check=True, timeout=20)
    script(HAND_OVER)
    found = sent(control.wait("handover record")[0]["record"]).environment.git
    assert (found.branch, found.dirty, found.root) == ("main", True, str(work))
    assert found.remote == "https://h/o/r"
    assert CANARY.encode() not in control.raw


def test_no_secret_goes_over_the_socket(control, script):
    """Secret variables and arguments of the process are in no byte that is sent."""
    secrets = {"HF_TOKEN": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY, "TORCH_HOME": f"https://u:{CANARY}@h"}
    script(HAND_OVER, "-X", f"password={CANARY}", **secrets, OMP_NUM_THREADS="3")
    environment = sent(control.wait("handover record")[0]["record"]).environment
    assert environment.variables["OMP_NUM_THREADS"] == "3"
    assert CANARY.encode() not in control.raw


def test_reprod_is_found_where_the_process_found_it(control, script, tmp_path):
    """A reprod that is only on the script's own sys.path is found by the child too."""
    root = str(Path(reprod.__file__).parent.parent)
    sites = [path for path in sys.path if path.endswith("site-packages")]
    code = f"import sys; sys.path += {[root, *sites]!r}\n" + HAND_OVER
    ended = script(code, "-I", "-S")
    assert ended.returncode == 0, ended.stderr
    environment = sent(control.wait("handover record")[0]["record"]).environment
    assert "msgspec" in {package.name for package in environment.packages.packages}


def test_the_child_outlasts_a_daemon_that_restarts(here, tmp_path):
    """A connection that is closed without an answer is tried again; a refusal is not."""
    answers = [None, {}]
    seam = ControlSeam(
        tmp_path / "control.sock", lambda message: answers.pop(0) if message["method"] == "handover" else {}
    )
    assert announce("run")
    first, second = seam.wait("handover record", 2)
    assert first == second
    seam.close()


def test_undecodable_paths_do_not_break_the_record(control, script, tmp_path):
    """A working directory that is not UTF-8 is recorded in a display form."""
    work = Path(os.fsdecode(os.fsencode(tmp_path) + b"/w\xff"))
    work.mkdir()
    ended = script("import sys\nsys.path.insert(0, 'lib')\n" + HAND_OVER, cwd=work)
    assert ended.returncode == 0, ended.stderr
    assert json.dumps(control.wait("handover record")[0])
