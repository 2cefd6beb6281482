"""What became of data and environment since an earlier run, as the report page tells it.

Rule: the earlier run is named for each dataset by itself, because a run with two datasets may follow two runs. Counts
are of everything, ``sample`` is the first of it. Paths are displayed ones, sizes bytes, times Unix nanoseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from reprod.core.delta import Change, Delta
from reprod.core.entry import display
from reprod.core.environment_diff import Comparison

What = Literal["added", "removed", "modified", "renamed"]

#: The order in which changes are told.
CHANGES: tuple[What, ...] = ("added", "removed", "modified", "renamed")

#: Names that a page shows of each kind; the rest is counted, and listed by ``reprod diff``.
SAMPLE = 6


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """The run that this one is compared with."""

    run_id: str
    name: str
    start_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that is not as it was; ``before`` and ``after`` are sizes, ``was`` the earlier path of a renamed one."""

    path: str
    what: What
    before: int | None = None
    after: int | None = None
    was: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetSince:
    """What became of one dataset since ``run``, which had ``version`` with ``digest`` of it.

    ``run`` None: no earlier run on it is known. ``unknown`` says, for a person, why the two could not be compared; then
    there are no counts. Equal digests need no counts.
    """

    name: str
    run: EarlierRun | None = None
    version: int | None = None
    digest: str | None = None
    counts: dict[What, int] = field(default_factory=dict)
    sample: tuple[ChangedFile, ...] = ()
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentSince:
    """How the environment differs from that of ``run``; None: ``unknown`` says why nobody can tell."""

    run: EarlierRun
    comparison: Comparison | None = None
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class Since:
    """All that changed since earlier runs. ``environment`` None: there is no earlier run."""

    datasets: tuple[DatasetSince, ...] = ()
    environment: EnvironmentSince | None = None


def since_delta(name: str, run: EarlierRun, version: int | None, digest: str | None, delta: Delta) -> DatasetSince:
    """Return what ``delta``, which leads from the earlier run's version to this one's, says about a dataset."""
    counts: dict[What, int] = {
        "added": len(delta.added),
        "removed": len(delta.removed),
        "modified": len(delta.modified),
        "renamed": len(delta.renamed),
    }
    return DatasetSince(name, run, version, digest, counts, tuple(_sample(delta)))


def _sample(delta: Delta) -> Iterator[ChangedFile]:
    kinds: tuple[tuple[What, tuple[Change, ...]], ...] = (
        ("added", delta.added),
        ("removed", delta.removed),
        ("modified", delta.modified),
    )
    for what, changes in kinds:
        for each in changes[:SAMPLE]:
            before, after = (None if side is None else side.size for side in (each.before, each.after))
            yield ChangedFile(display(each.path), what, before, after)
    for rename in delta.renamed[:SAMPLE]:
        size = rename.content.size
        yield ChangedFile(display(rename.target), "renamed", size, size, display(rename.source))
