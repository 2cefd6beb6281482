"""What an indexing puts on a run: environment, manifest, counts; and what it does where there is no run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb", reason="DuckDB is not installed (extra rag)")
pytestmark = pytest.mark.mlflow

Script = Callable[..., Any]

START = """
import asyncio, hashlib, json, sys, mlflow
from pathlib import Path
from reprod.errors import ReprodError
from reprod.integrations.rag import HashingEmbedder, RAGIndexer
mlflow.set_experiment("t")
Path("docs").mkdir(exist_ok=True)
for name in ("apples", "boats"):
    Path(f"docs/{name}.md").write_text(f"# {name}\\n\\nAll about {name}.\\n")
def indexer(**what):
    return RAGIndexer(index_dir="index", embedder=HashingEmbedder(), **what)
def show(run_id):
    client = mlflow.MlflowClient()
    data = client.get_run(run_id).data
    def below(path=None):
        for each in client.list_artifacts(run_id, path):
            yield from below(each.path) if each.is_dir else [each.path]
    def load(path):
        return json.loads(Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path)).read_text())
    history = {name: [[m.step, m.value] for m in client.get_metric_history(run_id, name)] for name in data.metrics}
    manifests = {path: load(path) for path in below() if path.endswith("data_manifest.json")}
    print(json.dumps({"params": data.params, "metrics": history, "files": list(below()), "manifests": manifests}))
"""

TWICE = """
rag = indexer(capture_environment=True, capture_data_manifest=True)
async def work():
    await rag.index_documents("docs")
    Path("docs/boats.md").write_text("# Ships\\n\\nShips cross the sea.\\n")
    await rag.index_documents("docs")
    return await rag.search("cross the sea", 1)
with mlflow.start_run() as run:
    (hit,) = asyncio.run(work())
print(hit.digest, hashlib.sha256(Path(hit.path).read_bytes()).hexdigest())
show(run.info.run_id)
"""


@pytest.fixture(autouse=True)
def tracking(environ: dict[str, str], database: str) -> None:
    environ["MLFLOW_TRACKING_URI"] = database


def test_each_indexing_is_a_step_of_the_run_and_has_its_manifest(script: Script, tmp_path: Path) -> None:
    """Two calls in one run: params once, metrics as a series, two manifests; a hit's digest is in the last one."""
    done = script(START + TWICE)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = done.stdout.splitlines()[-2:]
    digest, of_file = first.split()
    shown = json.loads(second)
    assert digest == of_file

    params = shown["params"]
    assert params["rag_embedder"] == "reprod-hashing 1 (1024)"
    assert params["rag_chunker"] == "passages/1 size=800 overlap=120"
    assert params["rag_store"].startswith("duckdb ")
    assert params["data_path"] == str(tmp_path / "work" / "docs")
    assert "python_version" in params
    metrics = shown["metrics"]
    assert metrics["rag_documents"] == [[0, 2.0], [1, 2.0]]
    assert metrics["rag_embedded"] == [[0, 2.0], [1, 1.0]]
    assert metrics["rag_unchanged"] == [[0, 0.0], [1, 1.0]]
    assert {"rag_chunks", "rag_removed", "rag_skipped", "rag_seconds", "data_files_count"} <= metrics.keys()
    assert {"environment/system_info.json", "environment/requirements.txt"} <= set(shown["files"])
    before, after = (shown["manifests"][f"data_manifest/{place}data_manifest.json"] for place in ("", "2/"))
    assert before["digest"] != after["digest"]
    assert after["metadata"]["rag"]["embedder"] == params["rag_embedder"]
    assert digest in {file["hashes"]["sha256"] for file in after["files"]}
    assert digest not in {file["hashes"]["sha256"] for file in before["files"]}


TWO = """
Path("more").mkdir()
Path("more/clocks.txt").write_text("Clocks tell the time.")
with mlflow.start_run() as run:
    asyncio.run(indexer(capture_data_manifest=True).index_documents(["docs", "more/clocks.txt"]))
show(run.info.run_id)
"""


def test_documents_of_several_folders_have_a_manifest_each(script: Script, tmp_path: Path) -> None:
    """Named by their folders, with the paths joined and the counts added up; the environment was not asked for."""
    done = script(START + TWO)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout.splitlines()[-1])
    assert sorted(shown["files"]) == [f"data_manifest/{name}/data_manifest.json" for name in ("docs", "more")]
    assert shown["params"]["data_path"] == f"{tmp_path}/work/docs,{tmp_path}/work/more"
    assert shown["metrics"]["data_files_count"] == [[0, 3.0]]


NO_RUN = """
mlflow.set_experiment("none-started")
rag = indexer(capture_data_manifest=True)
try:
    asyncio.run(rag.index_documents("docs"))
except ReprodError as error:
    print(type(error).__name__, error)
print(Path("index").exists(), mlflow.active_run(), len(mlflow.search_runs(experiment_names=["none-started"])))
made = mlflow.MlflowClient().create_run(mlflow.get_experiment_by_name("none-started").experiment_id).info.run_id
import os
os.environ["MLFLOW_RUN_ID"] = made
asyncio.run(rag.index_documents("docs"))
asyncio.run(rag.search("apples"))
show(made)
"""


def test_without_a_run_it_is_an_error_before_anything_is_done(script: Script) -> None:
    """None is started and nothing is indexed; MLFLOW_RUN_ID is as good as an active run; a search logs nothing."""
    done = script(START + NO_RUN)
    assert done.returncode == 0, done.stderr[-3000:]
    error, state, shown = done.stdout.splitlines()[-3:]
    assert error.startswith("UsageError the indexing is to be logged, and there is no active MLflow run")
    assert state == "False None 0"
    assert json.loads(shown)["metrics"]["rag_documents"] == [[0, 2.0]]
