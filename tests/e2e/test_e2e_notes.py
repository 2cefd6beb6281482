"""What a run is told while it waits, and what happens to a name that nobody answers for."""

import os
import time
from pathlib import Path

import pytest
from harness import Tracker, dt1, eventually, let_slack_pass, make_data, running_daemon

from reprod.core.manifest import rfc3339

pytestmark = pytest.mark.mlflow


def soon(unanswered_after_s: float = 1.0) -> str:
    """Return a program: the real daemon, whose notes take seconds instead of minutes.

    Of two daemons the second waits longer by as much as the spread makes likely: whether two that draw the same second
    both write is for the server to say, which knows no exchange of a tag that compares it.
    """
    return f"""
import sys
from reprod.daemon import notes
notes.ROUND_S, notes.WORKING_AFTER_S, notes.AGAIN_S = 0.2, 0.5, 0.3
notes.UNANSWERED_AFTER_S, notes.SPREAD_S = {unanswered_after_s}, 0
from reprod.__main__ import main
sys.exit(main(["daemon"]))
"""


def test_a_long_first_scan_is_noted_on_the_run(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """While a first scan takes long its run says how far it is; once recorded, it says so no more."""
    for number in range(20):
        (data / f"large-{number}").write_bytes(os.urandom(1 << 20))
    slow = {"read_mb_per_second": 2}
    with running_daemon(tmp_path / "d", tracker.uri, program=("-c", soon()), scan=slow) as daemon:
        eventually(lambda: daemon.status()["tracking"]["state"] == "reachable", 20, daemon.tail)
        daemon.place.register(name, data)
        daemon.call("reload")
        eventually(lambda: daemon.status()["datasets"][0]["state"] == "scanning", 20, daemon.tail)
        # The root has been seen by now: what else is made in the folders above it no longer matters.
        let_slack_pass()
        run_id = tracker.finished_run(name)
        notes: set[str] = set()

        def noted() -> bool:
            notes.add(tracker.ours(run_id).get("reprod.note", ""))
            return any(f"first scan of {name}" in note for note in notes)

        eventually(noted, 20, lambda: f"a note; seen {notes}; {daemon.tail()}")
        assert "reprod.state" not in tracker.ours(run_id)
        tags = tracker.wait_state(run_id)
        assert tags["reprod.digest"] == dt1(data)
        assert "reprod.note" not in tags


def test_a_name_that_nobody_knows_is_noted_once(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """A misspelt name gets one note from one of two daemons, with what may be meant, and no other tag; put right, the
    run is recorded and the note goes."""
    other = make_data(tmp_path / "other")
    with (
        running_daemon(tmp_path / "d", tracker.uri, {name: data}, program=("-c", soon())) as daemon,
        running_daemon(tmp_path / "e", tracker.uri, {"elsewhere": other}, program=("-c", soon(6.0))) as second,
    ):
        daemon.sealed(name, 1)
        second.sealed("elsewhere", 1)
        let_slack_pass()
        run_id = tracker.finished_run(f"{name}x")
        eventually(lambda: "reprod.note" in tracker.ours(run_id), 20, daemon.tail)
        tags = tracker.ours(run_id)
        assert set(tags) == {"reprod.dataset", "reprod.note"}
        assert tags["reprod.note"].startswith(f"no daemon knows '{name}x'; ")
        ends = tracker.finished_run("nothing-like-it")
        eventually(lambda: "reprod.note" in tracker.ours(ends), 20, second.tail)
        assert "reprod dataset add nothing-like-it PATH" in tracker.ours(ends)["reprod.note"]
        due = rfc3339(time.time_ns() + 8_000_000_000)  # by then the second, left alone, would have written both
        eventually(lambda: (second.status()["tracking"]["last_poll_at"] or "") > due, 20, second.tail)
        written = [e for d in (daemon, second) for e in d.events("run.noted") if e["run_id"] == run_id]
        assert len(written) == 1
        tracker.tag(run_id, name)
        tags = tracker.wait_state(run_id)
        assert tags["reprod.digest"] == dt1(data)
        assert "reprod.note" not in tags


def test_what_may_be_meant(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """The daemon that knows a name like it says so; of what can be no name that is said, and nothing in it acts."""
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}, program=("-c", soon())) as daemon:
        daemon.sealed(name, 1)
        run_id = tracker.finished_run(f"{name}x")
        eventually(lambda: "reprod.note" in tracker.ours(run_id), 20, daemon.tail)
        assert tracker.ours(run_id)["reprod.note"] == f"no daemon knows '{name}x'; did you mean {name}"
        for tag, said in (
            (f"{name}x/a/folder", f"no daemon knows '{name}x/a/folder'; did you mean {name}"),
            ("we\x1b[31mird", r"no daemon knows 'we\x1b[31mird'; a dataset's name is of A-Z a-z 0-9 . _ -"),
        ):
            run_id = tracker.finished_run(tag)
            eventually(lambda run_id=run_id: "reprod.note" in tracker.ours(run_id), 20, daemon.tail)
            assert tracker.ours(run_id)["reprod.note"] == said


def test_a_run_that_waits_for_the_next_walk_says_so(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """With walk_at_most_every a run says for how long it may still have to wait."""
    with running_daemon(tmp_path / "d", tracker.uri, program=("-c", soon())) as daemon:
        daemon.place.register(name, data, walk_at_most_every=60)
        daemon.call("reload")
        daemon.sealed(name, 1)
        let_slack_pass()
        run_id = tracker.finished_run(name)
        eventually(lambda: "reprod.note" in tracker.ours(run_id), 20, daemon.tail)
        assert f"waiting for the next walk of {name}, which may begin in" in tracker.ours(run_id)["reprod.note"]
        daemon.call("scan", name=name)
        assert "reprod.note" not in tracker.wait_state(run_id)
