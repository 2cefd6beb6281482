"""The verb that checks files against the manifest of a run on the tracking server: no state here knows the run.

What the server says is proven by its digest before it is compared. Where the files are, the caller says; else they are
looked for at the root that was recorded, and then where a dataset of that name is registered here.
"""

import os
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Any

from reprod.config import Config
from reprod.core import stored
from reprod.core.claims import Claims, ClaimsBuilder
from reprod.core.entry import Kind
from reprod.core.pattern import Selection
from reprod.core.run import is_subdirectory, split_name
from reprod.errors import DamagedError, DatasetUnavailableError
from reprod.ops.fetch import FetchedManifest, UnpublishedError, fetch_manifest
from reprod.ops.fetch_run import find_run
from reprod.ops.run_whole import require_reading, verify_whole
from reprod.ops.sample import Mode, Sample
from reprod.ops.verify import validate
from reprod.sinks.child import MlflowChild

Progress = Callable[[dict[str, Any]], None]


def verify_run(
    child: MlflowChild,
    config: Config,
    ref: str,
    *,
    name: str | None = None,
    root: str | None = None,
    mode: Mode = "full",
    sample: Sample | None = None,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Compare the files below ``root`` with what ``run:ID`` recorded; docs/verification.md.

    :param name: picks one of several datasets. :raises DatasetUnavailableError: the files are not here.
    :raises DamagedError: the manifest is gone or not what was recorded. Else as ``fetch_manifest``.
    """
    progress({"phase": f"asking the tracking server for {ref}"})
    head = find_run(child, ref)
    try:
        fetched = fetch_manifest(child, head.run_id, name)
    except UnpublishedError as error:
        require_reading(error, mode)  # before its files are looked for
        answer = verify_whole(error, config, _place(config, ref, error, root), mode=mode, ref=ref, progress=progress)
        return _named(error, answer)
    with fetched:
        place = _place(config, ref, fetched, root)
        answer = validate(claims_of(fetched), place, mode=mode, sample=sample, ref=ref, progress=progress)
        return _named(fetched, answer)


def _place(config: Config, ref: str, fetched: FetchedManifest | UnpublishedError, root: str | None) -> str:
    """Return where the files are, absolute. :raises DatasetUnavailableError: nobody says, and they are not found."""
    recorded = recorded_root(fetched)
    place = root if root is not None else root_here(config, fetched.name, recorded)
    if place is None:
        hint = f"say where its files are: reprod verify {ref} FOLDER"
        if recorded is None:
            told = f"where {fetched.name} was is not published, and no registered dataset of that name is here"
            raise DatasetUnavailableError(told, hint=hint)
        raise DatasetUnavailableError(
            f"{fetched.name} was at {recorded} then, and nothing is there on this machine", hint=hint
        )
    return os.path.abspath(place)


def _named(fetched: FetchedManifest | UnpublishedError, answer: dict[str, Any]) -> dict[str, Any]:
    version = fetched.header.get("version")
    known = version if isinstance(version, int) else None
    return {"name": fetched.name, "version": known, "run_id": fetched.run_id, **answer}


def claims_of(fetched: FetchedManifest) -> Claims:
    """Return what a proven manifest claims. :raises DamagedError: its selection is no selection."""
    builder = ClaimsBuilder()
    for entry in fetched.entries():
        content = entry.content
        if content.kind not in {Kind.FILE, Kind.LINK} or content.sha256 is None:
            continue
        metadata = (entry.mode & 0o7777, entry.mtime_ns) if fetched.has_metadata and entry.mtime_ns else (None, None)
        size = content.size if content.kind is Kind.FILE else None
        hashes = {"sha256": content.sha256, **content.more}
        builder.add(entry.path, content.kind, size, hashes, *metadata, exact=True)
    selection = fetched.header.get("selection")
    try:
        selected = Selection.of_record(selection) if isinstance(selection, dict) else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError("the manifest names a selection that is none", hint=stored.HINT) from error
    return Claims(
        builder.entries(),
        builder.algorithms(),
        digest=fetched.digest,
        proven=True,
        selection=selected,
        links=builder.links(),
        size=builder.size,
    )


def recorded_root(fetched: FetchedManifest | UnpublishedError) -> str | None:
    """Return where the files were."""
    encoded = fetched.header.get("data_path_b64")
    if isinstance(encoded, str):
        try:
            return os.fsdecode(b64decode(encoded))
        except (Base64Error, ValueError):
            return None
    said = fetched.header.get("data_path")
    return said if isinstance(said, str) else None


def root_here(config: Config, name: str, recorded: str | None) -> str | None:
    """Return where the files of a dataset may be on this machine; None if nothing is there."""
    dataset, below = split_name(name)
    registered = next((each.path for each in config.datasets if each.name == dataset), None)
    if below is not None and registered is not None:
        registered = f"{registered.rstrip('/')}/{below}" if is_subdirectory(below) else None
    for path in (recorded, registered):
        # Another machine's root may be anything here: only what is written absolutely was somewhere at all.
        if path is not None and os.path.isabs(path) and "\0" not in path and os.path.lexists(path):
            return path
    return None
