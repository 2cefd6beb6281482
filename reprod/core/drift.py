"""Drift: what happened to a dataset between a run's start and its end, as the daemon's history tells it.

It is the union of all deltas and touches after the start, not the difference of two states: what changed and changed
back is a change too, because a run may have read it meanwhile. Times are Unix nanoseconds.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

#: The weakest word wins where a run used several datasets: the last one that holds for any of them.
Verdict = Literal["none", "appended", "unknown", "changed"]

#: What stands for a status where a run is RUNNING and its process is gone.
GONE = "the process is gone"

#: What happened to a path. ``touched``: only its fingerprint differs, but its content may have changed and come back.
What = Literal["added", "removed", "modified", "touched"]


@dataclass(frozen=True, slots=True)
class DriftedPath:
    """One path and what happened to it; ``at_ns`` is when that was sealed, ``version`` what it led to."""

    path: str  # displayed, as manifests display it
    what: What
    at_ns: int
    version: int | None = None
    path_b64: str | None = None  # its bytes, where the displayed form does not say them all


@dataclass(frozen=True, slots=True)
class DatasetDrift:
    """The drift of one dataset of a run; ``counts`` holds how many paths of each `What`, ``paths`` the first of them.

    ``reason`` says for a person why it is that, without a name of the data; ``place`` is the directory that it speaks
    of, as displayed. ``from_version`` is what the run is bound to.
    """

    name: str
    verdict: Verdict
    reason: str
    from_version: int | None = None
    to_version: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    paths: tuple[DriftedPath, ...] = ()
    place: str | None = None

    @property
    def why(self) -> str:
        """The reason with the directory that it speaks of."""
        return self.reason if self.place is None else f"{self.reason} ({self.place})"


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of a run: judged at ``judged_ns`` over the time from its start to ``until_ns`` (its end).

    ``ended`` says how the end is known: the run's status, or `GONE`: it is RUNNING, but its process is not there.
    """

    run_id: str
    start_ns: int
    until_ns: int
    judged_ns: int
    datasets: tuple[DatasetDrift, ...]
    ended: str | None = None

    @property
    def verdict(self) -> Verdict:
        """``changed`` if any dataset changed, else ``unknown`` if any is, else ``appended``, else ``none``."""
        order = get_args(Verdict)
        found: Verdict = max((each.verdict for each in self.datasets), key=order.index, default="unknown")
        return found
