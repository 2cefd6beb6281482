"""What a snapshot becomes on a run: tags, metrics, params and dataset inputs, as the contract names them.

Pure: the same snapshot gives the same values at every attempt. What is not known is absent.
"""

import json
from pathlib import Path

from reprod.core import manifest
from reprod.core.environment import Environment
from reprod.core.environment_files import parameters, rebuildable
from reprod.core.manifest import rfc3339
from reprod.core.run import DatasetInput
from reprod.core.snapshot import BoundDataset, Snapshot

#: MLflow's limit for a tag is 8,000 characters; a person reads one sentence.
MAX_ERROR_CHARACTERS = 1000


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
)


def tags(snapshot: Snapshot, recorded: str, environment: Environment | None) -> dict[str, str]:
    """Return all tags but ``reprod.state``, which is written last by the sink."""
    tags = {"reprod.recorded": recorded, "reprod.host": snapshot.host}
    for dataset in snapshot.datasets:
        tags.update({f"{key}.{dataset.name}": value for key, value in _dataset_tags(dataset).items()})
    if len(snapshot.datasets) == 1 and not snapshot.unknown_names:
        tags.update(_dataset_tags(snapshot.datasets[0]))
    if snapshot.assurance is not None:
        tags["reprod.assurance"] = snapshot.assurance
    chains = [f"{d.name}@{d.seq}:{d.chain}" for d in snapshot.datasets if d.digest is not None]
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


def stale_tags(snapshot: Snapshot, recorded: str, environment: Environment | None) -> tuple[str, ...]:
    """Return tags of ours that an earlier, incomplete capture may have left and this one does not write."""
    written = tags(snapshot, recorded, environment)
    keys = [*_OPTIONAL_TAGS]
    for dataset in snapshot.datasets:
        keys += [
            f"{key}.{dataset.name}" for key in ("reprod.digest", "reprod.version", "reprod.bound", "reprod.candidates")
        ]
    return tuple(key for key in keys if key not in written)


def _sentence(text: str) -> str:
    return text if len(text) <= MAX_ERROR_CHARACTERS else text[: MAX_ERROR_CHARACTERS - 1] + "…"


def metrics(snapshot: Snapshot) -> dict[str, float]:
    """Return the seed's metrics: totals, and each for itself where there are several datasets."""
    known = [d for d in snapshot.datasets if d.digest is not None]
    if not known:
        return {}
    metrics = {
        "data_files_count": float(sum(d.files or 0 for d in known)),
        "data_size_bytes": float(sum(d.bytes or 0 for d in known)),
        "data_processing_time": sum(d.processing_seconds for d in known),
    }
    if len(snapshot.datasets) > 1:
        for d in known:
            metrics[f"data_files_count.{d.name}"] = float(d.files or 0)
            metrics[f"data_size_bytes.{d.name}"] = float(d.bytes or 0)
            metrics[f"data_processing_time.{d.name}"] = d.processing_seconds
    return metrics


def params(snapshot: Snapshot, environment: Environment | None) -> dict[str, str]:
    """Return the seed's params; what is not known is absent."""
    params = parameters(environment) if environment is not None else {}
    known = [d for d in snapshot.datasets if d.digest is not None]
    if known:
        params["data_path"] = ",".join(d.root for d in known)
        params["hash_algorithms"] = ",".join(dict.fromkeys(a for d in known for a in d.algorithms))
        params["manifest_version"] = manifest.MANIFEST_VERSION
        if len(snapshot.datasets) > 1:
            for d in known:
                params[f"data_path.{d.name}"] = d.root
    return params


def dataset_input(dataset: BoundDataset) -> DatasetInput:
    """Return the row for MLflow's Dataset column; the drawer shows a flat profile line by line."""
    found = dataset.digest or ""
    profile = {
        "files": dataset.files,
        "bytes": dataset.bytes,
        "digest": found,
        "version": dataset.seq,
        "bound": dataset.bound,
        "assurance": dataset.assurance,
        "sealed_at": rfc3339(dataset.sealed_ns) if dataset.sealed_ns else None,
    }
    return DatasetInput(
        name=dataset.name,
        digest=found.removeprefix("dt1:")[:36],
        source=json.dumps({"uri": Path(dataset.root).as_uri()}),
        source_type="local",
        profile=json.dumps(profile),
    )
