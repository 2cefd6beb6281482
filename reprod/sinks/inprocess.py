"""Owns what the library itself asks of MLflow, in the user's own process and with the user's own MLflow.

Whatever version is installed and whatever tracking server it is set to is used as it is; no run is ever started here.
A failure of MLflow's is a TrackingError, a missing run a NotFoundError; nothing else escapes.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from reprod.core.redact import redact_url
from reprod.core.redact_known import redact_known
from reprod.core.run import PARAM_LIMIT
from reprod.errors import NotFoundError, ReprodError, TrackingError, UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TargetRun:
    """The run that a call is about. ``context`` is its tag ``reprod.context``, if it has one."""

    run_id: str
    status: str
    context: str | None


def find_run(run_id: str | None = None) -> TargetRun:
    """Return the run ``run_id``, else the active one, else MLFLOW_RUN_ID's; raises UsageError if there is none."""
    mlflow = load_mlflow()
    with talking():
        active = mlflow.active_run()
        wanted = run_id or (active.info.run_id if active else os.environ.get("MLFLOW_RUN_ID"))
        if not wanted:
            raise UsageError(
                "there is no active MLflow run", hint="call it inside `with mlflow.start_run():`, or set MLFLOW_RUN_ID"
            )
        run = active if active and active.info.run_id == wanted else mlflow.MlflowClient().get_run(wanted)
        return TargetRun(wanted, run.info.status, run.data.tags.get("reprod.context"))


def find_recent_run_id() -> str:
    """Return the id of the active run, of MLFLOW_RUN_ID, or of the last run that this process ended."""
    mlflow = load_mlflow()
    with talking():
        active = mlflow.active_run()
        if active:
            return str(active.info.run_id)
        if run_id := os.environ.get("MLFLOW_RUN_ID"):
            return run_id
        last = mlflow.last_active_run()
        if last is None:
            raise UsageError("this process has started no MLflow run", hint="pass a run id")
        return str(last.info.run_id)


def tracking_uri() -> str:
    """Return the tracking URI that the user's MLflow uses, without credentials."""
    mlflow = load_mlflow()
    with talking():
        return redact_url(str(mlflow.get_tracking_uri()))


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set the tags in one request, so that no reader sees some of them without the others."""
    mlflow = load_mlflow()
    with talking():
        entities = [mlflow.entities.RunTag(key, value) for key, value in tags.items()]
        mlflow.MlflowClient().log_batch(run_id, tags=entities)


def read_tags(run_id: str) -> dict[str, str]:
    """Return the run's tags as the server has them now."""
    mlflow = load_mlflow()
    with talking():
        return dict(mlflow.MlflowClient().get_run(run_id).data.tags)


def log_environment(
    run_id: str, files: Mapping[str, Path], parameters: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    """Write artifacts, parameters and tags of an environment to the run at once, taking nothing that is the user's.

    Artifacts go under ``environment/``, or under ``reprod/environment/`` if files of these names are there that reprod
    did not write; a parameter whose name has another value goes to ``reprod.NAME``. The tags are reprod's own.
    """
    mlflow = load_mlflow()
    with talking():
        client = mlflow.MlflowClient()
        folder = "environment" if _is_free(mlflow, client, run_id, set(files)) else "reprod/environment"
        for path in files.values():
            client.log_artifact(run_id, str(path), folder)
        missing = choose_names(client.get_run(run_id).data.params, parameters)
        client.log_batch(
            run_id,
            params=[mlflow.entities.Param(name, value) for name, value in missing.items()],
            tags=[mlflow.entities.RunTag(name, value) for name, value in tags.items()],
        )


def log_manifest(
    run_id: str, file: Path, folder: str, parameters: Mapping[str, str], metrics: Mapping[str, float]
) -> None:
    """Write a manifest's file, parameters and metrics to the run at once, taking nothing that is the user's.

    The file goes into ``folder``, or into ``reprod/FOLDER`` if one of its name is there that reprod did not write; a
    name with another value goes to ``reprod.NAME``. A value over MLflow's limit is in the file only.

    :raises UsageError: a manifest of other files is there, from reprod too; nothing is written then.
    """
    mlflow = load_mlflow()
    with talking():
        client = mlflow.MlflowClient()
        place = _free_folder(mlflow, client, run_id, folder, file)
        client.log_artifact(run_id, str(file), place or None)
        data = client.get_run(run_id).data
        fitting = {name: value for name, value in parameters.items() if len(value) <= PARAM_LIMIT}
        params = choose_names(data.params, fitting)
        values = choose_names(data.metrics, metrics)
        client.log_batch(
            run_id,
            metrics=[
                mlflow.entities.Metric(name, value, time.time_ns() // 1_000_000, 0) for name, value in values.items()
            ],
            params=[mlflow.entities.Param(name, value) for name, value in params.items()],
        )


def choose_names(present: Mapping[str, T], parameters: Mapping[str, T]) -> dict[str, T]:
    """Return what to log so that ``parameters`` are on a run with ``present``: equal values need nothing."""
    chosen = {}
    for name, value in parameters.items():
        for candidate in (name, f"reprod.{name}"):
            if present.get(candidate, value) == value:
                if candidate not in present:
                    chosen[candidate] = value
                break
    return chosen


def _is_free(mlflow: Any, client: Any, run_id: str, names: set[str]) -> bool:
    """Return whether ``environment/`` has none of the names, or has them from reprod."""
    present = {entry.path.rpartition("/")[2] for entry in client.list_artifacts(run_id, "environment")}
    if not present & names:
        return True
    if "system_info.json" not in present:
        return False
    value = _json_artifact(mlflow, run_id, "environment/system_info.json")
    return isinstance(value, dict) and str(value.get("schema", "")).startswith("reprod.")


def _free_folder(mlflow: Any, client: Any, run_id: str, folder: str, file: Path) -> str:
    """Return the first of ``folder`` and ``reprod/FOLDER`` where no file of the user's is in the way."""
    wanted = _what_it_says(json.loads(file.read_bytes()))
    for place in (folder, f"reprod/{folder}".rstrip("/")):
        path = f"{place}/{file.name}" if place else file.name
        if not any(entry.path == path for entry in client.list_artifacts(run_id, place or None)):
            return place
        value = _json_artifact(mlflow, run_id, path)
        if not isinstance(value, dict) or not {"manifest_version", "complete"} <= value.keys():
            continue
        if _what_it_says(value) == wanted:
            return place
        raise UsageError(
            f"run {run_id} has the manifest of another set at {path}",
            hint="log_to_mlflow(manifest, artifact_path=...) puts this one beside it",
        )
    raise UsageError(f"run {run_id} has other files at {path}", hint="log_to_mlflow(manifest, artifact_path=...)")


def _what_it_says(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest without when it was made and how fast."""
    timed = ("generated_at", "throughput_bytes_per_second", "throughput_files_per_second")
    said = {key: value for key, value in manifest.items() if key not in timed}
    if isinstance(said.get("summary"), dict):
        said["summary"] = {key: value for key, value in said["summary"].items() if key != "processing_time_seconds"}
    return said


def _json_artifact(mlflow: Any, run_id: str, path: str) -> Any:
    """Return what a JSON artifact holds, None for anything else; nothing is shown to the user."""
    with TemporaryDirectory(prefix="reprod-") as directory, _no_progress_bars():
        found = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=directory)
        try:
            return json.loads(Path(found).read_bytes())
        except (OSError, ValueError):  # OSError: it is a folder
            return None


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep MLflow from drawing on the user's terminal, unless they asked for it themselves."""
    if "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR" in os.environ:
        yield
        return
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", None)


def load_mlflow() -> Any:
    """Return the user's own MLflow. :raises UsageError: there is none."""
    try:
        import mlflow
    except ImportError as error:
        raise UsageError("MLflow is not installed here", hint="pip install mlflow") from error
    return mlflow


@contextmanager
def talking() -> Iterator[None]:
    """Make what MLflow raises an error of ours: TrackingError, NotFoundError."""
    try:
        yield
    except ReprodError:
        raise
    except Exception as error:  # MLflow raises its own, requests', urllib3's and SQLAlchemy's errors
        said = redact_known((str(error).strip() or type(error).__name__).splitlines()[0], os.environ)
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            raise NotFoundError(f"MLflow: {said}", hint="is the tracking URI the one that the run is on?") from error
        raise TrackingError(f"MLflow: {said}", hint="is the tracking server reachable?") from error
