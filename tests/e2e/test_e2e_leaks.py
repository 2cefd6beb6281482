"""No secret of a user comes out at any door: one run in an environment where every tool knows a secret, then a search
through all that a capture leaves behind: artifacts, every request to the tracking server with its headers, the server's
files, databases with their journals, logs, the journal, dumps of all stacks, hand-over files, the arguments of every
program that is started, what the daemon answers, and what the commands print. Research, section 7: 1 to 5 and 8.
"""

import contextlib
import json
import os
import shutil
import signal
import site
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Tracker, eventually, let_slack_pass, running_daemon
from leak import Leak, assert_no_leak, cloud_stub, find_leaks, plant, started_programs, watched_commands
from mlflow_proxy import Proxy

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


class Recording(Proxy):
    """Keeps every request as it came: what was asked, the headers and the body, and what was answered."""

    def __init__(self, upstream: str) -> None:
        self.seen: list[bytes] = []
        super().__init__(upstream)

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[Any], bytes]:
        answer = super().forward(method, path, headers, body)
        said = "".join(f"{name}: {value}\n" for name, value in headers.items())
        self.seen.append(f"{method} {path}\n{said}\n".encode() + body + b"\n" + answer[2])
        return answer


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Recording]:
    """What lies between everybody here and the tracking server."""
    recording = Recording(mlflow_server)
    yield recording
    recording.go_away()


@pytest.fixture
def daemon(tmp_path: Path, proxy: Recording, data: Path, name: str, leak: Leak) -> Iterator[Daemon]:
    """A daemon that samples the user's prefix, and in whose own variables are secrets as well."""
    secrets = {key: leak.environ[key] for key in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL")}
    settings = {"interpreters": [str(leak.prefix)], "interval_seconds": 0.5}
    with running_daemon(
        tmp_path / "d", proxy.url, {name: data}, environ=secrets | {"REPROD_DEBUG": "1"}, environment=settings
    ) as running:
        running.sealed(name, 1)
        let_slack_pass()
        yield running


@contextlib.contextmanager
def training(daemon: Daemon, experiment: str, uri: str, leak: Leak, name: str, output: Path) -> Iterator[str]:
    """Run the user's script in the user's place; yield its run while it lives, and end it."""
    script = leak.repository / "train.py"
    script.write_text(TRAIN.format(experiment=experiment, name=name, output=str(output)))
    variables = daemon.place.variables() | leak.environ | {"MLFLOW_TRACKING_URI": uri}
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
        process.communicate(timeout=60)
        errors.close()


def answers(daemon: Daemon, run_id: str, name: str) -> dict[str, bytes]:
    """Return what the daemon's socket, its page and the commands tell."""
    found = {"status": json.dumps(daemon.status()).encode(), "hello": json.dumps(daemon.call("hello")).encode()}
    commands = [
        ("status",), ("status", "--json"), ("runs", "--json"), ("log", name, "--json"), ("show", f"run:{run_id}"),
        ("env", "list", "--json"), ("env", "show", f"run:{run_id}"), ("env", "show", f"run:{run_id}", "--json"),
        ("env", "diff", f"run:{run_id}", "host"), ("doctor",), ("daemon", "--help"),
    ]  # fmt: skip
    for command in commands:
        done = daemon.place.cli(*command)
        found[" ".join(command)] = (done.stdout + done.stderr).encode()
    return found


def test_no_door_lets_a_secret_out(
    daemon: Daemon,
    tracker: Tracker,
    proxy: Recording,
    leak: Leak,
    name: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A run whose process knows some fifty secrets is captured whole, three ways; none of them is in any artifact,
    request to the tracking server or file of it, database, log, dump or answer, in any form, and what is harmless
    beside them is there."""
    output = tmp_path / "output" / "env"
    output.parent.mkdir()
    with training(daemon, tracker.experiment, proxy.url, leak, name, output) as run_id:
        tags = tracker.wait_state(run_id)
        eventually(lambda: daemon.events("environment.changed"), 30, "the prefix is sampled")
        told = answers(daemon, run_id, name) | _page(daemon)
        os.kill(daemon.pid, signal.SIGUSR2)
        daemon.wait_event("daemon.dump", 30)
    tracker.wait_params(run_id, "python_version")
    eventually(lambda: "reprod.drift" in tracker.ours(run_id), 60, daemon.tail)  # its files have come before it
    artifacts = {path: tracker.read(run_id, path, tmp_path / "down") for path in tracker.artifacts(run_id)}
    run = tracker.client.get_run(run_id)
    asked = {f"request {number}": request for number, request in enumerate(proxy.seen)}
    assert any(b"system_info.json" in request for request in asked.values())
    blobs = (
        told
        | artifacts
        | asked
        | {"tags": json.dumps({**tags, **run.data.tags}), "params": json.dumps(run.data.params)}
    )

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


#: Sends its log to a journal of the test's, and meets a bug whose message holds what no log may.
IN_JOURNAL = """
import os, sys
from reprod import journal
journal.SOCKET = sys.argv.pop(1)
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{{status.st_dev}}:{{status.st_ino}}"
from reprod.daemon import work
def refresh(*_, **__):
    login = {login!r}
    raise RuntimeError(f"cannot ask {{login}}")
work.refresh = refresh
from reprod.__main__ import main
sys.exit(main(["daemon"]))
"""


def test_the_journal_hears_of_a_bug_without_secrets(tmp_path: Path, data: Path, name: str, leak: Leak) -> None:
    """A bug whose message holds an address with a password, and a dump of all stacks: records come, whole, without
    the password and without any value of a variable in a frame."""
    place = tmp_path / "journal"
    login = f"https://u:{leak.canary('in a traceback')}@corp.example/x"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(place))
        journal.settimeout(30)
        program = ("-c", IN_JOURNAL.format(login=login), str(place))
        with running_daemon(tmp_path / "d", "", {name: data}, environ=leak.environ, program=program) as daemon:
            records = []
            while not any(b"cannot ask https://" in record for record in records):
                records.append(_record(journal))
            os.kill(daemon.pid, signal.SIGUSR2)
            while not any(b"daemon.dump" in record for record in records):
                records.append(_record(journal))
            told = {"status": json.dumps(daemon.status())} | _page(daemon)
    assert "corp.example" in told["status"]
    assert_no_leak(leak.canaries, [daemon.place.state], told | {f"record {i}": each for i, each in enumerate(records)})


def _record(journal: socket.socket) -> bytes:
    """Return a journal's next record, also one that came as a file."""
    data, descriptors, _, _ = socket.recv_fds(journal, 1 << 20, 1)
    if not descriptors:
        return data
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        return file.read()


#: A training with a bug of ours in it, where no daemon answers, on a machine of a provider whose metadata service
#: answers every question with a secret.
ALONE = """
import os, reprod
from reprod.capture import gathering
ask = gathering.read_cloud
gathering.read_cloud = lambda: ask({machine!r}, endpoint={endpoint!r}, budget_s=10)
from reprod.integrations.handover import announce
def read_cpu():
    raise RuntimeError("a bug beside " + os.environ["HF_TOKEN"])
gathering.read_cpu = read_cpu
announce()
reprod.capture_environment(output_dir={output!r})
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to see what is started")
def test_nothing_that_is_started_is_told_a_secret(tmp_path: Path, leak: Leak) -> None:
    """Where no daemon answers, the record and the end wait in files; no program that was started on the way has a
    secret among its arguments, which every user may read, and none has a variable that the training had not. Files
    with secrets are withheld by name (research 6), the metadata service is asked for listed paths only (9). Some twenty
    programs, traced: that takes its time."""
    log, output, state = tmp_path / "programs", tmp_path / "output", tmp_path / "state"
    script = leak.repository / "train.py"
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/sys_vendor").write_text("Amazon EC2\n")
    places = {"REPROD_STATE_DIR": str(state), "REPROD_CONFIG": str(tmp_path / "none.toml"), "REPROD_DEBUG": "1"}
    variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **leak.environ, **places}
    python = str(leak.prefix / "bin" / "python")

    def run(*command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, cwd=leak.repository, env=variables, capture_output=True, timeout=120)

    with cloud_stub(leak) as (endpoint, asked):
        script.write_text(ALONE.format(output=str(output), machine=str(tmp_path), endpoint=endpoint))
        done = run(*watched_commands(log), python, str(script), *leak.argv)
    if b"ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr.decode()
    eventually(lambda: len(list((state / "handover").glob("*.json"))) == 2, 60, "record and end wait in files")
    programs = started_programs(log)
    arguments = {f"program {number}": argv for number, (argv, _) in enumerate(programs) if number}
    assert any("recorder" in argv for argv in arguments.values())
    assert any('"git"' in argv for argv in arguments.values())
    told = {"output": done.stdout, "errors": done.stderr, **arguments}
    for command in (
        ("env", "capture", "--output-dir", str(tmp_path / "captured")), ("env", "show"), ("env", "show", "--json"),
        ("env", "diff", "now", str(output)), ("env", "diff", "now", str(output), "--json"), ("doctor",),
    ):  # fmt: skip
        ended = run(python, "-m", "reprod", *command)
        assert b"Traceback" not in ended.stderr, ended.stderr.decode()
        told[" ".join(command)] = ended.stdout + ended.stderr
    assert_no_leak(leak.canaries, [state, output, tmp_path / "captured"], told)
    system = json.loads((output / "system_info.json").read_text())
    assert system["unknown"]["cpu"] == "RuntimeError: a bug beside ***"
    withheld = {each["path"] for each in system["git"]["withheld"]}
    assert withheld >= {".env", "id_rsa", "model.py", "notes.ipynb"}
    assert (system["git"]["restorable"], system["rebuildable"]) == ("partial", "partial")
    assert system["cloud"]["provider"] == "aws"
    assert asked[0] == "PUT /latest/api/token"
    assert set(asked[1:]) <= {
        "GET /latest/dynamic/instance-identity/document", "GET /latest/meta-data/instance-life-cycle",
    }  # fmt: skip
    assert find_leaks(leak.canaries, blobs={"": programs[0][0]}), "the training itself was given some"
    own = set(find_leaks(leak.canaries, blobs={"": programs[0][1]}))
    assert own, "and has others"
    for argv, environ in programs[1:]:
        assert set(find_leaks(leak.canaries, blobs={"": environ})) <= own, argv


def _page(daemon: Daemon) -> dict[str, bytes]:
    """Return what the daemon says over HTTP on its socket, read by the command that any user has."""
    import http.client
    import socket

    found = {}
    for path in ("/healthz", "/v1/status", "/metrics", "/nothing"):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(str(daemon.place.socket))
        connection.request("GET", path)
        found[path] = connection.getresponse().read()
        connection.close()
    return found
