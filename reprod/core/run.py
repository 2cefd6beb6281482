"""What reprod sees of an MLflow run, and what it owes to it.

``PendingRun`` comes from the tracking server, ``Payload`` goes to it. Times: ``*_ms`` are milliseconds since the
epoch as MLflow counts them. Both cross a process border as JSON, so they hold plain values only.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

RunState = Literal["captured", "incomplete", "failed"]

#: Statuses after which a run's own script logs no more (MLflow's RunStatus names).
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


@dataclass(frozen=True, slots=True)
class PendingRun:
    """A run that carries ``reprod.dataset`` and no ``reprod.state`` yet."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    start_ms: int
    end_ms: int | None
    dataset: str
    context: str | None = None
    note: str | None = None  # what a daemon said on it, see `reprod.note`


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


def dataset_names(tag: str) -> list[str]:
    """Return the dataset names in a ``reprod.dataset`` tag, in order, without repeats and blanks."""
    return list(dict.fromkeys(part.strip() for part in tag.split(",") if part.strip()))
