"""One run that cannot be delivered, and the others; and runs whose tag changes while the server is away."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Tracker, dt1, eventually, let_slack_pass, make_data, running_daemon
from mlflow_proxy import Proxy

pytestmark = pytest.mark.mlflow

NAME = f"owed-{uuid.uuid4().hex[:8]}"


class Store(Proxy):
    """A server whose artifact store answers 500 for some runs, as one does whose disk is full or whose bucket is gone.

    ``refused`` are the runs of which it takes no file, ``asked`` how often it was asked to.
    """

    def __init__(self, upstream: str) -> None:
        self.refused: set[str] = set()
        self.asked = 0
        super().__init__(upstream)

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[Any], bytes]:
        if method == "PUT" and any(run in path for run in self.refused):
            self.asked += 1
            return 500, [("Content-Type", "text/plain")], b"no space left on device"
        return super().forward(method, path, headers, body)


@pytest.fixture(scope="module")
def store(mlflow_server: str) -> Iterator[Store]:
    made = Store(mlflow_server)
    yield made
    made.go_away()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Daemon]:
    """Yield a daemon with one dataset, behind the proxy."""
    base = tmp_path_factory.mktemp("courier")
    with running_daemon(base / "d", store.url, {NAME: make_data(base / "data")}) as running:
        running.sealed(NAME, 1)
        let_slack_pass()
        yield running


def test_a_run_whose_files_are_refused_holds_up_no_other(daemon: Daemon, store: Store, tracker: Tracker) -> None:
    """Two runs that are refused again and again wait alone, and one line in the log says why; the runs after them are
    recorded; when their files are taken so are they."""
    refused = [tracker.start_run() for _ in range(2)]
    store.refused.update(refused)
    for run in refused:
        tracker.tag(run, NAME)
        daemon.wait_event("delivery.postponed", run_id=run)
    assert tracker.wait_state(tracker.finished_run(NAME))["reprod.state"] == "captured"
    eventually(lambda: store.asked > 2 * len(refused), 60, "the refused are tried again")
    assert tracker.wait_state(tracker.finished_run(NAME))["reprod.state"] == "captured"
    told = [(e["run_id"], e["error"]) for e in daemon.events("delivery.postponed") if e["run_id"] in refused]
    assert len(told) == len(set(told))
    assert daemon.status()["tracking"]["state"] == "reachable"
    store.refused.clear()
    for run in refused:
        daemon.call("retry", run=run)
        assert tracker.wait_state(run)["reprod.digest"] == dt1(daemon.place.base.parent / "data")


def test_a_tag_that_is_taken_away_during_an_outage_counts(
    daemon: Daemon, store: Store, tracker: Tracker, tmp_path: Path
) -> None:
    """The server goes away with runs that are owed something; one loses its tag, one names what nobody has: when it is
    back nothing is written to these, the third is recorded, and so is the first when it is tagged again."""
    runs = {kind: tracker.start_run() for kind in ("withdrawn", "renamed", "kept")}
    store.refused.update(runs.values())  # so that all are owed something when it goes away
    for run in runs.values():
        tracker.tag(run, NAME)
        daemon.wait_event("delivery.postponed", run_id=run)
    store.go_away()
    eventually(lambda: daemon.status()["tracking"]["state"] == "unreachable", 60, "the outage is noticed")
    tracker.client.delete_tag(runs["withdrawn"], "reprod.dataset")
    tracker.tag(runs["renamed"], "nobody-has-this")
    store.refused.clear()
    store.listen()
    assert tracker.wait_state(runs["kept"])["reprod.state"] == "captured"
    for kind in ("withdrawn", "renamed"):
        assert NAME in daemon.wait_event("run.withdrawn", run_id=runs[kind])["why"]
    eventually(lambda: daemon.status()["runs"]["waiting"] == 0, 60, "nothing is owed any more")
    assert tracker.ours(runs["withdrawn"]) == {}
    assert tracker.ours(runs["renamed"]) == {"reprod.dataset": "nobody-has-this"}
    assert tracker.artifacts(runs["withdrawn"]) + tracker.artifacts(runs["renamed"]) == []
    tracker.tag(runs["withdrawn"], NAME)
    assert tracker.wait_state(runs["withdrawn"])["reprod.state"] == "captured"


def test_what_finds_no_place_on_a_run_is_said(daemon: Daemon, tracker: Tracker) -> None:
    """A user's files ``reprod`` and ``data_manifest`` leave no place for the manifest: the run and the log say so."""
    run = tracker.start_run()
    for path in ("reprod", "data_manifest"):
        tracker.client.log_text(run, "mine", path)
    tracker.tag(run, NAME)
    tags = tracker.wait_state(run)
    assert "data_manifest/data_manifest.json" in tags["reprod.note"]
    assert "data_manifest/data_manifest.json" in daemon.wait_event("run.captured", run_id=run)["left_out"]
