"""Writes one payload to its run, and says beforehand which names the run already has. Child process only.

The order is the promise: artifacts, dataset inputs, metrics and tags, params, and ``reprod.state`` last and alone, so a
run with a state has everything. Every step repeats without a difference (frozen values and times, MLflow drops an equal
metric point and an equal dataset), so a crash at any request is cured by doing all of it again. Where another host may
write to the run too, whoever is second adds tags alone (`reprod.sinks.many_hosts`).
"""

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reprod.core.run import PARAM_LIMIT, TAG_LIMIT, DatasetInput, Payload
from reprod.sinks.failures import error_code, kind_of
from reprod.sinks.many_hosts import OWNER, STATE, WRITING, Share, share
from reprod.sinks.protocol import Delivered, Note, SinkError, Taken
from reprod.sinks.run_folder import RunFolders, upload

#: MLflow's further limits in characters (mlflow.utils.validation, 3.17.2).
KEY_LIMIT = 250
INPUT_LIMITS = {"name": 500, "digest": 36, "source": 65_535, "source_type": 36, "profile": 16_777_215}

#: How long who claimed a run waits before it looks whether another did too: several times what a read and a write take.
SETTLE_S = 0.2
#: What a host says before it writes counts for so long: then it has died, or is cut off.
BUSY_S = 60.0
#: Looks after writing, until two in a row find nothing missing: what three hosts say together may need several.
LOOKS = 10

#: Ours stands beside the user's under this prefix.
RENAMED = "reprod."


def prepare(client: Any, run_id: str, artifact_paths: Iterable[str], metric_keys: Iterable[str]) -> Taken:
    """Return which of these the run already has.

    An artifact path is also taken where a file stands in place of one of its directories. Lists only the directories
    on the way to the asked paths.
    """
    run = _active_run(client, run_id)
    folders = RunFolders(client, run_id)
    return Taken(
        artifacts_taken=tuple(path for path in artifact_paths if folders.has(path)),
        metrics_taken=tuple(key for key in metric_keys if key in run.data.metrics),
    )


def deliver(client: Any, payload: Payload) -> Delivered:
    """Write the payload to its run and return what became of params and artifacts whose names were taken.

    Raises `SinkError` of kind ``permanent`` before the first request for a value over MLflow's limits or lost artifact
    files, of kind ``gone`` for a deleted run (which would still take artifacts), of kind ``busy`` while another host
    writes to it.
    """
    check_limits(payload)
    has = tags_of(client, payload.run_id)
    if payload.rivals:
        has = _claimed(client, payload, has)
    delivered = Delivered()
    mine = share(has, payload)
    left_out: tuple[str, ...] = ()
    if mine.owns:
        left_out = _write_files(client, payload)
        if payload.rivals:  # that took a while
            has = tags_of(client, payload.run_id)
            mine = share(has, payload)
    if mine.owns:
        delivered = _write_record(client, payload, mine, has)
    else:
        _write_beside(client, payload, mine)
    if payload.rivals or not mine.owns:
        _stand_by(client, payload)
    return replace(delivered, artifacts_left_out=left_out)


def _write_files(client: Any, payload: Payload) -> tuple[str, ...]:
    """Upload artifacts and inputs; return the artifacts that have no place on the run."""
    left_out: tuple[str, ...] = ()
    if payload.artifacts_dir is not None:
        left_out = upload(client, payload.run_id, Path(payload.artifacts_dir))
    if payload.inputs:
        inputs = [_dataset_input(row) for row in payload.inputs]
        _once_more(lambda: client.log_inputs(payload.run_id, inputs))
    return left_out


def _write_record(client: Any, payload: Payload, mine: Share, has: dict[str, str]) -> Delivered:
    """Write all but the files; the state last."""
    from mlflow.entities import Metric, RunTag

    metrics = [Metric(key, value, payload.timestamp_ms, 0) for key, value in payload.metrics.items()]
    tags = [RunTag(key, value) for key, value in mine.tags.items()]
    if metrics or tags:
        _once_more(lambda: client.log_batch(payload.run_id, metrics=metrics, tags=tags))
    delivered = Delivered() if payload.params is None else _log_params(client, payload.run_id, payload.params)
    for key in mine.remove:
        if key in has:
            client.delete_tag(payload.run_id, key)
    if payload.state is not None:
        client.set_tag(payload.run_id, STATE, payload.state)
    return delivered


def _write_beside(client: Any, payload: Payload, mine: Share) -> None:
    """Write what differs from another host's record, and nothing that is the run's own."""
    if mine.beside and payload.artifacts_dir is not None and payload.host_id is not None:
        place = f"reprod/{payload.host_id[:8]}"
        for entry in sorted(Path(payload.artifacts_dir).iterdir()):
            if entry.is_file():
                client.log_artifact(payload.run_id, str(entry), place)
            else:  # what would lie beside the owner's files of the same names is below reprod/ already
                inside = "" if entry.name == "reprod" else f"/{entry.name}"
                client.log_artifacts(payload.run_id, str(entry), place + inside)
    set_tags(client, payload.run_id, mine.tags)


def _claimed(client: Any, payload: Payload, has: dict[str, str]) -> dict[str, str]:
    """Say that we are about to write the record, unless another host has just said so; return the run's tags then.

    MLflow cannot tell which of two came first, but who set the tag last stays; the other has looked again by then.
    """
    own = str(payload.host_id)
    if OWNER in has or STATE in has:
        return has
    _require_free(payload, has, own)
    if not has.get(WRITING, "").startswith(own):
        set_tags(client, payload.run_id, {WRITING: f"{own} {int(time.time())}"})
        time.sleep(SETTLE_S)
        has = tags_of(client, payload.run_id)
        if OWNER not in has:
            _require_free(payload, has, own)
    return has


def _require_free(payload: Payload, has: dict[str, str], own: str) -> None:
    """Raise `SinkError` of kind ``busy`` if another host said lately that it writes; a dead one counts no more."""
    host, _, since = has.get(WRITING, "").partition(" ")
    if host not in {"", own} and since.isdecimal() and abs(time.time() - int(since)) < BUSY_S:
        raise SinkError("busy", f"run {payload.run_id} is being recorded by host {host[:8]}")


def _stand_by(client: Any, payload: Payload) -> None:
    """Look again until all that we have to say stands on the run: another host may have written at the same time."""
    agreed = 0
    for _ in range(LOOKS):
        time.sleep(SETTLE_S * random.uniform(0.5, 1.5))  # noqa: S311 - so that two do not write in step
        has = tags_of(client, payload.run_id)
        mine = share(has, payload)
        news = {key: value for key, value in mine.tags.items() if has.get(key) != value}
        agreed = 0 if news else agreed + 1
        if agreed == 2:
            break
        if mine.owns:
            set_tags(client, payload.run_id, news)
        elif news:
            _write_beside(client, payload, replace(mine, tags=news))
    if has.get(WRITING, "").startswith(str(payload.host_id)):
        client.delete_tag(payload.run_id, WRITING)


def note(client: Any, asked: Note) -> bool:
    """Say a sentence on a run while nobody has recorded it; whether that was done."""
    tags = tags_of(client, asked.run_id)
    text = asked.text[:TAG_LIMIT]
    if STATE in tags or tags.get(asked.key) == text or (asked.once and asked.key in tags):
        return False
    set_tags(client, asked.run_id, {asked.key: text})
    return True


def tags_of(client: Any, run_id: str) -> dict[str, str]:
    """Return the tags of an active run. Raises `SinkError` of kind ``gone`` for a deleted one."""
    return dict(_active_run(client, run_id).data.tags)


def set_tags(client: Any, run_id: str, tags: dict[str, str]) -> None:
    """Write tags of ours, if there are any; another writer at the same moment is no error."""
    from mlflow.entities import RunTag

    if tags:
        _once_more(lambda: client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()]))


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
