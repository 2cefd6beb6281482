"""What the history says of the time of one run, with real files: each way in which data changes, or only seems to."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ops_place import Place
from waiting import eventually

from reprod.core.drift import DatasetDrift
from reprod.core.snapshot import BoundDataset
from reprod.ops.drift import Lifetime, dataset_drift
from reprod.store import touches

SLACK_NS = 20_000_000


def pass_slack() -> None:
    """Let so much time pass that what happened and what comes now can be told apart."""
    until = time.monotonic() + 0.05
    eventually(lambda: time.monotonic() > until, 10, "time passes")


@dataclass
class Run:
    """A run on a real dataset, started when this is made."""

    place: Place
    path: str | None = None

    def __post_init__(self) -> None:
        for name in ("a.csv", "b.csv", "sub/c.csv", "sub2/d.csv"):
            self.place.write(name, name)
        pass_slack()
        seq = self.place.refresh().version.seq
        pass_slack()
        self.start_ns = time.time_ns()
        self.bound = BoundDataset(
            "data", str(self.place.root), "start", "walk", seq, "dt1:0", 4, 1, 1, "", (), 0.0, path=self.path
        )
        pass_slack()
        self.place.refresh()

    def end(self, **refresh: object) -> DatasetDrift:
        """End the run, walk, and return its drift."""
        pass_slack()
        end_ns = time.time_ns()
        pass_slack()
        self.place.refresh(**refresh)  # type: ignore[arg-type]
        return self.drift(end_ns)

    def drift(self, end_ns: int) -> DatasetDrift:
        life = Lifetime(self.start_ns, end_ns, self.start_ns, time.time_ns(), SLACK_NS)
        return dataset_drift(self.place.db, self.bound, life).drift


def told(drift: DatasetDrift) -> dict[str, str]:
    return {each.path: each.what for each in drift.paths}


def grow_a_new_name(place: Place) -> None:
    place.write("new.csv", "1")
    place.refresh()
    place.write("new.csv", "12")


def come_and_go(place: Place) -> None:
    grow_a_new_name(place)
    place.refresh()
    (place.root / "new.csv").unlink()


def there_and_back(place: Place) -> None:
    place.write("a.csv", "B")
    place.refresh()
    place.write("a.csv", "a.csv")


def away_and_back(place: Place) -> None:
    (place.root / "a.csv").unlink()
    place.refresh()
    place.write("a.csv", "a.csv")


def touch_unseen(place: Place) -> None:
    place.write("a.csv", "B")
    place.write("a.csv", "a.csv")


def move_in(place: Place) -> None:
    """An old file, whose own times say nothing, in place of another."""
    old = place.base / "old"
    old.write_text("old")
    os.utime(old, (1, 1))
    old.rename(place.root / "b.csv")


def swap_directory(place: Place) -> None:
    (place.root / "sub").rename(place.base / "kept")
    (place.root / "sub").mkdir()
    (place.root / "sub").rmdir()
    (place.base / "kept").rename(place.root / "sub")


def leave_no_name(place: Place) -> None:
    place.write("sub/new.csv", "new").unlink()


HAPPENINGS: list[tuple[Callable[[Place], object], str, dict[str, str]]] = [
    (lambda place: None, "none", {}),
    (lambda place: os.chmod(place.root / "sub", 0o700), "none", {}),
    (lambda place: place.write("deep/er/new.csv", "new"), "appended", {"deep/er/new.csv": "added"}),
    (grow_a_new_name, "appended", {"new.csv": "added"}),
    (come_and_go, "appended", {"new.csv": "added"}),
    (there_and_back, "changed", {"a.csv": "modified"}),
    (away_and_back, "changed", {"a.csv": "modified"}),
    (touch_unseen, "changed", {"a.csv": "touched"}),
    (lambda place: os.chmod(place.root / "a.csv", 0o600), "changed", {"a.csv": "touched"}),
    (move_in, "changed", {"b.csv": "modified"}),
    (lambda place: place.write("sub/c.csv", "sub/c.csv and more"), "changed", {"sub/c.csv": "modified"}),
    (lambda place: (place.root / "a.csv").rename(place.root / "z"), "changed", {"a.csv": "removed", "z": "added"}),
    (swap_directory, "unknown", {}),
    (leave_no_name, "unknown", {}),
]


@pytest.mark.parametrize(("happen", "verdict", "paths"), HAPPENINGS)
def test_what_happens_is_what_is_said(
    place: Place, happen: Callable[[Place], object], verdict: str, paths: dict[str, str]
) -> None:
    """Each way in which data changes has its verdict and its paths; what leaves no proof is unknown."""
    run = Run(place)
    happen(place)
    drift = run.end(watched=False)
    assert (drift.verdict, told(drift)) == (verdict, paths), drift
    assert drift.counts == {what: list(paths.values()).count(what) for what in paths.values()}
    assert (drift.place in {"sub/", "its root"}, "sub" in drift.reason) == (verdict == "unknown", False)


@pytest.mark.parametrize(
    ("name", "verdict"), [("a.csv", "none"), ("sub2/d.csv", "none"), ("sub/c.csv", "changed"), ("sub/n", "appended")]
)
def test_only_what_is_below_the_named_subdirectory_counts(place: Place, name: str, verdict: str) -> None:
    """A run that named a subdirectory does not drift with the rest of the dataset."""
    run = Run(place, path="sub")
    place.write(name, "new")
    drift = run.end()
    assert (drift.verdict, drift.name) == (verdict, "data/sub")
    assert list(told(drift)) == ([] if verdict == "none" else [name.removeprefix("sub/")])


def test_what_comes_after_the_end_is_not_of_the_run(place: Place) -> None:
    """A change that was hinted at, and whose ctime lies, after the end; one within the slack of the end is nobody's."""
    run = Run(place)
    pass_slack()
    end_ns = time.time_ns()
    assert run.drift(end_ns).reason == "the data was not walked since the run ended"
    pass_slack()
    place.write("a.csv", "later")
    place.watch.hint(b"a.csv")
    changed_ns = time.time_ns()
    pass_slack()
    place.refresh()
    assert run.drift(end_ns).verdict == "none"
    assert "around the end" in run.drift(changed_ns).reason


def test_what_is_not_kept_is_unknown(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """More touches than are kept, marks of an older format, another selection, pruned versions: never a guess."""
    monkeypatch.setattr(touches, "MOST_OF_A_MARK", 2)
    run = Run(place)
    new = [place.write(f"new/{i}", "new") for i in range(4)]
    place.refresh()
    for path in new:
        os.utime(path)
    many = run.end()
    assert (many.verdict, many.counts) == ("unknown", {"added": 4})
    assert "more was touched" in many.reason
    os.utime(place.root / "a.csv")
    os.utime(place.root / "b.csv")
    assert run.end().verdict == "changed"
    place.db.write(lambda c: c.execute("DELETE FROM trace"))
    assert "not kept" in run.end().reason
    place.db.write(lambda c: c.execute("INSERT INTO trace (mark) VALUES (0)"))
    place.db.write(lambda c: c.execute("UPDATE version SET pruned = 1, modified = 1 WHERE seq = 2"))
    assert "pruned" in run.end().reason


def test_another_selection_is_no_change_of_the_data(place: Place) -> None:
    """What belongs to the dataset was redefined: that cannot be told as drift."""
    run = Run(place)
    drift = run.end(config=replace(place.config, exclude=("b.csv",)))
    assert drift.verdict == "unknown"
    assert "what belongs to the dataset" in drift.reason


def test_old_touches_are_forgotten_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a busy dataset stay bounded, and a mark that lost some is known to have."""
    monkeypatch.setattr(touches, "MOST_OF_ALL", 3)
    run = Run(place)
    os.utime(place.root / "a.csv")
    place.refresh()
    for i in range(5):
        pass_slack()
        os.utime(place.write("new.csv", "new"), (i, i))
        place.refresh()
    assert place.db.read(lambda c: c.execute("SELECT count(*) FROM touched").fetchone()[0]) <= 3
    drift = run.end()
    assert (drift.verdict, told(drift)) == ("unknown", {"new.csv": "added"})
    assert "not kept" in drift.reason


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.close()
