"""The seed's calls, as the contract writes them: made, saved, logged to a real MLflow server, validated."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import oracle
import pytest

from reprod import DataManifestGenerator
from reprod.errors import DamagedError, DatasetUnavailableError, StateError, TrackingError, UsageError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small folder with what a training set has."""
    monkeypatch.setenv("REPROD_STATE_DIR", str(tmp_path / "state"))
    root = tmp_path / "data"
    for name, content in {"a.csv": "1,2", "d/b.json": "{}", "d/c.tmp": "x", "ü.csv": "3"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture
def manifest(data: Path) -> dict[str, Any]:
    return DataManifestGenerator().generate_manifest(data)


def test_the_calls_of_the_seed(data: Path, tmp_path: Path) -> None:
    """Every call with the seed's names and arguments does what it says."""
    generator = DataManifestGenerator(hash_algorithms=["md5", "sha256"])
    manifest = generator.generate_manifest(
        str(data),
        include_patterns=["*.csv", "*.json"],
        exclude_patterns=["*.tmp"],
        metadata={"experiment": "x"},
        max_files=None,
    )
    assert [entry["relative_path"] for entry in manifest["files"]] == ["a.csv", "d/b.json", "ü.csv"]
    assert manifest["files"][0]["hashes"].keys() == {"md5", "sha256"}
    assert manifest["hash_algorithms"] == ["md5", "sha256"]
    assert manifest["metadata"] == {"experiment": "x"}
    saved = generator.save_manifest(manifest, str(tmp_path / "data_manifest.json"))
    assert saved == tmp_path / "data_manifest.json"
    assert json.loads(saved.read_bytes()) == manifest
    results = generator.validate_manifest(manifest, str(data))
    assert (results["valid"], results["missing_files"], results["hash_mismatches"]) == (True, [], [])
    assert results["complete"]
    assert results["content_verified"]


def test_metadata_tells_no_secret(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password in an address, a value under a secret name and one that a variable knows are masked, no more."""
    monkeypatch.setenv("LAB_PASSWORD", "correct horse battery")
    given = {"db": "postgres://u:hunter2@h/x", "api_key": "zebra9window", "note": ["is correct horse battery", 3, None]}
    manifest = DataManifestGenerator().generate_manifest(data, metadata=given)
    assert manifest["metadata"] == {"db": "postgres://h/x", "api_key": "***", "note": ["is ***", 3, None]}


def test_the_default_is_sha256_of_everything(data: Path, manifest: dict[str, Any]) -> None:
    """Without arguments everything is in the set, with sha256, and the digest is the dataset's."""
    assert manifest["hash_algorithms"] == ["sha256"]
    assert manifest["digest"] == oracle.dt1(oracle.scan(os.fsencode(data)))
    assert "metadata" not in manifest


def test_a_limit_and_a_single_file(data: Path) -> None:
    """``max_files`` and a file as the path work through the class too."""
    generator = DataManifestGenerator()
    assert generator.generate_manifest(data, max_files=1)["cut"]["max_files"] == 1
    one = generator.generate_manifest(bytes(data / "a.csv"))
    assert [entry["path"] for entry in one["files"]] == [str(data / "a.csv")]
    assert generator.validate_manifest(one, data / "a.csv")["valid"]


class TestSave:
    def test_what_is_saved_is_what_the_command_writes(self, data: Path, manifest: dict[str, Any]) -> None:
        """A saved manifest is indented like the command line's, and an older one is replaced at once."""
        target = data.parent / "m.json"
        target.write_text("old")
        target.chmod(0o600)
        DataManifestGenerator().save_manifest(manifest, bytes(target))
        assert target.read_text() == json.dumps(manifest, indent=2) + "\n"
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert sorted(os.listdir(data.parent)) == ["data", "m.json"]

    def test_no_place(self, data: Path, manifest: dict[str, Any]) -> None:
        """A folder, a file in no folder, and a place that may not be written are told apart."""
        generator = DataManifestGenerator()
        for target in (data, data / "nowhere/m.json", data / "a.csv/m.json"):
            with pytest.raises(UsageError):
                generator.save_manifest(manifest, target)
        with pytest.raises(StateError, match="cannot be written"):
            generator.save_manifest(manifest, "/proc/self/stat/../status" if os.geteuid() else "/sys/kernel/m.json")

    @pytest.mark.parametrize("bad", [None, [], "text", {}, {"files": {}}])
    def test_what_is_no_manifest(self, tmp_path: Path, bad: Any) -> None:
        """What generate_manifest never returned is refused with what to pass."""
        for call in (lambda: DataManifestGenerator().save_manifest(bad, tmp_path / "m"),
                     lambda: DataManifestGenerator().log_to_mlflow(bad)):  # fmt: skip
            with pytest.raises(UsageError, match="no manifest"):
                call()

    @pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()], ids=["set", "nan", "object"])
    def test_what_json_does_not_hold(self, data: Path, manifest: dict[str, Any], value: Any) -> None:
        """Metadata is refused when it is given, a changed manifest when it is saved, and nothing is left behind."""
        generator = DataManifestGenerator()
        with pytest.raises(UsageError, match="metadata"):
            generator.generate_manifest(data, metadata={"k": value})
        target = data.parent / "m.json"
        with pytest.raises(UsageError, match="JSON"):
            generator.save_manifest({**manifest, "extra": value}, target)
        assert os.listdir(data.parent) == ["data"]

    @pytest.mark.parametrize("bad", ["text", [("k", "v")], {"k": "\udcff"}], ids=repr)
    def test_metadata_is_a_dictionary_of_text(self, data: Path, bad: Any) -> None:
        """Metadata that is no dictionary, or holds half a character, is refused."""
        with pytest.raises(UsageError, match="metadata"):
            DataManifestGenerator().generate_manifest(data, metadata=bad)


class TestValidate:
    def test_each_change_is_named(self, data: Path, manifest: dict[str, Any]) -> None:
        """A lost, a changed and a new file are told apart, from a manifest in memory and from its file."""
        generator = DataManifestGenerator()
        saved = generator.save_manifest(manifest, data.parent / "m.json")
        (data / "a.csv").unlink()
        (data / "d/b.json").write_text("{ }")
        (data / "new").write_text("n")
        for given in (manifest, saved, str(saved)):
            results = generator.validate_manifest(given, data)
            assert not results["valid"]
            assert results["missing_files"] == ["a.csv"]
            assert [entry["path"] for entry in results["hash_mismatches"]] == ["d/b.json"]
            assert results["extra"] == ["new"]

    def test_each_manifest_that_is_made_is_taken(self, data: Path) -> None:
        """Cut, incomplete by its selection, with links, special files and odd names: what is made can be validated."""
        (data / "link").symlink_to("a.csv")
        os.mkfifo(data / "fifo")
        with open(os.fsencode(data) + b"/\xff", "w") as file:
            file.write("x")
        generator = DataManifestGenerator(["blake2b", "sha1"])
        for options in ({}, {"max_files": 2}, {"include_patterns": ["*.csv"]}, {"exclude_patterns": ["d/"]}):
            made = generator.generate_manifest(data, **options)  # type: ignore[arg-type]
            results = generator.validate_manifest(made, data)
            assert (results["valid"], results["extra"]) == (True, []), options

    def test_what_must_not_be_trusted(self, data: Path, manifest: dict[str, Any]) -> None:
        """A manifest that leads out of the folder is refused, and so is a missing folder."""
        generator = DataManifestGenerator()
        manifest["files"][0]["relative_path"] = "../outside"
        with pytest.raises(DamagedError):
            generator.validate_manifest(manifest, data)
        with pytest.raises(DatasetUnavailableError):
            generator.validate_manifest(generator.generate_manifest(data), data / "nowhere")

    @pytest.mark.parametrize("path", ["", b""], ids=repr)
    def test_no_path_is_not_the_current_folder(self, manifest: dict[str, Any], path: Any) -> None:
        """An empty path, as from a variable that is not set, is an error."""
        with pytest.raises(UsageError, match="empty"):
            DataManifestGenerator().validate_manifest(manifest, path)
        with pytest.raises(UsageError, match="empty"):
            DataManifestGenerator().validate_manifest(path, ".")


def test_nothing_is_imported_that_is_not_needed(data: Path) -> None:
    """Neither importing nor generating loads MLflow, or an event loop, or prints anything."""
    code = (
        "import sys\nfrom reprod import DataManifestGenerator\n"
        "assert not {'reprod.ops.generate', 'sqlite3'} & sys.modules.keys()\n"
        f"g = DataManifestGenerator(); m = g.generate_manifest({str(data)!r}); g.validate_manifest(m, {str(data)!r})\n"
        "assert not {'mlflow', 'anyio', 'structlog', 'rich', 'watchfiles', 'asyncio'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("names", [["sha265"], "sha257", [""], [None]])
def test_algorithms_are_looked_at_at_once(names: Any) -> None:
    """An unknown algorithm is an error before anything is read."""
    with pytest.raises(UsageError):
        DataManifestGenerator(names)
    assert DataManifestGenerator("md5").hash_algorithms == ("sha256", "md5")


@pytest.mark.parametrize("path", ["../x", "/abs", "a/../b", "a//b", "a/", ".", "..", 7, None], ids=repr)
def test_an_artifact_path_is_below_the_run(manifest: dict[str, Any], path: Any) -> None:
    """What MLflow takes for no folder is wrong use, said before the server is asked."""
    with pytest.raises(UsageError, match="artifact_path"):
        DataManifestGenerator().log_to_mlflow(manifest, artifact_path=path)


@pytest.mark.mlflow
class TestLog:
    """Against a real server, with the user's own MLflow."""

    @pytest.fixture
    def client(self, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
        mlflow = pytest.importorskip("mlflow")
        saved = dict(os.environ)
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            del os.environ[name]
        mlflow.set_tracking_uri(mlflow_server)
        mlflow.set_experiment(f"generator-{request.node.name}")
        yield mlflow.MlflowClient()
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None
        os.environ.clear()
        os.environ.update(saved)

    def test_all_at_once(self, client: Any, manifest: dict[str, Any], tmp_path: Path) -> None:
        """Artifact, params and metrics are on the active run; a second call adds nothing and raises nothing."""
        import mlflow

        with mlflow.start_run() as run:
            for _ in range(2):
                DataManifestGenerator().log_to_mlflow(manifest)
        run_id = run.info.run_id
        found = client.get_run(run_id).data
        assert found.params == {
            "data_path": manifest["data_path"], "hash_algorithms": "sha256", "manifest_version": "1.0"
        }  # fmt: skip
        assert found.metrics == {
            "data_files_count": 4.0,
            "data_size_bytes": 7.0,
            "data_processing_time": manifest["summary"]["processing_time_seconds"],
        }
        assert len(client.get_metric_history(run_id, "data_files_count")) == 1
        path = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path="data_manifest/data_manifest.json", dst_path=str(tmp_path / "got")
        )
        assert json.loads(Path(path).read_bytes()) == manifest
        assert [entry.path for entry in client.list_artifacts(run_id)] == ["data_manifest"]

    def test_a_second_set_needs_another_folder(
        self, client: Any, data: Path, manifest: dict[str, Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Made again of the same files it is the same; of others it is an error, changes nothing, and shows no bar."""
        import mlflow

        generator = DataManifestGenerator()
        with mlflow.start_run() as run:
            generator.log_to_mlflow(manifest)
            capfd.readouterr()
            generator.log_to_mlflow(generator.generate_manifest(data))
            before = client.get_run(run.info.run_id).data
            (data / "a.csv").write_text("other")
            other = generator.generate_manifest(data)
            with pytest.raises(UsageError, match="manifest of another set at data_manifest/") as caught:
                generator.log_to_mlflow(other)
            assert "artifact_path" in caught.value.hint
            assert client.get_run(run.info.run_id).data.to_dictionary() == before.to_dictionary()
            generator.log_to_mlflow(other, artifact_path="second")
        assert capfd.readouterr().err == ""
        assert "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR" not in os.environ

    def test_taken_names_stay_the_users(self, client: Any, manifest: dict[str, Any], tmp_path: Path) -> None:
        """The user's param, metric and file stay as they are; ours stand beside them."""
        import mlflow

        (tmp_path / "data_manifest.json").write_text('{"manifest_version": "mine"}')
        with mlflow.start_run() as run:
            mlflow.log_params({"data_path": "mine", "manifest_version": "1.0"})
            mlflow.log_metric("data_files_count", 99)
            mlflow.log_artifact(str(tmp_path / "data_manifest.json"), "data_manifest")
            DataManifestGenerator().log_to_mlflow(manifest)
        run_id = run.info.run_id
        found = client.get_run(run_id).data
        assert found.params == {
            "data_path": "mine", "reprod.data_path": manifest["data_path"],
            "manifest_version": "1.0", "hash_algorithms": "sha256",
        }  # fmt: skip
        assert (found.metrics["data_files_count"], found.metrics["reprod.data_files_count"]) == (99, 4)
        theirs = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path="data_manifest/data_manifest.json", dst_path=str(tmp_path / "got")
        )
        assert "mine" in Path(theirs).read_text()
        ours = client.list_artifacts(run_id, "reprod/data_manifest")
        assert [entry.path for entry in ours] == ["reprod/data_manifest/data_manifest.json"]

    def test_another_folder_and_the_run_of_the_environment(
        self, client: Any, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        """``artifact_path`` says where, MLFLOW_RUN_ID on which run; that run goes on as it was."""
        import mlflow

        experiment = mlflow.get_experiment_by_name(f"generator-{request.node.name}").experiment_id
        run_id = client.create_run(experiment).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        DataManifestGenerator().log_to_mlflow(manifest, artifact_path="inputs/train")
        assert [e.path for e in client.list_artifacts(run_id, "inputs/train")] == ["inputs/train/data_manifest.json"]
        assert client.get_run(run_id).info.status == "RUNNING"
        assert mlflow.active_run() is None

    def test_without_a_run_none_is_started(
        self, client: Any, manifest: dict[str, Any], request: pytest.FixtureRequest
    ) -> None:
        """No run is an error that starts none."""
        import mlflow

        with pytest.raises(UsageError, match="no active MLflow run"):
            DataManifestGenerator().log_to_mlflow(manifest)
        assert mlflow.active_run() is None
        experiment = mlflow.get_experiment_by_name(f"generator-{request.node.name}").experiment_id
        assert client.search_runs([experiment]) == []

    def test_a_long_value_is_in_the_artifact_only(self, client: Any, manifest: dict[str, Any]) -> None:
        """A value over MLflow's limit is never cut: it is absent from the params."""
        import mlflow

        with mlflow.start_run() as run:
            DataManifestGenerator().log_to_mlflow({**manifest, "data_path": "/" + "x" * 7000})
        assert client.get_run(run.info.run_id).data.params.keys() == {"hash_algorithms", "manifest_version"}

    def test_a_dead_server(self, client: Any, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that is gone is a tracking error."""
        import mlflow

        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        mlflow.set_tracking_uri("http://127.0.0.1:1")
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        with pytest.raises(TrackingError):
            DataManifestGenerator().log_to_mlflow(manifest)
