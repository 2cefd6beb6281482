"""An account of its own, the scripted daemon, and the command line run in this process or in one of its own."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_daemon import Done, ScriptedDaemon

from reprod.__main__ import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account of its own: configuration in etc, state in state, no daemon."""
    for variable in (
        *("REPROD_SOCKET", "MLFLOW_TRACKING_URI", "XDG_RUNTIME_DIR", "REPROD_DEBUG", "NO_COLOR", "FORCE_COLOR"),
        *("CLICOLOR_FORCE", "COLUMNS", "LC_ALL"),
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("REPROD_CONFIG", str(tmp_path / "etc" / "reprod.toml"))
    monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("TERM", "xterm")
    (tmp_path / "etc" / "datasets.d").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture
def daemon(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    """A daemon that answers hello as the real one does and everything else as the test says."""
    monkeypatch.setattr("reprod.cli.completion.ANSWER_S", 50.0)  # a busy machine may need more than a person waits
    scripted = ScriptedDaemon(home)
    etc = home / "etc"
    scripted.says(
        "hello",
        protocol=1,
        version="0.1.0",
        pid=os.getpid(),
        config=str(etc / "reprod.toml"),
        folder=str(etc / "datasets.d"),
        state=str(home / "state"),
    )
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home / "state" / "control.sock"))
    listener.listen(10)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_quietly, args=(scripted.talk, connection), daemon=True).start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    yield scripted
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    acceptor.join(30)


def _quietly(talk: Callable[[socket.socket], None], connection: socket.socket) -> None:
    try:
        talk(connection)
    except OSError:
        pass


@pytest.fixture
def reprod(home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command line in this process."""

    def run(*argv: str) -> Done:
        capfd.readouterr()
        code = main(argv)
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def reprod_process(home: Path) -> Callable[..., Done]:
    """Run the command line as a process of its own."""

    def run(*argv: str, **variables: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "reprod", *argv],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, **variables},
            timeout=90,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run
