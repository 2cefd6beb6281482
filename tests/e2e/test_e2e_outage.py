"""The tracking server hung or gone: everything waits in the outbox, and nothing else in the daemon notices.

Time is scaled down: MLflow's own time-out is 1 s instead of 10 (as a user may set it), and the outages last seconds,
not the minute that they may last in life; what is measured is that nothing depends on their length.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import (
    STOPPED_S,
    Daemon,
    Tracker,
    dt1,
    eventually,
    is_running,
    let_events_tell_apart,
    let_slack_pass,
    running_daemon,
)
from mlflow_proxy import Proxy

pytestmark = pytest.mark.mlflow


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """Yield a proxy to the real server."""
    proxy = Proxy(mlflow_server)
    yield proxy
    proxy.flow()
    proxy.go_away()


@pytest.fixture
def daemon(tmp_path: Path, proxy: Proxy, data: Path, name: str) -> Iterator[Daemon]:
    """Yield a daemon that reaches the server through the proxy, with one dataset."""
    impatient = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}
    with running_daemon(tmp_path / "d", proxy.url, {name: data}, environ=impatient) as running:
        running.sealed(name, 1)
        let_slack_pass()
        yield running


def answers_many_times(daemon: Daemon, times: int) -> bool:
    """Ask for the status again and again; an answer that does not come raises."""
    return all(daemon.status() for _ in range(times))


def test_a_hung_server_delays_only_deliveries(
    daemon: Daemon, proxy: Proxy, tracker: Tracker, data: Path, name: str
) -> None:
    """A run whose delivery hangs and a run that is tagged meanwhile wait; status answers, a file
    change is sealed, the state is said; when the server answers again, both are captured, each once."""
    first = dt1(data)
    proxy.cut_at(0, "before", proxy.hang)
    before = tracker.finished_run(name)
    eventually(proxy.was_cut.is_set, 15, "the delivery hangs")
    during = tracker.finished_run(name)
    assert answers_many_times(daemon, 100)
    eventually(lambda: daemon.status()["tracking"]["state"] == "unreachable", 15, "the outage is noticed")
    status = daemon.status()
    assert status["runs"]["waiting"] in {1, 2}  # the second, where a poll was under way when the server began to hang
    assert any("does not answer" in need["what"] for need in status["attention"])
    let_events_tell_apart()
    (data / "part-0.csv").write_text("changed during the outage")
    daemon.sealed(name, 2)
    assert answers_many_times(daemon, 100)
    proxy.flow()
    assert tracker.wait_state(before)["reprod.digest"] == first
    assert tracker.wait_state(during)["reprod.digest"] == first
    assert daemon.wait_event("tracking.recovered")
    eventually(lambda: daemon.status()["attention"] == [], 10, "nothing needs attention any more")
    assert tracker.history(before, "data_files_count") == [6]


def test_runs_wait_while_the_server_is_gone(
    daemon: Daemon, proxy: Proxy, tracker: Tracker, data: Path, name: str
) -> None:
    """Runs that were noticed when the server went away, and one that is tagged later, are captured when it is back;
    while it is away one row at a time tries it, not the whole outbox."""
    proxy.cut_at(0, "before", proxy.go_away)
    noticed = [tracker.start_run(name) for _ in range(10)]
    eventually(proxy.was_cut.is_set, 15, "the server goes away")
    eventually(lambda: daemon.status()["tracking"]["state"] == "unreachable", 15, "the outage is noticed")
    late = tracker.finished_run(name)
    assert answers_many_times(daemon, 50)
    waiting = daemon.status()["runs"]["waiting"]
    assert waiting >= 1
    assert len(daemon.events("delivery.postponed")) < len(noticed)
    proxy.listen()
    for run_id in [*noticed, late]:
        assert tracker.wait_state(run_id)["reprod.digest"] == dt1(data)
    eventually(lambda: len(daemon.events("run.captured")) >= 11, 10, "all deliveries are logged")
    assert sorted(event["run_id"] for event in daemon.events("run.captured")) == sorted([*noticed, late])


def test_a_run_that_was_deleted_meanwhile_is_forgotten(
    daemon: Daemon, proxy: Proxy, tracker: Tracker, name: str
) -> None:
    """A run that is deleted while its delivery waits is owed nothing: it is not written to, and nothing waits."""
    proxy.cut_at(0, "before", proxy.go_away)
    run_id = tracker.finished_run(name)
    eventually(proxy.was_cut.is_set, 15, "the server goes away")
    tracker.client.delete_run(run_id)
    proxy.listen()
    daemon.wait_event("run.deleted", 30, run_id=run_id)
    eventually(lambda: daemon.status()["runs"]["waiting"] == 0, 10, "nothing waits")
    assert tracker.ours(run_id) == {"reprod.dataset": name}


def test_an_unreachable_server_at_the_start_is_a_state(
    tmp_path: Path, proxy: Proxy, tracker: Tracker, data: Path, name: str
) -> None:
    """A daemon that starts before its tracking server watches and says so, and captures when the server comes."""
    proxy.go_away()
    with running_daemon(tmp_path / "d", proxy.url, {name: data}) as daemon:
        daemon.sealed(name, 1)
        eventually(lambda: daemon.status()["tracking"]["state"] == "unreachable", 15, "it is said")
        let_slack_pass()
        run_id = tracker.finished_run(name)
        proxy.listen()
        assert tracker.wait_state(run_id)["reprod.digest"] == dt1(data)


@pytest.mark.parametrize("during", ["poll", "delivery"])
def test_sigterm_during_a_hang_ends_it_at_once(
    tmp_path: Path, proxy: Proxy, tracker: Tracker, data: Path, name: str, during: str
) -> None:
    """SIGTERM while the MLflow child hangs in a request, whose time-out is longer than that may take, ends the daemon
    with 0, and leaves no process."""
    patient = {"MLFLOW_HTTP_REQUEST_TIMEOUT": f"{2 * STOPPED_S:.0f}"}
    with running_daemon(tmp_path / "d", proxy.url, {name: data}, environ=patient) as daemon:
        eventually(lambda: daemon.status()["tracking"]["state"] == "reachable", 15, "it polls")
        if during == "poll":
            proxy.hang()
            eventually(lambda: proxy.held, 10, "a poll hangs")
        else:
            proxy.cut_at(0, "before", proxy.hang)
            tracker.finished_run(name)
            eventually(proxy.was_cut.is_set, 15, "the delivery hangs")
        children = daemon.children()
        assert children
        code, seconds = daemon.terminate()
        assert code == 0, daemon.tail()
        assert seconds < STOPPED_S
        eventually(lambda: not [pid for pid in children if is_running(pid)], 10, "no process is left")
        assert daemon.events("daemon.stopped")


def test_without_a_server_history_is_kept_and_it_is_said(tmp_path: Path, data: Path, name: str) -> None:
    """With no tracking server configured the daemon watches and seals, and status says that runs are not noticed."""
    with running_daemon(tmp_path / "d", "", {name: data}) as daemon:
        daemon.sealed(name, 1)
        (data / "part-0.csv").write_text("changed")
        assert daemon.sealed(name, 2)["digest"] == dt1(data)
        assert any("no tracking server" in need["what"] for need in daemon.status()["attention"])
        assert daemon.place.cli("status", "--check").returncode == 1
