"""The seed's generator, for scripts: describe a folder, save that, log it to MLflow, compare it with the files later.

No daemon, no registered dataset and no state is needed. A manifest is a plain dictionary with the fields of
docs/manifest.md: sizes are bytes, times RFC 3339 UTC. Paths may be str, Path or bytes. Nothing here imports MLflow
before ``log_to_mlflow`` is called.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reprod.errors import UsageError

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

#: The name of the artifact, as the daemon and the seed write it.
ARTIFACT = "data_manifest.json"


class DataManifestGenerator:
    """Makes, saves, logs and validates manifests with sha256 and the given further hash algorithms.

    :param hash_algorithms: of md5, sha1, sha256, sha512, blake2b, and blake3 where installed; sha256 is always there.
    :raises UsageError: an algorithm is not known.
    """

    def __init__(self, hash_algorithms: Sequence[str] | None = None) -> None:
        from reprod.ops.generate import check_algorithms

        self.hash_algorithms = check_algorithms(["sha256"] if hash_algorithms is None else hash_algorithms)

    def generate_manifest(
        self,
        path: AnyPath,
        include_patterns: Sequence[str] | None = None,
        exclude_patterns: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        max_files: int | None = None,
    ) -> dict[str, Any]:
        """Read a folder or a file and return its manifest.

        Patterns are in gitignore syntax, relative to ``path``; a ``.reprodignore`` there counts too. ``metadata`` is
        kept as it is. With ``max_files`` only the first files in the order of the paths' bytes are read; if there are
        more, the manifest says that it was cut and has no digest. What cannot be read is listed, and ``complete`` is
        False then. Raises UsageError, DatasetUnavailableError (no such path), StateError (no temporary space).
        """
        from reprod.core.manifest import document
        from reprod.ops.generate import check_metadata, generate

        with generate(
            path,
            include=include_patterns or (),
            exclude=exclude_patterns or (),
            algorithms=self.hash_algorithms,
            max_files=max_files,
            metadata=check_metadata(metadata),
        ) as found:
            return found.read(lambda entries: document(found.header, entries))

    def save_manifest(self, manifest: Mapping[str, Any], path: AnyPath) -> Path:
        """Write a manifest as JSON and return where; an older file is replaced as a whole or not at all.

        Raises UsageError for what is no manifest or no place for a file, StateError where nothing can be written.
        """
        from reprod.core.manifest import text_pieces
        from reprod.ops.generate import save

        _check(manifest)
        try:
            return save(text_pieces(manifest), path)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the manifest cannot be written as JSON: {error}", hint="keep to plain values") from error

    def log_to_mlflow(self, manifest: Mapping[str, Any], artifact_path: str = "data_manifest") -> None:
        """Log a manifest to the active run (or MLFLOW_RUN_ID's) as ``ARTIFACT_PATH/data_manifest.json``, at once.

        Also its params ``data_path``, ``hash_algorithms`` and ``manifest_version`` and its metrics; a name that has
        another value on the run stays the user's, ours goes to ``reprod.NAME``. A file of that name that reprod did
        not write is kept, ours goes under ``reprod/``. Without a run it is a UsageError, and none is started.
        """
        from tempfile import TemporaryDirectory

        from reprod.core.manifest import logged_metrics, logged_params
        from reprod.sinks import inprocess

        _check(manifest)
        _check_artifact_path(artifact_path)
        run = inprocess.find_run()
        with TemporaryDirectory(prefix="reprod-") as folder:
            file = self.save_manifest(manifest, Path(folder) / ARTIFACT)
            inprocess.log_manifest(run.run_id, file, artifact_path, logged_params(manifest), logged_metrics(manifest))

    def validate_manifest(self, manifest: Mapping[str, Any] | AnyPath, path: AnyPath) -> dict[str, Any]:
        """Read the files at ``path`` and compare them with a manifest, given as it is or as the path of its file.

        Returns ``valid``, ``complete``, ``missing_files``, ``hash_mismatches`` and the other fields of docs/cli.md,
        "reprod.verify/1". Raises DamagedError for a manifest that is damaged or hostile, DatasetUnavailableError
        where there is nothing at ``path``, UsageError for an empty one.
        """
        from reprod.ops.manifest_file import claims_of, read_claims
        from reprod.ops.verify import validate

        if not os.fspath(path):
            raise UsageError("the path of the files is empty", hint="give the folder, '.' for the current one")
        claims = claims_of(manifest) if isinstance(manifest, Mapping) else read_claims(os.fsdecode(manifest))
        return validate(claims, os.path.abspath(os.fsdecode(path)), mode="full")


def _check(manifest: object) -> None:
    """Raise UsageError for what is no manifest."""
    if not isinstance(manifest, Mapping) or not isinstance(manifest.get("files"), list):
        raise UsageError(
            f"a {type(manifest).__name__} without a list of files is no manifest",
            hint="pass what generate_manifest returned",
        )


def _check_artifact_path(path: object) -> None:
    """Raise UsageError for what MLflow would not take as a folder of a run's artifacts; it blames the server."""
    if not isinstance(path, str):
        raise UsageError(f"artifact_path is a {type(path).__name__}, not text", hint="data_manifest is the usual one")
    if path and (path.startswith("/") or any(part in {"", ".", ".."} for part in path.split("/"))):
        raise UsageError(
            f"artifact_path {path!r} is no folder below the artifacts of a run",
            hint="give names with '/' between them, without '.', '..', and '/' at either end",
        )
