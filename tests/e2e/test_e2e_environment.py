"""The environment on a run is that of the training process, also when that process has ended long before."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from harness import Daemon, Tracker, eventually, let_slack_pass, running_daemon

from reprod.capture.process.identity import current_context

pytestmark = pytest.mark.mlflow

#: All that a user's script has of reprod: one tag. It ends right after it.
TRAIN = """
import mlflow
with mlflow.start_run(experiment_id={experiment!r}) as run:
    mlflow.set_tag("reprod.dataset", {name!r})
    print(run.info.run_id)
"""


@pytest.fixture
def daemon(tmp_path: Path, mlflow_server: str, data: Path, name: str) -> Iterator[Daemon]:
    """Yield a daemon with one dataset, whose variables no script here shares."""
    secret = {"REPROD_E2E_DAEMON": "of the daemon"}
    with running_daemon(tmp_path / "d", mlflow_server, {name: data}, environ=secret) as running:
        running.sealed(name, 1)
        let_slack_pass()
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a git repository with one commit on branch ``paper`` and one changed file."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "model.py").write_text("a = 1\n")
    identity = ["-c", "user.name=e2e", "-c", "user.email=e2e@example.org"]
    for arguments in (["init", "-q", "-b", "paper"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    (folder / "model.py").write_text("a = 2\n")
    return folder


def train(daemon: Daemon, tracker: Tracker, name: str, cwd: Path) -> str:
    """Run the user's script to its end; return its run."""
    script = cwd / "train.py"
    script.write_text(TRAIN.format(experiment=tracker.experiment, name=name))
    variables = {**daemon.place.variables(), "MLFLOW_TRACKING_URI": tracker.uri, "GIT_PYTHON_REFRESH": "quiet"}
    variables.pop("REPROD_E2E_DAEMON")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=cwd, env=variables, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def test_a_script_that_ends_right_after_its_tag_is_captured_with_its_environment(
    daemon: Daemon, tracker: Tracker, name: str, repository: Path, tmp_path: Path
) -> None:
    """One set_tag in a real script: requirements, system and git of that process are on the run, and its params."""
    run_id = train(daemon, tracker, name, repository)
    tags = tracker.wait_state(run_id)
    assert tags["reprod.bound"] == "start"
    context = json.loads(tags["reprod.context"])
    params = tracker.wait_params(run_id, "python_version")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True).stdout.strip()
    assert params["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert params["platform_system"] == "Linux"
    assert int(params["cpu_count"]) == len(os.sched_getaffinity(0))
    assert (params["git_commit"], params["git_branch"]) == (commit, "paper")
    assert params["git_uncommitted_changes"] == "true"
    if not Path("/proc/driver/nvidia").exists():
        assert params["gpu_count"] == "0"

    requirements = tracker.read(run_id, "environment/requirements.txt", tmp_path / "a").decode().splitlines()
    assert requirements[0].startswith("#")
    for package in ("mlflow", "anyio", "pytest"):
        assert f"{package}=={version(package)}" in requirements
    system = json.loads(tracker.read(run_id, "environment/system_info.json", tmp_path / "b"))
    for key in ("timestamp", "platform", "python", "cpu", "memory", "gpu", "git", "environment_variables"):
        assert key in system
    assert system["python"]["executable"] == sys.executable
    assert system["git"]["commit"] == commit
    assert system["subject"]["pid"] == context["pid"] != daemon.pid
    assert "of the daemon" not in json.dumps(system)


def test_what_a_script_used_by_its_end_is_on_its_run(
    daemon: Daemon, tracker: Tracker, name: str, repository: Path, tmp_path: Path
) -> None:
    """The run was captured long before: what was imported after the tag is there once the process has ended."""
    script = repository / "late.py"
    script.write_text(
        TRAIN.format(experiment=tracker.experiment, name=name)
        + "import sys, time, wait_for\nwait_for.captured(run.info.run_id)\n"
        + "import msgspec, layers\nprint(msgspec.__version__)\n"
    )
    (repository / "layers.py").write_text("")
    (repository / "wait_for.py").write_text(
        "import mlflow, time\n"
        "def captured(run_id):\n"
        "    for _ in range(600):\n"
        "        if 'python_version' in mlflow.MlflowClient().get_run(run_id).data.params: return\n"
        "        time.sleep(0.1)\n"
        "    raise SystemExit('not captured')\n"
    )
    variables = {**daemon.place.variables(), "MLFLOW_TRACKING_URI": tracker.uri, "GIT_PYTHON_REFRESH": "quiet"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=repository, env=variables, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split()[0]

    def told() -> dict[str, object] | None:
        for file in ("system_info.json", "environment.json"):
            document = json.loads(tracker.read(run_id, f"environment/{file}", tmp_path / "got"))
            imports = document["imports"] if file == "system_info.json" else document["execution"]["imports"]
            if not imports or imports["how"] != "in-process":
                return None
        return dict(imports)

    imports = eventually(told, 30, "the end is on the run")
    assert "msgspec" in {each["name"] for each in imports["distributions"]}
    assert {"late.py", "layers.py"} <= {Path(file).name for file in imports["local_files"]}
    assert tracker.ours(run_id)["reprod.state"] == "captured"


def test_a_script_that_ran_while_the_daemon_was_down_has_its_environment(
    daemon: Daemon, tracker: Tracker, name: str, repository: Path, tmp_path: Path
) -> None:
    """It left its record and its end in files; the daemon takes them in when it starts, and the run has them."""
    daemon.kill()
    run_id = train(daemon, tracker, name, repository)
    waiting = daemon.place.state / "handover"
    eventually(lambda: waiting.is_dir() and len(list(waiting.glob("*.json"))) == 2, 30, "record and end wait")
    daemon.start()
    eventually(lambda: not list(waiting.iterdir()), 30, "they are taken in at the start")
    eventually(lambda: "environment/system_info.json" in tracker.artifacts(run_id), 60, "the run has its environment")
    system = json.loads(tracker.read(run_id, "environment/system_info.json", tmp_path / "got"))
    assert system["subject"]["pid"] == json.loads(tracker.ours(run_id)["reprod.context"])["pid"]
    assert system["git"]["branch"] == "paper"
    assert system["imports"]["how"] == "in-process"
    assert tracker.wait_params(run_id, "python_version")["python_version"] == platform.python_version()


def test_where_the_process_is_unknown_the_environment_is_unknown(
    daemon: Daemon, tracker: Tracker, name: str, tmp_path: Path
) -> None:
    """A run without reprod.context is captured, says why its environment is unknown, and has none of its params; a
    context of a process that is gone and handed nothing over is no better."""
    gone = {"v": 1, "host": "h", "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    contexts = [None, json.dumps({**gone, "pid": 4_000_000, "start_ticks": 1, "prefix": sys.prefix})]
    for number, context in enumerate(contexts):
        run_id = tracker.finished_run(name, context=context)
        tracker.wait_state(run_id)
        params = tracker.wait_params(run_id, "data_path")
        assert not {"python_version", "cpu_count", "gpu_count", "platform_system", "git_commit"} & set(params)
        assert not [path for path in tracker.artifacts(run_id) if path.startswith("environment/")]
        record = tracker.read(run_id, "reprod/environment_unknown.json", tmp_path / str(number))
        assert json.loads(record)["reason"]
        assert str(daemon.pid) not in record.decode()


def test_the_hosts_samples_are_taken_on_a_timer(tmp_path: Path, data: Path, name: str) -> None:
    """The host and each configured prefix are sampled again and again; a prefix that is none is said in the log."""
    settings = {"interval_seconds": 0.2, "interpreters": [sys.prefix, str(tmp_path)]}
    with running_daemon(tmp_path / "d", "", {name: data}, environment=settings) as daemon:
        daemon.wait_event("environment.changed", subject="host")
        daemon.wait_event("environment.changed", subject=sys.prefix)
        daemon.wait_event("environment.sample_failed", prefix=str(tmp_path))
        first = daemon.status()["environment"]["taken_at"]
        eventually(lambda: daemon.status()["environment"]["taken_at"] > first, 10, "another sample is taken")
        assert len(daemon.events("environment.sample_failed")) == 1


def test_equal_samples_on_both_sides_of_the_start_tell_what_an_ended_process_ran_in(
    tmp_path: Path, mlflow_server: str, tracker: Tracker, data: Path, name: str
) -> None:
    """A process of this boot that ended without handing anything over: the timer's history of its prefix counts, if it
    was the same before and after the start; a sample on one side alone does not."""
    ended = replace(current_context(), pid=2**22 - 1, start_ticks=1)
    settings = {"interval_seconds": 0.3, "interpreters": [sys.prefix]}
    with running_daemon(tmp_path / "d", mlflow_server, {name: data}, environment=settings) as daemon:

        def sampled_since(when: str) -> bool:
            return (daemon.status()["environment"]["taken_at"] or "") > when

        daemon.sealed(name, 1)
        early = tracker.finished_run(context=replace(ended, prefix=str(tmp_path)).to_json())
        eventually(lambda: sampled_since(""), 20, "a first sample")
        let_slack_pass()
        run_id = tracker.finished_run(context=ended.to_json())
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        eventually(lambda: sampled_since(now), 20, "a sample after the start")
        for tagged in (run_id, early):
            tracker.tag(tagged, name)
            tracker.wait_state(tagged)

    run = tracker.client.get_run(run_id)
    assert (
        f"mlflow=={version('mlflow')}"
        in tracker.read(run_id, "environment/requirements.txt", tmp_path / "got").decode().split()
    )
    assert run.data.params["python_version"] == platform.python_version()
    assert "git_commit" not in run.data.params
    assert "environment/requirements.txt" not in tracker.artifacts(early)
    assert "python_version" not in tracker.client.get_run(early).data.params
