"""The verb that puts a captured environment where people and runs find it: a directory, and an MLflow run.

For the library's call and the command alike. The run is written through the user's own MLflow, in this process.
"""

from collections.abc import Mapping
from pathlib import Path

from reprod.core.environment import Record
from reprod.core.environment_files import artifacts, parameters, rebuildable
from reprod.errors import StateError
from reprod.fs.atomic import write_atomic

#: The tag that says at capture time whether packages and code can be had again.
REBUILDABLE = "reprod.rebuildable"


def write_artifacts(record: Record, directory: Path) -> dict[str, Path]:
    """Write the files of an environment into ``directory``, which is made if needed; return their paths by name.

    Each file is replaced atomically. Raises StateError when the directory cannot be written.
    """
    written = {}
    try:
        for name, data in artifacts(record).items():
            written[name] = directory / name
            written[name].parent.mkdir(parents=True, exist_ok=True)
            write_atomic(written[name], data)
    except OSError as error:
        raise StateError(
            f"{directory} cannot be written: {error.strerror}", hint="choose another directory, or free some space"
        ) from error
    return written


def log_artifacts(record: Record, written: Mapping[str, Path], run_id: str) -> None:
    """Put files, parameters and ``reprod.rebuildable`` on a run; raises TrackingError, NotFoundError."""
    from reprod.sinks import inprocess

    env = record.environment
    tags = {REBUILDABLE: rebuildable(env).verdict}
    inprocess.log_environment(run_id, written, parameters(env), tags)
