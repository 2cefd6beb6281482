"""Delivering to real runs: complete, repeatable at every request, and never at the expense of the user's own values."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from reprod.core.run import DatasetInput, Payload
from reprod.sinks.child import MlflowChild
from reprod.sinks.deliver_run import deliver, place_params
from reprod.sinks.protocol import SinkError

pytestmark = pytest.mark.mlflow

PARAMS = {"python_version": "3.11.7", "data_path": "/data/imagenet"}


@pytest.fixture
def run_id(client: Any, experiment: str) -> str:
    return str(client.create_run(experiment, tags={"reprod.dataset": "imagenet"}).info.run_id)


@pytest.fixture
def artifacts(tmp_path: Path) -> str:
    """Return a folder as the daemon stages it, with a nested, an empty and an oddly named file."""
    root = tmp_path / "staged"
    for path, text in {
        "environment/requirements.txt": "numpy==2.0\n",
        "data_manifest/data_manifest.json": "{}",
        "data_manifest/a name/ünï 1%.json": "x",
        "reprod/empty.txt": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return str(root)


def payload_for(run_id: str, artifacts: str | None = None, **changes: Any) -> Payload:
    fields: dict[str, Any] = {
        "run_id": run_id,
        "state": "captured",
        "timestamp_ms": 1_700_000_000_000,
        "tags": {"reprod.digest": "dt1:" + "a" * 64, "reprod.host": "here"},
        "metrics": {"data_files_count": 3.0, "data_size_bytes": 12345678901.0, "data_processing_time": 0.25},
        "params": PARAMS,
        "inputs": (DatasetInput("imagenet", "a" * 36, '{"uri": "file:///data/x"}', "local", '{"files": 3}'),),
        "artifacts_dir": artifacts,
    }
    return Payload(**fields | changes)


def files_of(client: Any, run_id: str, path: str | None = None) -> dict[str, int]:
    found: dict[str, int] = {}
    for info in client.list_artifacts(run_id, path):
        found |= files_of(client, run_id, info.path) if info.is_dir else {info.path: info.file_size or 0}
    return found


def state_of(client: Any, run_id: str) -> dict[str, Any]:
    """Return all that the run holds but its own identity."""
    run = client.get_run(run_id)
    own = {"mlflow.runName"}
    return {
        "tags": {key: value for key, value in run.data.tags.items() if key not in own},
        "params": run.data.params,
        "metrics": {
            key: [(m.value, m.timestamp, m.step) for m in client.get_metric_history(run_id, key)]
            for key in run.data.metrics
        },
        "inputs": [(i.dataset.to_dictionary(), {t.key: t.value for t in i.tags}) for i in run.inputs.dataset_inputs],
        "files": files_of(client, run_id),
        "status": (run.info.status, run.info.end_time),
    }


def test_delivery_is_complete_and_a_repeat_changes_nothing(
    child: MlflowChild, client: Any, run_id: str, artifacts: str
) -> None:
    """One delivery to a finished run writes everything; the second leaves the same run and the same artifacts."""
    client.set_terminated(run_id, "FINISHED", end_time=1_800_000_000_000)
    payload = payload_for(run_id, artifacts)
    assert child.deliver(payload).params_renamed == ()
    first = state_of(client, run_id)
    assert first["tags"] == {
        "reprod.dataset": "imagenet",
        "reprod.digest": "dt1:" + "a" * 64,
        "reprod.host": "here",
        "reprod.state": "captured",
    }
    assert first["params"] == PARAMS
    assert first["metrics"]["data_size_bytes"] == [(12345678901.0, 1_700_000_000_000, 0)]
    assert first["inputs"] == [
        (
            {
                "name": "imagenet",
                "digest": "a" * 36,
                "source_type": "local",
                "source": '{"uri": "file:///data/x"}',
                "schema": None,
                "profile": '{"files": 3}',
            },
            {"mlflow.data.context": "training"},
        )
    ]
    assert first["files"] == {
        "environment/requirements.txt": 11,
        "data_manifest/data_manifest.json": 2,
        "data_manifest/a name/ünï 1%.json": 1,
        "reprod/empty.txt": 0,
    }
    assert first["status"] == ("FINISHED", 1_800_000_000_000)
    child.deliver(payload)
    assert state_of(client, run_id) == first


def test_the_users_own_param_stays_and_ours_stands_beside(child: MlflowChild, client: Any, run_id: str) -> None:
    """A param that the user logged before us keeps its value, ours is renamed, an equal one counts as written."""
    client.log_param(run_id, "data_path", "mine")
    client.log_param(run_id, "python_version", "3.11.7")
    delivered = child.deliver(payload_for(run_id))
    assert delivered.params_renamed == ("data_path",)
    assert delivered.params_refused == ()
    expected = {"data_path": "mine", "python_version": "3.11.7", "reprod.data_path": "/data/imagenet"}
    assert client.get_run(run_id).data.params == expected
    assert child.deliver(payload_for(run_id)).params_renamed == ("data_path",)
    assert client.get_run(run_id).data.params == expected


def test_where_both_names_are_taken_ours_is_refused_and_the_rest_delivered(
    child: MlflowChild, client: Any, run_id: str
) -> None:
    """A name taken twice is reported, not an error: the other params and the state are still written."""
    client.log_param(run_id, "data_path", "mine")
    client.log_param(run_id, "reprod.data_path", "also mine")
    assert child.deliver(payload_for(run_id)).params_refused == ("data_path",)
    run = client.get_run(run_id)
    assert run.data.params["python_version"] == "3.11.7"
    assert run.data.tags["reprod.state"] == "captured"


def test_no_params_while_the_run_may_still_log_them(child: MlflowChild, client: Any, run_id: str) -> None:
    """With params None none is written, so the user's later log_params of our names works; ours come after it."""
    child.deliver(payload_for(run_id, params=None))
    assert client.get_run(run_id).data.params == {}
    client.log_param(run_id, "data_path", "mine")
    assert child.deliver(payload_for(run_id)).params_renamed == ("data_path",)


def test_a_param_raced_by_the_user_is_looked_at_again(client: Any, run_id: str) -> None:
    """A user's param that lands between our look and our write costs one more look, not the delivery."""

    class RacedClient:
        def __init__(self) -> None:
            self.looks = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def log_batch(self, run_id: str, **batch: Any) -> None:
            if batch.get("params") and not self.looks:
                self.looks += 1
                client.log_param(run_id, "data_path", "mine, just now")
            client.log_batch(run_id, **batch)

    raced = RacedClient()
    assert deliver(raced, payload_for(run_id)).params_renamed == ("data_path",)
    assert raced.looks == 1
    assert client.get_run(run_id).data.params["data_path"] == "mine, just now"
    assert client.get_run(run_id).data.tags["reprod.state"] == "captured"


def test_prepare_reports_what_the_user_has(child: MlflowChild, client: Any, run_id: str, tmp_path: Path) -> None:
    """Artifacts and metrics of the user are reported, also a file where we would need a folder; nothing else is."""
    (tmp_path / "requirements.txt").write_text("theirs")
    (tmp_path / "reprod").write_text("a file")
    client.log_artifact(run_id, str(tmp_path / "requirements.txt"), "environment")
    client.log_artifact(run_id, str(tmp_path / "reprod"))
    client.log_metric(run_id, "data_files_count", 1)
    taken = child.prepare(
        run_id,
        ["environment/requirements.txt", "environment/system_info.json", "data_manifest/a/b.json", "reprod/x.html"],
        ["data_size_bytes", "data_files_count"],
    )
    assert taken.artifacts_taken == ("environment/requirements.txt", "reprod/x.html")
    assert taken.metrics_taken == ("data_files_count",)


def test_deleted_run_is_gone_and_gets_no_artifact(child: MlflowChild, client: Any, run_id: str, artifacts: str) -> None:
    """A deleted run, of which MLflow would still take artifacts, is reported as gone before anything is uploaded."""
    client.delete_run(run_id)
    for call in (lambda: child.deliver(payload_for(run_id, artifacts)), lambda: child.prepare(run_id, ["a"], [])):
        with pytest.raises(SinkError) as caught:
            call()
        assert caught.value.kind == "gone"
    assert client.list_artifacts(run_id) == []
    with pytest.raises(SinkError) as caught:
        child.deliver(payload_for("0" * 32))
    assert caught.value.kind == "gone"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tags": {"reprod.long": "x" * 8001}}, "tag reprod.long has 8001"),
        ({"params": {"data_path": "x" * 6001}}, "param data_path has 6001"),
        ({"params": {"k" * 244: "x"}}, "the name of param kkk"),
        ({"metrics": {"m" * 251: 1.0}}, "the name of metric mmm"),
        ({"inputs": (DatasetInput("d", "a" * 37, "s", "local", "{}"),)}, "digest of dataset input d has 37"),
        ({"artifacts_dir": "/nonexistent/staged"}, "artifacts to upload are missing"),
        ({"tags": {"bad@key": "x"}}, "bad@key"),
    ],
)
def test_values_over_the_limits_are_refused_by_name(
    child: MlflowChild, client: Any, run_id: str, changes: dict[str, Any], named: str
) -> None:
    """What MLflow would cut or refuse is a permanent error that names it, and the run gets no state."""
    with pytest.raises(SinkError, match=named) as caught:
        child.deliver(payload_for(run_id, **changes))
    assert caught.value.kind == "permanent"
    assert "x" * 100 not in caught.value.message
    assert "reprod.state" not in client.get_run(run_id).data.tags


def test_params_are_placed_by_one_rule() -> None:
    """Absent: logged; equal: done; different: under our prefix, unless that holds another value too."""
    existing = {"same": "1", "theirs": "x", "again": "x", "reprod.again": "2", "both": "x", "reprod.both": "y"}
    wanted, fate = place_params(existing, {"same": "1", "theirs": "2", "again": "2", "both": "2", "new": "2"})
    assert wanted == {"reprod.theirs": "2", "new": "2"}
    assert fate.params_renamed == ("theirs", "again")
    assert fate.params_refused == ("both",)


HOP_BY_HOP = {"host", "content-length", "transfer-encoding", "connection"}


class CuttingProxy(BaseHTTPRequestHandler):
    """Passes requests on to the real server, and cuts the connection before or after the n-th one."""

    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        server: Any = self.server
        body = self.body()
        server.count += 1
        here = server.count == server.cut_at
        if here and server.before:
            return self.cut()
        connection = http.client.HTTPConnection(server.target, timeout=60)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if here:
            return self.cut()
        self.send_response(response.status)
        self.send_header("Content-Type", response.getheader("Content-Type") or "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    do_GET = do_POST = do_PUT = do_PATCH = handle_one  # noqa: N815 - http.server's names

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def cut(self) -> None:
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def cutting_proxy(target: str) -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), CuttingProxy) as server:
        server.daemon_threads = True
        server.target = urlsplit(target).netloc  # type: ignore[attr-defined]
        server.count, server.cut_at, server.before = 0, 0, True  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(30)


def test_a_cut_at_any_request_ends_in_the_same_state(
    client: Any, experiment: str, tmp_path: Path, mlflow_server: str
) -> None:
    """Delivery cut before or after each of its requests, then repeated: every run ends like the one never cut."""
    from mlflow import MlflowClient

    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "manifest.json").write_text("{}")

    def fresh() -> Payload:
        run = client.create_run(experiment, tags={"reprod.dataset": "imagenet"})
        client.log_param(run.info.run_id, "data_path", "mine")
        return payload_for(str(run.info.run_id), str(tmp_path / "staged"), metrics={"data_files_count": 3.0})

    with cutting_proxy(mlflow_server) as proxy:
        through = MlflowClient(f"http://127.0.0.1:{proxy.server_port}")
        whole = fresh()
        deliver(through, whole)
        expected, requests = state_of(client, whole.run_id), proxy.count
        assert requests >= 8
        for cut_at in range(1, requests + 1):
            for before in (True, False):
                payload = fresh()
                proxy.count, proxy.cut_at, proxy.before = 0, cut_at, before
                with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the classifier's test
                    deliver(through, payload)
                done = client.get_run(payload.run_id).data.tags.get("reprod.state")
                assert (done is not None) == (cut_at == requests and not before)
                proxy.cut_at = 0
                deliver(through, payload)
                assert state_of(client, payload.run_id) == expected
