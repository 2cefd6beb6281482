"""What the heavy tests need: servers of environments of their own, and one daemon with a dataset beside them.

What a test fetches from a package index is kept where ``REPROD_HEAVY_KEPT`` names a folder, else made for each session.
Times are seconds.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ports import free_port
from waiting import eventually

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from harness import Daemon, Tracker

IS_WANTED = os.environ.get("REPROD_HEAVY") == "1"

#: A run's id, as the scripts of these tests print it: 32 hexadecimal digits.
ID_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Here:
    """One daemon that watches the dataset ``name`` at ``data``, and the tracking server that it asks."""

    daemon: Daemon
    tracker: Tracker
    name: str
    data: Path
    base: Path

    def variables(self, **more: str) -> dict[str, str]:
        """Return the environment of a user whose scripts find the daemon and the server."""
        return self.daemon.place.variables() | {"MLFLOW_TRACKING_URI": self.tracker.uri, **more}

    def record(self, run_id: str) -> dict[str, Any]:
        """Wait until the run is captured; return the record of its process, ``execution`` and ``environment``."""
        self.tracker.wait_state(run_id)
        found: dict[str, Any] = json.loads(self._read(run_id, "environment/environment.json"))
        return found

    def unknown(self, run_id: str) -> str:
        """Wait until the run is captured; return why its environment is not known."""
        self.tracker.wait_state(run_id)
        return str(json.loads(self._read(run_id, "reprod/environment_unknown.json"))["reason"])

    def _read(self, run_id: str, path: str) -> bytes:
        return self.tracker.read(run_id, path, self.base / "read" / run_id)


def run_ids(text: str) -> list[str]:
    """Return the ids of runs among the words of an output."""
    return [word for word in text.split() if len(word) == ID_LENGTH and set(word) <= set("0123456789abcdef")]


def python_with(requirements: Sequence[str], name: str, folder: Path) -> Path:
    """Return the interpreter of an environment that holds what is required; it is fetched where it is not there."""
    kept = os.environ.get("REPROD_HEAVY_KEPT")
    venv = (Path(kept) if kept else folder) / f"venv-{name}"
    python = venv / "bin" / "python"
    if not (venv / "whole").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True, timeout=1500)
        (venv / "whole").touch()
    return python


@contextlib.contextmanager
def server_of(python: Path, folder: Path, *options: str, **variables: str) -> Iterator[str]:
    """Yield the address of a server of the MLflow that an interpreter has; end it and all it started."""
    from reprod.sinks.environment import server_environment

    port = free_port()
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./artifacts", *options]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "reprod.sinks.server_guard", "--", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=server_environment(os.environ) | variables,
            start_new_session=True,
        )
    try:
        eventually(lambda: is_ready(port), 120, lambda: (folder / "server.log").read_text()[-2000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def is_ready(port: int) -> bool:
    """Return whether a server of MLflow answers at the port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
