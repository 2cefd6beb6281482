"""The embedded MLflow server of ``tracking_uri = "local"``: loopback, SQLite and artifacts in the state directory.

One server per state directory, run under `server_guard`, which ends it when this process ends in any way, so a restart
never meets a leftover of its own for longer than a second. The port stays the same over restarts
(``STATE/mlflow-port``), because people keep the address open in a browser. Timeouts are in seconds.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from reprod.errors import StateError, TrackingError
from reprod.sinks.environment import require_mlflow, server_environment

HOST = "127.0.0.1"

#: A killed owner's server is gone within this (see the guard's grace); only then a taken port is a stranger's.
LEFTOVER_S = 2.0

#: The guard takes at most 0.8 s; the rest is for a guard that does not react.
STOP_S = 1.2

LOOK_EVERY_S = 0.05

#: At warning level a healthy server writes a few lines a start; one that fails all the time must not fill the disk.
LOG_LIMIT = 10 * 1024 * 1024


def _go_on() -> None:
    """Stand for no checkpoint."""


class LocalServer:
    """Starts, watches and stops ``mlflow server`` for one state directory. Thread-safe.

    ``port`` 0 means the remembered one, else a free one; any other number is used or refused. ``checkpoint`` arguments
    are called about every 50 ms while something is waited for and may raise to end the wait.
    """

    def __init__(self, state_dir: Path, port: int = 0) -> None:
        self._state_dir = state_dir
        self._wanted_port = port
        self._lock = threading.Lock()
        self._guard: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The server's address; known after `start`."""
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The leader of the server's process group, or None where none was started."""
        return self._guard.pid if self._guard is not None else None

    @property
    def log_path(self) -> Path:
        """Where the server's own output goes."""
        return self._state_dir / "mlflow-server.log"

    def start(self, checkpoint: Callable[[], None] = _go_on) -> None:
        """Start the server unless it runs; returns before it answers.

        Raises `ConfigError` without MLflow, `TrackingError` for a wanted port that is taken, `StateError` where the
        state directory cannot be written.
        """
        with self._lock:
            if self._lives():
                return
            self._end()
            require_mlflow()
            self._port = self._choose_port(checkpoint)
            try:
                self._guard = self._spawn()
            except OSError as error:
                raise StateError(
                    f"the local MLflow server cannot be started in {self._state_dir}: {error}",
                    hint="the directory must be writable and have free space",
                ) from error

    def wait_ready(self, timeout_s: float = 60.0, checkpoint: Callable[[], None] = _go_on) -> None:
        """Return when the server answers ``/health``; a first start makes the database and takes about five seconds.

        Raises `TrackingError` when it ends or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            checkpoint()
            # In this order: an answer while our server is dead would be a stranger's.
            answered = _answers(self._port)
            if not self.is_alive():
                raise TrackingError(
                    f"the local MLflow server ended while it started: {self._last_words()}",
                    hint=f"see {self.log_path}",
                )
            if answered:
                return
            if time.monotonic() >= deadline:
                raise TrackingError(
                    f"the local MLflow server at {self.url} did not answer within {timeout_s:g} s",
                    hint=f"see {self.log_path}",
                )
            time.sleep(LOOK_EVERY_S)

    def is_alive(self) -> bool:
        """Say whether the server process runs (noticed within 250 ms); not whether it answers."""
        with self._lock:
            return self._lives()

    def stop(self) -> None:
        """End the server and everything it started, in under 1.5 s. Idempotent."""
        with self._lock:
            self._end()

    def _spawn(self) -> subprocess.Popen[bytes]:
        (self._state_dir / "artifacts").mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "reprod.sinks.server_guard", "--", *self._command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._state_dir,
                env=server_environment(os.environ),
                start_new_session=True,  # no Ctrl-C from the owner's terminal, and a group that we may end
            )

    def _command(self) -> list[str]:
        # Relative to the working directory STATE: then no character of its path can mean something in a URI.
        return [
            *[sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self._port), "--workers", "1"],
            *["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./artifacts"],
            *["--uvicorn-opts", "--log-level warning"],
        ]

    def _lives(self) -> bool:
        """Ask without reaping: while the dead guard is a zombie its id cannot be another group's."""
        if self._guard is None or self._guard.returncode is not None:
            return False
        try:
            return os.waitid(os.P_PID, self._guard.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def _end(self) -> None:
        guard = self._guard
        if guard is None:
            return
        if guard.stdin is not None:
            guard.stdin.close()
        deadline = time.monotonic() + STOP_S
        while self._lives() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._guard = None
        try:
            # Not reaped yet, so the id is still this group's: also what outlived a guard that was killed ends here.
            os.killpg(guard.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            guard.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass  # stuck in the kernel; subprocess reaps it later

    def _choose_port(self, checkpoint: Callable[[], None]) -> int:
        if self._wanted_port:
            if not _wait_until_free(self._wanted_port, checkpoint):
                raise TrackingError(
                    f"port {self._wanted_port} for the local MLflow server is taken by another program",
                    hint="choose another port, or stop that program",
                )
            return self._wanted_port
        remembered = self._state_dir / "mlflow-port"
        try:
            port = int(remembered.read_text("ascii"))
        except (OSError, ValueError):
            port = 0
        if 1024 <= port <= 65535 and _wait_until_free(port, checkpoint):
            return port
        port = _free_port()
        try:
            self._state_dir.mkdir(parents=True, exist_ok=True)
            fresh = remembered.with_suffix(".new")
            fresh.write_text(f"{port}\n", "ascii")
            fresh.replace(remembered)
        except OSError as error:
            raise StateError(
                f"{remembered} cannot be written: {error}", hint="the state directory must be writable"
            ) from error
        return port

    def _last_words(self) -> str:
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 4096))
                lines = log.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return "it left no log"
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:300]


def remembered_url(state_dir: Path) -> str | None:
    """Return where the server of a state directory listens when it runs; None if there never was one."""
    try:
        return f"http://{HOST}:{int((state_dir / 'mlflow-port').read_text('ascii'))}"
    except (OSError, ValueError):
        return None


def _answers(port: int) -> bool:
    """Ask ``/health`` directly, without the proxies that the environment may name."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As uvicorn binds: connections in TIME_WAIT do not make a port taken, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _wait_until_free(port: int, checkpoint: Callable[[], None]) -> bool:
    deadline = time.monotonic() + LEFTOVER_S
    while not _is_free(port):
        if time.monotonic() >= deadline:
            return False
        checkpoint()
        time.sleep(LOOK_EVERY_S)
    return True
