"""Reading a run back from a real server: what lies on its parent, what was recorded again, and what anybody wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

from reprod import DataManifestGenerator
from reprod.config import load
from reprod.errors import DamagedError, IncompleteError, NotFoundError, UsageError
from reprod.ops.fetch import fetch_manifest
from reprod.ops.fetch_run import fetch_run, find_run
from reprod.ops.run_who import who
from reprod.sinks.child import MlflowChild

pytestmark = pytest.mark.mlflow

Document = dict[str, Any]


@pytest.fixture
def document(tmp_path: Path) -> Document:
    """Return the manifest of three files, as a delivery writes it."""
    root = tmp_path / "data"
    root.mkdir()
    for name in "abc":
        (root / name).write_text(name)
    found: Document = DataManifestGenerator().generate_manifest(str(root))
    return {**found, "dataset": "images", "version": 7}


def make_run(client: Any, experiment: str, digest: str, recorded: str = "images", **more: str) -> str:
    """Make a run with the tags that a delivery writes; return its id."""
    tags = {
        "reprod.recorded": recorded,
        "reprod.state": "captured",
        f"reprod.digest.{recorded}": digest,
        f"reprod.version.{recorded}": "7",
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    return str(client.create_run(experiment, tags=tags).info.run_id)


def put(client: Any, run_id: str, document: Document, path: str = "data_manifest/data_manifest.json") -> None:
    client.log_text(run_id, json.dumps(document), path)


def test_a_child_tells_what_is_recorded_on_its_parent(
    client: Any, child: MlflowChild, experiment: str, document: Document
) -> None:
    """A nested run that shares its parent's data has no manifest of its own: root, totals and files are the parent's.
    When the parent is gone, that is a problem that is told, and the files cannot be had."""
    parent = make_run(client, experiment, document["digest"])
    put(client, parent, document)
    nested = make_run(client, experiment, document["digest"], reprod__same_as=parent)
    record = fetch_run(child, nested)
    (used,) = record.datasets
    assert (used.root, used.files, used.version, record.problems) == (document["data_path"], 3, 7, ())
    with fetch_manifest(child, nested) as fetched:
        assert [entry.path for entry in fetched.entries()] == [b"a", b"b", b"c"]
    client.delete_run(parent)
    assert any(parent in each for each in fetch_run(child, nested).problems)
    with pytest.raises(DamagedError, match="shares the files of its parent"):
        fetch_manifest(child, nested)


def test_what_was_recorded_again_is_found_beside_what_was_first(
    client: Any, child: MlflowChild, experiment: str, document: Document
) -> None:
    """A run that named other data later has that manifest below reprod/2; the tag's digest says which one counts, and
    another host's word on the same name is no second dataset."""
    run_id = make_run(client, experiment, document["digest"], **{"reprod__digest__images/0a1b2c3d": "dt1:" + "1" * 64})
    put(client, run_id, {**document, "digest": "dt1:" + "2" * 64})
    put(client, run_id, document, "reprod/2/data_manifest/data_manifest.json")
    (used,) = fetch_run(child, run_id).datasets
    assert (used.name, used.digest, used.files) == ("images", document["digest"], 3)
    with fetch_manifest(child, run_id) as fetched:
        assert fetched.digest == document["digest"]


def test_unpublished_names_are_said_to_be_unknown(
    client: Any, child: MlflowChild, experiment: str, document: Document, tmp_path: Path
) -> None:
    """Where only totals were published they are told, and whoever asks for the files hears why there are none: who had
    a file is then not known."""
    run_id = make_run(client, experiment, document["digest"], recorded=(name := f"d{experiment}"))
    totals = {key: value for key, value in document.items() if key not in {"files", "symlinks"}}
    put(client, run_id, {**totals, "dataset": name, "published": "summary"})
    record = fetch_run(child, run_id)
    assert (record.datasets[0].files, record.problems) == (3, ())
    with pytest.raises(IncompleteError, match="not published"):
        fetch_manifest(child, run_id)
    (tmp_path / "reprod.toml").touch()
    answer = who(child, load(str(tmp_path / "reprod.toml")), name, "a")
    assert (answer["runs"], answer["complete"], answer["unknown"][0]["run_id"]) == ([], False, run_id)


HOSTILE = {
    "reprod__state": "owned\x1b[2J",
    "reprod__version__images": "9" * 5000,
    "reprod__bound__images": "yes",
    "reprod__assurance": "total",
    "reprod__candidates__images": "1:x,,:,9999999999999999999999:dt1:0,-1:y",
    "reprod__error": "images: ; images: ; : ;",
    "reprod__same_as": "../../etc/passwd",
    "reprod__host": "\u202e",
}


def test_what_anybody_wrote_is_read_and_not_believed(
    client: Any, child: MlflowChild, experiment: str, document: Document
) -> None:
    """Tags and manifests of any shape make a record in which what is no value of ours is not known; a digest that is
    none, and a manifest of other data, count for nothing."""
    run_id = make_run(client, experiment, "dt1:../../x", **HOSTILE)
    put(client, run_id, {**document, "digest": "dt1:../../x", "summary": [1], "selection": 3, "data_path": {"a": 1}})
    client.log_text(run_id, '{"schema": "reprod.drift/1", "run_id": 3, "datasets": 7}', "data_manifest/drift.json")
    client.log_text(run_id, "[" * 100_000, "reprod/data_manifest/data_manifest.json")
    client.log_metric(run_id, "loss", float("nan"))
    record = fetch_run(child, run_id)
    (used,) = record.datasets
    assert (used.digest, used.version, used.bound, used.root) == (None, None, None, None)
    assert used.candidates == ((1, None),)
    assert (record.drift, record.assurance, record.environment) == (None, None, None)
    assert record.metrics["loss"] != record.metrics["loss"]


def test_a_run_is_found_by_id_prefix_and_name(client: Any, child: MlflowChild, experiment: str) -> None:
    """Whole ids, their first characters and names of any characters find the one run; two of a name are never
    guessed between, and none, or a deleted one, is said to be that."""
    odd = f"""it's "{experiment}" 100% `a`\\ \n;--"""
    run_id = str(client.create_run(experiment, run_name=odd).info.run_id)
    for text in (run_id, f"run:{run_id}", f"run:{run_id[:12]}", f"run:{odd}"):
        assert find_run(child, text).run_id == run_id
    client.create_run(experiment, run_name=odd)
    with pytest.raises(UsageError, match=run_id):
        find_run(child, odd)
    with pytest.raises(NotFoundError):
        find_run(child, f"run:{odd}x")
    client.delete_run(run_id)
    with pytest.raises(NotFoundError, match="deleted"):
        find_run(child, run_id)
