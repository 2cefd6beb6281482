"""Compare the files of a run whose names were not published with the one thing that was: the digest of all of them.

Every byte is read, since no part of a digest can be compared. Rule: files that are there differ only where it is known
which of them were selected; where it is not, another digest proves nothing. Sizes are bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from reprod.config import DEFAULT_EXCLUDE, Config, DatasetConfig
from reprod.core import stored
from reprod.core.claims import Claims
from reprod.core.pattern import Selection
from reprod.core.run import split_name
from reprod.errors import DamagedError, IncompleteError
from reprod.fs.root import open_root
from reprod.ops.fetch import UnpublishedError
from reprod.ops.plan import select
from reprod.ops.sample import Mode
from reprod.ops.verify import validate

Progress = Callable[[dict[str, Any]], None]

_UNKNOWN = "which files were selected was not published, and no selection known here gives the recorded digest"


def require_reading(unpublished: UnpublishedError, mode: Mode) -> None:
    """Raise IncompleteError for a mode that does not read every byte: there is no file to compare with."""
    if mode in {"quick", "sampled"}:
        hint = (
            f"without --quick and --sample the digest of all files is compared: reprod verify run:{unpublished.run_id}"
        )
        raise IncompleteError(unpublished.message, hint=hint) from unpublished


def verify_whole(
    unpublished: UnpublishedError,
    config: Config,
    root_path: str,
    *,
    mode: Mode,
    ref: str,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Return ``reprod.verify/1`` of the files below ``root_path``, with ``whole``: docs/verification.md.

    :raises DamagedError: the manifest's selection or totals cannot be. :raises DatasetUnavailableError: no such root.
    :raises IncompleteError: as ``require_reading``.
    """
    require_reading(unpublished, mode)
    recorded = _totals(unpublished.header)
    known = _recorded_selection(unpublished.header)
    seconds, answer = 0.0, dict[str, Any]()
    for selection in [known] if known is not None else _likely(config, unpublished.name, root_path):
        claims = Claims({}, selection=selection, size=recorded["bytes"] if recorded else None)
        answer = validate(claims, root_path, mode=mode, ref=ref, progress=lambda told: progress(_countless(told)))
        seconds += answer["seconds"]
        if answer["digest_actual"] == unpublished.digest:
            break
    certain = known is not None and _means_the_same_below(known, unpublished.name)
    return _document(unpublished, answer, recorded, certain=certain) | {"seconds": round(seconds, 3)}


def _document(
    unpublished: UnpublishedError, answer: dict[str, Any], recorded: dict[str, int] | None, *, certain: bool
) -> dict[str, Any]:
    """Return a look at files that nobody listed as a comparison of one digest with another."""
    files, actual = answer["hashed_files"], answer["digest_actual"]
    equal = actual == unpublished.digest
    found = {"files": files, "bytes": answer["bytes_hashed"]}
    if equal and recorded is not None and recorded != found:
        told = f"{unpublished.name} has the recorded digest, and other totals than the summary of its manifest says"
        raise DamagedError(told, hint=stored.HINT)
    differs = certain and actual is not None and not equal
    unclear = not certain and actual is not None and not equal
    return {
        **answer,
        "digest_expected": unpublished.digest,
        "digest_actual": None if unclear else actual,
        "valid": equal,
        "differs": differs,
        "complete": answer["complete"] and not unclear,
        "content_verified": answer["content_verified"] and not unclear,
        "algorithms": ["sha256"],
        "checked_files": len(answer["extra"]),
        "checked_links": len(answer["extra"]) - files,
        "extra": [],
        "manifest_warnings": [*answer["manifest_warnings"], *([_UNKNOWN] if unclear else [])],
        "whole": {"published": unpublished.header.get("published"), "recorded": recorded, "found": found},
    }


def _recorded_selection(header: Mapping[str, Any]) -> Selection | None:
    """Return the selection of the manifest, None if it has none. Raises DamagedError for one that is none."""
    record = header.get("selection")
    if record is None:
        return None
    try:
        selection = Selection.of_record(record)
        selection.takes_file(b"x")  # compiles the patterns
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError("the manifest names a selection that is none", hint=stored.HINT) from error
    return selection


def _likely(config: Config, name: str, root_path: str) -> Iterator[Selection]:
    """Yield what may have been selected: as the dataset of that name is registered here, and as by default."""
    registered = next((each for each in config.datasets if each.name == split_name(name)[0]), None)
    default = DatasetConfig(name, root_path, exclude=DEFAULT_EXCLUDE)
    tried = None
    for dataset in (registered, default):
        if dataset is None:
            continue
        with open_root(root_path) as root:
            selection = select(replace(dataset, path=root_path), root)
        if tried is None or selection.record() != tried.record():
            tried = selection
            yield selection


def _means_the_same_below(selection: Selection, name: str) -> bool:
    """Whether patterns mean below the folder of NAME/SUB what they mean from the root of NAME, as they are written."""
    if split_name(name)[1] is None:
        return True
    lines = [*(line.encode() for line in selection.exclude), *selection.ignore]
    return not selection.include and not any(b"/" in line.strip().rstrip(b"/") for line in lines)


def _totals(header: Mapping[str, Any]) -> dict[str, int] | None:
    summary = header.get("summary")
    if not isinstance(summary, dict):
        return None
    files, size = summary.get("total_files"), summary.get("total_size_bytes")
    return {"files": files, "bytes": size} if isinstance(files, int) and isinstance(size, int) else None


def _countless(told: dict[str, Any]) -> dict[str, Any]:
    """Return progress without counts of files: those that are listed are counted, and none is."""
    return {key: value for key, value in told.items() if key not in {"files", "total_files"}}
