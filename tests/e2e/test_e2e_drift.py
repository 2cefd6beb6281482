"""``reprod.drift`` and ``drift.json`` on real runs: what the data did between a run's start and its end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import (
    QUICKER,
    Daemon,
    Tracker,
    eventually,
    let_events_tell_apart,
    let_slack_pass,
    make_data,
    running_daemon,
)

from reprod.capture.process.identity import current_context
from reprod.core.drift import GONE
from reprod.core.drift_document import from_document

#: Looks for runs that were resumed, restored or lost their record, and does not wait long for walks.
SOONER = "from reprod.daemon import endings as e, judging; e.ASK_S, judging.PATIENCE_S, e.AGAIN_S = 0.3, 1.0, 0.5; "
SOONER += "e.DELETED_S = 0.3; from reprod.store import asked; asked.LOST_NS = 1_000_000_000; "
MAIN = "from reprod.__main__ import main; sys.exit(main(['daemon']))"
PROGRAM = ("-c", f"import sys; {QUICKER}{SOONER}{MAIN}")
CONTEXT = current_context().to_json()  # of this host: the slack is that of one clock


class Drifts:
    """Datasets of one daemon, runs on them, and what became of those."""

    def __init__(self, tmp_path: Path, tracker: Tracker, name: str, *kinds: str) -> None:
        self.tracker, self.got = tracker, tmp_path / "got"
        self.names = {kind: f"{name}-{kind}" for kind in kinds}
        self.roots = {kind: make_data(tmp_path / "data" / kind) for kind in kinds}

    @property
    def datasets(self) -> dict[str, Path]:
        return {self.names[kind]: root for kind, root in self.roots.items()}

    def settle(self, daemon: Daemon) -> None:
        for dataset in self.names.values():
            daemon.sealed(dataset, 1)
        let_slack_pass()

    def start(self, *kinds: str, state: str = "captured", context: str | None = CONTEXT) -> str:
        """Start a run on these datasets and wait until it is recorded."""
        run_id = self.tracker.start_run(",".join(self.names[kind] for kind in kinds), context=context)
        self.tracker.wait_state(run_id, state)
        return run_id

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        self.tracker.client.set_terminated(run_id, status)

    def wait(self, run_id: str, verdict: str) -> dict[str, Any]:
        """Wait for a verdict on the run; return drift.json."""

        def there() -> bool:
            return self.tracker.ours(run_id).get("reprod.drift") == verdict

        eventually(there, 30, lambda: f"drift is {verdict}: {self.tracker.ours(run_id)} {self.document(run_id)}")
        found = self.document(run_id)
        assert found is not None
        assert found["verdict"] == verdict
        read = from_document(found)
        assert read is not None
        assert read.verdict == verdict
        return found

    def document(self, run_id: str) -> dict[str, Any] | None:
        if "data_manifest/drift.json" not in self.tracker.artifacts(run_id, "data_manifest"):
            return None
        found: dict[str, Any] = json.loads(self.tracker.read(run_id, "data_manifest/drift.json", self.got))
        return found


def paths(document: dict[str, Any]) -> dict[str, str]:
    """Return what happened to which path, of the first dataset."""
    return {each["path"]: each["what"] for each in document["datasets"][0]["paths"]}


def seal(daemon: Daemon, name: str, before: int) -> None:
    """Wait until what was just changed is in a version after ``before``."""
    daemon.sealed(name, before + 1)


def version(daemon: Daemon, name: str) -> int:
    return int(daemon.dataset(name)["version"])


@pytest.fixture
def drifts(
    request: pytest.FixtureRequest, tmp_path: Path, tracker: Tracker, name: str
) -> Iterator[tuple[Daemon, Drifts]]:
    """Return a daemon that watches a dataset of each kind that the test names, and what to do with them."""
    made = Drifts(tmp_path, tracker, name, *request.param)
    with running_daemon(tmp_path / "place", tracker.uri, made.datasets, program=PROGRAM) as daemon:
        made.settle(daemon)
        yield daemon, made


def kinds(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("drifts", [names], indirect=True, ids=["-".join(names)])


@kinds("same", "appended", "back", "grown", "touched", "removed")
def test_the_drift_of_a_run_is_what_happened_while_it_ran(drifts: tuple[Daemon, Drifts]) -> None:
    """Nothing, new names only, and changes: A to B to A, a file that grew, one that was only touched, one that went."""
    daemon, made = drifts
    runs = {kind: made.start(kind) for kind in made.names}
    let_slack_pass()
    roots = made.roots
    original = (roots["back"] / "part-0.csv").read_bytes()
    (roots["appended"] / b"new\xff\n<b>.csv".decode(errors="surrogateescape")).write_text("new")
    (roots["appended"] / "more").mkdir()
    (roots["appended"] / "more" / "part.csv").write_text("new")
    (roots["back"] / "part-0.csv").write_bytes(b"B")
    with (roots["grown"] / "part-0.csv").open("a") as file:
        file.write("9,81\n")
    os.utime(roots["touched"] / "part-0.csv")
    (roots["removed"] / "sub" / "part-1.csv").unlink()
    seal(daemon, made.names["back"], 1)
    (roots["back"] / "part-0.csv").write_bytes(original)
    for kind in ("appended", "grown", "removed"):
        seal(daemon, made.names[kind], 1)
    seal(daemon, made.names["back"], 2)
    let_events_tell_apart()
    for run_id in runs.values():
        made.end(run_id)
    assert paths(made.wait(runs["same"], "none")) == {}
    assert paths(made.wait(runs["back"], "changed")) == {"part-0.csv": "modified"}
    assert paths(made.wait(runs["grown"], "changed")) == {"part-0.csv": "modified"}
    assert paths(made.wait(runs["touched"], "changed")) == {"part-0.csv": "touched"}
    assert paths(made.wait(runs["removed"], "changed")) == {"sub/part-1.csv": "removed"}
    appended = made.wait(runs["appended"], "appended")
    assert paths(appended) == {"more/part.csv": "added", "new\\xff\n<b>.csv": "added"}
    assert appended["datasets"][0]["paths"][1]["path_b64"]
    params = made.tracker.wait_params(runs["same"], "data_path")
    assert params["data_path"] == str(roots["same"])


@kinds("same", "appended", "back", "touched")
def test_what_happened_while_the_daemon_was_down_is_found_by_the_walk(drifts: tuple[Daemon, Drifts]) -> None:
    """Equal fingerprints prove that nothing was touched, though nobody watched; what came back is a touch."""
    daemon, made = drifts
    runs = {kind: made.start(kind) for kind in made.names}
    let_slack_pass()
    daemon.kill()
    original = (made.roots["back"] / "part-0.csv").read_bytes()
    (made.roots["back"] / "part-0.csv").write_bytes(b"B")
    (made.roots["back"] / "part-0.csv").write_bytes(original)
    (made.roots["appended"] / "new.csv").write_text("new")
    os.utime(made.roots["touched"] / "part-0.csv")
    let_slack_pass()
    for kind in ("same", "appended", "back"):  # one ends while nobody watches either
        made.end(runs[kind])
    daemon.start()
    made.wait(runs["same"], "none")
    assert paths(made.wait(runs["appended"], "appended")) == {"new.csv": "added"}
    assert paths(made.wait(runs["back"], "changed")) == {"part-0.csv": "touched"}
    daemon.kill()
    daemon.start()
    made.end(runs["touched"], "FAILED")
    assert paths(made.wait(runs["touched"], "changed")) == {"part-0.csv": "touched"}
    assert made.tracker.ours(runs["touched"])["reprod.state"] == "captured"


@kinds("one", "two")
def test_a_resumed_run_is_judged_again_at_its_new_end(drifts: tuple[Daemon, Drifts]) -> None:
    """MLflow tells nobody that a run was resumed, and it keeps its old end. Each of two datasets has a tag."""
    daemon, made = drifts
    run_id = made.start("one", "two")
    let_slack_pass()
    made.end(run_id)
    made.wait(run_id, "none")
    made.tracker.client.update_run(run_id, "RUNNING")
    let_slack_pass()
    (made.roots["two"] / "part-0.csv").write_text("changed")
    seal(daemon, made.names["two"], 1)
    let_events_tell_apart()
    made.end(run_id, "KILLED")
    document = made.wait(run_id, "changed")
    assert [each["verdict"] for each in document["datasets"]] == ["none", "changed"]
    tags = made.tracker.ours(run_id)
    assert tags[f"reprod.drift.{made.names['one']}"] == "none"
    assert tags[f"reprod.drift.{made.names['two']}"] == "changed"


@kinds("data")
def test_what_the_server_lost_is_written_again(drifts: tuple[Daemon, Drifts]) -> None:
    """A run that was deleted while it ran and taken back gets its end. One whose drift is gone gets that again, one
    whose state is gone all of it: the server was restored from a backup, or somebody removed the tags."""
    daemon, made = drifts
    client, run_id = made.tracker.client, made.start("data")
    client.delete_run(run_id)
    daemon.wait_event("run.deleted", run_id=run_id)
    client.restore_run(run_id)
    made.end(run_id)
    made.wait(run_id, "none")
    made.tracker.wait_params(run_id, "data_path")

    client.delete_tag(run_id, "reprod.drift")
    made.wait(run_id, "none")

    tags = made.tracker.ours(run_id)
    for key in tags.keys() - {"reprod.dataset", "reprod.context", "reprod.state"}:
        client.delete_tag(run_id, key)
    client.delete_tag(run_id, "reprod.state")
    made.tracker.wait_state(run_id)
    eventually(lambda: made.tracker.ours(run_id) == tags, 30, lambda: f"{made.tracker.ours(run_id)} is {tags}")


SCRIPT = """
import mlflow, sys, time
mlflow.set_experiment(experiment_id="{experiment}")
run = mlflow.start_run()
mlflow.set_tag("reprod.dataset", "{name}")
print(run.info.run_id, flush=True)
time.sleep(600)
"""


@kinds("data")
def test_a_run_whose_process_was_killed_is_judged_though_it_says_running(
    drifts: tuple[Daemon, Drifts], tmp_path: Path
) -> None:
    """No status ever comes from a process that was killed: drift says that it is gone, and changes with the status."""
    daemon, made = drifts
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(experiment=made.tracker.experiment, name=made.names["data"]))
    variables = {**daemon.place.variables(), "MLFLOW_TRACKING_URI": made.tracker.uri, "GIT_PYTHON_REFRESH": "quiet"}
    process = subprocess.Popen([sys.executable, str(script)], env=variables, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        made.tracker.wait_state(run_id)
        assert "reprod.drift" not in made.tracker.ours(run_id)
    finally:
        process.kill()
        process.communicate()
    document = made.wait(run_id, "none")
    assert document["ended"] == GONE
    assert made.tracker.client.get_run(run_id).info.status == "RUNNING"
    assert "data_path" not in made.tracker.params(run_id)
    (made.roots["data"] / "part-0.csv").write_text("changed")
    seal(daemon, made.names["data"], 1)
    let_events_tell_apart()
    made.end(run_id, "KILLED")
    assert made.wait(run_id, "changed")["ended"] == "KILLED"
    made.tracker.wait_params(run_id, "data_path")


@kinds("data", "other")
def test_what_cannot_be_proven_is_said(drifts: tuple[Daemon, Drifts]) -> None:
    """A start within a change, and a dataset that cannot be walked after the end: unknown, until that is possible."""
    daemon, made = drifts
    (made.roots["data"] / "part-0.csv").write_text("changed")
    vague = made.tracker.start_run(made.names["data"])
    made.tracker.wait_state(vague, "incomplete")
    made.end(vague)
    assert "started on" in made.wait(vague, "unknown")["datasets"][0]["reason"]

    run_id = made.start("other")
    (daemon.place.folder / f"{made.names['other']}.toml").unlink()
    daemon.call("reload")
    let_slack_pass()
    made.end(run_id)
    assert "not walked" in made.wait(run_id, "unknown")["datasets"][0]["reason"]
    made.tracker.wait_params(run_id, "data_path")
    daemon.place.register(made.names["other"], made.roots["other"])
    daemon.call("reload")
    made.wait(run_id, "none")
