"""The command line with nothing scripted: a real daemon process, real files, real verbs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_daemon import Done

Run = Callable[..., Done]


@pytest.fixture
def real_daemon(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``reprod daemon`` with this test's places, answering; stopped by SIGTERM at the end."""
    with (home / "daemon.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "reprod", "daemon"], stdout=log, stderr=log)
        give_up = time.monotonic() + 60
        while not (home / "state" / "control.sock").exists():
            assert process.poll() is None, (home / "daemon.log").read_text()
            assert time.monotonic() < give_up, "the daemon does not listen"
            time.sleep(0.02)
        yield process
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def test_a_dataset_from_add_to_remove(home: Path, reprod: Run, real_daemon: subprocess.Popen[bytes]) -> None:
    """Added, scanned, logged, changed, compared, silently corrupted, verified, asked for when down, removed."""
    data = home / "data"
    data.mkdir()
    (data / "train.csv").write_text("a,b\n1,2\n")
    os.close(os.open(os.fsencode(data) + b"/\xff\n\x1b[2J", os.O_CREAT | os.O_WRONLY))

    added = reprod("dataset", "add", "tables", str(data)).out
    assert "found" in added
    done = reprod("scan", "tables")
    assert (done.code, done.err) == (0, "")
    assert "2 files, 8 B" in done.out
    assert reprod("status", "tables").code == 0
    snapshot = reprod("snapshot", "tables", "--json").json
    first = snapshot["version"]
    assert snapshot["digest"].startswith("dt1:")

    (home / "new").write_text("x")
    (home / "new").rename(data / "new\n.csv")  # at once, so that the watcher cannot seal half of it
    assert "3 files, 9 B" in reprod("scan", "tables").out
    versions = reprod("log", "tables", "--json").json["versions"]
    assert [row["version"] for row in versions] == [first + 1, first]
    done = reprod("diff", f"tables@{first}", f"tables@{first + 1}")
    assert done.code == 1
    assert "  A  new\\n.csv  1 B" in done.out
    assert reprod("diff", f"tables@{first}", f"tables@{first}").code == 0
    assert reprod("verify", "tables").code == 0

    real_daemon.send_signal(signal.SIGTERM)
    assert real_daemon.wait(10) == 0
    before = (data / "train.csv").stat()
    (data / "train.csv").write_text("a,b\n1,3\n")
    os.utime(data / "train.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    done = reprod("verify", "tables")
    assert done.code == 1
    assert "modified: train.csv  other content" in done.out

    done = reprod("status")
    assert done.code == 3
    assert "Last known state, not live" in done.out
    assert "tables" in done.out
    assert reprod("log", "nothing").code == 4
    assert reprod("dataset", "remove", "tables", "--purge").code == 0
    assert reprod("log", "tables").code == 4


def test_bad_input_with_a_real_daemon(home: Path, reprod: Run, real_daemon: subprocess.Popen[bytes]) -> None:
    """An unknown dataset, a bad reprod.toml at reload and a misconfigured dataset keep the daemon up and are said."""
    for argv in (["scan", "x"], ["status", "x"], ["snapshot", "x"]):
        done = reprod(*argv)
        assert (done.code, done.out) == (4, ""), argv
        assert "\nhint: " in done.err
    (home / "etc" / "reprod.toml").write_text("[mlflow]\npoll_second = 1\n")
    done = reprod("reload")
    assert done.code == 78
    assert "did you mean poll_seconds?" in done.err
    (home / "etc" / "reprod.toml").write_text("")
    (home / "etc" / "datasets.d" / "x.toml").write_text("paths = 1\n")
    assert reprod("reload").code == 78
    done = reprod("status", "--check")
    assert done.code == 1
    assert "misconfigured" in done.out


def test_a_second_daemon(home: Path, reprod_process: Run, real_daemon: subprocess.Popen[bytes]) -> None:
    """A second instance exits 75, names the first, and leaves it answering."""
    done = reprod_process("daemon")
    assert done.code == 75
    assert str(real_daemon.pid) in done.err
    assert reprod_process("status").code == 0
