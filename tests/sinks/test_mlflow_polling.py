"""Finding tagged runs, against a real server, and against a fake of the one answer that real old servers differ in."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from reprod.core.run import PendingRun
from reprod.sinks.child import MlflowChild
from reprod.sinks.find_runs import PENDING, RunFinder
from reprod.sinks.named_runs import find_implied, find_retagged
from reprod.sinks.protocol import Implied, ImpliedSource, Retagged, SinkError

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
            experiment=f"later-{experiment}",
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


class Counting:
    """A real client that counts the runs it is asked for one by one."""

    def __init__(self, client: Any) -> None:
        self._client, self.got = client, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_run(self, run_id: str) -> Any:
        self.got.append(run_id)
        return self._client.get_run(run_id)


def test_many_runs_are_asked_for_together(client: Any, experiment: str) -> None:
    """With one search after a poll; only what that does not find (deleted, or started since) has a request of its own.
    Each says the name of its experiment."""
    runs = [tagged_run(client, experiment, "d") for _ in range(4)]
    client.delete_run(runs[1])
    counting = Counting(client)
    finder = RunFinder(counting)
    finder.poll(1000)
    later = client.create_experiment(f"since-{experiment}")
    runs.append(tagged_run(client, later, "d"))
    now = finder.runs([*runs, "a/b"])
    assert [row.run.run_id for row in now.runs] == [runs[0], *runs[2:]]
    assert now.missing == (runs[1], "a/b")
    assert counting.got == [runs[1], runs[4], "a/b"]
    name = client.get_experiment(experiment).name
    assert [row.run.experiment for row in now.runs] == [name, name, name, ""]
    assert finder.runs(runs[:1]).runs == now.runs[:1]


class OldServer(BaseHTTPRequestHandler):
    """Answers as MLflow 2.22 and 3.10 do where they matter: 400 to IS NULL on a tag; three tagged runs else."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("experiments/search"):
            return self.reply(200, {"experiments": [{"experiment_id": "1", "name": "e", "lifecycle_stage": "active"}]})
        self.server.filters.append(body["filter"])  # type: ignore[attr-defined]
        if body["filter"].count("'") > 8000:  # as sqlparse 0.6 does, which every line of servers installs by now
            return self.reply(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Error on parsing filter"})
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
        thread.join(30)


def test_old_server_is_asked_its_own_way(old_server: tuple[str, list[str]]) -> None:
    """After a 400 to IS NULL the child asks with LIKE, leaves out handled ids as far as the server lets it, sees the
    state."""
    url, filters = old_server
    child = MlflowChild(url)
    try:
        for _ in range(2):
            found = child.poll(handled=[*(f"{i:032x}" for i in range(6000)), "not'an id", "e" * 32])
            assert [run.run_id for run in found] == ["a" * 32]
    finally:
        child.close()
    asked = [text for text in filters if "NOT IN" in text]
    assert ["IS NULL" in text for text in filters] == [True, True, False, False, False]  # and 2 to tell its age
    assert len(asked) == 2
    assert "e" * 32 in asked[0]
    assert "not'an" not in asked[0]


class Refusing:
    """A real client of a server that refuses some filters, for another reason than its age."""

    def __init__(self, client: Any, refused: str) -> None:
        self._client, self.refused = client, refused

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def search_runs(self, *args: Any, **kwargs: Any) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

        if self.refused and self.refused in kwargs["filter_string"]:
            raise MlflowException("for a reason of its own", INVALID_PARAMETER_VALUE)
        return self._client.search_runs(*args, **kwargs)


def test_a_refusal_for_another_reason_makes_no_server_old(client: Any, experiment: str) -> None:
    """The poll fails with it, and is asked in the short way again as soon as that works."""
    run = tagged_run(client, experiment, "d")
    refusing = Refusing(client, PENDING)
    finder = RunFinder(refusing)
    with pytest.raises(Exception, match="for a reason of its own"):
        finder.poll(1000)
    assert not finder.lacks_is_null
    refusing.refused = ""
    assert run in {each.run_id for each in finder.poll(1000)}


def test_a_server_that_refuses_every_tag_is_not_old_either(client: Any) -> None:
    """Where not even the simplest question about tags is taken, nothing is known of IS NULL."""
    finder = RunFinder(Refusing(client, "tags."))
    with pytest.raises(Exception, match="for a reason of its own"):
        finder.poll(1000)
    assert not finder.lacks_is_null


def test_a_recorded_value_that_the_server_refuses_ends_no_poll(client: Any, experiment: str) -> None:
    """It is passed over, and the run of another value that names something else by now is found."""
    run = tagged_run(client, experiment, "new", **{"reprod.recorded": "old", "reprod.state": "captured"})
    finder = RunFinder(Refusing(client, "'odd'"))
    assert [each.run_id for each in find_retagged(finder, Retagged(("odd", "old")))] == [run]
    assert not finder.lacks_is_null


def test_a_child_that_was_killed_between_two_questions_knows_the_experiments(client: Any, experiment: str) -> None:
    """Without a poll before it, what is said of experiments is found all the same: it would be forgotten else."""
    client.set_experiment_tag(experiment, "reprod.dataset", "d")
    assert ImpliedSource(experiment, "experiment", "d") in find_implied(RunFinder(client), Implied()).sources


def test_unknown_operation_is_a_bug_of_ours(child: MlflowChild) -> None:
    """An operation that the child does not have is refused by name and leaves the child usable."""
    with pytest.raises(SinkError, match="no operation 'explode'") as caught:
        child.call("explode", {}, 10)
    assert caught.value.kind == "bug"
    with pytest.raises(SinkError, match="params of poll are not valid") as caught:
        child.call("poll", {"page_size": "many"}, 10)
    assert caught.value.kind == "bug"
    assert child.ping() == child.pid
