"""All that is recorded of a run, wherever it was read: what `show`, `diff`, `report` and the report page speak of.

Two makers fill it: the daemon when it delivers (from its snapshot) and whoever asks months later (from the tracking
server alone). What is not known is None. Times are Unix nanoseconds, sizes bytes.
"""

from dataclasses import dataclass, field

from reprod.core.binding import Assurance, Bound
from reprod.core.drift import Drift
from reprod.core.environment import Record


@dataclass(frozen=True, slots=True)
class UsedDataset:
    """A dataset that a run named. ``digest`` (``dt1:...``) is None where nothing was proven; ``error`` says why.

    ``name`` is as it was tagged, with a subdirectory where one was meant. ``candidates`` are ``(version, digest)``.
    ``selection`` is what was included and excluded, as in ``data_manifest.json``. ``manifest_run`` is the store run
    that holds a large manifest.
    """

    name: str
    digest: str | None = None
    version: int | None = None
    bound: Bound | None = None
    root: str | None = None
    files: int | None = None
    bytes: int | None = None
    sealed_ns: int | None = None
    error: str | None = None
    candidates: tuple[tuple[int, str | None], ...] = ()
    selection: dict[str, object] | None = None
    manifest_run: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. ``state`` is that of ``reprod.state`` (None: not recorded yet), ``error`` that of ``reprod.error``.

    ``params`` and ``metrics`` are all that the run has, the user's own too; ``tags`` those of reprod. ``recorded_ns``
    is when the snapshot was made. ``host`` recorded it. ``problems`` are sentences: what was recorded and is not there
    any more, or is not what was written. ``children`` counts the runs within it by what they used (``imagenet@41``).
    """

    run_id: str
    name: str
    experiment: str | None
    status: str
    start_ns: int
    end_ns: int | None
    state: str | None = None
    recorded_ns: int | None = None
    host: str | None = None
    assurance: Assurance | None = None
    error: str | None = None
    datasets: tuple[UsedDataset, ...] = ()
    drift: Drift | None = None
    environment: Record | None = None
    environment_unknown: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    children: dict[str, int] = field(default_factory=dict)
