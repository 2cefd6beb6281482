"""Data that is large, or not this host's alone: what a run waits for, who answers for it, and what is told at once."""

import dataclasses
import json
import os
import signal
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from harness import Daemon, Place, Tracker, dt1, eventually, let_slack_pass, make_data, running_daemon

from reprod.capture.process.identity import current_context

pytestmark = pytest.mark.mlflow

SPACING_S = 3


def walks(daemon: Daemon) -> list[str]:
    """Return when each full walk was done, as the log has it."""
    return [event["timestamp"] for event in daemon.events("dataset.refreshed") if event["full"]]


def another_host() -> str:
    """Return the context of a process of a machine that the daemon has never been on."""
    context = dataclasses.replace(current_context(), host="node7", boot_id="11111111-2222-3333-4444-555555555555")
    return context.to_json()


def test_events_alone_bind_a_run(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """With barrier = "events" a run is bound to what the watch told of, without a walk, and says so; what was written
    a moment before it started is in its version."""
    with running_daemon(tmp_path / "d", tracker.uri) as daemon:
        daemon.place.register(name, data, barrier="events")
        daemon.call("reload")
        daemon.sealed(name, 1)
        eventually(lambda: len(walks(daemon)) >= 1, 10, daemon.tail)
        before = walks(daemon)
        for number in range(3):
            (data / "late.csv").write_text(f"{number}\n")
            let_slack_pass()
            truth = dt1(data)
            tags = tracker.wait_state(tracker.finished_run(name))
            assert tags["reprod.digest"] == truth
            assert tags["reprod.assurance"] == "events"
        quiet = tracker.wait_state(tracker.finished_run(name))
        assert (quiet["reprod.digest"], quiet["reprod.assurance"]) == (dt1(data), "events")
        assert walks(daemon) == before


def test_events_fall_back_to_a_walk(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """Where nothing is watched, barrier = "events" is a walk."""
    with running_daemon(tmp_path / "d", tracker.uri, watch={"backend": "poll"}) as daemon:
        daemon.place.register(name, data, barrier="events")
        daemon.call("reload")
        daemon.sealed(name, 1)
        let_slack_pass()
        tags = tracker.wait_state(tracker.finished_run(name))
        assert (tags["reprod.digest"], tags["reprod.assurance"]) == (dt1(data), "walk")


def test_runs_wait_for_one_walk(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """With walk_at_most_every the runs of some seconds share one walk, which begins no earlier; a person who asks is
    served at once, and the runs with them."""
    with running_daemon(tmp_path / "d", tracker.uri) as daemon:
        daemon.place.register(name, data, walk_at_most_every=SPACING_S)
        daemon.call("reload")
        daemon.sealed(name, 1)
        let_slack_pass()
        first = len(walks(daemon))
        os.kill(daemon.pid, signal.SIGSTOP)  # so that it finds them together, however long it takes to make them
        try:
            runs = [tracker.finished_run(name) for _ in range(3)]
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        for run_id in runs:
            assert tracker.wait_state(run_id)["reprod.digest"] == dt1(data)
        eventually(lambda: len(daemon.events("run.captured")) == 3, 10, daemon.tail)
        begun = [datetime.fromisoformat(moment).timestamp() for moment in walks(daemon)]
        # A poll that was under way may have found some of them before.
        assert first < len(begun) <= first + 2
        # The spacing is between beginnings, the log tells ends: one walk may take longer than the next.
        assert all(later - earlier > SPACING_S / 2 for earlier, later in pairwise(begun[first - 1 :]))
        daemon.place.register(name, data, walk_at_most_every=600)
        daemon.call("reload")
        eventually(lambda: len(walks(daemon)) > len(begun), 10, daemon.tail)
        let_slack_pass()
        waiting = tracker.finished_run(name)
        eventually(lambda: daemon.status()["runs"]["waiting"] == 1, 10, daemon.tail)
        let_slack_pass()
        daemon.call("scan", name=name)
        assert tracker.wait_state(waiting)["reprod.state"] == "captured"


def test_runs_of_other_hosts(tmp_path: Path, data: Path, name: str, tracker: Tracker) -> None:
    """A dataset of this host alone is not what a run of another host used: that run is left alone, and `status` says
    so; with scope = "shared" it is recorded."""
    with running_daemon(tmp_path / "d", tracker.uri, {name: data}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        run_id = tracker.finished_run(name, context=another_host())
        ours = tracker.finished_run(name, context=current_context().to_json())
        tracker.wait_state(ours)

        def told() -> list[dict[str, str]]:
            return [need for need in daemon.status()["attention"] if "1 run of other hosts" in need["what"]]

        found = eventually(told, 10, daemon.tail)
        assert 'scope = "shared"' in found[0]["hint"]
        assert set(tracker.ours(run_id)) == {"reprod.dataset", "reprod.context"}
        daemon.place.register(name, data, scope="shared")
        daemon.call("reload")
        assert tracker.wait_state(run_id)["reprod.digest"] == dt1(data)
        eventually(lambda: not told(), 10, "nothing is said any more")


@pytest.mark.parametrize("backend", ["auto", "poll"])
def test_what_add_tells(tmp_path: Path, data: Path, name: str, backend: str) -> None:
    """`reprod dataset add` returns at once with how many files there are, and whether and why not they are watched."""
    with running_daemon(tmp_path / "d", watch={"backend": backend}) as daemon:
        done = daemon.place.cli("dataset", "add", name, str(data))
        assert done.returncode == 0, done.stderr
        assert "found" in done.stdout
        assert "7 files" in done.stdout or "6 files" in done.stdout
        watched = "watched by inotify" if backend == "auto" else "polled, not watched: configured: watch.backend = poll"
        assert watched in done.stdout


def test_what_add_tells_without_a_daemon(tmp_path: Path, name: str) -> None:
    """Without a daemon the command counts by itself, and says who will scan."""
    data = make_data(tmp_path / "data")
    place = Place(tmp_path / "d")
    done = place.cli("dataset", "add", name, str(data))
    assert done.returncode == 0, done.stderr
    assert "7 files" in done.stdout
    assert "no daemon is running" in done.stdout
    assert json.loads(place.cli("dataset", "list", "--json").stdout)["datasets"][0]["name"] == name
