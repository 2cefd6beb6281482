"""Store runs on a real server: found by a tag that comes last, never mistaken for work, bounded when they are read."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from reprod.sinks import store_run
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import DIGEST_TAG, STORE_EXPERIMENT, Download, SinkError, Upload

pytestmark = pytest.mark.mlflow


@pytest.fixture
def digest() -> str:
    """A digest that no other test uses, since all share one server."""
    return "dt1:" + 2 * uuid.uuid4().hex


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A folder with the files of a checkpoint."""
    folder = tmp_path / "staged"
    folder.mkdir()
    (folder / "SHA256SUMS.gz").write_bytes(b"s" * 100)
    (folder / "sizes.gz").write_bytes(b"z" * 10)
    return folder


def store(child: MlflowChild, digest: str, staged: Path, kind: str = "checkpoint", **tags: str) -> str:
    run_id = child.open_store("data 1 abc")
    child.upload(Upload(run_id, str(staged), digest, {"reprod.manifest.kind": kind, **tags}))
    return run_id


def test_a_manifest_is_found_when_it_is_whole(child: MlflowChild, client: Any, digest: str, staged: Path) -> None:
    """A run without its digest tag is never found; afterwards it is, with its files and their sizes."""
    run_id = child.open_store("data 1 abc")
    assert child.find_stored(digest) == ()
    assert DIGEST_TAG not in client.get_run(run_id).data.tags
    tags = {"reprod.manifest.kind": "delta", "reprod.manifest.base": "dt1:b", "reprod.manifest.base_run": "r"}
    child.upload(Upload(run_id, str(staged), digest, tags))
    (found,) = child.find_stored(digest)
    assert (found.run_id, found.kind, found.base, found.base_run) == (run_id, "delta", "dt1:b", "r")
    assert found.files == {"SHA256SUMS.gz": 100, "sizes.gz": 10}
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags[DIGEST_TAG]) == ("FINISHED", digest)
    child.upload(Upload(run_id, str(staged), digest, tags))  # again: nothing changes
    assert child.find_stored(digest) == (found,)
    assert "reprod.dataset" not in run.data.tags
    assert run_id not in [pending.run_id for pending in child.poll()]


def test_checkpoints_come_first_then_the_oldest(child: MlflowChild, client: Any, digest: str, staged: Path) -> None:
    """Of several runs with one digest the hinted one comes first, then checkpoints, older before younger; deleted
    runs, and runs of another digest that is hinted at, do not come."""
    runs = [store(child, digest, staged, kind) for kind in ("delta", "checkpoint", "checkpoint", "delta")]
    other = store(child, "dt1:" + 2 * uuid.uuid4().hex, staged)
    order = [runs[1], runs[2], runs[0], runs[3]]
    assert [run.run_id for run in child.find_stored(digest)] == order
    assert [run.run_id for run in child.find_stored(digest, runs[3])] == [runs[3], *order[:3]]
    assert [run.run_id for run in child.find_stored(digest, other)] == order
    client.delete_run(runs[1])
    assert [run.run_id for run in child.find_stored(digest, runs[1])] == order[1:]


@pytest.mark.parametrize("text", ["", "dt1:abc", "dt1:" + "a" * 63 + "'", "dt1:' OR '1' = '1", "x" * 10_000])
def test_what_is_no_digest_is_never_asked_for(child: MlflowChild, text: str) -> None:
    """A base that somebody wrote into a tag is not put into a filter unless it is a digest."""
    assert child.find_stored(text) == ()


def test_a_deleted_store_run_takes_nothing(child: MlflowChild, client: Any, digest: str, staged: Path) -> None:
    """Uploading to a run that was deleted meanwhile is `gone`, and no artifact goes there."""
    run_id = child.open_store("data 1 abc")
    client.delete_run(run_id)
    with pytest.raises(SinkError) as caught:
        child.upload(Upload(run_id, str(staged), digest, {}))
    assert caught.value.kind == "gone"
    assert client.list_artifacts(run_id) == []


def test_a_deleted_experiment_is_taken_back(child: MlflowChild, client: Any, digest: str, staged: Path) -> None:
    """An experiment in the trash has no manifests; the next store run brings it back, since its name is not free."""
    run_id = store(child, digest, staged)
    experiment = client.get_experiment_by_name(STORE_EXPERIMENT)
    client.delete_experiment(experiment.experiment_id)
    assert child.find_stored(digest) == ()
    child.open_store("data 2 abc")
    assert client.get_experiment_by_name(STORE_EXPERIMENT).lifecycle_stage == "active"
    assert [run.run_id for run in child.find_stored(digest)] == [run_id]


def test_downloads_are_bounded_and_say_what_is_missing(
    child: MlflowChild, client: Any, experiment: str, tmp_path: Path
) -> None:
    """Files come to their own paths; one over the limit is not fetched at all, a missing one is named, and a folder
    in the place of a file is missing too."""
    run_id = client.create_run(experiment).info.run_id
    for path in ("top.json", "deep/down/small.json", "deep/large.json", "deep/folder.json/x"):
        client.log_text(run_id, "x" * (100 if "large" in path else 10), path)
    into = tmp_path / "into"
    into.mkdir()
    asked = ("top.json", "deep/down/small.json", "deep/large.json", "deep/folder.json", "no/where.json")
    found = child.download(Download(run_id, asked, str(into), 50))
    assert found.too_large == ("deep/large.json",)
    assert found.missing == ("deep/folder.json", "no/where.json")
    files = sorted(str(path.relative_to(into)) for path in into.rglob("*") if path.is_file())
    assert files == ["deep/down/small.json", "top.json"]
    assert (into / "top.json").read_text() == "x" * 10


@pytest.fixture
def no_setting(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """MLflow's time-out as the child sets it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    return monkeypatch


def test_large_requests_are_waited_for(no_setting: pytest.MonkeyPatch) -> None:
    """The time-out of one request grows with the file, a second a megabyte, and is what it was afterwards."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

    with store_run._patience(400_000_000):
        assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 410
    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 10
    no_setting.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    with store_run._patience(1_000_000):
        assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 60
