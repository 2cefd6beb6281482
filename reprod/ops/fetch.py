"""The verb that reads a manifest back from the tracking server alone: no state of this host, and nothing believed.

A run's tag says the digest. Its ``data_manifest.json`` lists the files, or refers by that digest to a store run, whose
delta refers to another, down to a checkpoint. Everything comes into a private folder, within limits, and counts only
when the dt1 of its rows is the digest: else DamagedError. Memory grows with the deltas, not with the dataset.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from reprod.config import Config
from reprod.core import digest, stored
from reprod.core.entry import Entry, Kind
from reprod.core.run import dataset_names, key_of
from reprod.errors import ConfigError, DamagedError, IncompleteError, NotFoundError, TrackingError, UsageError
from reprod.ops.stored_files import DELTA, LINKS, SIZES, SUMS, read, read_delta
from reprod.ops.upload import LONGEST_CHAIN
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import Download, SinkError, StoredRun
from reprod.sinks.run_messages import OURS, WholeRun
from reprod.sinks.server import remembered_url

#: Bytes of one downloaded file: a checkpoint of 50 million files has 2 GB, a delta is a quarter at most and in memory.
LARGEST_CHECKPOINT = 2 << 30
LARGEST_DELTA = 64 << 20
LARGEST_DOCUMENT = 256 << 20

#: Store runs that one fetch may look at, duplicates included.
MOST_DOWNLOADS = 64


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A proven manifest. A context manager: its files are in ``folder``, which ends with it.

    ``header`` is the run's ``data_manifest.json`` without the list of files. ``has_metadata`` says whether entries have
    their real modification time, mode and further digests; a manifest by reference has names, sizes and sha256 only.
    """

    run_id: str
    name: str
    digest: str
    header: Mapping[str, Any]
    has_metadata: bool
    folder: Path
    inline: tuple[Entry, ...] = ()
    checkpoint: Path | None = None
    changes: stored.Changes = field(default_factory=dict)

    def entries(self) -> Iterator[Entry]:
        """Yield files and symlinks in path byte order; may be asked again."""
        return iter(self.inline) if self.checkpoint is None else read(self.checkpoint, self.changes)

    def close(self) -> None:
        """Remove what was downloaded."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class UnpublishedError(IncompleteError):
    """Raised for a manifest without names: of ``name`` it says ``digest`` (``dt1:...``), and ``header`` is all."""

    def __init__(self, run_id: str, name: str, digest: str, header: Mapping[str, Any]) -> None:
        super().__init__(
            f"the files of {name} are not listed on run {run_id}: its names are not published",
            hint=f"on the host that recorded it: reprod export run:{run_id} --format sha256sums; "
            f'publish = "full" lists them for later runs',
        )
        self.run_id, self.name, self.digest, self.header = run_id, name, digest, header


def fetch_reference(config: Config, run_ref: str, name: str | None = None) -> FetchedManifest:
    """Return the manifest of ``run:ID`` (the whole id) from the configured tracking server.

    :raises ConfigError: no tracking server is configured. Else as ``fetch_manifest``.
    """
    uri = config.mlflow.tracking_uri
    if uri == "local":
        uri = remembered_url(config.state_dir) or ""
    if not uri:
        raise ConfigError("no tracking server is configured to fetch manifests from", hint="set [mlflow] tracking_uri")
    child = MlflowChild(uri)
    try:
        return fetch_manifest(child, run_ref.removeprefix("run:"), name)
    finally:
        child.close()


def fetch_manifest(child: MlflowChild, run_id: str, name: str | None = None) -> FetchedManifest:
    """Return the manifest that a run refers to; ``name`` picks one of several datasets.

    :raises NotFoundError: no such run, or it did not use ``name``. :raises UsageError: several datasets, none named.
    :raises IncompleteError: no digest was recorded; UnpublishedError: nothing else was. :raises DamagedError: something
    is missing or not what was recorded. :raises TrackingError: the server cannot be reached.
    """
    whole = active_run(child, run_id, ("data_manifest", "reprod"))
    name, expected = _recorded(whole, name)
    folder = Path(tempfile.mkdtemp(prefix="reprod-manifest-"))
    try:
        header = _header(child, sharing_run(child, whole, ("data_manifest", "reprod")), name, expected, folder)
        reference = header.get("reference")
        if isinstance(reference, dict):
            found = _Search(child, folder, expected, header).find(reference.get("run_id"))
            fetched = FetchedManifest(run_id, name, expected, header, False, folder, (), found.folder, found.changes)
        else:
            inline = stored.read_document(header)
            _prove(inline, expected, header)
            header = {key: value for key, value in header.items() if key not in {"files", "symlinks"}}
            fetched = FetchedManifest(run_id, name, expected, header, True, folder, inline)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return fetched


def active_run(child: MlflowChild, run_id: str, folders: Iterable[str] = OURS) -> WholeRun:
    """Return a run, with the paths in these of our folders. Raises NotFoundError, TrackingError."""
    try:
        whole = child.whole_run(run_id, folders)
    except SinkError as error:
        if error.kind not in {"gone", "permanent"}:
            raise
        whole = None
    if whole is None or not whole.head.active:
        raise NotFoundError(f"there is no run {run_id!r} on the tracking server", hint="give the whole run id")
    return whole


def sharing_run(child: MlflowChild, whole: WholeRun, folders: Iterable[str] = OURS) -> WholeRun:
    """Return the run on which the files of another are: itself, or the parent whose data and environment it shares.

    :raises DamagedError: that was deleted.
    """
    parent = whole.tags.get("reprod.same_as")
    if parent is None or any(path.endswith(("/data_manifest.json", "/environment.json")) for path in whole.artifacts):
        return whole
    try:
        return active_run(child, parent, folders)
    except NotFoundError as error:
        told = f"run {whole.head.run_id} shares the files of its parent {parent[:64]!r}, which is not there any more"
        raise DamagedError(told, hint=stored.HINT) from error


def recorded_digests(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the digests that were recorded, by the names that the run used; not what other hosts say of those."""
    prefix = "reprod.digest."
    named = {key_of(name): name for name in dataset_names(tags.get("reprod.recorded", ""))}
    keys = {key.removeprefix(prefix) for key in tags if key.startswith(prefix)}
    anothers = {key for key in keys - named.keys() if _OF_A_HOST.search(key) and _OF_A_HOST.sub("", key) in keys}
    return {named.get(key, key): tags[prefix + key] for key in sorted(keys - anothers)}


#: How the key of another host ends, which recorded another digest of the same dataset.
_OF_A_HOST = re.compile(r"/[0-9a-f]{8}\Z")


def _recorded(whole: WholeRun, name: str | None) -> tuple[str, str]:
    """Return the dataset and its digest by the run's tags."""
    run_id, found = whole.head.run_id, recorded_digests(whole.tags)
    if not found:
        why = whole.tags.get("reprod.error") or f"reprod.state is {whole.tags.get('reprod.state', 'not set')}"
        raise IncompleteError(f"run {run_id} has no recorded digest: {why}", hint="reprod status")
    if name is None and len(found) > 1:
        raise UsageError(f"run {run_id} used several datasets", hint=f"name one of {', '.join(sorted(found))}")
    chosen = name if name is not None else next(iter(found))
    if chosen not in found:
        raise NotFoundError(f"run {run_id} has no digest of {chosen}", hint=f"it has {', '.join(sorted(found))}")
    return chosen, found[chosen]


def _header(child: MlflowChild, whole: WholeRun, name: str, expected: str, folder: Path) -> dict[str, Any]:
    """Return the run's manifest that says the digest of its tag: a user's own file may have its place."""
    run_id = whole.head.run_id
    if whole.unlisted is not None:
        raise TrackingError(f"the files of run {run_id} cannot be listed: {whole.unlisted}", hint="reprod doctor")
    paths = [path for path in whole.artifacts if path.endswith("/data_manifest.json")][:MOST_DOWNLOADS]
    if paths:
        child.download(Download(run_id, tuple(paths), str(folder), LARGEST_DOCUMENT))
    found = [document for path in paths if (document := read_object(folder / path)).get("digest") == expected]
    for document in sorted(found, key=lambda each: each.get("dataset") != name):
        if document.get("published") in {"summary", "digest"}:
            raise UnpublishedError(run_id, name, expected, document)
        return document
    raise DamagedError(f"run {run_id} has no data_manifest.json that says what its tag says", hint=stored.HINT)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file that was downloaded, an empty one if it holds none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# --- store runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """A folder with a checkpoint, and all that the deltas above it change."""

    folder: Path
    changes: stored.Changes


class _Search:
    """Follows digests over store runs. First the nearest run of each; if that is not it, every one that there is."""

    def __init__(self, child: MlflowChild, folder: Path, expected: str, header: Mapping[str, Any]) -> None:
        self._child = child
        self._folder = folder
        self._expected = expected
        self._header = header
        self._downloads = 0
        self._careful = False

    def find(self, hint: object) -> _Found:
        run_id = hint if isinstance(hint, str) else None
        try:
            found = self._find(self._expected, run_id, LONGEST_CHAIN)
            _prove(read(found.folder, found.changes), self._expected, self._header)
        except DamagedError as first:
            self._careful = True
            try:
                return self._find(self._expected, run_id, LONGEST_CHAIN)
            except DamagedError:
                raise first from None  # what is wrong with the nearest one tells more
        return found

    def _find(self, expected: str, hint: str | None, room: int) -> _Found:
        runs = self._child.find_stored(expected, hint)
        problem = DamagedError(
            "a store run is missing from the experiment reprod-datasets",
            hint="the next run on this version, recorded by the host that has it, uploads it again",
        )
        for run in runs if self._careful else runs[:1]:
            try:
                found = self._take(run, expected, room)
                if self._careful:
                    header = self._header if expected == self._expected else None
                    _prove(read(found.folder, found.changes), expected, header)
            except DamagedError as error:
                problem = error
            else:
                return found
        raise problem

    def _take(self, run: StoredRun, expected: str, room: int) -> _Found:
        if run.kind == "checkpoint":
            return _Found(self._download(run, (SUMS, SIZES, *({LINKS} & set(run.files))), LARGEST_CHECKPOINT), {})
        if run.kind != "delta" or room <= 1:
            raise DamagedError(f"store run {run.run_id} is no manifest, or its chain is too long", hint=stored.HINT)
        path = self._download(run, (DELTA,), LARGEST_DELTA) / DELTA
        delta = read_delta(path)
        if delta.digest != expected or delta.base != run.base:
            raise DamagedError(f"store run {run.run_id} holds another delta than its tags say", hint=stored.HINT)
        below = self._find(delta.base, run.base_run, room - 1)
        return _Found(below.folder, {**below.changes, **delta.changes})

    def _download(self, run: StoredRun, names: tuple[str, ...], limit: int) -> Path:
        self._downloads += 1
        if self._downloads > MOST_DOWNLOADS:
            raise DamagedError("the manifest rests on too many store runs", hint=stored.HINT)
        folder = self._folder / f"{self._downloads}"
        folder.mkdir()
        fetched = self._child.download(Download(run.run_id, names, str(folder), limit))
        if fetched.missing or fetched.too_large:
            bad = ", ".join(fetched.missing + fetched.too_large)
            raise DamagedError(f"store run {run.run_id} lacks {bad}, or it is too large", hint=stored.HINT)
        return folder


def _prove(entries: Iterable[Entry], expected: str, header: Mapping[str, Any] | None = None) -> None:
    """Raise DamagedError unless the rows have this digest, and are as many and as large as the header says."""
    files = size = 0

    def counted() -> Iterator[Entry]:
        nonlocal files, size
        for entry in entries:
            if entry.content.kind is Kind.FILE:
                files, size = files + 1, size + entry.content.size
            yield entry

    if digest.text(stored.root(counted())) != expected:
        raise DamagedError("the rows of the manifest do not have the recorded digest", hint=stored.HINT)
    summary = header.get("summary") if header is not None else {"total_files": files, "total_size_bytes": size}
    if not isinstance(summary, dict) or (summary.get("total_files"), summary.get("total_size_bytes")) != (files, size):
        raise DamagedError("the rows of the manifest do not have the sizes that its summary says", hint=stored.HINT)
