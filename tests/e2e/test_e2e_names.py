"""What a run uses: its own tag, its experiment's, a rule; a folder of a dataset; and changes of mind."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Daemon, Tracker, dt1, eventually, let_slack_pass, make_data, running_daemon

from reprod.capture.process.identity import current_context

pytestmark = pytest.mark.mlflow

#: Names that no other test uses, since all share one server.
UNIQUE = uuid.uuid4().hex[:8]
IMAGES, TABLES, RULED = f"images-{UNIQUE}", f"tables-{UNIQUE}", f"ruled-{UNIQUE}"
PATIENTS = f"patients-{UNIQUE}"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Daemon]:
    """Yield a daemon with two datasets, one of which has a folder with an odd name, and a rule."""
    base = tmp_path_factory.mktemp("names")
    for name in (IMAGES, TABLES):
        make_data(base / name)
    (base / IMAGES / "train" / "a @b").mkdir(parents=True)
    (base / IMAGES / "train" / "a @b" / "x").write_text("x")
    (base / IMAGES / "train" / "y").write_text("y")
    with running_daemon(base, mlflow_server) as running:
        for name in (IMAGES, TABLES):
            running.place.register(name, base / name)
        config = running.place.config
        config.write_text(config.read_text() + f'\n[[rule]]\nexperiment = "{RULED}-*"\ndataset = "{TABLES}"\n')
        running.call("reload")
        for name in (IMAGES, TABLES):
            running.sealed(name, 1)
        let_slack_pass()
        yield running


def experiment(tracker: Tracker, prefix: str, dataset: str | None = None) -> Tracker:
    """Return a tracker of an experiment of its own, with a tag if one is given."""
    made = tracker.client.create_experiment(f"{prefix}-{uuid.uuid4().hex}")
    if dataset is not None:
        tracker.client.set_experiment_tag(made, "reprod.dataset", dataset)
    return Tracker(tracker.client, tracker.uri, made)


def let_a_poll_pass(daemon: Daemon) -> None:
    """Wait until the tracking server was asked once more."""
    last = daemon.status()["tracking"]["last_poll_at"]
    eventually(lambda: daemon.status()["tracking"]["last_poll_at"] != last, 30, "the server was polled")


def start(tracker: Tracker, dataset: str | None = None, **tags: str) -> str:
    """Start a run of this process, with what it tells of itself."""
    return tracker.start_run(dataset, context=current_context().to_json(), **tags)


def test_an_experiment_names_the_dataset_of_runs_that_start_later(daemon: Daemon, tracker: Tracker) -> None:
    """Its tag counts for runs that start after it was set and say nothing themselves; a run's own tag goes first, and
    an empty one wants nothing."""
    mine = experiment(tracker, "tagged")
    before = start(mine)
    let_a_poll_pass(daemon)  # that sees the experiment without a tag
    let_a_poll_pass(daemon)
    let_slack_pass()
    mine.client.set_experiment_tag(mine.experiment, "reprod.dataset", IMAGES)
    later, own, none = start(mine), start(mine, TABLES), start(mine, "")
    tags = mine.wait_state(later)
    assert (tags["reprod.digest"], tags["reprod.dataset_from"]) == (dt1(daemon.place.base / IMAGES), "experiment")
    assert (tags["reprod.recorded"], "reprod.dataset" in tags) == (IMAGES, False)
    tags = mine.wait_state(own)
    assert (tags["reprod.recorded"], tags["reprod.dataset_from"]) == (TABLES, "run")
    again = start(mine)
    assert mine.wait_state(again)["reprod.bound"] == "start"
    assert "reprod.state" not in mine.ours(before)
    assert "reprod.state" not in mine.ours(none)


def test_a_rule_names_the_dataset_where_nobody_else_does(daemon: Daemon, tracker: Tracker) -> None:
    """A rule fits experiments by their name; the experiment's own tag goes first."""
    ruled, tagged = experiment(tracker, RULED), experiment(tracker, RULED, IMAGES)
    first = start(ruled)  # between two polls: the one that sees the experiment counts from the one before
    second = start(tagged)
    tags = ruled.wait_state(first)
    assert (tags["reprod.recorded"], tags["reprod.dataset_from"]) == (TABLES, "rule")
    tags = tagged.wait_state(second)
    assert (tags["reprod.recorded"], tags["reprod.dataset_from"]) == (IMAGES, "experiment")


def test_a_folder_of_a_dataset_has_a_digest_of_its_own(daemon: Daemon, tracker: Tracker, tmp_path: Path) -> None:
    """NAME/SUB is bound by the digest of that folder, and lists what is below it alone; a folder that is not there has
    none and says so."""
    images = daemon.place.base / IMAGES
    run = start(tracker, f"{IMAGES}/train")
    tags = tracker.wait_state(run)
    assert tags["reprod.digest"] == tags[f"reprod.digest.{IMAGES}/train"] == dt1(images / "train")
    manifest = json.loads(tracker.read(run, "data_manifest/data_manifest.json", tmp_path))
    assert {each["relative_path"] for each in manifest["files"]} == {"a @b/x", "y"}
    assert (manifest["digest"], manifest["data_path"]) == (tags["reprod.digest"], f"{images}/train")
    (row,) = tracker.client.get_run(run).inputs.dataset_inputs
    assert (row.dataset.name, row.dataset.digest) == (f"{IMAGES}/train", tags["reprod.digest"][4:40])

    odd = start(tracker, f"{IMAGES}/train/a @b")
    assert tracker.wait_state(odd)["reprod.digest"] == dt1(images / "train" / "a @b")
    lost = start(tracker, f"{IMAGES}/nowhere")
    tags = tracker.wait_state(lost, "incomplete")
    assert "has no folder 'nowhere'" in tags["reprod.error"]
    assert "reprod.digest" not in tags
    away = start(tracker, f"{IMAGES}/../tables")
    assert "reprod.digest" not in tracker.wait_state(away, "incomplete")


def test_two_folders_and_another_dataset(daemon: Daemon, tracker: Tracker) -> None:
    """Several of them on one run: each has a digest, and a manifest of its own."""
    run = start(tracker, f"{IMAGES}/train, {TABLES}")
    tags = tracker.wait_state(run)
    base = daemon.place.base
    assert tags[f"reprod.digest.{IMAGES}/train"] == dt1(base / IMAGES / "train")
    assert tags[f"reprod.digest.{TABLES}"] == dt1(base / TABLES)
    found = tracker.artifacts(run, "data_manifest")
    assert {f"data_manifest/{IMAGES}/train/data_manifest.json", f"data_manifest/{TABLES}/data_manifest.json"} <= set(
        found
    )


def test_a_changed_tag_is_recorded_again(daemon: Daemon, tracker: Tracker) -> None:
    """The tags are those of what it names now, artifacts of the second lie apart, params stay; and back again."""
    run = start(tracker, IMAGES)
    first = tracker.wait_state(run)
    tracker.client.set_terminated(run)
    tracker.wait_params(run, "data_path")
    tracker.tag(run, TABLES)
    daemon.call("announce", dataset=TABLES)
    eventually(lambda: f"reprod.digest.{IMAGES}" not in tracker.ours(run), 60, "the new tag is recorded")
    tags = tracker.ours(run)
    assert tags["reprod.digest"] == tags[f"reprod.digest.{TABLES}"] == dt1(daemon.place.base / TABLES)
    assert f"reprod.digest.{IMAGES}" not in tags
    assert "reprod/2/data_manifest/data_manifest.json" in tracker.artifacts(run)
    assert tracker.params(run)["data_path"].endswith(IMAGES)
    tracker.tag(run, IMAGES)
    daemon.call("announce", dataset=IMAGES)
    eventually(lambda: tracker.ours(run).get("reprod.recorded") == IMAGES, 60, "the old tag is recorded")
    assert tracker.ours(run)["reprod.digest"] == first["reprod.digest"]


def test_a_child_on_its_parents_data_has_tags_and_the_input_alone(daemon: Daemon, tracker: Tracker) -> None:
    """What it shares with its parent lies there; one that names other data is recorded whole."""
    parent = start(tracker, IMAGES)
    tracker.wait_state(parent)
    child = start(tracker, IMAGES, **{"mlflow.parentRunId": parent})
    other = start(tracker, TABLES, **{"mlflow.parentRunId": parent})
    tags = tracker.wait_state(child)
    assert tags["reprod.same_as"] == parent
    assert tracker.artifacts(child) == []
    (row,) = tracker.client.get_run(child).inputs.dataset_inputs
    assert row.dataset.name == IMAGES
    assert "reprod.same_as" not in tracker.wait_state(other)
    assert "data_manifest/data_manifest.json" in tracker.artifacts(other)
    tracker.client.set_terminated(child)
    tracker.client.set_terminated(other)
    tracker.wait_params(other, "data_path")
    eventually(lambda: any(e["run_id"] == child for e in daemon.events("run.finished")), 30, "the child is finished")
    assert tracker.params(child) == {}


@pytest.mark.parametrize("publish", ["summary", "digest"])
def test_what_a_dataset_keeps_to_itself_is_nowhere_on_the_run(
    daemon: Daemon, tracker: Tracker, tmp_path: Path, publish: str
) -> None:
    """Of one whose names are not published no artifact, tag or param holds one, what changed meanwhile included."""
    name, root = f"{PATIENTS}-{publish}", daemon.place.base / f"{PATIENTS}-{publish}"
    root.mkdir()
    (root / "smith.csv").write_text("1")
    daemon.place.register(name, root, publish=publish)
    daemon.call("reload")
    daemon.sealed(name, 1)
    let_slack_pass()
    run = start(tracker, name)
    tracker.wait_state(run)
    let_slack_pass()
    (root / "smith.csv").write_text("2")
    (root / "jones.csv").write_text("3")
    daemon.sealed(name, 2)
    tracker.client.set_terminated(run)
    eventually(lambda: tracker.ours(run).get("reprod.drift") == "changed", 60, "the drift is said")
    held = tracker.client.get_run(run)
    assert held.data.tags["reprod.digest"].startswith("dt1:")
    assert ("data_files_count" in held.data.metrics) == (publish == "summary")
    artifacts = [tracker.read(run, path, tmp_path / publish).decode() for path in tracker.artifacts(run)]
    texts = [str(held.to_dictionary()), *artifacts]
    assert [text for text in texts if "smith.csv" in text or "jones.csv" in text] == []


def test_what_a_run_on_a_folder_had_is_asked_of_that_folder(daemon: Daemon, tracker: Tracker, tmp_path: Path) -> None:
    """What changes beside it is no difference, which one of two is said by --dataset, a folder that was not there has
    no version; who and drift.json know its files by their paths from there."""
    name = f"folders-{UNIQUE}"
    root = daemon.place.base / name
    (root / "sub").mkdir(parents=True)
    (root / "part-0.csv").write_text("0")
    (root / "sub" / "x.csv").write_text(f"x-{UNIQUE}")
    daemon.place.register(name, root)
    daemon.call("reload")
    daemon.sealed(name, 1)
    let_slack_pass()
    run, two, lost = (tracker.start_run(what) for what in (f"{name}/sub", f"{name}/sub,{TABLES}", f"{name}/nowhere"))
    tags = tracker.wait_state(run)
    tracker.wait_state(two)
    tracker.wait_state(lost, "incomplete")
    let_slack_pass()
    (root / "part-0.csv").write_text("other")
    ask = daemon.place.cli
    done = ask("verify", f"run:{run}", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["digest_expected"] == tags["reprod.digest"]
    assert ask("verify", f"run:{lost}").returncode == 5
    several = ask("verify", f"run:{two}")
    assert (several.returncode, "--dataset NAME" in several.stderr) == (2, True)
    assert ask("verify", f"run:{two}", "--dataset", f"{name}/sub").returncode == 0
    assert ask("verify", f"run:{two}", "--dataset", TABLES).returncode == 0
    chain = ask("verify", name, "--chain")
    assert chain.returncode == 0, "what a folder of it has is no other digest of the version"
    for path in ("x.csv", "sub/x.csv"):
        found = json.loads(ask("who", f"{name}/sub", path, "--json").stdout)
        assert {row["run_id"] for row in found["runs"]} == {run, two}
        assert [each["path"] for each in found["paths"]] == ["sub/x.csv"]
    (root / "sub" / "x.csv").write_text("changed")
    assert ask("verify", f"run:{run}").returncode == 1
    let_slack_pass()
    tracker.client.set_terminated(run)
    eventually(lambda: tracker.ours(run).get("reprod.drift") == "changed", 60, "the drift is said")
    drift = json.loads(tracker.read(run, "data_manifest/drift.json", tmp_path))
    assert [each["path"] for each in drift["datasets"][0]["paths"]] == ["x.csv"]
