"""Our daemon, with the MLflow client that it is installed with, at real servers of earlier lines: 2.22, 3.1 and 3.10.

These refuse ``IS NULL`` on tags, which the poll asks for, and are asked in another way. Not in the suite: each server
is fetched from the package index that pip is configured for (850 MB, 90 packages), which takes minutes.
``REPROD_HEAVY=1 pytest tests/heavy/test_old_servers.py`` runs it; with ``REPROD_HEAVY_KEPT=FOLDER`` the environments
are made there, or taken from there.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from heavy_place import IS_WANTED, python_with, server_of
from waiting import eventually

from reprod.core.run import PendingRun
from reprod.sinks.child import MlflowChild
from reprod.sinks.environment import set_client_defaults
from reprod.sinks.protocol import Implied

from harness import Daemon, Tracker, dt1, let_slack_pass, make_data, running_daemon  # isort: skip - by heavy_place

T = TypeVar("T")

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.skipif(not IS_WANTED, reason="fetches three servers from a package index: REPROD_HEAVY=1"),
    pytest.mark.timeout(1800),
]

#: SQLAlchemy 2.1 removed a name that the older two import.
SERVERS = {
    "2.22": ("mlflow==2.22.*", "sqlalchemy<2.1"),
    "3.1": ("mlflow==3.1.*", "sqlalchemy<2.1"),
    "3.10": ("mlflow==3.10.*",),
}


class Old:
    """An old server, a daemon that polls it, and two datasets."""

    def __init__(self, tracker: Tracker, daemon: Daemon, version: str, roots: dict[str, Path]) -> None:
        self.tracker, self.daemon, self.version, self.roots = tracker, daemon, version, roots


@pytest.fixture(scope="module", params=SERVERS)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Old]:
    """Yield one of the servers with a daemon."""
    version = request.param
    base = tmp_path_factory.mktemp(f"old-{version}")
    python = python_with(SERVERS[version], version, base)
    set_client_defaults(os.environ)
    from mlflow import MlflowClient

    roots = {name: make_data(base / name, count) for name, count in (("images", 4), ("tables", 6))}
    (base / "server").mkdir()
    with server_of(python, base / "server") as url, running_daemon(base / "d", url, roots) as daemon:
        client = MlflowClient(url)
        tracker = Tracker(client, url, str(client.create_experiment("old")))
        for name in roots:
            daemon.sealed(name, 1)
        let_slack_pass()
        yield Old(tracker, daemon, version, roots)


def asked(old: Old, ask: Callable[[MlflowChild], T]) -> T:
    """Return what a child of its own is told by the server."""
    child = MlflowChild(old.tracker.uri)
    try:
        child.poll()
        return ask(child)
    finally:
        child.close()


def answer(old: Old, *argv: str) -> dict[str, Any]:
    done = old.daemon.place.cli(*argv, "--json", timeout_s=120)
    assert done.returncode in {0, 5}, done.stderr  # 5: the environment of a run that says nothing is not known
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_tagged_run_gets_all_of_it(old: Old, tmp_path: Path) -> None:
    """Tags, input, artifacts, metrics, and params and drift at its end; and no poll was ever refused."""
    run = old.tracker.start_run("images")
    tags = old.tracker.wait_state(run)
    assert (tags["reprod.digest"], tags["reprod.bound"]) == (dt1(old.roots["images"]), "start")
    old.tracker.client.set_terminated(run)
    params = old.tracker.wait_params(run, "data_path", "manifest_version")
    assert params["data_path"] == str(old.roots["images"])
    eventually(lambda: old.tracker.ours(run).get("reprod.drift"), 60, "the drift is said")
    assert old.tracker.ours(run)["reprod.drift"] == "none"
    whole = old.tracker.client.get_run(run)
    assert [(row.dataset.name, row.dataset.digest) for row in whole.inputs.dataset_inputs] == [
        ("images", tags["reprod.digest"][4:40])
    ]
    assert whole.data.metrics["data_files_count"] > 0
    found = asked(old, lambda child: child.whole_run(run)).artifacts
    assert {"data_manifest/data_manifest.json", "data_manifest/drift.json", "reprod/report.html"} <= set(found)
    manifest = json.loads(old.tracker.read(run, "data_manifest/data_manifest.json", tmp_path))
    assert manifest["digest"] == tags["reprod.digest"]
    assert old.daemon.events("tracking.lost") == []


def test_an_experiments_tag_counts(old: Old) -> None:
    """The runs that start in it afterwards are recorded, one without any tag elsewhere is not."""
    client, outside = old.tracker.client, old.tracker.start_run()
    made = client.create_experiment("tagged", tags={"reprod.dataset": "tables"})
    inside = Tracker(client, old.tracker.uri, str(made))
    run = inside.start_run()
    tags = inside.wait_state(run)
    assert (tags["reprod.digest"], tags["reprod.dataset_from"]) == (dt1(old.roots["tables"]), "experiment")
    assert run not in {each.run_id for each in asked(old, implied_now)}
    assert old.tracker.ours(outside) == {}


def implied_now(child: MlflowChild) -> tuple[PendingRun, ...]:
    """Return the runs that a poll finds by what is said of their experiments, as if it had always been said."""
    sources = child.implied(Implied()).sources
    assert sources
    return child.implied(Implied(since=tuple((source, 0) for source in sources))).runs


def test_a_changed_tag_is_recorded_again(old: Old) -> None:
    """A run that was settled, and is left out of the polls, is recorded for what it names now."""
    run = old.tracker.finished_run("images")
    old.tracker.wait_state(run)
    old.tracker.wait_params(run, "data_path")
    old.tracker.tag(run, "tables")
    old.daemon.call("announce", dataset="tables")
    eventually(lambda: old.tracker.ours(run).get("reprod.recorded") == "tables", 60, "the new tag is recorded")
    assert old.tracker.ours(run)["reprod.digest"] == dt1(old.roots["tables"])


def test_many_settled_runs_do_not_end_the_poll(old: Old) -> None:
    """However many runs the daemon knows to be settled, the server takes the question, and finds the one that waits."""
    run = old.tracker.start_run("nobodyknows")
    settled = [f"{number:032x}" for number in range(20_000)]
    assert asked(old, lambda child: child.polled).is_old
    assert run in {each.run_id for each in asked(old, lambda child: child.poll(handled=settled))}
    assert run not in {each.run_id for each in asked(old, lambda child: child.poll(handled=[*settled, run]))}


def test_the_run_is_found_by_what_a_person_writes(old: Old) -> None:
    """By the beginning of its id, by its name, and by what it read."""
    made = old.tracker.client.create_run(
        old.tracker.experiment, run_name="the old one", tags={"reprod.dataset": "images"}
    )
    run = str(made.info.run_id)
    old.tracker.wait_state(run)
    for ref in (f"run:{run[:10]}", "run:the old one"):
        assert answer(old, "show", ref)["run_id"] == run
    assert run in {head.run_id for head, _ in asked(old, lambda child: child.runs_on("images")).runs}
