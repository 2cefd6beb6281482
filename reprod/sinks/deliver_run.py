"""Writes one payload to its run, and says beforehand which names the run already has. Child process only.

The order is the promise: artifacts, dataset inputs, metrics and tags, params, and ``reprod.state`` last and alone, so a
run with a state has everything. Every step repeats without a difference (frozen values and times, MLflow drops an equal
metric point and an equal dataset), so a crash at any request is cured by doing all of it again.
"""

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from reprod.core.run import DatasetInput, Payload
from reprod.sinks.failures import error_code, kind_of
from reprod.sinks.protocol import Delivered, Note, SinkError, Taken

#: MLflow's limits in characters (mlflow.utils.validation, 3.17.2). Over HTTP the server cuts longer values without a
#: word, and a cut value then counts as equal: so they are refused here.
KEY_LIMIT = 250
PARAM_LIMIT = 6000
TAG_LIMIT = 8000
INPUT_LIMITS = {"name": 500, "digest": 36, "source": 65_535, "source_type": 36, "profile": 16_777_215}

#: Ours stands beside the user's under this prefix.
RENAMED = "reprod."


def prepare(client: Any, run_id: str, artifact_paths: Iterable[str], metric_keys: Iterable[str]) -> Taken:
    """Return which of these the run already has.

    An artifact path is also taken where a file stands in place of one of its directories. Lists only the directories
    on the way to the asked paths.
    """
    run = _active_run(client, run_id)
    listings: dict[str, dict[str, bool]] = {}

    def listing(directory: str) -> dict[str, bool]:
        if directory not in listings:
            infos = client.list_artifacts(run_id, directory or None)
            listings[directory] = {str(info.path): bool(info.is_dir) for info in infos}
        return listings[directory]

    return Taken(
        artifacts_taken=tuple(path for path in artifact_paths if _is_taken(path, listing)),
        metrics_taken=tuple(key for key in metric_keys if key in run.data.metrics),
    )


def deliver(client: Any, payload: Payload) -> Delivered:
    """Write the payload to its run and return what became of params whose names were taken.

    Raises `SinkError` of kind ``permanent`` before the first request for a value over MLflow's limits or lost artifact
    files, of kind ``gone`` for a deleted run (which would still take artifacts).
    """
    from mlflow.entities import Metric, RunTag

    check_limits(payload)
    run = _active_run(client, payload.run_id)
    if payload.artifacts_dir is not None:
        client.log_artifacts(payload.run_id, payload.artifacts_dir)
    if payload.inputs:
        inputs = [_dataset_input(row) for row in payload.inputs]
        _once_more(lambda: client.log_inputs(payload.run_id, inputs))
    metrics = [Metric(key, value, payload.timestamp_ms, 0) for key, value in payload.metrics.items()]
    tags = [RunTag(key, value) for key, value in payload.tags.items()]
    if metrics or tags:
        _once_more(lambda: client.log_batch(payload.run_id, metrics=metrics, tags=tags))
    delivered = Delivered() if payload.params is None else _log_params(client, payload.run_id, payload.params)
    for key in payload.remove_tags:
        if key in run.data.tags:
            client.delete_tag(payload.run_id, key)
    if payload.state is not None:
        client.set_tag(payload.run_id, "reprod.state", payload.state)
    return delivered


def note(client: Any, asked: Note) -> bool:
    """Say a sentence on a run while nobody has recorded it; whether that was done."""
    tags = _active_run(client, asked.run_id).data.tags
    if "reprod.state" in tags or (asked.once and "reprod.note" in tags):
        return False
    client.set_tag(asked.run_id, "reprod.note", asked.text[:TAG_LIMIT])
    return True


def check_limits(payload: Payload) -> None:
    """Raise `SinkError` (permanent) naming the first key whose name or value MLflow would refuse or cut."""
    params = payload.params or {}
    for what, values, limit in (("tag", payload.tags, TAG_LIMIT), ("param", params, PARAM_LIMIT)):
        for key, value in values.items():
            _check_length(f"{what} {key[:KEY_LIMIT]}", value, limit)
    longest = KEY_LIMIT - len(RENAMED)
    for what, keys, most in (
        ("tag", payload.tags, KEY_LIMIT),
        ("metric", payload.metrics, KEY_LIMIT),
        ("param", params, longest),
    ):
        for key in keys:
            _check_length(f"the name of {what} {key[:40]}...", key, most)
    for row in payload.inputs:
        for part, most in INPUT_LIMITS.items():
            _check_length(f"{part} of dataset input {row.name[:40]}", getattr(row, part), most)
    if payload.artifacts_dir is not None and not Path(payload.artifacts_dir).is_dir():
        raise SinkError("permanent", f"the artifacts to upload are missing: {payload.artifacts_dir}")


def _check_length(what: str, value: str, limit: int) -> None:
    if len(value) > limit:
        raise SinkError("permanent", f"{what} has {len(value)} characters, MLflow takes {limit}")


def _active_run(client: Any, run_id: str) -> Any:
    run = client.get_run(run_id)
    if run.info.lifecycle_stage != "active":
        raise SinkError("gone", f"run {run_id} is deleted")
    return run


def _is_taken(path: str, listing: Callable[[str], dict[str, bool]]) -> bool:
    parents = [str(parent) for parent in reversed(PurePosixPath(path).parents) if parent.name]
    above = ""
    for directory in parents:
        is_directory = listing(above).get(directory)
        if is_directory is None:
            return False
        if not is_directory:
            return True
        above = directory
    return path in listing(above)


def _dataset_input(row: DatasetInput) -> Any:
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowInput

    dataset = Dataset(
        name=row.name, digest=row.digest, source_type=row.source_type, source=row.source, profile=row.profile
    )
    return MlflowInput(dataset=dataset, tags=[InputTag("mlflow.data.context", "training")])


def _log_params(client: Any, run_id: str, params: dict[str, str]) -> Delivered:
    """Log params beside the user's. A batch with one conflict is refused whole, hence one second look after a race."""
    from mlflow.entities import Param

    for last in (False, True):
        wanted, delivered = place_params(client.get_run(run_id).data.params, params)
        if not wanted:
            return delivered
        try:
            client.log_batch(run_id, params=[Param(key, value) for key, value in wanted.items()])
        except Exception as error:
            refused = kind_of(error) == "permanent"
            if last and refused and error_code(error) in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
                keys = ", ".join(wanted)
                raise SinkError("permanent", f"MLflow refused the params {keys} of run {run_id} twice") from error
            if not refused:
                raise
        else:
            return delivered
    raise AssertionError("unreachable: the second look returns or raises")


def place_params(existing: dict[str, str], params: dict[str, str]) -> tuple[dict[str, str], Delivered]:
    """Return what is still to be logged, under which key, and the fate of the taken names.

    An equal value counts as written. Another value is the user's: ours goes to ``reprod.NAME``; where that too holds
    another value (an earlier capture's), it stays and ours is refused, since params cannot change.
    """
    wanted: dict[str, str] = {}
    renamed: list[str] = []
    refused: list[str] = []
    for key, value in params.items():
        held = existing.get(key)
        if held is None:
            wanted[key] = value
        elif held != value:
            second = existing.get(RENAMED + key)
            if second is None:
                wanted[RENAMED + key] = value
            (renamed if second in {None, value} else refused).append(key)
    return wanted, Delivered(tuple(renamed), tuple(refused))


def _once_more(call: Callable[[], Any]) -> None:
    """Call, and again after BAD_REQUEST: what SQL servers answer to the loser of a race for one row, even if equal."""
    try:
        call()
    except Exception as error:
        if error_code(error) != "BAD_REQUEST":
            raise
        call()
