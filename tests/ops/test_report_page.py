"""The page that a daemon makes for a run: from real versions, against the run before, and no more than is published."""

import html
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from ops_place import Place

from reprod.core import digest
from reprod.core.drift import DatasetDrift, Drift, DriftedPath
from reprod.core.environment import Environment, Record, encode
from reprod.core.execution import Execution, Subject
from reprod.core.run import PendingRun
from reprod.core.snapshot import BoundDataset, Publish, Snapshot
from reprod.ops import report
from reprod.store import outbox, snapshots, subtree, versions
from reprod.store.connection import Database, open_database, open_readonly

DAY_MS = 86_400_000
SUBJECT = Subject("process", "here", "boot", "handover", 1, 1)


class Recorder:
    """One dataset, and a registry in which runs are recorded as a daemon does."""

    def __init__(self, place: Place, records: Database) -> None:
        self.place, self.records = place, records

    def seal(self) -> int:
        self.place.refresh(watched=False)
        newest = self.place.db.read(versions.newest)
        assert newest is not None
        return newest.seq

    def bound(self, seq: int, *, path: str | None = None, publish: Publish = "full") -> BoundDataset:
        version = self.place.db.read(lambda c: versions.version(c, seq))
        node, files, size = version.digest, version.files, version.size
        if path is not None:
            below = self.place.db.read(lambda c: subtree.subtree(c, seq, path.encode()))
            assert below is not None
            node, files, size = below.node, below.files, below.size
        assert node is not None
        return BoundDataset(
            "data", str(self.place.root), "start", "walk", seq, digest.text(node), files, size, version.sealed_ns,
            version.chain.hex(), ("sha256",), 0.1, path=path, publish=publish,
        )  # fmt: skip

    def record(self, run_id: str, day: int, bound: BoundDataset, python: str) -> Callable[..., bytes]:
        """Record a run as published; return what makes its page."""
        env = Environment(variables={"OMP_NUM_THREADS": python})
        seen = Execution(SUBJECT, day)
        self.records.write(lambda c: snapshots.keep_environment(c, env.digest(), encode(env), day))
        snapshot = Snapshot(time.time_ns(), "here", (bound,), env.digest(), seen, None)
        run = PendingRun(run_id, "1", f"name of {run_id}", "FINISHED", day * DAY_MS, day * DAY_MS + 5000, "data")
        run = replace(run, experiment="vision")

        def write(c: snapshots.Connection) -> int:
            outbox.notice(c, "u", run_id, "data", msgspec.json.encode(run), 1)
            number: int = c.execute("SELECT max(id) FROM delivery").fetchone()[0]
            outbox.published(c, number, msgspec.json.encode(snapshot))
            return number

        number = self.records.write(write)
        row = self.records.read(lambda c: outbox.get(c, number))
        assert row is not None
        known = Record(seen, env)
        return lambda drift=None: report.report_page(snapshot, known, row, run, self.open, self.records, drift)

    def open(self, name: str, seq: int, at_ns: int) -> Database:
        return open_readonly(self.place.db.path)


@pytest.fixture
def recorder(place: Place) -> Iterator[Recorder]:
    """A recorder of a dataset with two versions; the second has a file more, one less and one other."""
    records = open_database(place.state / "registry.sqlite", "registry")
    place.write("train/a.jpg", "aaaa")
    place.write("train/gone.jpg", "gone")
    place.write("labels.csv", "x")
    found = Recorder(place, records)
    assert found.seal() == 1
    place.write("train/new.jpg", "new")
    place.write("labels.csv", "other")
    Path(place.root / "train/gone.jpg").unlink()
    assert found.seal() == 2
    yield found
    records.close()


def shown(page: bytes) -> str:
    """Return the words of a page, blanks folded."""
    body = page.decode().split("<body>")[1]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def test_a_page_tells_what_changed_since_the_newest_run_that_began_before(recorder: Recorder) -> None:
    """The page compares data and environment with the newest earlier run, whatever was recorded in what order."""
    recorder.record("old", 1, recorder.bound(2), "8")
    recorder.record("later", 9, recorder.bound(2), "8")
    recorder.record("before", 4, recorder.bound(1), "1")
    recorder.record("older", 2, recorder.bound(2), "8")
    page = recorder.record("this", 5, recorder.bound(2), "2")
    words = shown(page())

    assert "The run before: name of before ( before )" in words
    assert "1 added 1 removed 1 modified" in words
    assert re.search(r"added train/new\.jpg .* removed train/gone\.jpg .* modified labels\.csv 1 B → 5 B", words)
    assert "numeric variables.OMP_NUM_THREADS 1 2" in words
    assert "3 files differ" in words
    assert "Experiment vision" in words
    assert "Selection everything below the path" in words
    assert page() == page()


def test_a_page_says_what_was_included_and_excluded(recorder: Recorder) -> None:
    """In the words of the configuration, as the version of the run has it and not as it is now."""
    place = recorder.place
    place.config = replace(place.config, include=("*.jpg", "*.csv"), exclude=("*.tmp",))
    place.write(".reprodignore", "/raw\n*.bak\n")
    seq = recorder.seal()
    page = recorder.record("this", 2, recorder.bound(seq), "1")
    place.config = replace(place.config, exclude=())
    recorder.seal()

    assert "Selection include: *.jpg *.csv · exclude: *.tmp · .reprodignore: /raw *.bak" in shown(page())


def test_the_first_run_and_one_on_the_same_data_are_said_to_be_that(recorder: Recorder) -> None:
    """Without an earlier run nothing is compared; of a run on the same version equal digests say it all."""
    first = recorder.record("first", 1, recorder.bound(2), "1")
    second = recorder.record("second", 2, recorder.bound(2), "1")

    assert "First run" in shown(first())
    assert "The same data" in shown(second())
    assert "equal digests" in shown(second())


@pytest.mark.parametrize("publish", ["summary", "digest"])
def test_a_page_names_nothing_that_is_not_published(recorder: Recorder, publish: Publish) -> None:
    """With ``summary`` the page has totals but no name of a file, type or folder; with ``digest`` no totals either."""
    recorder.record("before", 1, recorder.bound(1), "1")
    page = recorder.record("this", 2, recorder.bound(2, publish=publish), "1")
    paths = (DriftedPath("train/new.jpg", "modified", 5, 3),)
    drift = Drift("this", 1, 2, 3, (DatasetDrift("data", "changed", "reason", 2, 3, {"modified": 1}, paths),))
    words = shown(page(drift))

    assert recorder.bound(2).digest in words
    assert [name for name in ("new.jpg", ".jpg", "labels", "csv", "train/", " train ") if name in words] == []
    assert "Changed meanwhile" in words
    assert ("Selection" in words) == (publish == "summary")
    assert ("3 files, 12 B" in words) == (publish == "summary")
    assert (str(recorder.place.root) in words) == (publish == "summary")
    assert ("1 added" in words) == (publish == "summary")
    gone = DatasetDrift("data", "unknown", "names may have come and gone in a directory", 2, 3, place="train/")
    words = shown(page(replace(drift, datasets=(gone,))))
    assert ("come and gone in a directory" in words, "train/" in words) == (publish == "summary", False)
    unread = replace(recorder.bound(2, publish=publish), digest=None, error=f"{recorder.place.root}/train/a is damaged")
    words = shown(recorder.record("unread", 3, unread, "1")())
    assert ("<dataset data>/" in words, "train/" in words) == (True, False)


def test_a_subdirectory_is_drawn_and_compared_by_itself(recorder: Recorder) -> None:
    """A run on NAME/SUB is compared with the run before on that very subdirectory, and shows what is below it only."""
    recorder.record("whole", 3, recorder.bound(1), "1")
    recorder.record("before", 2, recorder.bound(1, path="train"), "1")
    page = recorder.record("this", 4, recorder.bound(2, path="train"), "1")
    words = shown(page())

    assert "data/train @2" in words
    assert "The run before: name of before" in words
    assert "1 added 1 removed" in words
    assert "labels.csv" not in words
    assert "added new.jpg" in words


def test_what_is_too_large_is_said_and_not_drawn(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bounds neither entries nor changes are read one by one; the page says how many they are."""
    recorder.record("before", 1, recorder.bound(1), "1")
    page = recorder.record("this", 2, recorder.bound(2), "1")
    monkeypatch.setattr(report, "MOST_PROFILED", 2)
    monkeypatch.setattr(report, "MOST_COMPARED", 2)
    words = shown(page())

    assert "Not drawn: 3 files are more than 2." in words
    assert "3 changes lie between" in words
    assert "Other data" in words


def test_versions_that_are_gone_are_no_reason_to_have_no_page(recorder: Recorder) -> None:
    """A pruned version of the run before, or a dataset file that cannot be opened, is said where it would be used."""
    recorder.record("before", 1, recorder.bound(1), "1")
    page = recorder.record("this", 2, recorder.bound(2), "1")
    recorder.place.db.write(lambda c: c.execute("UPDATE version SET pruned = 1 WHERE seq = 1"))

    assert "cannot be told any more: version 1 was pruned" in shown(page())


def test_a_page_that_cannot_be_made_does_not_keep_back_a_run(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the making of a page gives a page that names it, not an error in the delivery."""
    page = recorder.record("this", 2, recorder.bound(2), "1")

    def fail(*_args: object) -> bytes:
        raise KeyError("<unexpected>")

    monkeypatch.setattr(report, "page_of", fail)
    words = shown(page())

    assert "This page could not be made" in words
    assert "KeyError: '<unexpected>'" in words
