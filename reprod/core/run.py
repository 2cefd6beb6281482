"""What reprod sees of an MLflow run, and what it owes to it.

``PendingRun`` comes from the tracking server, ``Payload`` goes to it. Times: ``*_ms`` are milliseconds since the
epoch as MLflow counts them. Both cross a process border as JSON, so they hold plain values only.
"""

import hashlib
import posixpath
import re
from dataclasses import dataclass, field
from typing import Literal

from reprod.errors import UsageError

RunState = Literal["captured", "incomplete", "failed"]

#: Who named a run's datasets: the value of ``reprod.dataset_from``.
Source = Literal["run", "experiment", "rule"]

#: Statuses after which a run's own script logs no more (MLflow's RunStatus names).
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})

#: Enough of a run id to write: it is a random hexadecimal number, and ``run:`` takes any beginning that is unique.
SHOWN_ID = 8

#: How many characters MLflow takes as a param's or a tag's value (mlflow.utils.validation, 3.17.2). Over HTTP the
#: server cuts longer ones without a word, and a cut value then counts as equal: so longer ones are never sent.
PARAM_LIMIT, TAG_LIMIT = 6000, 8000

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


@dataclass(frozen=True, slots=True)
class PendingRun:
    """A run for which somebody named datasets, and which has no ``reprod.state`` for them yet.

    ``dataset`` is what was named, by whom ``source`` says: on the run itself, on its experiment, or in a rule of the
    daemon's configuration. ``parent`` is the run that it is nested in, ``experiment`` the name of its experiment, ""
    where that was not looked up.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    start_ms: int
    end_ms: int | None
    dataset: str
    context: str | None = None
    note: str | None = None  # what a daemon said on it, see `reprod.note`
    source: Source = "run"
    parent: str | None = None
    experiment: str = ""


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A row for MLflow's Dataset column. ``digest`` is at most 36 characters (MLflow's limit)."""

    name: str
    digest: str
    source: str
    source_type: str
    profile: str


@dataclass(frozen=True, slots=True)
class Payload:
    """All that one delivery writes to a run, frozen before the first request.

    ``artifacts_dir`` holds the files to upload, at the paths that they shall have on the run. ``params`` is None while
    the run may still log (contract: params wait for the end). ``state`` is written last, alone; None writes none.
    """

    run_id: str
    state: RunState | None
    timestamp_ms: int
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] | None = None
    remove_tags: tuple[str, ...] = ()
    inputs: tuple[DatasetInput, ...] = ()
    artifacts_dir: str | None = None
    host_id: str | None = None  # who writes; None: nobody else does (see `reprod.sinks.many_hosts`)
    rivals: bool = False  # another host may be about to record this run too


def dataset_names(tag: str) -> list[str]:
    """Return what a ``reprod.dataset`` tag names, in order, without repeats and blanks: ``NAME`` or ``NAME/SUB``."""
    return list(dict.fromkeys(part.strip().rstrip("/") for part in tag.split(",") if part.strip().rstrip("/")))


def split_name(named: str) -> tuple[str, str | None]:
    """Return the dataset and the subdirectory of it that ``NAME`` or ``NAME/SUB/DIR`` means."""
    name, _, path = named.partition("/")
    return name, path or None


def base_names(tag: str) -> list[str]:
    """Return the datasets that a ``reprod.dataset`` tag names, without their subdirectories."""
    return list(dict.fromkeys(split_name(named)[0] for named in dataset_names(tag)))


def is_subdirectory(path: str) -> bool:
    """Whether a path leads from a root to something below it, and can be written in one way only."""
    return "\0" not in path and all(part not in {"", ".", ".."} for part in path.split("/"))


def unfit_names(tag: str) -> list[str]:
    """Return what a ``reprod.dataset`` tag names that no dataset, or no folder of one, can be called."""
    parts = [(named, *split_name(named)) for named in dataset_names(tag)]
    return [
        named
        for named, name, path in parts
        if not DATASET_NAME.match(name) or (path is not None and not is_subdirectory(path))
    ]


def checked_names(tag: str) -> list[str]:
    """Return what ``dataset_names`` does. :raises UsageError: one of them no dataset can have."""
    if not isinstance(tag, str):
        raise UsageError(f"{tag!r} is no dataset name", hint="one name, or several joined by ','")
    names, unfit = dataset_names(tag), unfit_names(tag)
    if unfit or not names:
        raise UsageError(
            f"{(unfit or [tag])[0]!r} is no dataset name",
            hint="letters, digits, '.', '_' and '-', and /sub/dir after it",
        )
    return names


#: What MLflow takes in the name of a tag, a param or a metric.
_KEY = re.compile(r"[\w\-. :/]{1,200}\Z")


def key_of(named: str) -> str:
    """Return ``NAME/SUB`` as a part of tag and metric names; a subdirectory that MLflow refuses there by its hash."""
    name, path = split_name(named)
    if path is None or (_KEY.match(named) and posixpath.normpath(named) == named):
        return named
    return f"{name}/{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:12]}"
