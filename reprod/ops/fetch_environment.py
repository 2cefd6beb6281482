"""The verb that reads a run's environment back from the tracking server alone: no state of this host.

``environment.json`` is on the run; what is large may lie on a store run, to which that refers. Whatever of it comes
from where, it counts only if its digest is the one that was written: else DamagedError. Sizes are bytes.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprod.core.environment import PREFIX, Record
from reprod.core.environment_files import read_back
from reprod.errors import DamagedError, IncompleteError, TrackingError
from reprod.ops.fetch import active_run, read_object, sharing_run
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import Download, SinkError
from reprod.sinks.run_messages import WholeRun

#: One document; 2,000 packages make 1 MB.
LARGEST_BYTES = 64 << 20

WHOLE, INSTALLED = "environment.json", "packages.json"

#: Where a run has them: ours goes under reprod/ where a file of the user's own has its place.
_TOPS = ("environment", "reprod")
_UNKNOWN = "environment_unknown.json"

#: Environments that are looked at for one run, with their lists of packages.
_MOST_FILES = 64


def fetch_environment(child: MlflowChild, run_id: str) -> Record:
    """Return the environment that a run carries.

    :raises NotFoundError: no such run. :raises IncompleteError: nothing is recorded of its environment.
    :raises DamagedError: a part is missing, or is not what was recorded. :raises TrackingError: the server cannot be
    reached or refuses.
    """
    whole = sharing_run(child, active_run(child, run_id, _TOPS), _TOPS)
    if whole.unlisted is not None:
        raise TrackingError(f"the files of run {run_id} cannot be listed: {whole.unlisted}", hint="reprod doctor")
    with tempfile.TemporaryDirectory(prefix="reprod-environment-") as folder:
        return _fetch(child, whole, Path(folder))


def _fetch(child: MlflowChild, whole_run: WholeRun, folder: Path) -> Record:
    run_id = whole_run.head.run_id
    wanted = [path for path in whole_run.artifacts if path.rpartition("/")[2] in {WHOLE, INSTALLED, _UNKNOWN}]
    wanted = wanted[:_MOST_FILES]
    if wanted:
        child.download(Download(run_id, tuple(wanted), str(folder), LARGEST_BYTES))
    places = [path.rpartition("/")[0] for path in wanted if path.endswith("/" + WHOLE)]
    found = [each for each in sorted(places, key=_latest) if "digest" in read_object(folder / each / WHOLE)]
    if not found:
        told = [read_object(folder / path).get("reason") for path in wanted if path.endswith(_UNKNOWN)]
        why = next((each for each in reversed(told) if each), "no environment.json of reprod's is on it")
        raise IncompleteError(f"the environment of run {run_id} is not recorded: {why}", hint="reprod doctor")
    place = folder / found[0]
    whole, installed = read_object(place / WHOLE), place / INSTALLED
    listed = "packages" in read_object(installed)  # a header alone says where the list is
    if not listed and _has_packages(whole):
        installed, listed = _stored(child, whole, folder), True
    return read_back((place / WHOLE).read_bytes(), installed.read_bytes() if listed else None)


def _latest(folder: str) -> tuple[int, bool]:
    """Sort what was recorded last first (``reprod/2/environment``), and ours before a user's own."""
    number = folder.removeprefix("reprod/").partition("/")[0]
    return -int(number) if number.isascii() and number.isdigit() else 0, not folder.startswith("reprod/")


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
