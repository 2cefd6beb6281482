"""The stage of ``reprod demo``: one temporary folder, one real daemon in it, and the processes that use both.

Owns what must be gone afterwards: the folder, the daemon with all that it started, and the trainings. Every wait has a
bound; times are seconds.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reprod.cli.demo_process import Command, Ran, StepFailedError, Training
from reprod.cli.demo_server import HOST, Server
from reprod.client import Client
from reprod.config.places import checked_socket
from reprod.errors import DaemonUnavailableError, TrackingError, UsageError
from reprod.sinks.environment import client_environment, server_environment

EXPERIMENT = "reprod-demo"

#: The first start of MLflow makes its database: 5 to 7 s on two cores, several times that on a busy machine.
SERVER_READY_S = 90.0
DAEMON_READY_S = 40.0
#: The daemon ends within 2 s and takes its MLflow processes with it; the rest is for busy machines.
STOP_S = 15.0
LOOK_EVERY_S = 0.1

_REPROD = (sys.executable, "-P", "-m", "reprod")

# Asked often, so that waiting for a poll is no part of what the demo shows.
_CONFIGURATION = """\
[mlflow]
tracking_uri = "local"
poll_seconds = 1
"""


class Stage:
    """A folder with a configuration, a state and data of its own, and the daemon that runs there.

    ``port`` is the MLflow server's; None lets the daemon choose. Raises UsageError or TrackingError if it cannot be
    had.
    """

    def __init__(self, port: int | None) -> None:
        if port is not None:
            _require_free(port)
        self.folder = Path(tempfile.mkdtemp(prefix="reprod-demo-"))
        self.state = self.folder / "state"
        self.socket = self.folder / "sock"
        self.elsewhere = self.folder / "far"
        self.daemon_log = self.folder / "daemon.log"
        self.server = Server("")
        self._daemon: subprocess.Popen[bytes] | None = None
        self._trainings: list[Training] = []
        self.state.mkdir(mode=0o700)
        (self.folder / "reprod.toml").write_text(_CONFIGURATION, "utf-8")
        if port is not None:  # where the daemon remembers the port of its server
            (self.state / "mlflow-port").write_text(f"{port}\n", "ascii")

    @property
    def variables(self) -> dict[str, str]:
        """What a shell needs to talk to this daemon instead of the user's own."""
        # The socket is named too: XDG_RUNTIME_DIR would lead a training process to the user's own daemon.
        return _variables(self.folder)

    @property
    def pid(self) -> int:
        """The daemon's process id; 0 before it was started."""
        return self._daemon.pid if self._daemon is not None else 0

    def start_daemon(self) -> None:
        """Start ``reprod daemon`` and return when it answers on its socket."""
        checked_socket(self.socket)
        with self.daemon_log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*_REPROD, "daemon"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is ours to pass on, and with --keep it outlives the terminal
            )
        self.wait(self._answers, DAEMON_READY_S, "the daemon does not answer")

    def wait_server(self) -> None:
        """Return when the daemon has reached its MLflow server; sets ``server``."""

        def reached() -> bool:
            tracking = self.ask("status")["tracking"]
            if tracking["state"] == "reachable":
                self.server = Server(str(tracking["uri"]))
            return bool(self.server.url)

        self.wait(reached, SERVER_READY_S, f"the MLflow server is not up (see {self.state / 'mlflow-server.log'})")

    def ask(self, method: str) -> dict[str, Any]:
        """Ask the daemon over its socket."""
        with Client(self.socket) as client:
            return client.call(method)

    def reprod(self, *arguments: str, show: bool = False) -> Ran:
        """Run a ``reprod`` command as a user would, against this daemon; with ``show`` it writes to our own stdout."""
        return self.begin(*arguments, show=show).ran()

    def begin(self, *arguments: str, show: bool = False, alone: bool = False) -> Command:
        """Start a ``reprod`` command; ``alone``: as on another host, which has the MLflow server's address only."""
        environment = self._environment()
        if alone:
            self.elsewhere.mkdir(exist_ok=True)
            (self.elsewhere / "reprod.toml").touch()
            environment |= {**_variables(self.elsewhere), "MLFLOW_TRACKING_URI": self.server.url}
        return Command([*_REPROD, *arguments], environment, self.folder, show=show)

    def train(self, script: str, *arguments: str, by: tuple[str, ...] = (), threads: int = 0) -> Training:
        """Start a training script of the folder, set to this stage's MLflow server.

        ``by`` are the arguments of ``reprod`` that start it in place of us; ``threads`` becomes OMP_NUM_THREADS.
        """
        environment = client_environment(self._environment(), self.server.url)
        environment["MLFLOW_EXPERIMENT_NAME"] = EXPERIMENT
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        command = [sys.executable, "-P", script, *arguments]
        if by:
            command = [*_REPROD, *by, *command]
        training = Training(command, environment, self.folder, self.folder / f"training-{len(self._trainings) + 1}")
        self._trainings.append(training)
        return training

    def wait(self, reached: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        """Return when ``reached`` does. Raises StepFailedError after ``timeout_s``, or when the daemon has ended."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            if self._daemon is not None and self._daemon.poll() is not None:
                raise StepFailedError(
                    f"the daemon ended with exit code {self._daemon.returncode}: {self._last_words()}"
                )
            if time.monotonic() > deadline:
                raise StepFailedError(f"{otherwise} after {timeout_s:g} s")
            time.sleep(LOOK_EVERY_S)

    def stop(self) -> None:
        """End the trainings, the daemon and all that it started."""
        for training in self._trainings:
            training.kill()
        if self._daemon is None:
            return
        self._daemon.terminate()
        try:
            self._daemon.wait(STOP_S)
        except subprocess.TimeoutExpired:
            # Its MLflow server sees its pipe close and ends itself; its other children are in the daemon's group.
            os.killpg(self._daemon.pid, signal.SIGKILL)
            self._daemon.wait(STOP_S)
        self._daemon = None

    def is_over(self) -> bool:
        """Whether nobody listens any more where the MLflow server did."""
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.server.port)) != 0

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        # A user's REPROD_* and MLFLOW_* mean other daemons and other servers; the threads are a part of the story.
        mine = ("REPROD_", "MLFLOW_", "OMP_NUM_THREADS")
        kept = {key: value for key, value in server_environment(os.environ).items() if not key.startswith(mine)}
        return kept | self.variables

    def _answers(self) -> bool:
        try:
            return bool(self.ask("hello"))
        except DaemonUnavailableError:
            return False

    def _last_words(self) -> str:
        lines = self.daemon_log.read_text("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it said nothing"])[-1][:300]


def _variables(folder: Path) -> dict[str, str]:
    return {
        "REPROD_CONFIG": str(folder / "reprod.toml"),
        "REPROD_STATE_DIR": str(folder / "state"),
        "REPROD_SOCKET": str(folder / "sock"),  # short: its path may have 107 bytes, and TMPDIR may be long
    }


def own_name() -> str:
    """Return how this program was called, as something that can be typed again."""
    called = sys.argv[0]
    if os.path.basename(called) != "reprod":
        return f"{sys.executable} -m reprod"
    return "reprod" if shutil.which("reprod") == os.path.abspath(called) else called


def _require_free(port: int) -> None:
    if not 1024 <= port <= 65535:
        raise UsageError(f"--port {port} cannot be used", hint="a number from 1024 to 65535; without it one is chosen")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            raise TrackingError(
                f"port {port} is taken: {error.strerror}", hint="choose another --port, or leave it out"
            ) from error
