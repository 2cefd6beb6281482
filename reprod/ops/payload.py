"""What a snapshot becomes on a run: tags, metrics, params and dataset inputs, as the contract names them.

Pure: the same snapshot gives the same values at every attempt. What is not known is absent.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from reprod.core import manifest
from reprod.core.environment import Environment
from reprod.core.environment_files import parameters, rebuildable
from reprod.core.manifest import rfc3339
from reprod.core.run import PARAM_LIMIT, TAG_LIMIT, DatasetInput, dataset_names, key_of
from reprod.core.snapshot import BoundDataset, Snapshot

#: MLflow's limit for a tag is 8,000 characters; a person reads one sentence.
MAX_ERROR_CHARACTERS = 1000

#: MLflow's limit for the name of a dataset input.
MAX_INPUT_NAME = 500

#: Where values go that are longer than MLflow lets a tag or a param be: it would cut them without a word.
VALUES = "reprod/values.json"

#: Tags that a later capture of the same run may no longer have.
_OPTIONAL_TAGS = (
    "reprod.error",
    "reprod.note",
    "reprod.digest",
    "reprod.version",
    "reprod.bound",
    "reprod.candidates",
    "reprod.assurance",
    "reprod.rebuildable",
    "reprod.drift",
    "reprod.same_as",
)
_OF_A_DATASET = frozenset({"digest", "version", "bound", "candidates", "drift", "conflict", "nodes"})


def tags(snapshot: Snapshot, recorded: str, environment: Environment | None) -> dict[str, str]:
    """Return all tags but ``reprod.state``, which is written last by the sink."""
    return _fitting(_all_tags(snapshot, recorded, environment), TAG_LIMIT)


def _all_tags(snapshot: Snapshot, recorded: str, environment: Environment | None) -> dict[str, str]:
    tags = {"reprod.recorded": recorded, "reprod.dataset_from": snapshot.source, "reprod.host": snapshot.host}
    for dataset in snapshot.datasets:
        tags.update({f"{key}.{key_of(dataset.named)}": value for key, value in _dataset_tags(dataset).items()})
    if len(snapshot.datasets) == 1 and not snapshot.unknown_names:
        tags.update(_dataset_tags(snapshot.datasets[0]))
    if snapshot.assurance is not None:
        tags["reprod.assurance"] = snapshot.assurance
    chains = dict.fromkeys(f"{d.name}@{d.seq}:{d.chain}" for d in snapshot.datasets if d.digest is not None)
    if chains:
        tags["reprod.chain"] = ",".join(chains)
    if environment is not None:
        tags["reprod.rebuildable"] = rebuildable(environment).verdict
    if snapshot.errors:
        tags["reprod.error"] = _sentence("; ".join(snapshot.errors))
    return tags


def _dataset_tags(dataset: BoundDataset) -> dict[str, str]:
    tags: dict[str, str] = {"reprod.bound": dataset.bound} if dataset.bound else {}
    if dataset.digest is not None:
        return {**tags, "reprod.digest": dataset.digest, "reprod.version": str(dataset.seq)}
    if dataset.candidates:
        tags["reprod.candidates"] = ",".join(f"{seq}:{found or 'incomplete'}" for seq, found in dataset.candidates)
    return tags


def stale_tags(present: Iterable[str], written: Collection[str], recorded: str, snapshot: Snapshot) -> tuple[str, ...]:
    """Return those of our tags on a run that an earlier capture left and this one does not write.

    What another host says of a dataset that the run still names is left to it.
    """
    ours = {key_of(each.named) for each in snapshot.datasets}
    named = {key_of(each) for each in dataset_names(recorded)}
    stale = {"reprod.error", "reprod.note"}
    for key in present:
        head, _, rest = key.removeprefix("reprod.").partition(".")
        of_a_dataset = rest and head in _OF_A_DATASET
        anothers = rest in named - ours or any(rest.startswith(f"{each}/") for each in named)
        if key in _OPTIONAL_TAGS or (of_a_dataset and not anothers):
            stale.add(key)
    return tuple(sorted(stale - set(written)))


def _fitting(values: Mapping[str, str], limit: int) -> dict[str, str]:
    """Return the values that MLflow takes whole."""
    return {key: value for key, value in values.items() if len(value) <= limit}


def too_long(snapshot: Snapshot, recorded: str, environment: Environment | None) -> dict[str, dict[str, str]]:
    """Return the values that MLflow would cut: ``{"tags": {...}, "params": {...}}``; nothing where there are none."""
    tags, params = _all_tags(snapshot, recorded, environment), _all_params(snapshot, environment)
    found = {
        "tags": {key: value for key, value in tags.items() if len(value) > TAG_LIMIT},
        "params": {key: value for key, value in params.items() if len(value) > PARAM_LIMIT},
    }
    return {kind: values for kind, values in found.items() if values}


def _sentence(text: str) -> str:
    return text if len(text) <= MAX_ERROR_CHARACTERS else text[: MAX_ERROR_CHARACTERS - 1] + "…"


def metrics(snapshot: Snapshot) -> dict[str, float]:
    """Return the seed's metrics: totals, and each for itself where there are several datasets."""
    known = [d for d in snapshot.datasets if d.digest is not None and d.publish != "digest"]
    if not known:
        return {}
    metrics = {
        "data_files_count": float(sum(d.files or 0 for d in known)),
        "data_size_bytes": float(sum(d.bytes or 0 for d in known)),
        "data_processing_time": sum(d.processing_seconds for d in known),
    }
    if len(snapshot.datasets) > 1:
        for d in known:
            metrics[f"data_files_count.{key_of(d.named)}"] = float(d.files or 0)
            metrics[f"data_size_bytes.{key_of(d.named)}"] = float(d.bytes or 0)
            metrics[f"data_processing_time.{key_of(d.named)}"] = d.processing_seconds
    return metrics


def params(snapshot: Snapshot, environment: Environment | None) -> dict[str, str]:
    """Return the seed's params; what is not known is absent."""
    return _fitting(_all_params(snapshot, environment), PARAM_LIMIT)


def _all_params(snapshot: Snapshot, environment: Environment | None) -> dict[str, str]:
    params = parameters(environment) if environment is not None else {}
    known = [d for d in snapshot.datasets if d.digest is not None]
    if known:
        shown = [d for d in known if d.publish != "digest"]
        if shown:
            params["data_path"] = ",".join(d.data_path for d in shown)
        params["hash_algorithms"] = ",".join(dict.fromkeys(a for d in known for a in d.algorithms))
        params["manifest_version"] = manifest.MANIFEST_VERSION
        if len(snapshot.datasets) > 1:
            for d in shown:
                params[f"data_path.{key_of(d.named)}"] = d.data_path
    return params


def dataset_input(dataset: BoundDataset) -> DatasetInput:
    """Return the row for MLflow's Dataset column; the drawer shows a flat profile line by line."""
    found, told = dataset.digest or "", dataset.publish != "digest"
    profile = {
        **({"files": dataset.files, "bytes": dataset.bytes} if told else {}),
        "digest": found,
        "version": dataset.seq,
        "bound": dataset.bound,
        "assurance": dataset.assurance,
        "sealed_at": rfc3339(dataset.sealed_ns) if dataset.sealed_ns else None,
    }
    return DatasetInput(
        name=dataset.named if len(dataset.named) <= MAX_INPUT_NAME else key_of(dataset.named),
        digest=found.removeprefix("dt1:")[:36],
        source=json.dumps({"uri": Path(dataset.data_path).as_uri()} if told else {}),
        source_type="local",
        profile=json.dumps(profile),
    )
