"""The messages by which whole runs are asked for and told: between a command and the MLflow child, see ``protocol``.

Everything on a run was written by anybody: values are plain texts here, and believed nowhere. Times are milliseconds
since the epoch (``*_ms``).
"""

from dataclasses import dataclass, field

#: Top folders of a run's artifacts in which reprod writes.
OURS = ("data_manifest", "environment", "reprod")


@dataclass(frozen=True, slots=True)
class FindRun:
    """``find_run``: the active runs that ``text`` may mean, at most ``at_most``, as a tuple of `RunHead`.

    ``text`` is an id, the first characters of ids, or a name. A whole id finds a deleted run too.
    """

    text: str
    at_most: int


@dataclass(frozen=True, slots=True)
class RunHead:
    """What names a run for people. ``active`` is False for a deleted one."""

    run_id: str
    name: str
    experiment: str | None
    status: str
    start_ms: int
    end_ms: int | None = None
    active: bool = True


@dataclass(frozen=True, slots=True)
class AskRun:
    """``whole_run``: all that the server knows of a run, as a `WholeRun`; ``gone`` where there is none.

    ``folders`` are the top folders of its artifacts that are listed.
    """

    run_id: str
    folders: tuple[str, ...] = OURS


@dataclass(frozen=True, slots=True)
class Input:
    """A row of MLflow's Dataset column, as it was logged by anybody."""

    name: str
    digest: str
    source: str
    profile: str


@dataclass(frozen=True, slots=True)
class WholeRun:
    """A run. ``metrics`` are the last values, as Python writes numbers: JSON has no word for ``nan``.

    ``tags`` are those that begin with ``reprod.``. ``artifacts`` are the paths of files in the folders where reprod
    writes; ``unlisted`` says why they could not be listed.
    """

    head: RunHead
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    inputs: tuple[Input, ...] = ()
    artifacts: tuple[str, ...] = ()
    unlisted: str | None = None


@dataclass(frozen=True, slots=True)
class RunsOn:
    """``runs_on``: the active runs of which something was recorded on a dataset, a page at a time, as a `RunsPage`.

    ``page`` is what the last answer named as ``next``.
    """

    name: str
    page: str = ""


@dataclass(frozen=True, slots=True)
class RunsPage:
    """Runs and their ``reprod.*`` tags, oldest first within 1,000 experiments; ``next`` None: that was the last page.

    May hold runs of which nothing was recorded on the dataset: whoever asks looks at the tags.
    """

    runs: tuple[tuple[RunHead, dict[str, str]], ...]
    next: str | None = None
