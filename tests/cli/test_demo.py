"""``reprod demo`` as users run it: processes of its own, a folder of its own, and nothing left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from ports import free_port
from waiting import eventually

#: The whole demo took 105 s on two cores that ten processes shared; 25 s on quiet ones.
BOUND_S = 300


def _environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    """A user's environment whose settings for daemons and servers must not reach the demo's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("REPROD_", "MLFLOW_"))}
    misleading = {
        "REPROD_STATE_DIR": str(tmp_path / "mine"),
        "REPROD_SOCKET": str(tmp_path / "mine.sock"),
        "XDG_RUNTIME_DIR": str(tmp_path / "runtime"),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_RUN_ID": "0" * 32,
    }
    return {**kept, **misleading, "TMPDIR": str(tmp_path), "LANG": "C.UTF-8", **variables}


def _demo(tmp_path: Path, *arguments: str, before: str = "") -> "subprocess.CompletedProcess[str]":
    code = f"import sys; {before or 'pass'}; from reprod.__main__ import main; sys.exit(main(['demo', *sys.argv[1:]]))"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        encoding="utf-8",
        env=_environment(tmp_path),
        timeout=BOUND_S,
    )


def _processes_in(folder: Path) -> list[str]:
    """The command lines of all processes whose environment or arguments name ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            about: Mapping[str, str] = process.environ()
            words = [*process.cmdline(), about.get("REPROD_STATE_DIR", ""), about.get("PWD", ""), process.cwd()]
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and any(f"{folder}/reprod-demo-" in f"{word}/" for word in words):
            found.append(" ".join(words))
    return found


def _nothing_left(folder: Path) -> bool:
    """Whether neither a process nor a folder is left, once what is ending has ended."""
    return eventually(
        lambda: not _processes_in(folder) and not list(folder.glob("reprod-demo-*")),
        30,
        lambda: f"nothing is left: {_processes_in(folder)}, {list(folder.glob('reprod-demo-*'))}",
    )


#: In this order: what a reader must find of the whole story, each beside what it is found by.
STORY = (
    ("the environment in files", r"^    requirements\.txt    \d+ packages: \S+==\S+ \.\.\.$"),
    ("a line is all", r'^        mlflow\.set_tag\("reprod\.dataset", "tables"\)'),
    ("captured", r"^    reprod\.state        captured "),
    ("a digest", r"^    reprod\.digest       dt1:[0-9a-f]{12} "),
    ("no drift", r"^    reprod\.drift        none "),
    ("params", r"^    params              python_version=\S+ cpu_count=\d+ gpu_count=\d+$"),
    ("metrics", r"^    metrics             data_files_count=9 data_size_bytes=\d+$"),
    ("a manifest", r"^    artifact            data_manifest/data_manifest\.json$"),
    ("a report", r"^    artifact            reprod/report\.html$"),
    ("the experiment's tag", r"^    reprod\.dataset_from experiment "),
    ("drift by a new file", r"^    reprod\.drift        appended "),
    ("drift that left no trace", r"^    reprod\.drift        changed "),
    ("the list of runs", r"^[0-9a-f]{8}  third "),
    ("what differs", r"^  M  breast_cancer\.csv "),
    ("one file", r"exactly one file differs, breast_cancer\.csv "),
    ("environments compared", r"^numeric +variables\.OMP_NUM_THREADS "),
    ("who had a file", r"^breast_cancer\.csv \(sha256 .*2 runs held this content"),
    ("a run in full", r"^  drift     it changed while it ran"),
    ("valid", r"^● \S+/tables is what was recorded"),
    ("stat sees nothing", r"^  content not read: sizes and times only$"),
    ("a mismatch", r"^  modified: digits\.csv\.gz  other content"),
    ("from the server alone", r"^\$ MLFLOW_TRACKING_URI=http://\S+ reprod verify run:third$"),
    ("a missing file", r"^  missing: wine_data\.csv$"),
    ("all of it", r"^All 18 steps happened, in "),
)


@pytest.mark.mlflow
@pytest.mark.timeout(2 * BOUND_S)
def test_the_demo_shows_the_main_job_and_stays_up_when_kept(tmp_path: Path) -> None:
    """The whole demo runs for real and shows each part in order; with --keep the server answers on the wanted port
    until the printed line, after which nothing is left. (30 s on two cores: three trainings and a server.)"""
    port = free_port()
    done = _demo(tmp_path, "--keep", "--port", str(port))
    pid = 0
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"^    (kill (\d+); sleep 2; rm -r (\S+))$", done.stdout, re.MULTILINE)
        assert found is not None, done.stdout
        pid, folder = int(found[2]), Path(found[3])
        _assert_told(done.stdout)
        assert not (tmp_path / "mine").exists()
        assert re.search(
            rf"^    http://127\.0\.0\.1:{port}/#/experiments/\d+/runs/\w+/artifacts/reprod/", done.stdout, re.M
        )
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        settings = dict(re.findall(r"^    export (\w+)=(\S+)$", done.stdout, re.MULTILINE))
        status = [sys.executable, "-m", "reprod", "status", "--check"]
        asked = subprocess.run(status, env=_environment(tmp_path, **settings), capture_output=True, timeout=90)
        assert asked.returncode == 0, asked.stderr
        end, pause, remove = found[1].split("; ")
        assert pause == "sleep 2"  # enough where nothing else is going on: here it is waited for the end itself
        subprocess.run(["sh", "-c", end], check=True, timeout=20)
        pid = 0
        eventually(lambda: not _processes_in(tmp_path), 30, "all have ended")
        subprocess.run(["sh", "-c", remove], check=True, timeout=20)
        assert not folder.exists()
        assert _nothing_left(tmp_path)
    finally:
        if pid:
            os.kill(pid, signal.SIGTERM)


def _assert_told(out: str) -> None:
    """Each part of the story is there, after the one before it."""
    place = 0
    for what, pattern in STORY:
        found = re.compile(pattern, re.MULTILINE).search(out, place)
        assert found is not None, f"{what} is not shown: {pattern}\n{out[place:]}"
        place = found.end()


@pytest.mark.mlflow
def test_the_end_of_the_demo_leaves_nothing(tmp_path: Path) -> None:
    """Without --keep its last step ends the daemon with its server and removes the folder."""
    short = (
        "from reprod.cli import demo; demo._Demo._ask = lambda self: None; demo._Demo._record = lambda self: "
        "[self.telling.step(name, getattr(self.recording, name)) for name in ('start', 'await_server')]"
    )
    done = _demo(tmp_path, before=short)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 3 steps happened" in done.stdout
    assert _nothing_left(tmp_path)


@pytest.mark.mlflow
def test_ctrl_c_cleans_up(tmp_path: Path) -> None:
    """Interrupted while its server starts, the demo exits 130 and leaves neither a process nor a folder."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "reprod", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=_environment(tmp_path, PYTHONUNBUFFERED="1"),
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "Wait for the MLflow server" in line:
            break
    assert _processes_in(tmp_path)
    demo.send_signal(signal.SIGINT)
    demo.stdout.read()
    demo.stdout.close()
    assert demo.wait(60) == 130
    assert _nothing_left(tmp_path)


@pytest.mark.mlflow
@pytest.mark.parametrize(("lines", "unbuffered"), [(1, ""), (1, "1"), (12, "1")])
def test_a_reader_that_goes_away_leaves_nothing(tmp_path: Path, lines: int, unbuffered: str) -> None:
    """``reprod demo | head -1``: it ends as every command does whose output nobody reads, and cleans up; wherever it
    is, also in a command that writes to the same output."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "reprod", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=_environment(tmp_path, PYTHONUNBUFFERED=unbuffered),
    )
    assert demo.stdout is not None
    for _ in range(lines):
        assert demo.stdout.readline()
    demo.stdout.close()
    assert demo.wait(BOUND_S) == 141
    assert demo.stderr is not None
    assert demo.stderr.read() == ""
    demo.stderr.close()
    assert _nothing_left(tmp_path)


@pytest.mark.mlflow
def test_a_command_of_the_demo_that_nobody_reads_ends_it(tmp_path: Path) -> None:
    """The demo itself may have nothing to write when a command that it runs finds the reader gone: the same."""
    before = (
        "from reprod.cli import demo, demo_process, demo_telling; "
        "demo.Recording.register = lambda self: demo_telling.expect_code(demo_process.Ran(141, '', ''), 0)"
    )
    done = _demo(tmp_path, before=before)
    assert (done.returncode, done.stderr) == (141, "")
    assert _nothing_left(tmp_path)


@pytest.mark.mlflow
def test_no_room_for_its_output_is_said(tmp_path: Path) -> None:
    """Where standard output leads nowhere the demo says so, as other commands do, and cleans up."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "reprod", "demo"],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=_environment(tmp_path),
            timeout=BOUND_S,
        )
    assert done.returncode == 77, done.stderr
    assert "standard output cannot be written" in done.stderr
    assert _nothing_left(tmp_path)


@pytest.mark.mlflow
def test_a_terminal_that_is_closed_ends_it(tmp_path: Path) -> None:
    """SIGHUP cleans up as Ctrl-C does, while a training runs too: neither that nor the daemon may stay behind."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "reprod", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=_environment(tmp_path, PYTHONUNBUFFERED="1"),
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("$ python train.py"):
            break
    eventually(lambda: any("train.py" in words for words in _processes_in(tmp_path)), 60, "it trains")
    demo.send_signal(signal.SIGHUP)
    demo.stdout.read()
    demo.stdout.close()
    assert demo.wait(60) == 130
    assert _nothing_left(tmp_path)


@pytest.mark.mlflow
def test_a_step_that_fails_is_said_and_leaves_the_logs(tmp_path: Path) -> None:
    """A daemon that ends at its start ends the demo with 1, which names the step and the reason and keeps the logs."""
    done = _demo(tmp_path, before="from reprod.cli import demo_stage; demo_stage._CONFIGURATION = '[x]'")
    assert done.returncode == 1
    assert "✗ the daemon ended with exit code 78" in done.stdout
    assert "error: step 2 of the demo did not happen: the daemon ended with exit code 78" in done.stderr
    logs = re.search(r"hint: the logs are kept: (\S+/daemon\.log) ", done.stderr)
    assert logs is not None, done.stderr
    assert "unknown section or key 'x'" in Path(logs[1]).read_text("utf-8")
    eventually(lambda: not _processes_in(tmp_path), 30, "no process is left")


def test_what_is_missing_is_said_before_anything_begins(tmp_path: Path) -> None:
    """Without scikit-learn the demo says so with the line that installs it, and makes nothing."""
    done = _demo(tmp_path, before="sys.modules['sklearn'] = None")
    assert (done.returncode, done.stdout) == (78, "")
    assert "needs scikit-learn" in done.stderr
    assert 'hint: pip install "mlflow>=3.11,<4" scikit-learn' in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.mlflow
def test_a_port_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    """A taken port and a reserved one are refused before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        done = _demo(tmp_path, "--port", str(taken.getsockname()[1]))
    assert (done.returncode, done.stdout) == (69, "")
    assert "is taken" in done.stderr
    assert _demo(tmp_path, "--port", "80").returncode == 2
    assert list(tmp_path.iterdir()) == []
