"""The stage of ``reprod demo``: one temporary folder, one real daemon in it, and what is asked of both.

Owns what must be gone afterwards: the folder, and the daemon with all that it started. Runs are read from the MLflow
server itself over REST, so what the demo shows is what the server holds. Every wait has a bound; times are seconds.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from reprod.client import Client
from reprod.config.places import checked_socket
from reprod.errors import DaemonUnavailableError, ReprodError, TrackingError, UsageError
from reprod.sinks.environment import client_environment, server_environment

HOST = "127.0.0.1"
EXPERIMENT = "reprod-demo"

#: The first start of MLflow makes its database: 5 to 7 s on two cores, several times that on a busy machine.
SERVER_READY_S = 90.0
DAEMON_READY_S = 20.0
COMMAND_S = 60.0
#: The daemon ends within 2 s and takes its MLflow processes with it.
STOP_S = 5.0
LOOK_EVERY_S = 0.1

# Asked often, so that waiting for a poll is no part of what the demo shows.
_CONFIGURATION = """\
[mlflow]
tracking_uri = "local"
poll_seconds = 1
"""


class StepFailedError(ReprodError):
    """Raised when a step of the demo did not happen."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended: exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object that the command printed. Raises StepFailedError if it printed something else."""
        try:
            return dict(json.loads(self.out))
        except ValueError as error:
            raise StepFailedError(f"no JSON came, exit code {self.code}: {(self.err or self.out).strip()}") from error


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
        self.socket = self.folder / "sock"  # short: its path may have 107 bytes, and TMPDIR may be long
        self.daemon_log = self.folder / "daemon.log"
        self.url = ""
        self._daemon: subprocess.Popen[bytes] | None = None
        self.state.mkdir(mode=0o700)
        (self.folder / "reprod.toml").write_text(_CONFIGURATION, "utf-8")
        if port is not None:  # where the daemon remembers the port of its server
            (self.state / "mlflow-port").write_text(f"{port}\n", "ascii")

    @property
    def variables(self) -> dict[str, str]:
        """What a shell needs to talk to this daemon instead of the user's own."""
        # The socket is named too: XDG_RUNTIME_DIR would lead a training process to the user's own daemon.
        return {
            "REPROD_CONFIG": str(self.folder / "reprod.toml"),
            "REPROD_STATE_DIR": str(self.state),
            "REPROD_SOCKET": str(self.socket),
        }

    @property
    def pid(self) -> int:
        """The daemon's process id; 0 before it was started."""
        return self._daemon.pid if self._daemon is not None else 0

    def start_daemon(self) -> None:
        """Start ``reprod daemon`` and return when it answers on its socket."""
        checked_socket(self.socket)
        with self.daemon_log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-P", "-m", "reprod", "daemon"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is ours to pass on, and with --keep it outlives the terminal
            )
        self.wait(self._answers, DAEMON_READY_S, "the daemon does not answer")

    def wait_server(self) -> None:
        """Return when the daemon has reached its MLflow server; sets ``url``."""

        def reached() -> bool:
            tracking = self.ask("status")["tracking"]
            if tracking["state"] == "reachable":
                self.url = str(tracking["uri"])
            return bool(self.url)

        self.wait(reached, SERVER_READY_S, f"the MLflow server is not up (see {self.state / 'mlflow-server.log'})")

    def ask(self, method: str) -> dict[str, Any]:
        """Ask the daemon over its socket."""
        with Client(self.socket) as client:
            return client.call(method)

    def reprod(self, *arguments: str, show: bool = False) -> Ran:
        """Run a ``reprod`` command as a user would, against this daemon; with ``show`` it writes to our own stdout."""
        return self._run([sys.executable, "-P", "-m", "reprod", *arguments], self._environment(), show=show)

    def python(self, script: Path, *arguments: str) -> Ran:
        """Run a training script in a process of its own, set to this stage's MLflow server."""
        environment = client_environment(self._environment(), self.url)
        environment["MLFLOW_EXPERIMENT_NAME"] = EXPERIMENT
        return self._run([sys.executable, "-P", str(script), *arguments], environment)

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run as the MLflow server gives it, with ``tags`` and ``params`` as plain mappings.

        ``datasets`` are the names of its dataset inputs.
        """
        found = self._get("runs/get", run_id=run_id)["run"]
        data = found.get("data", {})
        pairs = {kind: {item["key"]: item["value"] for item in data.get(kind, [])} for kind in ("tags", "params")}
        inputs = found.get("inputs", {}).get("dataset_inputs", [])
        return {**found["info"], **pairs, "datasets": [item["dataset"]["name"] for item in inputs]}

    def artifacts(self, run_id: str) -> list[str]:
        """Return the paths of the files among a run's artifacts, two levels deep."""
        top = self._get("artifacts/list", run_id=run_id).get("files", [])
        below = [
            self._get("artifacts/list", run_id=run_id, path=item["path"]).get("files", [])
            for item in top
            if item.get("is_dir")
        ]
        found = [item for items in [top, *below] for item in items]
        return sorted(str(item["path"]) for item in found if not item.get("is_dir"))

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
        """End the daemon and all that it started."""
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
            return probe.connect_ex((HOST, int(self.url.rpartition(":")[2]))) != 0

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        # A user's REPROD_* and MLFLOW_* mean other daemons and other servers.
        kept = {key: value for key, value in server_environment(os.environ).items() if not key.startswith("REPROD_")}
        return {key: value for key, value in kept.items() if not key.startswith("MLFLOW_")} | self.variables

    def _answers(self) -> bool:
        try:
            return bool(self.ask("hello"))
        except DaemonUnavailableError:
            return False

    def _run(self, command: list[str], environment: dict[str, str], *, show: bool = False) -> Ran:
        if sys.stdout is not None:
            sys.stdout.flush()
        try:
            done = subprocess.run(
                command,
                stdout=None if show else subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
                cwd=self.folder,
                env=environment,
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailedError(f"it had not ended after {COMMAND_S:g} s: {' '.join(command)}") from error
        return Ran(done.returncode, done.stdout or "", done.stderr)

    def _get(self, call: str, **parameters: str) -> dict[str, Any]:
        """Ask the MLflow server, directly: no proxy of the environment can reach loopback."""
        connection = http.client.HTTPConnection(HOST, int(self.url.rpartition(":")[2]), timeout=10)
        try:
            connection.request("GET", f"/api/2.0/mlflow/{call}?{urlencode(parameters)}")
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise TrackingError(f"MLflow answered {response.status} to {call}: {body[:200]!r}")
            return dict(json.loads(body))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TrackingError(f"the MLflow server at {self.url} does not answer: {error}") from error
        finally:
            connection.close()

    def _last_words(self) -> str:
        lines = self.daemon_log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


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
