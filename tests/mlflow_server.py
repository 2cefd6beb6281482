"""A real MLflow server for tests: SQLite, one worker, a free loopback port, gone with the test process in any case."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port

READY_S = 100.0  # four that start at once on a slow machine; a test may take 120 in all


@contextmanager
def running_server(tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a fresh server whose files are in ``tmp_path``; end its process group afterwards."""
    from reprod.sinks.environment import server_environment

    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./artifacts"]
    with (tmp_path / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "reprod.sinks.server_guard", "--", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            env=server_environment(os.environ),
            start_new_session=True,
        )
    try:
        _wait_ready(process, port, tmp_path / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _wait_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"mlflow server ended: {log.read_text()[-2000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise RuntimeError(f"mlflow server not ready after {READY_S} s: {log.read_text()[-2000:]}")
