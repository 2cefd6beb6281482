"""The verb that reads a run's environment back from the tracking server alone: no state of this host.

``environment.json`` is on the run; what is large may lie on a store run, to which that refers. Whatever of it comes
from where, it counts only if its digest is the one that was written: else DamagedError. Sizes are bytes.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprod.config import Config
from reprod.core.environment import PREFIX, Record
from reprod.core.environment_files import read_back
from reprod.errors import ConfigError, DamagedError, IncompleteError, NotFoundError, TrackingError
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import Download, SinkError
from reprod.sinks.server import remembered_url

#: One document; 2,000 packages make 1 MB.
LARGEST_BYTES = 64 << 20

WHOLE, INSTALLED = "environment.json", "packages.json"

#: Where a run has them: ours goes under reprod/ where a file of the user's own has its place.
_FOLDERS = ("reprod/environment", "environment")
_UNKNOWN = "reprod/environment_unknown.json"


def fetch_from_server(config: Config, run_id: str) -> Record:
    """Return the environment of a run (the whole id) from the configured tracking server.

    :raises ConfigError: no tracking server is configured. Else as ``fetch_environment``.
    """
    uri = config.mlflow.tracking_uri
    if uri == "local":
        uri = remembered_url(config.state_dir) or ""
    if not uri:
        raise ConfigError(
            "no tracking server is configured to fetch environments from", hint="set [mlflow] tracking_uri"
        )
    child = MlflowChild(uri)
    try:
        return fetch_environment(child, run_id)
    finally:
        child.close()


def fetch_environment(child: MlflowChild, run_id: str) -> Record:
    """Return the environment that a run carries.

    :raises NotFoundError: no such run. :raises IncompleteError: nothing is recorded of its environment.
    :raises DamagedError: a part is missing, or is not what was recorded. :raises TrackingError: the server cannot be
    reached or refuses.
    """
    now = child.runs([run_id])
    if now.denied:
        raise TrackingError(f"run {run_id} may not be read", hint="check the credentials for the tracking server")
    if not now.runs:
        raise NotFoundError(f"there is no run {run_id!r} on the tracking server", hint="give the whole run id")
    with tempfile.TemporaryDirectory(prefix="reprod-environment-") as folder:
        return _fetch(child, run_id, Path(folder))


def _fetch(child: MlflowChild, run_id: str, folder: Path) -> Record:
    paths = [f"{each}/{name}" for each in _FOLDERS for name in (WHOLE, INSTALLED)]
    child.download(Download(run_id, (*paths, _UNKNOWN), str(folder), LARGEST_BYTES))
    found = [each for each in _FOLDERS if "digest" in _document(folder / each / WHOLE)]
    if not found:
        why = _document(folder / _UNKNOWN).get("reason") or "no environment.json of reprod's is on it"
        raise IncompleteError(f"the environment of run {run_id} is not recorded: {why}", hint="reprod doctor")
    place = folder / found[0]
    whole, installed = _document(place / WHOLE), place / INSTALLED
    listed = "packages" in _document(installed)  # a header alone says where the list is
    if not listed and _has_packages(whole):
        installed, listed = _stored(child, whole, folder), True
    return read_back((place / WHOLE).read_bytes(), installed.read_bytes() if listed else None)


def _has_packages(whole: Mapping[str, Any]) -> bool:
    """Whether the packages are known, and so have to be elsewhere."""
    environment = whole.get("environment")
    unknown = environment.get("unknown") if isinstance(environment, dict) else None
    return not (isinstance(unknown, dict) and "packages" in unknown)


def _stored(child: MlflowChild, whole: Mapping[str, Any], folder: Path) -> Path:
    """Return packages.json from the store run that is referred to, else from any with the same digest."""
    reference, digest = whole.get("reference"), whole.get("digest")
    hint = reference.get("run_id") if isinstance(reference, dict) else None
    runs = [hint] if isinstance(hint, str) else []
    target = folder / "stored"
    target.mkdir()
    for run_id in runs:
        if _downloaded(child, run_id, target):
            return target / INSTALLED
    if isinstance(digest, str) and digest.startswith(PREFIX):
        for run in child.find_stored(digest):
            if _downloaded(child, run.run_id, target):
                return target / INSTALLED
    raise DamagedError(
        "the packages of this environment are not on the tracking server any more: their store run is gone",
        hint="the next run in this environment, recorded by the host that has it, uploads them again",
    )


def _downloaded(child: MlflowChild, run_id: str, target: Path) -> bool:
    try:
        child.download(Download(run_id, (INSTALLED,), str(target), LARGEST_BYTES))
    except SinkError as error:
        if error.kind != "gone":
            raise
    return (target / INSTALLED).is_file()


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
