"""Owns what an indexing puts on an MLflow run: the environment, the manifests of the documents, counts.

Rule: only what was asked for, and then without a run it is an error that starts none, as everywhere in the library; it
is raised before anything is read. Each indexing of one run is one more step of its metrics. Times are seconds.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio.to_thread

from reprod.core.manifest import logged_metrics, logged_params, text_pieces
from reprod.errors import UsageError
from reprod.integrations.rag.results import Indexed
from reprod.ops.generate import save
from reprod.sinks import inprocess, log_indexing

#: The name and folder of the seed's artifact.
FOLDER, FILE = "data_manifest", "data_manifest.json"
#: Other corpora that one run may have indexed before: each has a folder of its own.
MAX_MANIFESTS = 1000


class Capture:
    """What one indexer was asked to log."""

    def __init__(self, environment: bool, data_manifest: bool) -> None:
        self._environment, self._data_manifest = environment, data_manifest

    async def begin(self) -> str | None:
        """Return the run to log to, None if nothing is to be logged; log the environment. Raises UsageError."""
        if not (self._environment or self._data_manifest):
            return None
        # MLflow keeps the active run by thread, so a worker thread would not find it.
        active = log_indexing.active_run_id()
        return await anyio.to_thread.run_sync(self._begin, active)

    async def end(
        self, run_id: str, manifests: dict[str, dict[str, Any]], indexed: Indexed, made_with: dict[str, str]
    ) -> None:
        """Log manifests and counts. Raises TrackingError."""
        if self._data_manifest:
            await anyio.to_thread.run_sync(_log_manifests, run_id, manifests)
        await anyio.to_thread.run_sync(_log_counts, run_id, indexed, made_with)

    def _begin(self, active: str | None) -> str:
        if active is None and not os.environ.get("MLFLOW_RUN_ID"):
            raise UsageError(
                "the indexing is to be logged, and there is no active MLflow run; nothing was indexed",
                hint="index inside `with mlflow.start_run():`, set MLFLOW_RUN_ID, or leave capture_... away",
            )
        run_id = inprocess.find_run(active).run_id
        if self._environment:
            from reprod.capture.environment import capture_self
            from reprod.ops.write_environment import log_artifacts, write_artifacts

            record = capture_self()
            with TemporaryDirectory(prefix="reprod-") as folder:
                log_artifacts(record, write_artifacts(record, Path(folder)), run_id)
        return run_id


def _log_manifests(run_id: str, manifests: dict[str, dict[str, Any]]) -> None:
    """Log each manifest to a folder of its own, params and metrics as for several datasets: paths joined, totals."""
    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    for manifest in manifests.values():
        path = params.get("data_path")
        params |= logged_params(manifest)
        params |= {"data_path": f"{path},{params['data_path']}"} if path is not None else {}
        for name, value in logged_metrics(manifest).items():
            metrics[name] = metrics.get(name, 0.0) + value
    with TemporaryDirectory(prefix="reprod-") as folder:
        for name, manifest in manifests.items():
            file = save(text_pieces(manifest), Path(folder) / FILE)
            _log_manifest(run_id, file, FOLDER if len(manifests) == 1 else f"{FOLDER}/{name}", params, metrics)


def _log_manifest(run_id: str, file: Path, place: str, params: dict[str, str], metrics: dict[str, float]) -> None:
    """Log to ``place``, or where another corpus of this run is, to ``place/2`` and so on."""
    for number in range(1, MAX_MANIFESTS):
        try:
            inprocess.log_manifest(run_id, file, place if number == 1 else f"{place}/{number}", params, metrics)
        except UsageError:
            continue
        return
    raise UsageError(f"run {run_id} has {MAX_MANIFESTS} manifests in {place}", hint="start a new run")


def _log_counts(run_id: str, indexed: Indexed, made_with: dict[str, str]) -> None:
    log_indexing.log_counts(
        run_id,
        {f"rag_{name}": value for name, value in made_with.items()},
        {
            "rag_documents": indexed.documents,
            "rag_chunks": indexed.chunks,
            "rag_embedded": indexed.embedded,
            "rag_unchanged": indexed.unchanged,
            "rag_removed": indexed.removed,
            "rag_skipped": len(indexed.skipped),
            "rag_seconds": indexed.seconds,
        },
    )
