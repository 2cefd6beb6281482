"""The messages between the daemon and its MLflow child: one JSON object a line, one reply for each request.

Requests go to the child's stdin, replies come from a private duplicate of its stdout. Everything here is a plain
frozen dataclass that msgspec encodes and validates; ids only prove that a reply belongs to its request, because there
is never more than one request under way. Times are milliseconds since the epoch (``*_ms``), as MLflow counts them.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from reprod.core.run import Payload, PendingRun, Source
from reprod.errors import TrackingError

Op = Literal[
    "ping",
    "poll",
    "runs",
    "prepare",
    "deliver",
    "note",
    "node",
    "advertise",
    "hosts",
    "implied",
    "retagged",
    "recorded",
    "find_run",
    "whole_run",
    "runs_on",
    "find_stored",
    "open_store",
    "upload",
    "download",
]

#: Where manifests above ``max_inline_files`` lie (see `store_run`), and the tag by which one is found.
STORE_EXPERIMENT = "reprod-datasets"
DIGEST_TAG = "reprod.manifest.digest"
ENVIRONMENT_TAG = "reprod.environment.digest"

Kind = Literal[
    "unreachable",  # refused, timeout, DNS, 429, 5xx, or what answers is no MLflow server: try again later
    "denied",  # 401, 403: a person must fix the credentials, then trying again works
    "gone",  # the run or its experiment was deleted: do not try again
    "permanent",  # the server (or a limit of it) refuses this content: do not try again
    "bug",  # anything else; ``detail`` holds the traceback
    "stopped",  # ``kill()`` or ``close()`` ended the call
    "crashed",  # the child ended by itself or answered garbage: try again later
    "busy",  # another host is writing to this run: try again in moments
]

NoteKey = Literal["reprod.note", "reprod.error"]

#: Trying again later may work; for the others only a person, or a new capture, changes anything.
RETRIED: frozenset[Kind] = frozenset({"unreachable", "denied", "bug", "stopped", "crashed", "busy"})


class SinkError(TrackingError):
    """Raised when an operation of the MLflow child failed; ``kind`` says what to do, ``detail`` is for a bug report."""

    def __init__(self, kind: Kind, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Request:
    """One request line; ``params`` are the fields of the operation's own dataclass below."""

    id: int
    op: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed. ``message`` never repeats what was sent."""

    kind: Kind
    message: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply line: ``failure``, or the operation's result."""

    id: int
    result: Any = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """``poll``: every run with ``reprod.dataset`` and no ``reprod.state``, as a `Polled`.

    ``page_size`` is in runs, at most 50,000 (MLflow's limit). ``handled`` run ids are left out by servers that cannot
    be asked for runs without a state (MLflow before 3.11); others ignore it.
    """

    page_size: int = 1000
    handled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImpliedSource:
    """An experiment whose runs use ``dataset`` if they say nothing themselves: by its tag, or by a rule."""

    experiment_id: str
    source: Source
    dataset: str


@dataclass(frozen=True, slots=True)
class Implied:
    """``implied``: runs that do not name their datasets themselves, as an `ImpliedNow`; follows a ``poll``.

    ``rules`` are ``(pattern of experiments, dataset)``, ``since`` says from when on (milliseconds) a source counts:
    of others nothing is searched. ``handled`` as in `Poll`.
    """

    rules: tuple[tuple[str, str], ...] = ()
    since: tuple[tuple[ImpliedSource, int], ...] = ()
    handled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImpliedNow:
    """All sources that there are now, and the runs without a state for which those that count do."""

    sources: tuple[ImpliedSource, ...] = ()
    runs: tuple[PendingRun, ...] = ()


@dataclass(frozen=True, slots=True)
class Retagged:
    """``retagged``: runs on which one of these values was recorded and which name others now; follows a ``poll``."""

    recorded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recorded:
    """``recorded``: what other hosts than ``host_id`` recorded on ``names``, a `RecordedNow`; follows a ``poll``.

    Looks at runs that started after ``since_ms``; those ``seen`` are left out, as far as a question takes them.
    """

    host_id: str
    names: tuple[str, ...]
    since_ms: int
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedNow:
    """Runs on which it stands nowhere what this host found, and the ids of those that need nothing of it."""

    runs: tuple[PendingRun, ...] = ()
    settled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Polled:
    """The answer to `Poll`: the runs, how long the server took, and whether it is too old to leave out what is done."""

    runs: tuple[PendingRun, ...] = ()
    took_s: float = 0.0
    is_old: bool = False


@dataclass(frozen=True, slots=True)
class Runs:
    """``runs``: how these runs are now, as a `RunsNow`."""

    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as it is now and its ``reprod.*`` tags (``run.dataset`` is empty where it has no such tag)."""

    run: PendingRun
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class RunsNow:
    """The answer to `Runs`: each asked id is in exactly one of the three."""

    runs: tuple[RunRow, ...] = ()
    missing: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepare:
    """``prepare``: which of these artifact paths and metric keys the run already has, as a `Taken`."""

    run_id: str
    artifact_paths: tuple[str, ...] = ()
    metric_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """The names that the run already has, in the order they were asked."""

    artifacts_taken: tuple[str, ...] = ()
    metrics_taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deliver:
    """``deliver``: write the payload to its run, ``reprod.state`` last, as a `Delivered`."""

    payload: Payload


@dataclass(frozen=True, slots=True)
class Note:
    """``note``: say a sentence on a run that has no ``reprod.state`` yet; with ``once`` only where nobody said any.

    ``key`` is the tag that says it: ``reprod.note``, or ``reprod.error`` for what a person must mend first.
    """

    run_id: str
    text: str
    once: bool = False
    key: NoteKey = "reprod.note"


@dataclass(frozen=True, slots=True)
class Delivered:
    """Params that went to ``reprod.NAME``, and those for which that name too held another value (not written).

    Also the artifacts that were left out because a file of the user's stands in place of a folder above them.
    """

    params_renamed: tuple[str, ...] = ()
    params_refused: tuple[str, ...] = ()
    artifacts_left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FindStored:
    """``find_stored``: the active store runs of a digest (``dt1:...``), as a tuple of `StoredRun`, ``hint`` first."""

    digest: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A store run with the sizes of its files in bytes. ``kind`` and ``base`` are its own word, not proven."""

    run_id: str
    kind: str
    base: str | None = None
    base_run: str | None = None
    files: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenStore:
    """``open_store``: the id of a new store run without files and tags; ``name`` is for people."""

    name: str


@dataclass(frozen=True, slots=True)
class Upload:
    """``upload``: the files in ``folder`` and the tags go to a store run, the tag with ``digest`` last and alone.

    A digest that begins with ``env1:`` is an environment's.
    """

    run_id: str
    folder: str
    digest: str
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Download:
    """``download``: these artifacts of a run, each of at most ``limit_bytes``, into ``folder``, as a `Downloaded`."""

    run_id: str
    paths: tuple[str, ...]
    folder: str
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The asked paths that are not on the run, and those that are over the limit; all others were fetched."""

    missing: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()
