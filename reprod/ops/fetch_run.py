"""The verb that reads from the tracking server alone all that is recorded of a run: no daemon, no state of this host.

Tags say what was decided; what is larger lies in files beside them. Nothing of it is believed beyond its own word: a
manifest counts for a dataset only if it says that dataset's digest, an environment only if its parts belong together.
What was written and is not there any more becomes one of the record's ``problems``. Times are Unix nanoseconds.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import unquote, urlsplit

from reprod.config import Config
from reprod.core.binding import Assurance, Bound
from reprod.core.drift import Drift
from reprod.core.drift_document import from_document
from reprod.core.environment import Record
from reprod.core.run import dataset_names, key_of
from reprod.core.run_record import RunRecord, UsedDataset
from reprod.errors import ConfigError, DamagedError, IncompleteError, NotFoundError, UsageError
from reprod.ops.fetch import LARGEST_DOCUMENT, active_run, read_object, sharing_run
from reprod.ops.fetch_environment import fetch_environment
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import Download
from reprod.sinks.run_messages import RunHead, WholeRun
from reprod.sinks.server import remembered_url

#: Runs that a message names where one was meant, and manifests that are looked at for one run.
MOST_NAMED, MOST_DOCUMENTS = 5, 64

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGEST = re.compile(r"dt1:[0-9a-f]{64}\Z")


def open_server(config: Config) -> MlflowChild:
    """Return a child for the configured tracking server; who takes it closes it.

    :raises ConfigError: none is configured.
    """
    uri = server_uri(config)
    if not uri:
        raise ConfigError(
            "no tracking server is configured to ask about runs",
            hint="set [mlflow] tracking_uri, or MLFLOW_TRACKING_URI",
        )
    return MlflowChild(uri)


def server_uri(config: Config) -> str:
    """Return the address of the configured tracking server, "" if there is none."""
    uri = config.mlflow.tracking_uri or ""
    return remembered_url(config.state_dir) or "" if uri == "local" else uri


def find_run(child: MlflowChild, text: str) -> RunHead:
    """Return the one run that ``text`` means: ``run:`` and its id, the first characters of that, or its name.

    :raises NotFoundError: there is none, or it was deleted. :raises UsageError: it is several.
    """
    wanted = text.removeprefix("run:")
    if not wanted:
        raise UsageError("run: and then what?", hint="run: and its id, the first characters of that, or its name")
    found = child.find_run(wanted, MOST_NAMED + 1)
    if not found:
        raise NotFoundError(
            f"there is no run {wanted!r} on the tracking server",
            hint="give its id, the first characters of that, or its name",
        )
    if len(found) > 1:
        listed = ", ".join(f"{each.run_id} ({each.name})" for each in found[:MOST_NAMED])
        more = " and more" if len(found) > MOST_NAMED else ""
        raise UsageError(f"{wanted!r} is several runs: {listed}{more}", hint="give the id of one of them")
    if not found[0].active:
        raise NotFoundError(f"run {found[0].run_id} was deleted", hint="mlflow runs restore brings it back")
    return found[0]


def fetch_run(child: MlflowChild, run_id: str) -> RunRecord:
    """Return all that is recorded of a run (the whole id).

    :raises NotFoundError: no such run. :raises TrackingError: the server cannot be reached, or refuses.
    """
    whole = active_run(child, run_id)
    try:
        sharing, problems = sharing_run(child, whole), []
    except DamagedError as error:
        sharing, problems = whole, [error.message]
    with tempfile.TemporaryDirectory(prefix="reprod-run-") as folder:
        documents = {} if sharing is whole else _documents(child, sharing, Path(folder, "shared"))
        documents |= _documents(child, whole, Path(folder, "own"))
    if whole.unlisted:
        problems.append(f"its files cannot be listed: {whole.unlisted}")
    headers = [found for path, found in documents.items() if path.endswith("data_manifest.json")]
    datasets = tuple(_datasets(whole, headers, problems))
    environment, unknown = _environment(child, whole, problems)
    head, tags = whole.head, whole.tags
    return RunRecord(
        run_id=head.run_id,
        name=head.name,
        experiment=head.experiment,
        status=head.status,
        start_ns=head.start_ms * 1_000_000,
        end_ns=head.end_ms * 1_000_000 if head.end_ms is not None else None,
        state=tags.get("reprod.state"),
        recorded_ns=max((nanoseconds(each.get("generated_at")) for each in headers), default=0) or None,
        host=tags.get("reprod.host"),
        assurance=cast("Assurance", tags["reprod.assurance"])
        if tags.get("reprod.assurance") in get_args(Assurance)
        else None,
        error=tags.get("reprod.error"),
        datasets=datasets,
        drift=_drift(documents, head.run_id),
        environment=environment,
        environment_unknown=unknown,
        params=whole.params,
        metrics={key: float(value) for key, value in whole.metrics.items()},
        tags=tags,
        problems=tuple(problems),
    )


def _documents(child: MlflowChild, whole: WholeRun, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the manifests and the drift on a run, by their paths: ours may lie beside the user's own."""
    wanted = [path for path in whole.artifacts if path.endswith(("/data_manifest.json", "/drift.json"))]
    wanted = wanted[:MOST_DOCUMENTS]
    if not wanted:
        return {}
    folder.mkdir()
    child.download(Download(whole.head.run_id, tuple(wanted), str(folder), LARGEST_DOCUMENT))
    found = {path: read_object(folder / path) for path in wanted}
    return {path: document for path, document in found.items() if document}


# --- datasets ---------------------------------------------------------------------------------------------------------


def _datasets(whole: WholeRun, headers: list[dict[str, Any]], problems: list[str]) -> Iterator[UsedDataset]:
    """Yield what the run named, in that order; problems are added to."""
    tags = whole.tags
    named = dataset_names(tags.get("reprod.recorded") or tags.get("reprod.dataset", ""))
    errors = _errors(tags.get("reprod.error", ""), named)
    for name in named:
        key = key_of(name)
        digest = tags.get(f"reprod.digest.{key}")
        digest = digest if digest is not None and _DIGEST.match(digest) else None
        of_digest = [each for each in headers if digest and each.get("digest") == digest]
        header = next((each for each in of_digest if each.get("dataset") == name), of_digest[0] if of_digest else {})
        if digest is not None and not header and whole.unlisted is None:
            problems.append(f"the manifest of {name} is not on the run: its files cannot be listed or compared")
        yield _dataset(name, digest, header, whole, errors.get(name), key)


def _dataset(
    name: str, digest: str | None, header: Mapping[str, Any], whole: WholeRun, error: str | None, key: str
) -> UsedDataset:
    tags, row = whole.tags, _row(whole, digest)
    version = tags.get(f"reprod.version.{key}", "")
    bound = tags.get(f"reprod.bound.{key}")
    summary = _mapping(header.get("summary"))
    reference = _mapping(header.get("reference"))
    selection = header.get("selection")
    return UsedDataset(
        name=name,
        digest=digest,
        version=int(version) if version.isascii() and version.isdigit() and len(version) < 19 else None,
        bound=cast("Bound", bound) if bound in get_args(Bound) else None,
        root=_text(header.get("data_path")) or _text(row.get("root")),
        files=_count(summary.get("total_files"), row.get("files")),
        bytes=_count(summary.get("total_size_bytes"), row.get("bytes")),
        sealed_ns=nanoseconds(row.get("sealed_at")) or None,
        error=error,
        candidates=tuple(_candidates(tags.get(f"reprod.candidates.{key}", ""))),
        selection=selection if isinstance(selection, dict) else None,
        manifest_run=_text(reference.get("run_id")),
    )


def _row(whole: WholeRun, digest: str | None) -> dict[str, Any]:
    """Return what the dataset's row on the server says: its profile, and the root under ``root``."""
    for each in whole.inputs:
        if digest is None or each.digest != digest.removeprefix("dt1:")[:36]:
            continue
        try:
            profile, source = _mapping(json.loads(each.profile)), _mapping(json.loads(each.source))
        except (ValueError, RecursionError):
            continue
        uri = urlsplit(str(source.get("uri") or ""))
        if profile.get("digest") == digest:
            return {**profile, "root": unquote(uri.path) if uri.scheme == "file" else None}
    return {}


def _errors(text: str, named: Iterable[str]) -> dict[str, str]:
    """Return the sentences of ``reprod.error`` by dataset; it joins them by semicolons, each after its name."""
    starts = sorted((at, name) for name in named for at in [_start(text, name)] if at >= 0)
    ends = [*(at for at, _ in starts), len(text)][1:]
    return {
        name: text[at + len(name) + 2 : end].removesuffix("; ") for (at, name), end in zip(starts, ends, strict=True)
    }


def _start(text: str, name: str) -> int:
    if text.startswith(f"{name}: "):
        return 0
    found = text.find(f"; {name}: ")
    return found + 2 if found >= 0 else -1


def _candidates(text: str) -> Iterator[tuple[int, str | None]]:
    """Yield the versions that the start lies between: ``41:dt1:...,42:incomplete``."""
    for each in text.split(","):
        number, _, digest = each.partition(":")
        if number.isascii() and number.isdigit() and len(number) < 19:
            yield int(number), digest if _DIGEST.match(digest) else None


# --- the rest ---------------------------------------------------------------------------------------------------------


def _environment(child: MlflowChild, whole: WholeRun, problems: list[str]) -> tuple[Record | None, str | None]:
    """Return the environment, or why it is not known."""
    try:
        return fetch_environment(child, whole.head.run_id), None
    except IncompleteError as error:
        return None, error.message.partition(" is not recorded: ")[2] or error.message
    except DamagedError as error:
        problems.append(f"environment: {error.message}")
        return None, error.message


def _drift(documents: Mapping[str, dict[str, Any]], run_id: str) -> Drift | None:
    """Return what drift.json says, if it is of this run."""
    for path, document in documents.items():
        if path.endswith("/drift.json"):
            found = from_document(document)
            if found is not None and found.run_id == run_id:
                return found
    return None


def nanoseconds(text: object) -> int:
    """Return a time as reprod writes it, in nanoseconds; 0 for anything else."""
    if not isinstance(text, str):
        return 0
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except (ValueError, TypeError, OverflowError):
        return 0
    return since // timedelta(microseconds=1) * 1000


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(*values: object) -> int | None:
    return next((each for each in values if isinstance(each, int) and not isinstance(each, bool)), None)
