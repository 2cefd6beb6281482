"""A real ``mlflow server --app-name basic-auth``: with the right password, a wrong one, and without the right to write.

Not in the suite: the server is fetched from the package index that pip is configured for (850 MB), which takes a
minute. ``REPROD_HEAVY=1 pytest tests/heavy/test_auth_server.py`` runs it; with ``REPROD_HEAVY_KEPT=FOLDER`` its
environment is made there, or taken from there.
"""

import base64
import json
import os
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from heavy_place import IS_WANTED, python_with, server_of

from reprod.sinks.protocol import STORE_EXPERIMENT

from harness import Daemon, Tracker, let_slack_pass, make_data, running_daemon  # isort: skip - by heavy_place

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.skipif(not IS_WANTED, reason="fetches a server from a package index: REPROD_HEAVY=1"),
    pytest.mark.timeout(1800),
]

#: The server checks the password at each of some forty requests of a delivery, for which it takes a second and more
#: where other tests run.
RECORDED_S = 300.0

BOSS, BOSS_PASSWORD = "boss", "boss-Lantern-4711-quince"
PASSWORD, WRONG = "reprod-Harbour-0815-medlar", "reprod-Meadow-2342-damson"
CONFIG = f"""[mlflow]
default_permission = READ
database_uri = sqlite:///basic_auth.db
admin_username = {BOSS}
admin_password = {BOSS_PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server that asks for a password, where new users may read everything, and write what they are granted."""

    url: str
    boss: Tracker
    base: Path
    data: Path
    name: str

    def post(self, path: str, **body: str) -> None:
        """Ask as the administrator, by plain HTTP."""
        asked = urllib.request.Request(self.url + path, json.dumps(body).encode())  # noqa: S310 - http, on loopback
        login = base64.b64encode(f"{BOSS}:{BOSS_PASSWORD}".encode()).decode()
        asked.add_header("Authorization", f"Basic {login}")
        asked.add_header("Content-Type", "application/json")
        urllib.request.urlopen(asked, timeout=30).close()  # noqa: S310

    def user(self, *, may_write: bool) -> str:
        """Return the name of a new user with ``PASSWORD``."""
        name = f"u{uuid.uuid4().hex[:8]}"
        self.post("/api/2.0/mlflow/users/create", username=name, password=PASSWORD)
        if may_write:
            self.grant(name)
        return name

    def grant(self, user: str, experiment: str = "") -> None:
        """Let a user write to the runs of an experiment: the test's, if no other is named."""
        where = {"resource_type": "experiment", "resource_id": experiment or self.boss.experiment}
        self.post("/api/3.0/mlflow/users/permissions/grant", username=user, permission="EDIT", **where)

    def daemon(self, url: str = "", *, inline: int = 1000, **environ: str) -> AbstractContextManager[Daemon]:
        """Return a daemon with these variables and nothing else that proves who it is."""
        # Each of a poll's requests costs the server a password's hash: five polls a second would keep it busy.
        settings = {"mlflow": {"max_inline_files": inline, "poll_seconds": 2}}
        return running_daemon(self.base / "d", url or self.url, {self.name: self.data}, environ=environ, **settings)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("auth")
    python = python_with([f"mlflow[auth]=={version('mlflow')}"], "auth", folder)
    (folder / "basic_auth.ini").write_text(CONFIG)
    settings = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "s" * 32}
    with server_of(python, folder, "--app-name", "basic-auth", **settings) as found:
        yield found


@pytest.fixture
def guarded(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", BOSS)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", BOSS_PASSWORD)
    from reprod.sinks.environment import set_client_defaults

    set_client_defaults(os.environ)
    from mlflow import MlflowClient

    client, name = MlflowClient(url), f"d{uuid.uuid4().hex[:10]}"
    boss = Tracker(client, url, str(client.create_experiment(name)))
    return Guarded(url, boss, tmp_path, make_data(tmp_path / "data"), name)


def login(user: str, password: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}


def recorded(guarded: Guarded, daemon: Daemon, run: str) -> dict[str, str]:
    """Wait until the run is captured, by the daemon's log: the server is not asked meanwhile. Return its tags."""
    daemon.wait_event("run.captured", RECORDED_S, run_id=run, state="captured")
    return guarded.boss.ours(run)


def outputs(daemon: Daemon) -> Mapping[str, str]:
    """Return all that people and machines are told: commands by name, and the logs; none of it holds a password."""
    commands = (["status"], ["status", "--check"], ["status", "--json"], ["doctor"], ["runs"], ["runs", "--json"])
    found = {" ".join(words): daemon.place.cli(*words) for words in commands}
    said = {name: f"{done.returncode}\n{done.stdout}{done.stderr}" for name, done in found.items()}
    logs = {path.name: path.read_text() for path in (daemon.log_path, daemon.place.state / "mlflow-child.log")}
    everything = said | logs
    for name, text in everything.items():
        assert not [secret for secret in (PASSWORD, WRONG, BOSS_PASSWORD) if secret in text], f"{name} has a password"
    return everything


@pytest.mark.parametrize("way", ["variables", "file", "uri"])
def test_whoever_may_write_has_runs_recorded_to_their_end(guarded: Guarded, way: str) -> None:
    """Wherever MLflow's client takes a password from, the daemon does, and no output has it."""
    user, url, environ = guarded.user(may_write=True), guarded.url, {}
    if way == "variables":
        environ = login(user, PASSWORD)
    elif way == "uri":
        url = url.replace("://", f"://{user}:{PASSWORD}@")
    else:
        (guarded.base / "home" / ".mlflow").mkdir(parents=True)
        file = guarded.base / "home" / ".mlflow" / "credentials"
        file.write_text(f"[mlflow]\nmlflow_tracking_username = {user}\nmlflow_tracking_password = {PASSWORD}\n")
        environ = {"HOME": str(guarded.base / "home")}
    with guarded.daemon(url, **environ) as daemon:
        daemon.sealed(guarded.name, 1)
        let_slack_pass()
        run = guarded.boss.start_run(guarded.name)
        assert recorded(guarded, daemon, run)["reprod.bound"] == "start"
        guarded.boss.client.set_terminated(run)
        daemon.wait_event("run.finished", RECORDED_S, run_id=run)
        assert guarded.boss.ours(run)["reprod.drift"] == "none"
        assert "data_path" in guarded.boss.params(run)
        assert outputs(daemon)["status --check"].startswith("0\n")


def test_a_wrong_password_is_said_and_the_right_one_records_what_waited(guarded: Guarded) -> None:
    """The server's refusal is in the status, the log and the doctor's findings; nothing is lost by it."""
    user = guarded.user(may_write=True)
    with guarded.daemon(**login(user, WRONG)) as daemon:
        daemon.sealed(guarded.name, 1)
        let_slack_pass()
        run = guarded.boss.start_run(guarded.name)
        assert daemon.wait_event("tracking.lost", RECORDED_S)["kind"] == "denied"
        said = outputs(daemon)
        assert "not authenticated" in said["status"] + said["status --json"]
        assert said["status --check"].startswith("1\n")
        assert said["doctor"].startswith("1\n")
        assert set(guarded.boss.ours(run)) == {"reprod.dataset"}
    with guarded.daemon(**login(user, PASSWORD)) as daemon:
        assert recorded(guarded, daemon, run)["reprod.bound"] == "start"


def test_who_may_only_read_leaves_the_run_alone_until_it_may_write(guarded: Guarded) -> None:
    """403: the run waits with the server's reason, nothing is written to it, and a grant and a retry record it."""
    user = guarded.user(may_write=False)
    with guarded.daemon(**login(user, PASSWORD)) as daemon:
        daemon.sealed(guarded.name, 1)
        let_slack_pass()
        run = guarded.boss.start_run(guarded.name)
        postponed = daemon.wait_event("delivery.postponed", RECORDED_S, run_id=run)
        assert "403" in postponed["error"]
        assert "403" in outputs(daemon)["runs"]
        assert (set(guarded.boss.ours(run)), guarded.boss.artifacts(run)) == ({"reprod.dataset"}, [])
        guarded.grant(user)
        assert daemon.place.cli("retry", f"run:{run}").returncode == 0
        assert recorded(guarded, daemon, run)["reprod.bound"] == "start"
        outputs(daemon)


def test_a_large_manifest_waits_for_the_right_to_write_where_all_hosts_store_them(guarded: Guarded) -> None:
    """The experiment that all hosts share belongs to whose daemon came first: others are granted it, or are refused."""
    shared = guarded.boss.client.get_experiment_by_name(STORE_EXPERIMENT)
    number = shared.experiment_id if shared else guarded.boss.client.create_experiment(STORE_EXPERIMENT)
    user = guarded.user(may_write=True)
    with guarded.daemon(inline=2, **login(user, PASSWORD)) as daemon:
        daemon.sealed(guarded.name, 1)
        let_slack_pass()
        run = guarded.boss.start_run(guarded.name)
        assert "403" in daemon.wait_event("delivery.postponed", RECORDED_S, run_id=run)["error"]
        assert "reprod.state" not in guarded.boss.ours(run)
        guarded.grant(user, str(number))
        assert daemon.place.cli("retry", f"run:{run}").returncode == 0
        assert recorded(guarded, daemon, run)["reprod.bound"] == "start"
