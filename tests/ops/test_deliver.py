"""One delivery to a real run: what is the user's stays, what finds no place is said, and who wants none gets none."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ops_place import Place

from reprod.core import digest
from reprod.core.drift import DatasetDrift, Drift
from reprod.core.run import PendingRun
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.ops.deliver import Delivered, deliver
from reprod.ops.deliver_end import deliver_end
from reprod.sinks.child import MlflowChild
from reprod.sinks.environment import set_client_defaults
from reprod.store import asked, outbox, versions
from reprod.store.connection import open_database, open_readonly

pytestmark = pytest.mark.mlflow

MANIFEST, DRIFT, REPORT = "data_manifest/data_manifest.json", "data_manifest/drift.json", "reprod/report.html"


class Owing:
    """A dataset of one file at version 1, a registry, and runs to which that is owed."""

    def __init__(self, base: Path, uri: str) -> None:
        set_client_defaults(os.environ)
        from mlflow import MlflowClient

        self.base, self.uri, self.client, self.child = base, uri, MlflowClient(uri), MlflowChild(uri)
        self.place = Place(base)
        self.place.write("a.csv", "1")
        self.place.refresh(watched=False)
        self.records = open_database(base / "registry.sqlite", "registry")
        self.scratch = base / "scratch"
        self.scratch.mkdir()
        self.experiment = self.client.create_experiment(f"deliver-{base.name}-{time.time_ns()}")

    def close(self) -> None:
        self.child.close()
        self.records.close()
        self.place.close()

    def start(self, **tags: str) -> str:
        return str(self.client.create_run(self.experiment, tags=tags).info.run_id)

    def owe(self, run_id: str, recorded: str = "data", source: Any = "run") -> outbox.Delivery:
        """Return a row that is to be delivered to a run."""
        version = self.place.db.read(lambda c: versions.version(c, 1))
        assert version.digest is not None
        bound = BoundDataset(
            "data", str(self.place.root), "start", "walk", 1, digest.text(version.digest), version.files,
            version.size, version.sealed_ns, version.chain.hex(), ("sha256",), 0.1,
        )  # fmt: skip
        snapshot = Snapshot(time.time_ns(), "here", (bound,), None, None, "not asked", source=source)
        run = msgspec.json.encode(PendingRun(run_id, self.experiment, "r", "RUNNING", 0, None, recorded))
        self.records.write(lambda c: asked.notice(c, self.uri, run_id, recorded, run, 1))
        row = next(each for each in self.records.read(lambda c: outbox.find(c, run_id)) if each.state == "noticed")
        self.records.write(lambda c: outbox.published(c, row.id, msgspec.json.encode(snapshot)))
        return self.row(row.id)

    def row(self, number: int) -> outbox.Delivery:
        found = self.records.read(lambda c: outbox.get(c, number))
        assert found is not None
        return found

    def send(self, row: outbox.Delivery) -> Delivered | None:
        return deliver(
            self.records,
            row,
            self.child,
            lambda name, seq, at_ns: open_readonly(self.place.db.path),
            self.scratch,
            max_inline_files=10,
        )

    def end(self, row: outbox.Delivery) -> tuple[str, ...]:
        drift = Drift(row.run_id, 0, 1, 1, (DatasetDrift("data", "none", "it held still", 1, 1),), "FINISHED")
        return deliver_end(self.records, self.row(row.id), self.child, self.scratch, drift=drift)

    def tags(self, run_id: str) -> dict[str, str]:
        """Return the tags of ours and of the user's that say what is recorded."""
        tags = self.client.get_run(run_id).data.tags
        return {key: value for key, value in tags.items() if key.startswith("reprod.")}

    def files(self, run_id: str, path: str | None = None) -> set[str]:
        found: set[str] = set()
        for info in self.client.list_artifacts(run_id, path):
            found |= self.files(run_id, info.path) if info.is_dir else {info.path}
        return found

    def log_mine(self, run_id: str, *paths: str) -> None:
        for path in paths:
            self.client.log_text(run_id, f"my {path}", path)

    def require_mine(self, run_id: str, *paths: str) -> None:
        """Fail unless the user's files hold what they did."""
        for path in paths:
            found = self.client.download_artifacts(run_id, path, str(self.base))
            assert Path(found).read_text() == f"my {path}"


@pytest.fixture(scope="module")
def owing(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Owing]:
    made = Owing(tmp_path_factory.mktemp("deliver"), mlflow_server)
    yield made
    made.close()


def test_a_file_and_a_metric_of_the_users_move_ours_below_reprod(owing: Owing) -> None:
    """Where one name is the user's ours goes to the other, at every attempt, and nothing is left out."""
    run = owing.start(**{"reprod.dataset": "data"})
    owing.log_mine(run, MANIFEST, DRIFT)
    owing.client.log_metric(run, "data_files_count", 7)
    row = owing.owe(run)
    for _ in range(2):
        done = owing.send(owing.row(row.id))
        assert done is not None
        assert (done.state, done.left_out) == ("captured", ())
        assert owing.end(row) == ()
    owing.require_mine(run, MANIFEST, DRIFT)
    assert {f"reprod/{MANIFEST}", f"reprod/{DRIFT}", REPORT} <= owing.files(run)
    metrics = owing.client.get_run(run).data.metrics
    assert (metrics["data_files_count"], metrics["reprod.data_files_count"]) == (7, 1)
    assert "reprod.note" not in owing.tags(run)


def test_where_both_names_are_the_users_ours_is_left_out_and_it_is_said(owing: Owing) -> None:
    """The user's manifests, metrics, and drift keep what they held; the tag reprod.note names what is missing, before
    and after the end; all else is on the run."""
    run = owing.start(**{"reprod.dataset": "data"})
    mine = (MANIFEST, f"reprod/{MANIFEST}", DRIFT, f"reprod/{DRIFT}")
    owing.log_mine(run, *mine)
    for key in ("data_files_count", "reprod.data_files_count"):
        owing.client.log_metric(run, key, 7)
    row = owing.owe(run)
    for _ in range(2):
        done = owing.send(owing.row(row.id))
        assert done is not None
        assert (done.state, done.left_out) == ("captured", (MANIFEST, "data_files_count"))
    assert owing.tags(run)["reprod.note"].startswith(f"left out: {MANIFEST}, data_files_count (")
    assert owing.end(row) == (MANIFEST, DRIFT, "data_files_count")
    assert owing.tags(run)["reprod.note"].startswith(f"left out: {MANIFEST}, {DRIFT}, data_files_count (")
    owing.require_mine(run, *mine)
    assert REPORT in owing.files(run)
    metrics = owing.client.get_run(run).data.metrics
    assert [metrics[key] for key in ("data_files_count", "reprod.data_files_count", "data_size_bytes")] == [7, 7, 1]


def test_files_of_the_users_where_a_changed_tag_puts_ours_stay_too(owing: Owing) -> None:
    """What is recorded second goes below reprod/2, beside what the user has there, and so does its drift."""
    run = owing.start(**{"reprod.dataset": "data"})
    assert owing.send(owing.owe(run)) is not None
    owing.client.set_tag(run, "reprod.dataset", "data,other")
    owing.log_mine(run, f"reprod/2/{MANIFEST}", f"reprod/2/{DRIFT}")
    row = owing.owe(run, "data,other")
    assert owing.send(row) is not None
    assert owing.end(row) == ()
    owing.require_mine(run, f"reprod/2/{MANIFEST}", f"reprod/2/{DRIFT}")
    assert {f"reprod/reprod/2/{MANIFEST}", f"reprod/reprod/2/{DRIFT}", "reprod/2/report.html"} <= owing.files(run)


@pytest.mark.parametrize(
    ("source", "tags", "wanted"),
    [
        ("run", {"reprod.dataset": "data"}, True),
        ("run", {}, False),
        ("run", {"reprod.dataset": ""}, False),
        ("run", {"reprod.dataset": "other"}, False),
        ("run", {"reprod.recorded": "data"}, True),
        ("run", {"reprod.dataset": "other", "reprod.recorded": "data"}, False),
        ("experiment", {}, True),
        ("rule", {}, True),
        ("experiment", {"reprod.dataset": "other"}, False),
        ("rule", {"reprod.dataset": ""}, False),
    ],
)
def test_what_a_run_does_not_name_any_more_is_not_written(
    owing: Owing, source: str, tags: dict[str, str], wanted: bool
) -> None:
    """A tag that was changed or taken away before anything was written counts, also where an experiment or a rule had
    named the dataset; what was begun is finished, unless the run names something else."""
    run = owing.start(**tags)
    done = owing.send(owing.owe(run, source=source))
    assert (done is not None) == wanted
    assert owing.tags(run).get("reprod.state") == ("captured" if wanted else None)
    if not wanted:
        assert (owing.tags(run), owing.files(run)) == (tags, set())
