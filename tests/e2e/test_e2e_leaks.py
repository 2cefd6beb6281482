"""No secret of a user comes out at any door: one run in an environment where every tool knows a secret, then a search
through all that a capture leaves behind: artifacts, the tracking server's files, databases with their journals, logs,
what the daemon answers, and what the commands print. Research, section 7: 1 to 5 and 8.
"""

import contextlib
import json
import site
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Daemon, Tracker, eventually, let_slack_pass, running_daemon
from leak import Leak, assert_no_leak, find_leaks, plant

pytestmark = pytest.mark.mlflow

#: A user's training: captured by the call, by the provider's child and by the daemon; it lives until its input ends.
TRAIN = """
import sys, mlflow, reprod
with mlflow.start_run(experiment_id={experiment!r}) as run:
    mlflow.set_tag("reprod.dataset", {name!r})
    reprod.capture_environment(output_dir={output!r}, log_to_mlflow=True)
    print(run.info.run_id, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def leak(tmp_path: Path) -> Leak:
    """The user's place; its Python imports what this one does."""
    return plant(tmp_path / "user", site_packages=[*site.getsitepackages(), str(Path(__file__).parents[2])])


@pytest.fixture
def daemon(tmp_path: Path, mlflow_server: str, data: Path, name: str, leak: Leak) -> Iterator[Daemon]:
    """A daemon that samples the user's prefix, and in whose own variables are secrets as well."""
    secrets = {key: leak.environ[key] for key in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL")}
    settings = {"interpreters": [str(leak.prefix)], "interval_seconds": 0.5}
    with running_daemon(
        tmp_path / "d", mlflow_server, {name: data}, environ=secrets | {"REPROD_DEBUG": "1"}, environment=settings
    ) as running:
        running.sealed(name, 1)
        let_slack_pass()
        yield running


@contextlib.contextmanager
def training(daemon: Daemon, tracker: Tracker, leak: Leak, name: str, output: Path) -> Iterator[str]:
    """Run the user's script in the user's place; yield its run while it lives, and end it."""
    script = leak.repository / "train.py"
    script.write_text(TRAIN.format(experiment=tracker.experiment, name=name, output=str(output)))
    variables = daemon.place.variables() | leak.environ | {"MLFLOW_TRACKING_URI": tracker.uri}
    variables |= {"GIT_PYTHON_REFRESH": "quiet", "PYTHONDONTWRITEBYTECODE": "1"}
    errors = (output.parent / "train.err").open("wb")
    process = subprocess.Popen(
        [str(leak.prefix / "bin" / "python"), str(script), *leak.argv],
        cwd=leak.repository,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    try:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        assert len(run_id) == 32, (output.parent / "train.err").read_text()
        yield run_id
    finally:
        process.communicate(timeout=30)
        errors.close()


def answers(daemon: Daemon, run_id: str, name: str) -> dict[str, bytes]:
    """Return what the daemon's socket, its page and the commands tell."""
    found = {"status": json.dumps(daemon.status()).encode(), "hello": json.dumps(daemon.call("hello")).encode()}
    commands = [
        ("status",), ("status", "--json"), ("runs", "--json"), ("log", name, "--json"), ("show", f"run:{run_id}"),
        ("env", "list", "--json"), ("doctor",), ("daemon", "--help"),
    ]  # fmt: skip
    for command in commands:
        done = daemon.place.cli(*command)
        found[" ".join(command)] = (done.stdout + done.stderr).encode()
    return found


def test_no_door_lets_a_secret_out(
    daemon: Daemon,
    tracker: Tracker,
    leak: Leak,
    name: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A run whose process knows some fifty secrets is captured whole, three ways; none of them is in any artifact,
    file of the tracking server, database, log or answer, in any form, and what is harmless beside them is there."""
    output = tmp_path / "output" / "env"
    output.parent.mkdir()
    with training(daemon, tracker, leak, name, output) as run_id:
        tags = tracker.wait_state(run_id)
        eventually(lambda: daemon.events("environment.changed"), 30, "the prefix is sampled")
        told = answers(daemon, run_id, name)
    tracker.wait_params(run_id, "python_version")
    artifacts = {path: tracker.read(run_id, path, tmp_path / "down") for path in tracker.artifacts(run_id)}
    run = tracker.client.get_run(run_id)
    blobs = told | artifacts | {"tags": json.dumps({**tags, **run.data.tags}), "params": json.dumps(run.data.params)}

    servers = [each for each in tmp_path_factory.getbasetemp().glob("mlflow*") if not each.is_symlink()]
    assert servers, "the folder of the session's tracking server"
    assert_no_leak(leak.canaries, [output, output.parent / "train.err", daemon.place.base, *servers], blobs)

    system = json.dumps(json.loads(artifacts["environment/system_info.json"]))
    assert "corp.example" in system, "the host of a remote is kept"
    packages = artifacts["environment/packages.json"].decode()
    assert all(f"leak-{each}" in packages for each in ("vcs", "archive", "editable"))
    assert "https://corp.example/x.git" in packages
    assert "NCCL_API_KEY" in system


def test_what_fails_is_told_without_secrets(tmp_path: Path, data: Path, name: str, leak: Leak) -> None:
    """A tracking server that does not answer, with a password in its address and a secret in its query: the log, the
    databases, the status and the doctor tell where it is and not how one gets in."""
    user, query = leak.canary("tracking user"), leak.canary("tracking query")
    uri = f"http://u:{user}@127.0.0.1:9/x?token={query}"
    with running_daemon(tmp_path / "d", uri, {name: data}, environ={"REPROD_DEBUG": "1"}) as daemon:
        daemon.wait_event("tracking.lost", 60)
        told = {"status": json.dumps(daemon.status())}
        for command in (("status",), ("status", "--json"), ("doctor",), ("runs",)):
            done = daemon.place.cli(*command)
            told[" ".join(command)] = done.stdout + done.stderr
        page = _page(daemon)
        daemon.terminate()
    assert_no_leak(leak.canaries, [daemon.place.state, daemon.log_path], told | page)
    assert "127.0.0.1:9" in told["status"]
    assert find_leaks(leak.canaries, [daemon.place.config]), "the configuration is the user's own and has it"


def _page(daemon: Daemon) -> dict[str, bytes]:
    """Return what the daemon says over HTTP on its socket, read by the command that any user has."""
    import http.client
    import socket

    found = {}
    for path in ("/healthz", "/v1/status", "/metrics", "/nothing"):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(str(daemon.place.socket))
        connection.request("GET", path)
        found[path] = connection.getresponse().read()
        connection.close()
    return found
