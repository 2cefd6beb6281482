"""Finding tagged runs, against a real server, and against a fake of the one answer that real old servers differ in."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from reprod.core.run import PendingRun
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import SinkError

pytestmark = pytest.mark.mlflow


def tagged_run(client: Any, experiment: str, dataset: str, **tags: str) -> str:
    run = client.create_run(experiment, tags={"reprod.dataset": dataset} | tags)
    return str(run.info.run_id)


def pending_of(child: MlflowChild, experiment: str, page_size: int = 1000) -> list[PendingRun]:
    return [run for run in child.poll(page_size) if run.experiment_id == experiment]


def test_finished_run_of_a_later_experiment_is_found(child: MlflowChild, client: Any, experiment: str) -> None:
    """A run that was finished and tagged before anybody looked, in an experiment made after the child, is found."""
    child.poll()
    later = client.create_experiment(f"later-{experiment}")
    run = client.create_run(later, start_time=1_700_000_000_123, run_name="old one")
    client.set_terminated(run.info.run_id, "FINISHED", end_time=1_700_000_001_456)
    client.set_tag(run.info.run_id, "reprod.dataset", "imagenet")
    client.set_tag(run.info.run_id, "reprod.context", '{"v":1}')
    assert pending_of(child, later) == [
        PendingRun(
            run_id=run.info.run_id,
            experiment_id=later,
            name="old one",
            status="FINISHED",
            start_ms=1_700_000_000_123,
            end_ms=1_700_000_001_456,
            dataset="imagenet",
            context='{"v":1}',
        )
    ]


def test_all_pages_are_collected_each_run_once(child: MlflowChild, client: Any, experiment: str) -> None:
    """45 pending runs through pages of 10 are 45 different runs, oldest first."""
    wanted = [
        str(client.create_run(experiment, start_time=1000 + i, tags={"reprod.dataset": "d"}).info.run_id)
        for i in range(45)
    ]
    assert [run.run_id for run in pending_of(child, experiment, page_size=10)] == wanted


def test_runs_without_a_name_or_with_a_state_are_not_pending(child: MlflowChild, client: Any, experiment: str) -> None:
    """An empty tag, a tag of separators, a run with a state and a deleted run are left out; a good one is not."""
    tagged_run(client, experiment, "")
    tagged_run(client, experiment, " , ")
    tagged_run(client, experiment, "d", **{"reprod.state": "captured"})
    client.delete_run(tagged_run(client, experiment, "d"))
    good = tagged_run(client, experiment, "d")
    assert [run.run_id for run in pending_of(child, experiment)] == [good]


def test_runs_tells_present_from_missing(child: MlflowChild, client: Any, experiment: str) -> None:
    """Status and reprod's tags come for live runs; deleted, unknown and malformed ids are missing, each id once."""
    alive = tagged_run(client, experiment, "d", other="x")
    client.set_terminated(alive, "KILLED")
    deleted = tagged_run(client, experiment, "d")
    client.delete_run(deleted)
    plain = str(client.create_run(experiment).info.run_id)
    now = child.runs([alive, deleted, "0" * 32, "a/b", plain, alive])
    assert [row.run.run_id for row in now.runs] == [alive, plain]
    assert now.runs[0].run.status == "KILLED"
    assert now.runs[0].run.end_ms is not None
    assert now.runs[0].tags == {"reprod.dataset": "d"}
    assert now.runs[1].run.dataset == ""
    assert now.missing == (deleted, "0" * 32, "a/b")
    assert now.denied == ()


class OldServer(BaseHTTPRequestHandler):
    """Answers as MLflow 2.22 and 3.10 do where they matter: 400 to IS NULL on a tag; three tagged runs else."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("experiments/search"):
            return self.reply(200, {"experiments": [{"experiment_id": "1", "name": "e", "lifecycle_stage": "active"}]})
        self.server.filters.append(body["filter"])  # type: ignore[attr-defined]
        if "IS NULL" in body["filter"] or "IS NOT NULL" in body["filter"]:
            answer = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid clause(s) in filter string: 'IS'"}
            return self.reply(400, answer)
        rows = [("a" * 32, {"reprod.dataset": "d"}), ("b" * 32, {"reprod.dataset": "d", "reprod.state": "captured"})]
        rows.append(("c" * 32, {"reprod.dataset": ""}))
        return self.reply(200, {"runs": [self.run(run_id, tags) for run_id, tags in rows]})

    do_GET = do_POST  # noqa: N815 - http.server's name

    def run(self, run_id: str, tags: dict[str, str]) -> dict[str, Any]:
        info = {"run_id": run_id, "run_uuid": run_id, "experiment_id": "1", "status": "RUNNING", "start_time": 5}
        info |= {"lifecycle_stage": "active", "artifact_uri": "x", "user_id": "u"}
        return {"info": info, "data": {"tags": [{"key": key, "value": value} for key, value in tags.items()]}}

    def reply(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def old_server() -> Iterator[tuple[str, list[str]]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), OldServer) as server:
        server.filters = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", server.filters  # type: ignore[attr-defined]
        server.shutdown()
        thread.join(5)


def test_old_server_is_asked_its_own_way(old_server: tuple[str, list[str]]) -> None:
    """After one 400 to IS NULL the child asks with LIKE for its whole life, leaves out handled ids, sees the state."""
    url, filters = old_server
    child = MlflowChild(url)
    try:
        for _ in range(2):
            found = child.poll(handled=["e" * 32, "not'an id", *(f"{i:032x}" for i in range(500))])
            assert [run.run_id for run in found] == ["a" * 32]
    finally:
        child.close()
    assert ["IS NULL" in text for text in filters] == [True, False, False]
    assert filters[1].count("NOT IN") == 2
    assert "e" * 32 in filters[1]
    assert "not'an" not in filters[1]


def test_unknown_operation_is_a_bug_of_ours(child: MlflowChild) -> None:
    """An operation that the child does not have is refused by name and leaves the child usable."""
    with pytest.raises(SinkError, match="no operation 'explode'") as caught:
        child.call("explode", {}, 10)
    assert caught.value.kind == "bug"
    with pytest.raises(SinkError, match="params of poll are not valid") as caught:
        child.call("poll", {"page_size": "many"}, 10)
    assert caught.value.kind == "bug"
    assert child.ping() == child.pid
