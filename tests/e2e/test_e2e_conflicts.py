"""Where the user was first: names that the run has already, values beyond limits, runs that go and come back."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Tracker, dt1, eventually, let_slack_pass, make_data, running_daemon
from mlflow_proxy import Proxy

from reprod.capture.process.identity import current_context
from reprod.core.run import PARAM_LIMIT

pytestmark = pytest.mark.mlflow

#: Names that no other test uses, since all share one server.
UNIQUE = uuid.uuid4().hex[:6]
IMAGES, TABLES, MANY = f"images-{UNIQUE}", f"tables-{UNIQUE}", f"m{UNIQUE}"
#: Named on one run; ``make torture`` has 500 (30 s: each has a manifest of its own to upload). Their paths are as long
#: as it takes for all together to be too long.
FOLDERS = int(os.environ.get("REPROD_FOLDERS", "100"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Daemon]:
    """Yield a daemon with two datasets, and a third that has many folders."""
    base = tmp_path_factory.mktemp("conflicts")
    roots = {IMAGES: make_data(base / "images"), TABLES: make_data(base / "tables", 6), MANY: base / ("many" * 20)}
    for number in range(FOLDERS):
        folder = roots[MANY] / f"{number:03}"
        folder.mkdir(parents=True)
        (folder / "x").write_text(str(number))
    deep = roots[MANY] / ("long " * 40 + "name") / ("y" * 200)
    deep.mkdir(parents=True)
    (deep / "x").write_text("deep")
    with running_daemon(base / "d", mlflow_server, roots) as running:
        for name in roots:
            running.sealed(name, 1)
        let_slack_pass()
        yield running


def root(daemon: Daemon, name: str) -> Path:
    return Path(daemon.dataset(name)["path"])


def start(tracker: Tracker, dataset: str | None = None) -> str:
    """Start a run of this process, with what it tells of itself: then it has an environment too."""
    return tracker.start_run(dataset, context=current_context().to_json())


def test_files_where_folders_of_ours_would_be_stay(daemon: Daemon, tracker: Tracker, tmp_path: Path) -> None:
    """The user's files ``reprod`` and ``data_manifest`` and one in ``environment`` keep their bytes, and the run is
    captured, with what has a place."""
    run = start(tracker)
    mine = ("reprod", "data_manifest", "environment/packages.json")
    for path in mine:
        tracker.client.log_text(run, f"my {path}", path)
    tracker.client.set_terminated(run)
    tracker.tag(run, IMAGES)
    tags = tracker.wait_state(run)
    assert tags["reprod.digest"] == dt1(root(daemon, IMAGES))
    tracker.wait_params(run, "data_path")
    for path in mine:
        assert tracker.read(run, path, tmp_path / path.replace("/", "-")) == f"my {path}".encode()
    assert "environment/requirements.txt" in tracker.artifacts(run)


def test_hundreds_of_datasets_on_one_run(daemon: Daemon, tracker: Tracker, tmp_path: Path) -> None:
    """Each has its digest, input and manifest; what is longer than MLflow takes is in ``reprod/values.json``, whole."""
    base, names = root(daemon, MANY), [f"{MANY}/{number:03}" for number in range(FOLDERS)]
    run = start(tracker, ",".join(names))
    tags = tracker.wait_state(run, timeout_s=90)
    for number in (0, 1, FOLDERS - 1):
        assert tags[f"reprod.digest.{MANY}/{number:03}"] == dt1(base / f"{number:03}")
    assert sum(key.startswith("reprod.digest.") for key in tags) == FOLDERS
    whole = tracker.client.get_run(run)
    assert len(whole.inputs.dataset_inputs) == FOLDERS
    assert whole.data.metrics["data_files_count"] == FOLDERS
    tracker.client.set_terminated(run)
    params = tracker.wait_params(run, "manifest_version")
    values = json.loads(tracker.read(run, "reprod/values.json", tmp_path))
    assert "data_path" not in params
    assert len(values["params"]["data_path"]) > PARAM_LIMIT
    assert values["params"]["data_path"].split(",") == [f"{base}/{number:03}" for number in range(FOLDERS)]
    assert params[f"data_path.{MANY}/000"] == f"{base}/000"


def test_names_longer_than_mlflow_takes(daemon: Daemon, tracker: Tracker, tmp_path: Path) -> None:
    """A subdirectory with a name of 400 characters has its tags under a hash of it, and the whole name is told."""
    named = f"{MANY}/" + "long " * 40 + "name/" + "y" * 200
    run = start(tracker, named)
    tags = tracker.wait_state(run)
    deep = root(daemon, MANY) / named.partition("/")[2]
    (key,) = (key for key in tags if key.startswith("reprod.digest."))
    assert len(key) < 250
    assert tags["reprod.digest"] == tags[key] == dt1(deep)
    assert tags["reprod.recorded"] == named
    manifest = json.loads(tracker.read(run, "data_manifest/data_manifest.json", tmp_path))
    assert (manifest["dataset"], manifest["data_path"]) == (named, str(deep))


def test_a_run_made_by_the_client_alone_is_recorded(daemon: Daemon, tracker: Tracker) -> None:
    """Without the context provider nothing is told of the process: the data is recorded, the environment is not."""
    run = tracker.start_run(IMAGES)
    tags = tracker.wait_state(run)
    assert tags["reprod.digest"] == dt1(root(daemon, IMAGES))
    assert not [path for path in tracker.artifacts(run) if path.startswith("environment/")]
    assert "reprod/environment_unknown.json" in tracker.artifacts(run)


def test_a_tag_that_is_taken_away_changes_nothing_more(daemon: Daemon, tracker: Tracker) -> None:
    """What was recorded stays, and setting the same tag again records nothing again."""
    run = start(tracker, IMAGES)
    before = tracker.wait_state(run)
    tracker.client.delete_tag(run, "reprod.dataset")
    daemon.call("announce", dataset=IMAGES)
    other = start(tracker, IMAGES)
    tracker.wait_state(other)
    del before["reprod.dataset"]
    assert tracker.ours(run) == before
    tracker.tag(run, IMAGES)
    daemon.call("announce", dataset=IMAGES)
    tracker.wait_state(start(tracker, IMAGES))
    assert {key: value for key, value in tracker.ours(run).items() if key != "reprod.dataset"} == before
    assert captures(daemon, run) == 1


def captures(daemon: Daemon, run: str) -> int:
    return [event["run_id"] for event in daemon.events("run.captured")].count(run)


def test_a_tag_that_is_changed_to_several_and_to_an_unknown_name(daemon: Daemon, tracker: Tracker) -> None:
    """Several are all recorded; a name that nobody has leaves what was recorded."""
    run = start(tracker, IMAGES)
    eventually(lambda: captures(daemon, run) == 1, 60, "the first is recorded")
    both = f"{IMAGES},{TABLES}"
    tracker.tag(run, both)
    daemon.call("announce", dataset=TABLES)
    eventually(lambda: captures(daemon, run) == 2, 60, "both are recorded")
    tags = tracker.ours(run)
    assert (tags["reprod.recorded"], tags["reprod.state"]) == (both, "captured")
    assert {f"reprod.digest.{IMAGES}", f"reprod.digest.{TABLES}"} <= set(tags)
    assert not {"reprod.digest", "reprod.version", "reprod.bound"} & set(tags)
    tracker.tag(run, f"nobody-{UNIQUE}")
    daemon.call("announce", dataset=TABLES)
    tracker.wait_state(start(tracker, IMAGES))
    after = tracker.ours(run)
    assert after.pop("reprod.dataset") == f"nobody-{UNIQUE}"
    assert after == {key: value for key, value in tags.items() if key != "reprod.dataset"}


class Guard(Proxy):
    """A server that lets its user read everything, and write while ``admits``: MLflow's own basic-auth answers so."""

    admits, refused = False, 0

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[Any], bytes]:
        writes = method == "PUT" or path.endswith(("/runs/log-batch", "/runs/log-inputs", "/runs/set-tag"))
        if writes and not self.admits:
            self.refused += 1
            return 403, [("Content-Type", "text/plain")], b"Permission denied"
        return super().forward(method, path, headers, body)


def test_a_run_that_may_not_be_written_is_written_when_it_may(
    tmp_path: Path, tracker: Tracker, data: Path, name: str
) -> None:
    """A 403 costs one try now and then, is told, and ends no polling; when it is mended the run gets its record. The
    password in the server's address is in nothing that the daemon keeps."""
    guard = Guard(tracker.uri)
    uri = guard.url.replace("://", "://someone:correct-horse-9@")
    try:
        with running_daemon(tmp_path / "d", uri, {name: data}) as daemon:
            daemon.sealed(name, 1)
            let_slack_pass()
            run = tracker.finished_run(name)
            told = daemon.wait_event("delivery.postponed", run_id=run)
            assert "403" in told["error"] or "ermission" in told["error"]
            eventually(lambda: guard.refused >= 3, 60, "it is tried again")
            status = daemon.status()
            assert status["tracking"]["state"] == "reachable"
            assert "may not write to 1 run" in json.dumps(status["attention"])
            assert tracker.ours(run) == {"reprod.dataset": name}
            guard.admits = True
            assert tracker.wait_state(run)["reprod.digest"] == dt1(data)
            eventually(lambda: daemon.status()["attention"] == [], 60, "nothing needs a person any more")
        kept = {path: path.read_bytes() for path in daemon.place.state.rglob("*") if path.is_file()}
        assert [path.name for path, content in kept.items() if b"correct-horse-9" in content] == []
    finally:
        guard.go_away()


def test_an_experiment_that_is_deleted_while_a_delivery_waits(
    tmp_path: Path, tracker: Tracker, data: Path, name: str
) -> None:
    """Its runs are owed nothing, nothing waits for them, and others are recorded."""
    guard, client = Guard(tracker.uri), tracker.client
    doomed = Tracker(client, tracker.uri, str(client.create_experiment(f"doomed-{uuid.uuid4().hex}")))
    try:
        with running_daemon(tmp_path / "d", guard.url, {name: data}) as daemon:
            daemon.sealed(name, 1)
            let_slack_pass()
            run = doomed.finished_run(name)
            daemon.wait_event("delivery.postponed", run_id=run)
            client.delete_experiment(doomed.experiment)
            guard.admits = True
            daemon.wait_event("run.deleted", run_id=run)
            assert tracker.wait_state(tracker.finished_run(name))["reprod.digest"] == dt1(data)
            eventually(lambda: daemon.status()["runs"]["waiting"] == 0, 60, "nothing waits")
            assert tracker.ours(run) == {"reprod.dataset": name}
    finally:
        guard.go_away()


def test_a_tag_that_is_changed_while_the_first_waits_is_what_counts(
    tmp_path: Path, tracker: Tracker, data: Path, name: str
) -> None:
    """What the run does not name any more is never written to it."""
    guard, other = Guard(tracker.uri), f"{name}-b"
    second = make_data(tmp_path / "second", 8)
    try:
        with running_daemon(tmp_path / "d", guard.url, {name: data, other: second}) as daemon:
            daemon.sealed(name, 1)
            daemon.sealed(other, 1)
            let_slack_pass()
            run = tracker.finished_run(name)
            daemon.wait_event("delivery.postponed", run_id=run)
            tracker.tag(run, other)
            eventually(lambda: daemon.events("run.published")[-1]["datasets"].get(other), 60, "the new one is bound")
            guard.admits = True
            eventually(lambda: tracker.ours(run).get("reprod.recorded") == other, 60, lambda: f"{tracker.ours(run)}")
            assert tracker.wait_state(run)["reprod.digest"] == dt1(second)
            daemon.wait_event("run.captured", run_id=run)
            assert captures(daemon, run) == 1
    finally:
        guard.go_away()
