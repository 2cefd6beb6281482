"""What one process was beside its environment: who it is, where and when it ran. It differs between any two runs.

No part of an environment's digest. What is not known is None or absent, with its reason in ``unknown``. Times are
nanoseconds since the epoch. Nothing here reads a file.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from reprod.core.benchmark import Benchmark
from reprod.core.hosting import Cloud, ContainerInstance, Scheduler
from reprod.core.imports import Imports
from reprod.core.invocation import Invocation
from reprod.core.machine import Disk, Placement
from reprod.core.numerics import Numerics, RandomState

SubjectKind = Literal["process", "interpreter", "host"]

#: What a process can tell of itself at its end better than at its beginning.
_AT_THE_END = ("imports", "numerics", "random_state")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose environment it is, and ``how`` that was found out (``in-process``, ``handover``, ``files of ...``).

    ``prefix`` is where the interpreter's packages are.
    """

    kind: SubjectKind
    host: str
    boot_id: str
    how: str
    pid: int | None = None
    start_ticks: int | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """One process, interpreter or host as it was seen at ``taken_ns``.

    ``variables`` say which part of which job it was. ``disks`` are those of the dataset roots. ``imports`` is what was
    used by then: at the end of a process that tells it, or at its beginning; ``named_imports`` is what its script or
    notebook names, until all that was used is known. ``visible_gpus`` are the ``index`` of each NVIDIA GPU that CUDA
    shows to it, in CUDA's order; None where there is none, or where that cannot be told.
    """

    subject: Subject
    taken_ns: int
    invocation: Invocation | None = None
    variables: dict[str, str] = field(default_factory=dict)
    schedulers: tuple[Scheduler, ...] = ()
    container: ContainerInstance | None = None
    cloud: Cloud | None = None
    placement: Placement | None = None
    numerics: Numerics | None = None
    random_state: RandomState | None = None
    imports: Imports | None = None
    named_imports: Imports | None = None
    visible_gpus: tuple[int, ...] | None = None
    disks: tuple[Disk, ...] = ()
    benchmark: Benchmark | None = None
    unknown: dict[str, str] = field(default_factory=dict)


def with_end(first: Execution, last: Execution) -> Execution:
    """Return what is known of one process: its ``first`` record, and what its ``last`` says was used by then.

    That are imports, numeric settings and the state of generators; what the last does not know stays as it was. What
    the script only names says nothing more once all that was used is known.
    """
    found: dict[str, Any] = {name: value for name in _AT_THE_END if (value := getattr(last, name)) is not None}
    if last.imports is not None and last.imports.complete:
        found["named_imports"] = None
    still = {name: why for name, why in last.unknown.items() if name in _AT_THE_END and getattr(first, name) is None}
    unknown = {name: why for name, why in {**still, **first.unknown}.items() if name not in found}
    return replace(first, **found, unknown=unknown)
