"""Months later: what a run was trained on, and what differs between two, from the tracking server alone.

The daemon that recorded the runs is gone, and so is its state; a host that never saw the data asks.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import Place, Tracker, dt1, eventually, let_slack_pass, make_data, running_daemon

from reprod.cli.main import main
from reprod.sinks.child import MlflowChild

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(240)]

#: A training script: tags its run, logs what it is told, and lives until its standard input ends.
TRAIN = """
import json, mlflow, sys
mlflow.set_experiment(experiment_id=sys.argv[1])
with mlflow.start_run(run_name=sys.argv[2]) as run:
    mlflow.set_tag("reprod.dataset", sys.argv[3])
    told = json.loads(sys.argv[4])
    mlflow.log_params(told["params"])
    mlflow.log_metrics(told["metrics"])
    print(run.info.run_id, flush=True)
    sys.stdin.read()
"""

HOSTILE = "evil\x1b[31m\n\u202e.csv"


class SharedChild(MlflowChild):
    """A real child that outlives the commands that use it: starting one takes seconds, and here are thirty commands."""

    def close(self) -> None:
        """Do nothing."""


@dataclass
class Stage:
    """Runs that were recorded, and a place from which somebody asks who has nothing but the server."""

    place: Place
    tracker: Tracker
    name: str
    data: Path
    code: Path
    digests: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)


@dataclass
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> dict[str, Any]:
        """Return its JSON."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, user_client: Any, mlflow_server: str) -> Stage:
    """Three real trainings, recorded by a real daemon: two alike, one after data, code, params and settings changed."""
    base = tmp_path_factory.mktemp("answers")
    data, code = make_data(base / "data"), base / "code"
    name = f"d{base.name}"
    tracker = Tracker(user_client, mlflow_server, str(user_client.create_experiment(f"answers-{base.name}")))
    make_repository(code)
    staged = Stage(Place(base / "later", mlflow_server), tracker, name, data, code)
    with running_daemon(base / "d", mlflow_server, {name: data}) as daemon:
        daemon.sealed(name, 1)
        for run in ("first", "again"):
            let_slack_pass()
            train(staged, daemon.place, run, {"lr": "0.1", "depth": "3"}, {"accuracy": 0.91})
        (data / "part-0.csv").write_text("other\n")
        (data / "empty.txt").unlink()
        (data / HOSTILE).write_text("new\n")
        daemon.sealed(name, 2)
        let_slack_pass()
        (code / "train.py").write_text("print('changed')\n")
        settings = {"OMP_NUM_THREADS": "3"}
        train(staged, daemon.place, "other", {"lr": "0.2", "depth": "3"}, {"accuracy": 0.87}, **settings)
        for run_id in staged.runs.values():
            eventually(lambda r=run_id: "python_version" in tracker.params(r), 30, daemon.tail)
    shutil.rmtree(base / "d")
    return staged


@pytest.fixture(scope="module")
def shared(mlflow_server: str) -> Iterator[MlflowChild]:
    """One child for all commands."""
    child = SharedChild(mlflow_server)
    yield child
    MlflowChild.close(child)


@pytest.fixture
def ask(stage: Stage, shared: MlflowChild, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return what runs a command in this process, as a person does who has the server's address alone."""
    for key in [key for key in os.environ if key.startswith(("MLFLOW_", "REPROD_", "XDG_"))]:
        monkeypatch.delenv(key)
    for key, value in stage.place.variables().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("reprod.ops.fetch_run.open_server", lambda _: shared)
    monkeypatch.chdir(stage.place.base)

    def call(*argv: str) -> Answer:
        code = main(list(argv))
        return Answer(code, *capsys.readouterr())

    return call


def make_repository(code: Path) -> None:
    """Make a repository with one commit."""
    code.mkdir()
    (code / "train.py").write_text("print('train')\n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *command], cwd=code, check=True, timeout=30)


def train(stage: Stage, place: Place, run: str, params: dict[str, str], metrics: dict[str, float], **env: str) -> None:
    """Run one training to its end, recorded while it lives."""
    told = json.dumps({"params": params, "metrics": metrics})
    environ = {"MLFLOW_TRACKING_URI": stage.tracker.uri, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "2", **env}
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN, stage.tracker.experiment, run, stage.name, told],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=stage.code, env={**place.variables(), **environ},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        stage.tracker.wait_state(run_id)
        stage.digests[run] = dt1(stage.data)
        process.communicate(timeout=60)
    stage.runs[run] = run_id


def test_a_run_tells_what_it_was_trained_on_and_what_is_otherwise_here_now(stage: Stage, ask: Ask) -> None:
    """A prefix of its id is enough: data, how it was bound, code and environment come from the server; a quick look
    here finds what changed since, names it, and says that no content was read."""
    run_id = stage.runs["first"]
    shown = ask("show", f"run:{run_id[:10]}", "--json").told
    assert shown["schema"] == "reprod.show/1"
    assert (shown["run_id"], shown["name"], shown["state"]) == (run_id, "first", "captured")
    (used,) = shown["datasets"]
    assert (used["name"], used["digest"], used["version"]) == (stage.name, stage.digests["first"], 1)
    assert (used["bound"], used["root"], used["files"]) == ("start", str(stage.data), 6)
    assert (shown["code"]["dirty"], shown["code"]["root"]) == (False, str(stage.code))
    assert shown["environment"]["packages"] > 10
    assert (shown["params"]["lr"], shown["metrics"]["accuracy"]) == ("0.1", 0.91)
    (here,) = shown["here"]["datasets"]
    assert (here["verdict"], here["root"]) == ("differs", str(stage.data))
    assert "empty.txt" in here["sample"]
    assert shown["here"]["code"]["same"] is False
    text = ask("show", "run:other")
    assert text.code == 0, text.err
    assert "the same names, sizes and times (content not read)" in text.out
    assert "the same files" in text.out


def test_two_runs_differ_in_data_code_params_and_settings_in_that_order(stage: Stage, ask: Ask) -> None:
    """Each difference is one explanation, the likeliest first; the data part lists the files, from two manifests; the
    screen escapes what a file's name would do to it."""
    pair = [f"run:{stage.runs[name]}" for name in ("first", "other")]
    found = ask("diff", *pair, "--json").told
    assert found["schema"] == "reprod.diff.runs/1"
    assert found["different"] is True
    told = [(each["rank"], each["what"]) for each in found["explanations"] if each["rank"] != "benign"]
    assert told[:4] == [
        ("data", stage.name),
        ("code", "code"),
        ("params", "lr"),
        ("numeric", "variables.OMP_NUM_THREADS"),
    ]
    (data,) = found["data"]
    listing = data["difference"]
    assert [each["path"] for each in listing["added"]] == [HOSTILE]
    assert [each["path"] for each in listing["removed"]] == ["empty.txt"]
    assert [each["path"] for each in listing["modified"]] == ["part-0.csv"]
    assert (data["digest_a"], data["digest_b"]) == (stage.digests["first"], stage.digests["other"])
    assert (found["code"]["commit_a"] == found["code"]["commit_b"], found["code"]["dirty_b"]) == (True, True)
    assert found["metrics"] == [{"name": "accuracy", "a": 0.91, "b": 0.87}]
    text = ask("diff", *pair)
    assert text.code == 1, text.err
    assert "1 added, 1 modified, 1 removed" in text.out
    assert not set("\x1b\u202e") & set(text.out)


def test_two_runs_alike_differ_in_nothing_that_is_recorded(stage: Stage, ask: Ask) -> None:
    """No difference is told, nothing is taken for one, and the screen says what nobody recorded."""
    pair = [f"run:{stage.runs[name]}" for name in ("first", "again")]
    found = ask("diff", *pair, "--json").told
    assert found["different"] is False
    assert {each["rank"] for each in found["explanations"]} <= {"unknown", "benign"}
    text = ask("diff", *pair)
    assert text.code in {0, 5}, text.err  # 5: what a process tells at its end may come late on a busy machine
    assert "not recorded, so not compared" in text.out


def test_files_are_checked_against_a_run_that_no_state_here_knows(stage: Stage, ask: Ask, tmp_path: Path) -> None:
    """At the recorded root the newer run's files are right and the older one's are not; of a copy that is put back as
    it was every byte is right, wherever it lies."""
    assert ask("verify", "run:other").code == 0
    found = ask("verify", f"run:{stage.runs['first'][:12]}", "--json").told
    assert (found["valid"], found["missing"], found["digest_expected"]) == (
        False, ["empty.txt"], stage.digests["first"],
    )  # fmt: skip
    make_data(tmp_path / "copy")
    for asked in ([str(tmp_path / "copy")], ["--root", str(tmp_path / "copy")]):
        done = ask("verify", f"run:{stage.runs['first']}", *asked)
        assert done.code == 0, done.out + done.err


def test_who_had_a_file(stage: Stage, ask: Ask) -> None:
    """By a file here: the runs that held its content; by a name in the dataset: what each held there; by a digest; and
    4 where no run held it."""
    by_content = ask("who", stage.name, str(stage.data / "part-0.csv"), "--json").told
    assert [row["run_id"] for row in by_content["runs"]] == [stage.runs["other"]]
    by_name = ask("who", stage.name, "empty.txt", "--json").told
    assert [row["run_id"] for row in by_name["runs"]] == [stage.runs["again"], stage.runs["first"]]
    sha256 = by_content["sha256"]
    assert [row["run_id"] for row in ask("who", stage.name, f"sha256:{sha256}", "--json").told["runs"]] == [
        stage.runs["other"]
    ]
    text = ask("who", stage.name, str(stage.data / HOSTILE))
    assert text.code == 0, text.err
    assert "\x1b" not in text.out
    assert ask("who", stage.name, str(stage.code / "train.py")).code == 4


def test_the_page_of_a_run_is_made_anew(stage: Stage, ask: Ask, tmp_path: Path) -> None:
    """The report page comes out of the server alone, with the digest and what changed since the run before."""
    page = tmp_path / "page.html"
    done = ask("report", "run:other", "--output", str(page))
    assert done.code == 0, done.err
    text = page.read_text("utf-8")
    assert stage.digests["other"].removeprefix("dt1:")[:12] in text
    assert "part-0.csv" in text
    assert ask("report", "run:other", "--output", str(tmp_path / "none" / "page.html")).code == 2


def test_a_local_server_that_is_away_is_named_with_who_runs_it(tmp_path: Path) -> None:
    """With no daemon its server does not run: the address that it had, and the command that starts it."""
    place = Place(tmp_path, "local")
    place.state.mkdir()
    (place.state / "mlflow-port").write_text("9")
    done = place.cli("who", "data", "x.csv", timeout_s=120)
    assert done.returncode == 69, done.stderr
    assert "http://127.0.0.1:9" in done.stderr
    assert "reprod daemon" in done.stderr


def test_what_cannot_be_answered_says_why(stage: Stage, ask: Ask) -> None:
    """4 for an unknown and a deleted run, 2 for none, and with the list for a name that two runs have, 5 for a run of
    which nothing is recorded, 65 where the manifest is gone from the server."""
    client = stage.tracker.client
    twins = [client.create_run(stage.tracker.experiment, run_name="evil\x1b[2Jtwin").info.run_id for _ in range(2)]
    gone = stage.tracker.start_run()
    client.delete_run(gone)
    for unknown in ("run:nobody", f"run:{gone}", "run:" + "0" * 32):
        assert ask("show", unknown).code == 4
    assert ask("show", "run:").code == 2
    several = ask("show", "run:evil\x1b[2Jtwin")
    assert several.code == 2
    assert all(run_id in several.err for run_id in twins)
    assert "\x1b" not in several.err
    bare = ask("show", f"run:{twins[0]}")
    assert (bare.code, "\x1b" in bare.out) == (5, False)
    lost = stage.runs["again"]
    delete_artifacts(stage, lost, "data_manifest")
    damaged = ask("show", f"run:{lost}")
    assert damaged.code == 5
    assert "manifest" in damaged.out
    assert ask("verify", f"run:{lost}").code == 65
    unknown = ask("diff", f"run:{lost}", f"run:{stage.runs['other']}")
    assert unknown.code == 1
    assert "which files differ is not known" in unknown.out


def test_without_a_server_nothing_is_guessed(tmp_path: Path) -> None:
    """69 where the server does not answer, 78 where none is configured, and no answer on standard output."""
    for address, code in (("http://127.0.0.1:9", 69), ("", 78)):
        place = Place(tmp_path / f"c{code}", address)
        for argv in (["show", "run:a"], ["diff", "run:a", "run:b"]):
            done = place.cli(*argv, timeout_s=120)
            assert (done.returncode, done.stdout) == (code, ""), (argv, done.stderr)
            assert address in done.stderr


def delete_artifacts(stage: Stage, run_id: str, path: str) -> None:
    """Take a folder of a run's artifacts away, as an administrator does who needs room."""
    uri = stage.tracker.client.get_run(run_id).info.artifact_uri
    code = (
        "import sys; from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository; "
        "get_artifact_repository(sys.argv[1]).delete_artifacts(sys.argv[2])"
    )
    environ = {**stage.place.variables(), "MLFLOW_TRACKING_URI": stage.tracker.uri}
    subprocess.run([sys.executable, "-c", code, uri, path], env=environ, check=True, timeout=60)
