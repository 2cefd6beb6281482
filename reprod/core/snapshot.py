"""A snapshot: what a run refers to, frozen. An environment and, for each dataset, the version that it started on.

Written to the outbox as JSON before the first request to the tracking server, so that every attempt writes the same.
Times are Unix nanoseconds.
"""

from dataclasses import dataclass
from typing import get_args

from reprod.core.binding import Assurance, Bound
from reprod.core.execution import Execution
from reprod.core.run import RunState


@dataclass(frozen=True, slots=True)
class BoundDataset:
    """One dataset of a snapshot. ``digest`` (``dt1:...``) is None unless a complete version was proven.

    ``error`` says, for a person, why there is none. ``candidates`` are ``(version, digest)`` around the start.
    """

    name: str
    root: str
    bound: Bound | None
    assurance: Assurance | None
    seq: int | None
    digest: str | None
    files: int | None
    bytes: int | None
    sealed_ns: int | None
    chain: str | None
    algorithms: tuple[str, ...]
    processing_seconds: float
    error: str | None = None
    retry: bool = False
    candidates: tuple[tuple[int, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is written to a run. ``environment`` is a key of the registry's environments; ``execution`` saw it."""

    created_ns: int
    host: str
    datasets: tuple[BoundDataset, ...]
    environment: str | None
    execution: Execution | None
    environment_unknown: str | None
    unknown_names: tuple[str, ...] = ()

    @property
    def state(self) -> RunState:
        """``captured`` only if every name is known, complete and bound."""
        fine = not self.unknown_names and all(d.digest is not None for d in self.datasets)
        return "captured" if fine else "incomplete"

    @property
    def errors(self) -> list[str]:
        """What is wrong, one sentence a dataset."""
        cure = "reprod dataset add {0} PATH registers it"
        unknown = [f"{n}: no such dataset on {self.host} ({cure.format(n)})" for n in self.unknown_names]
        return [f"{d.name}: {d.error}" for d in self.datasets if d.error] + unknown

    @property
    def assurance(self) -> Assurance | None:
        """The weakest among the bound datasets, None if none is bound."""
        found = {d.assurance for d in self.datasets}
        return next((assurance for assurance in get_args(Assurance) if assurance in found), None)
