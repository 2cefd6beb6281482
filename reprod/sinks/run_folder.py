"""The folders of a run's artifacts: what lies in them, which places are taken, and uploading. Child process only.

A file of the user's is never overwritten, also not by a folder. MLflow's client also looks for logged models of a
folder's name, of which servers before 3.0 know nothing: they answer 404 to every folder but the root (client 3.17.2,
server 2.22.5). Then the run's own artifacts are all there are.
"""

from pathlib import Path, PurePosixPath
from typing import Any, Literal

from reprod.sinks.failures import error_code


def list_folder(client: Any, run_id: str, folder: str) -> list[Any]:
    """Return MLflow's ``FileInfo`` of all that lies directly in a folder of a run ("": its root); none if it is none.

    Raises what MLflow's client does.
    """
    try:
        return list(client.list_artifacts(run_id, folder or None))
    except Exception as error:
        if error_code(error) != "ENDPOINT_NOT_FOUND":
            raise
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run = client.get_run(run_id)
    return list(get_artifact_repository(run.info.artifact_uri, client.tracking_uri).list_artifacts(folder or None))


class RunFolders:
    """The folders of one run, each listed once, when it is first needed. Paths are relative to the run's artifacts."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._listed: dict[str, dict[str, bool]] = {}  # what lies in a folder, and whether that is a folder too

    def has(self, path: str) -> bool:
        """Whether a path is taken: by what lies there, or by a file in place of a folder above it."""
        way = self._way(path)
        return way == "blocked" or (way == "there" and path in self._list(_parent(path)))

    def blocks(self, path: str) -> bool:
        """Whether a file stands in place of a folder above a path."""
        return self._way(path) == "blocked"

    def _way(self, path: str) -> Literal["none", "blocked", "there"]:
        """Return whether the folders above a path are there; lists none that is not."""
        for folder in reversed([str(each) for each in PurePosixPath(path).parents if each.name]):
            is_folder = self._list(_parent(folder)).get(folder)
            if not is_folder:
                return "none" if is_folder is None else "blocked"
        return "there"

    def _list(self, folder: str) -> dict[str, bool]:
        if folder not in self._listed:
            found = list_folder(self._client, self._run_id, folder)
            self._listed[folder] = {str(info.path): bool(info.is_dir) for info in found}
        return self._listed[folder]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def upload(client: Any, run_id: str, folder: Path) -> tuple[str, ...]:
    """Upload all files of a folder; return those left out: a file of the user's stands in place of a folder above them.

    To such a one a server that keeps artifacts in real folders answers 500 at every attempt, as if it were in trouble:
    a user's file named ``reprod`` would hold up all that is owed to everybody.
    """
    try:
        client.log_artifacts(run_id, str(folder))
    except Exception:
        folders = RunFolders(client, run_id)
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        placed = {path: file for path, file in files.items() if not folders.blocks(path)}
        if len(placed) == len(files):
            raise
        for path, file in placed.items():
            client.log_artifact(run_id, str(file), _parent(path) or None)
        return tuple(path for path in files if path not in placed)
    return ()
