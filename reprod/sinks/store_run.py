"""Store runs: where manifests and environments lie, one run of ``reprod-datasets`` for each digest. Child process only.

A store run is found by its tag ``reprod.manifest.digest`` (``reprod.environment.digest`` for ``env1:`` digests), which
is set last and alone: a run that has it has every file. It never carries ``reprod.dataset``, so nobody takes it for
work. What an attempt leaves behind has no such tag and is never found. Two runs with one digest hold the same rows;
checkpoints come before deltas, older before younger.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reprod.sinks.failures import error_code, kind_of
from reprod.sinks.protocol import (
    DIGEST_TAG,
    ENVIRONMENT_TAG,
    STORE_EXPERIMENT,
    Download,
    Downloaded,
    SinkError,
    StoredRun,
    Upload,
)
from reprod.sinks.run_folder import list_folder

DIGEST = re.compile(r"(?:dt1|env1):[0-9a-f]{64}")

#: Duplicates of one digest that are looked at: races make two, every lost base at most one more.
AT_MOST = 10

#: A proxying server answers a PUT only when the artifact store behind it has everything: 1 MB/s is waited for.
SLOWEST_BYTES_S = 1_000_000


def find(client: Any, digest: str, hint: str | None) -> tuple[StoredRun, ...]:
    """Return the active store runs of a digest with the files on them: the hinted one first, if it is one of them."""
    if not DIGEST.fullmatch(digest):  # it goes into the filter, and may be what somebody wrote into a tag
        return ()
    runs = {str(run.info.run_id): run for run in _search(client, digest)}
    order = sorted(runs, key=lambda run_id: (run_id != hint, runs[run_id].data.tags.get("reprod.manifest.kind") or "~"))
    return tuple(_stored(client, runs[run_id]) for run_id in order)


def open_run(client: Any, name: str) -> str:
    """Return the id of a new, bare store run; the experiment is made, or taken back from the trash, as needed."""
    run = client.create_run(_experiment_id(client), run_name=name)
    return str(run.info.run_id)


def upload(client: Any, ask: Upload) -> None:
    """Write files and tags to a store run, end it, and set the tag that makes it found. Repeating changes nothing.

    Raises `SinkError` of kind ``gone`` for a deleted run (which would still take artifacts).
    """
    from mlflow.entities import RunTag

    files = [path for path in Path(ask.folder).iterdir() if path.is_file()]
    if client.get_run(ask.run_id).info.lifecycle_stage != "active":
        raise SinkError("gone", f"store run {ask.run_id} is deleted")
    with _patience(max((path.stat().st_size for path in files), default=0)):
        client.log_artifacts(ask.run_id, ask.folder)
    client.log_batch(ask.run_id, tags=[RunTag(key, value) for key, value in ask.tags.items()])
    client.set_terminated(ask.run_id)
    client.set_tag(ask.run_id, _tag_of(ask.digest), ask.digest)


def download(client: Any, ask: Download) -> Downloaded:
    """Fetch those of the files that are on the run and within the limit into ``ask.folder``, at the same paths."""
    missing, too_large = [], []
    listed: dict[str, dict[str, int]] = {}
    for path in ask.paths:
        directory = path.rpartition("/")[0]
        if directory not in listed:
            listed[directory] = _sizes(client, ask.run_id, directory)
        size = listed[directory].get(path)
        if size is None:
            missing.append(path)
        elif size > ask.limit_bytes:
            too_large.append(path)
        else:
            _fetch(client, ask.run_id, path, size, Path(ask.folder))
    return Downloaded(tuple(missing), tuple(too_large))


def _fetch(client: Any, run_id: str, path: str, size: int, folder: Path) -> None:
    """Fetch one file to its path; where exactly MLflow puts a file of a subfolder differs between its versions."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside, _patience(size):
        Path(client.download_artifacts(run_id, path, aside)).replace(target)


def _tag_of(digest: str) -> str:
    return ENVIRONMENT_TAG if digest.startswith("env1:") else DIGEST_TAG


def _search(client: Any, digest: str) -> list[Any]:
    """Return the active runs with this digest, oldest first."""
    from mlflow.entities import ViewType

    experiment = client.get_experiment_by_name(STORE_EXPERIMENT)
    if experiment is None or experiment.lifecycle_stage != "active":
        return []
    return list(
        client.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.`{_tag_of(digest)}` = '{digest}'",
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=AT_MOST,
            order_by=["attributes.start_time ASC"],
        )
    )


def _stored(client: Any, run: Any) -> StoredRun:
    tags = run.data.tags
    return StoredRun(
        run_id=str(run.info.run_id),
        kind=str(tags.get("reprod.manifest.kind", "")),
        base=tags.get("reprod.manifest.base"),
        base_run=tags.get("reprod.manifest.base_run"),
        files=_sizes(client, str(run.info.run_id), ""),
    )


def _sizes(client: Any, run_id: str, directory: str) -> dict[str, int]:
    """Return the files directly in one folder of a run's artifacts, in bytes."""
    found = list_folder(client, run_id, directory)
    return {str(info.path): int(info.file_size or 0) for info in found if not info.is_dir}


def _experiment_id(client: Any) -> str:
    experiment = client.get_experiment_by_name(STORE_EXPERIMENT)
    if experiment is None:
        try:
            return str(client.create_experiment(STORE_EXPERIMENT))
        except Exception as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":  # another daemon made it meanwhile
                raise
            experiment = client.get_experiment_by_name(STORE_EXPERIMENT)
    if experiment.lifecycle_stage != "active":
        try:  # its name cannot be given to another experiment while it is in the trash
            client.restore_experiment(experiment.experiment_id)
        except Exception as error:
            if kind_of(error) not in {"gone", "permanent"}:  # restored by another daemon meanwhile
                raise
    return str(experiment.experiment_id)


@contextmanager
def _patience(size: int) -> Iterator[None]:
    """Wait longer than usual for the answer to one large request; MLflow reads its setting at each."""
    key = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(key, "10")
    wanted = 10 + size // SLOWEST_BYTES_S
    if before.isdigit() and int(before) < wanted:
        os.environ[key] = str(wanted)
    try:
        yield
    finally:
        os.environ[key] = before
