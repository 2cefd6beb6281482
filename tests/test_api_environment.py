"""The library's calls about environments and runs, against a real MLflow server."""

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from control_seam import ControlSeam

import reprod.capture.handover as handover
from reprod import capture_environment, tag_dataset, wait_captured
from reprod.capture.process.identity import current_context
from reprod.errors import DaemonUnavailableError, NotFoundError, StateError, TrackingError, UsageError
from reprod.ops import wait_state
from reprod.sinks.inprocess import choose_names

mlflow = pytest.importorskip("mlflow")

pytestmark = pytest.mark.mlflow
CANARY = "CANARY7f3a"


@pytest.fixture
def tracking(mlflow_server, monkeypatch, tmp_path, request):
    """The user's own MLflow set to the real server; no daemon of this machine is found; no run is left active."""
    saved = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("REPROD_", "XDG_", "MLFLOW_")):
            del os.environ[name]
    os.environ.update(HOME=str(tmp_path), REPROD_SOCKET=str(tmp_path / "control.sock"))
    # The recording child is the integration tests' matter.
    monkeypatch.setattr(handover, "_recorded_by", os.getpid())
    monkeypatch.chdir(tmp_path)  # not the repository of this project, which may be dirty
    mlflow.set_tracking_uri(mlflow_server)
    mlflow.set_experiment(f"api-{request.node.name}")
    yield mlflow_server
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None
    # MLflow writes its settings into the process's own variables.
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture
def client(tracking):
    return mlflow.MlflowClient()


@pytest.fixture
def daemon(tracking, tmp_path, monkeypatch):
    """Start a control socket that answers announcements with the given result."""
    seams = []

    monkeypatch.setattr(handover, "ANSWER_S", 60.0)  # a busy machine may need more than a training waits

    def daemon(**answer):
        seams.append(ControlSeam(tmp_path / "control.sock", lambda message: answer))
        return seams[-1]

    yield daemon
    for seam in seams:
        seam.close()


class TestCaptureEnvironment:
    def test_writes_the_files(self, tmp_path, monkeypatch):
        """The seed's call gives the seed's files, with no daemon and no MLflow."""
        monkeypatch.chdir(tmp_path)
        files = capture_environment(output_dir=str(tmp_path / "a" / "b"))
        assert files.keys() == {"requirements.txt", "packages.json", "system_info.json", "environment.json"}
        assert files["requirements.txt"] == tmp_path / "a/b/requirements.txt"
        assert "\nmsgspec==" in files["requirements.txt"].read_text()
        assert json.loads(files["system_info.json"].read_bytes())["subject"]["pid"] == os.getpid()
        assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == sorted(files)

    def test_default_directory(self, tmp_path, monkeypatch):
        """Without a directory the files go to ./env_artifacts."""
        monkeypatch.chdir(tmp_path)
        assert capture_environment()["system_info.json"] == Path("env_artifacts/system_info.json")
        assert (tmp_path / "env_artifacts/requirements.txt").is_file()

    def test_a_directory_that_cannot_be_written(self, tmp_path):
        """A file in the way is a clear error."""
        (tmp_path / "x").touch()
        with pytest.raises(StateError, match="cannot be written"):
            capture_environment(tmp_path / "x")

    def test_logs_to_the_active_run(self, client, tmp_path):
        """Artifacts and parameters are on the run at once, and a second call changes nothing and raises nothing."""
        with mlflow.start_run() as run:
            for _ in range(2):
                capture_environment(tmp_path, log_to_mlflow=True)
        names = {entry.path for entry in client.list_artifacts(run.info.run_id, "environment")}
        assert names == {
            f"environment/{name}"
            for name in ("environment.json", "packages.json", "requirements.txt", "system_info.json")
        }
        params = client.get_run(run.info.run_id).data.params
        assert params["platform_system"] == "Linux"
        assert params["python_version"].count(".") == 2
        assert client.list_artifacts(run.info.run_id, "reprod") == []
        said = json.loads((tmp_path / "system_info.json").read_text())["rebuildable"]
        assert client.get_run(run.info.run_id).data.tags["reprod.rebuildable"] == said

    def test_takes_nothing_of_the_user_s(self, client, tmp_path):
        """A parameter and an artifact of the user's stay; ours go beside them."""
        (tmp_path / "requirements.txt").write_text("mine\n")
        with mlflow.start_run() as run:
            mlflow.log_param("python_version", "mine")
            mlflow.log_artifact(str(tmp_path / "requirements.txt"), "environment")
            capture_environment(tmp_path / "out", log_to_mlflow=True)
        run_id = run.info.run_id
        params = client.get_run(run_id).data.params
        assert params["python_version"] == "mine"
        assert params["reprod.python_version"].startswith("3.")
        assert [entry.path for entry in client.list_artifacts(run_id, "environment")] == [
            "environment/requirements.txt"
        ]
        assert len(client.list_artifacts(run_id, "reprod/environment")) == 4

    def test_without_a_run_none_is_started(self, client, tmp_path):
        """Logging without a run is an error that starts none and writes nothing."""
        with pytest.raises(UsageError, match="no active MLflow run"):
            capture_environment(tmp_path / "out", log_to_mlflow=True)
        assert mlflow.active_run() is None
        assert not (tmp_path / "out").exists()
        experiment = mlflow.get_experiment_by_name("api-test_without_a_run_none_is_started")
        assert client.search_runs([experiment.experiment_id]) == []

    def test_the_run_of_the_environment(self, client, tmp_path, monkeypatch):
        """MLFLOW_RUN_ID names the run where none is active, and it stays as it is otherwise."""
        run = client.create_run(mlflow.get_experiment_by_name("api-test_the_run_of_the_environment").experiment_id)
        monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
        capture_environment(tmp_path, log_to_mlflow=True)
        found = client.get_run(run.info.run_id)
        assert found.info.status == "RUNNING"
        assert found.data.params["platform_system"] == "Linux"


def test_choose_names():
    """Equal values need nothing, taken names get ours, and where both are taken nothing is overwritten."""
    present = {"a": "1", "b": "x", "c": "x", "reprod.c": "3", "d": "x", "reprod.d": "y"}
    assert choose_names(present, {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}) == {"reprod.b": "2", "e": "5"}


class TestTagDataset:
    def test_tags_the_active_run_and_tells_the_daemon(self, client, tracking, daemon, capsys):
        """Both tags are on the run, and the daemon hears run, dataset and server."""
        control = daemon(known=True, tracking_uri=tracking, datasets=["imagenet"])
        with mlflow.start_run() as run:
            assert tag_dataset("imagenet")
        tags = client.get_run(run.info.run_id).data.tags
        assert tags["reprod.dataset"] == "imagenet"
        assert tags["reprod.context"] == current_context().to_json()
        (told,) = [told for told in control.wait("announce") if told["run_id"]]
        assert told["run_id"] == run.info.run_id
        assert (told["dataset"], told["tracking_uri"]) == ("imagenet", tracking)
        assert told["context"] == current_context().to_object()
        assert capsys.readouterr().err == ""

    def test_no_daemon_is_no_problem(self, client, capsys):
        """Without a daemon the tag is set all the same; strict says so."""
        with mlflow.start_run() as run:
            assert tag_dataset("imagenet")
            with pytest.raises(DaemonUnavailableError):
                tag_dataset("imagenet", strict=True)
        assert client.get_run(run.info.run_id).data.tags["reprod.dataset"] == "imagenet"
        assert capsys.readouterr().err == ""

    def test_unknown_dataset(self, tracking, daemon, capsys):
        """A name that the daemon does not have is one line with the nearest one; strict raises it."""
        daemon(known=False, tracking_uri=tracking, datasets=["imagenet", "mnist"])
        with mlflow.start_run():
            assert tag_dataset("mnist,imagent/train")
            with pytest.raises(NotFoundError, match="imagent"):
                tag_dataset("imagent", strict=True)
        (line,) = capsys.readouterr().err.splitlines()
        assert "no dataset 'imagent'; did you mean imagenet?" in line

    def test_another_tracking_server(self, daemon, capsys):
        """A daemon that watches another server is said at once."""
        daemon(known=True, tracking_uri="http://elsewhere:5000", datasets=[])
        with mlflow.start_run():
            assert tag_dataset("imagenet")
        (line,) = capsys.readouterr().err.splitlines()
        assert "the daemon watches http://elsewhere:5000" in line

    @pytest.mark.parametrize("name", ["", ",", "-x", "a b", "a" * 200, "ok,../x"])
    def test_wrong_names(self, client, capsys, name):
        """What cannot be a dataset's name is one line and no tag; strict raises."""
        with mlflow.start_run() as run:
            assert not tag_dataset(name)
            with pytest.raises(UsageError):
                tag_dataset(name, strict=True)
        assert "reprod.dataset" not in client.get_run(run.info.run_id).data.tags
        assert len(capsys.readouterr().err.splitlines()) == 1

    def test_no_run_and_no_server(self, tracking, capsys, monkeypatch):
        """Without a run, with an unknown one, or with a dead server: False and one line, never an exception."""
        assert not tag_dataset("imagenet")
        assert not tag_dataset("imagenet", "0" * 32)
        with pytest.raises(NotFoundError):
            tag_dataset("imagenet", "0" * 32, strict=True)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        mlflow.set_tracking_uri(f"http://u:{CANARY}@127.0.0.1:1")
        assert not tag_dataset("imagenet", "0" * 32)
        with pytest.raises(TrackingError) as caught:
            tag_dataset("imagenet", "0" * 32, strict=True)
        text = capsys.readouterr().err
        assert len(text.splitlines()) == 3
        assert CANARY not in text + str(caught.value)

    def test_a_run_of_another_process(self, client, daemon):
        """A run that is not this process's gets the dataset, and not this process's identity."""
        control = daemon()
        experiment = mlflow.get_experiment_by_name("api-test_a_run_of_another_process").experiment_id
        ended = client.create_run(experiment)
        client.set_terminated(ended.info.run_id)
        foreign = client.create_run(experiment, tags={"reprod.context": "theirs"})
        own = client.create_run(experiment)
        for run in (ended, foreign, own):
            assert tag_dataset("imagenet", run.info.run_id)
        contexts = [client.get_run(run.info.run_id).data.tags.get("reprod.context") for run in (ended, foreign, own)]
        assert contexts == [None, "theirs", current_context().to_json()]
        told = [bool(told["context"]) for told in control.wait("announce", 3)]
        assert told == [False, False, True]

    def test_a_strict_warning_filter_raises_nothing(self, daemon, capsys):
        """One line on stderr, never a Python warning: those may be errors in the user's script (they are here)."""
        daemon(known=True, tracking_uri="", datasets=[])
        with mlflow.start_run():
            assert tag_dataset("imagenet")
        assert "no tracking server" in capsys.readouterr().err

    def test_a_hung_daemon_costs_under_50_ms(self, client, tmp_path, monkeypatch):
        """What the daemon costs on top of MLflow's own calls stays below the bound."""
        took = []
        real = handover.ask

        def ask(*arguments, **options):
            begin = time.perf_counter()
            try:
                return real(*arguments, **options)
            finally:
                took.append(time.perf_counter() - begin)

        monkeypatch.setattr(handover, "ask", ask)
        with socket.socket(socket.AF_UNIX) as listener, mlflow.start_run():
            listener.bind(str(tmp_path / "control.sock"))
            listener.listen(16)
            for _ in range(5):
                assert tag_dataset("imagenet")
        assert sorted(took)[2] < 4.0  # it waits for nobody; the 50 ms are measured in tests/benchmarks
        assert handover.CONNECT_S + handover.ANSWER_S < 0.050


class TestWaitCaptured:
    def test_returns_the_state_when_it_comes(self, client):
        """The wait ends when the daemon has written its last tag, long before its time is over."""
        with mlflow.start_run() as run:
            pass
        timer = threading.Timer(0.4, client.set_tag, (run.info.run_id, "reprod.state", "captured"))
        timer.start()
        assert wait_captured(timeout_s=60) == "captured"
        assert wait_captured(run.info.run_id) == "captured"
        timer.join()

    def test_a_timeout_is_none(self, tracking, capsys):
        """A run that nobody captures is None after the bound, without a warning."""
        with mlflow.start_run() as run:
            begin = time.monotonic()
            assert wait_captured(run.info.run_id, timeout_s=0.3, strict=True) is None
        assert 0.25 < time.monotonic() - begin < 30
        assert capsys.readouterr().err == ""

    def test_a_hung_server_does_not_stretch_the_bound(self, tracking):
        """A server that accepts and never answers costs the timeout, not MLflow's minutes."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            mlflow.set_tracking_uri(f"http://127.0.0.1:{server.getsockname()[1]}")
            begin = time.monotonic()
            assert wait_captured("0" * 32, timeout_s=0.5) is None
            assert time.monotonic() - begin < 60

    def test_no_run(self, tracking, capsys, monkeypatch):
        """A run that does not exist is one line at once; strict raises."""
        begin = time.monotonic()
        assert wait_captured("0" * 32, timeout_s=90) is None
        assert len(capsys.readouterr().err.splitlines()) == 1
        with pytest.raises(NotFoundError):
            wait_captured("0" * 32, timeout_s=90, strict=True)
        assert time.monotonic() - begin < 60


def test_it_is_asked_less_and_less_often() -> None:
    """Waiting begins quick and does not load the server for long."""
    assert wait_state.POLL_FIRST_S < wait_state.POLL_LAST_S
