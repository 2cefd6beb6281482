"""``reprod runs`` and ``reprod retry`` with a real daemon and a real tracking server; and who may ask for what."""

import json
import time
from pathlib import Path
from typing import Any

from harness import Daemon, Tracker, eventually, let_slack_pass, running_daemon

from reprod.store import files, outbox

DAY_MS = 86_400_000


def told(daemon: Daemon, *argv: str) -> dict[str, Any]:
    done = daemon.place.cli(*argv, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_every_run_is_told_and_one_beyond_proof_is_tried_once(
    tmp_path: Path, tracker: Tracker, name: str, data: Path
) -> None:
    """A captured run needs nothing; one that is beyond proof is judged again, once."""
    with running_daemon(tmp_path / "place", tracker.uri, {name: data}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        good = tracker.finished_run(name)
        tracker.wait_state(good)
        tags = {"reprod.dataset": name}
        start_ms = int(time.time() * 1000) - 3 * DAY_MS
        late = tracker.client.create_run(tracker.experiment, start_time=start_ms, tags=tags).info.run_id
        tracker.client.set_terminated(late)
        tracker.wait_state(late, "incomplete")

        daemon.wait_event("run.captured", run_id=late)  # the run has its state a moment before the outbox knows
        listed = {row["run_id"]: row for row in told(daemon, "runs")["runs"]}
        assert listed[good]["state"] == "captured"
        assert (listed[late]["state"], listed[late]["next_try_at"]) == ("incomplete", None)
        assert "not provable" in listed[late]["error"]
        assert told(daemon, "runs", "--waiting")["runs"] == []
        assert [row["run_id"] for row in told(daemon, "runs", "--incomplete")["runs"]] == [late]

        assert told(daemon, "retry", f"run:{good[:12]}")["due"] is False
        answer = told(daemon, "retry", f"run:{late[:12]}")
        assert (answer["run_id"], answer["due"], answer["state"]) == (late, True, "incomplete")

        def judged() -> bool:
            row = told(daemon, "runs", "--incomplete")["runs"][0]
            return row["next_try_at"] is None

        eventually(judged, 20, "it is judged again, and not put down for another time")
        assert tracker.ours(late)["reprod.state"] == "incomplete"
        assert daemon.place.cli("retry", "run:00000000").returncode == 4
    done = daemon.place.cli("runs")
    assert done.returncode == 0
    assert late[:8] in done.stdout
    assert daemon.place.cli("retry", "run:00000000").returncode == 3


def test_a_run_that_waits_for_a_server_is_told_and_delivered_on_demand(
    tmp_path: Path, tracker: Tracker, name: str, data: Path
) -> None:
    """A row that was put off for minutes is due at once when somebody asks."""
    with running_daemon(tmp_path / "place", tracker.uri, {name: data}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        run = tracker.finished_run(name)
        tracker.wait_state(run)
        daemon.terminate()
        records = files.open_registry(daemon.place.state).db
        row = records.read(lambda c: outbox.find(c, run))[0]
        records.write(lambda c: outbox.failed(c, row.id, "the server refuses it", time.time_ns()))
        records.close()
        tracker.client.set_tag(run, "reprod.state", "failed")
        daemon.start()
        failed = told(daemon, "runs", "--failed")["runs"][0]
        assert (failed["run_id"], failed["error"]) == (run, "the server refuses it")
        assert told(daemon, "retry", f"run:{run[:8]}")["what"] == "what was recorded is written to the run now"
        tracker.wait_state(run, "captured")
        assert told(daemon, "runs", "--failed")["runs"] == []
