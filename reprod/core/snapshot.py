"""A snapshot: what a run refers to, frozen. An environment and, for each dataset, the version that it started on.

Written to the outbox as JSON before the first request to the tracking server, so that every attempt writes the same.
Times are Unix nanoseconds.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from reprod.core.binding import Assurance, Bound
from reprod.core.execution import Execution
from reprod.core.redact_paths import Curtain, Reserved
from reprod.core.run import RunState, Source, split_name

#: How much of a dataset goes to a run: names of files too, totals only, or its digest alone.
Publish = Literal["full", "summary", "digest"]


@dataclass(frozen=True, slots=True)
class BoundDataset:
    """One dataset of a snapshot. ``digest`` (``dt1:...``) is None unless a complete version was proven.

    ``error`` says, for a person, why there is none. ``candidates`` are ``(version, digest)`` around the start. With a
    ``path`` only what is below that subdirectory was named: digest, files and bytes are of it. ``publish`` says how
    much of it goes to a run.
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
    path: str | None = None
    publish: Publish = "full"

    @property
    def named(self) -> str:
        """As a run names it: ``NAME`` or ``NAME/SUB``."""
        return self.name if self.path is None else f"{self.name}/{self.path}"

    @property
    def data_path(self) -> str:
        """Where the data lay: the root, or the subdirectory."""
        return self.root if self.path is None else f"{self.root.rstrip('/')}/{self.path}"


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
    source: Source = "run"
    host_id: str | None = None
    contested: tuple[str, ...] = ()
    rivals: bool = False

    @property
    def state(self) -> RunState:
        """``captured`` only if every name is known, complete and bound."""
        fine = not self.unknown_names and not self.contested and all(d.digest is not None for d in self.datasets)
        return "captured" if fine else "incomplete"

    @property
    def reserved(self) -> tuple[Reserved, ...]:
        """The datasets whose names, or even whose roots, the run is not told."""
        hidden = (each for each in self.datasets if each.publish != "full")
        return tuple(Reserved(each.name, (each.root,), whole=each.publish == "digest") for each in hidden)

    @property
    def errors(self) -> list[str]:
        """What is wrong, one sentence a dataset, without a path that is not told."""
        told = Curtain(self.reserved).text
        cure = "reprod dataset add {0} PATH registers it"
        unknown = [f"{n}: no such dataset on {self.host} ({cure.format(split_name(n)[0])})" for n in self.unknown_names]
        return [f"{d.named}: {told(d.error)}" for d in self.datasets if d.error] + list(self.contested) + unknown

    @property
    def assurance(self) -> Assurance | None:
        """The weakest among the bound datasets, None if none is bound."""
        found = {d.assurance for d in self.datasets}
        return next((assurance for assurance in get_args(Assurance) if assurance in found), None)
