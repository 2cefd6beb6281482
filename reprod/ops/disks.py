"""The verb that notes on which disks a run's data lay: those of its datasets' roots, as this machine mounts them.

They belong to the execution: two runs of one environment may read from different disks. A server that does not answer
costs its own root only. Times are seconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from reprod.capture.machine.disk import read_disk
from reprod.capture.process.identity import boot_id
from reprod.capture.sections import Sections
from reprod.core.execution import Execution
from reprod.core.machine import Disk
from reprod.core.plain import plain

#: Statistics of a local file system take 0.2 ms; a network's that were asked lately, some more.
BUDGET_S = 2.0

ELSEWHERE = "the process ran on another machine than the one that watches the data"


def disks_of(roots: Iterable[str]) -> tuple[tuple[Disk, ...], Mapping[str, str]]:
    """Return the disk of each root, and why those of the others are not known, by root."""
    sections = Sections()
    found = [sections.take(root, partial(read_disk, root), BUDGET_S) for root in dict.fromkeys(roots)]
    return tuple(disk for disk in found if disk is not None), sections.unknown


def with_disks(execution: Execution | None, roots: Iterable[str]) -> Execution | None:
    """Return the execution with the disks of the datasets' ``roots``, or why they are not known; None stays None."""
    if execution is None:
        return None
    if execution.subject.boot_id != boot_id():
        return replace(execution, disks=(), unknown={**execution.unknown, "disks": ELSEWHERE})
    disks, missing = disks_of(roots)
    unknown = execution.unknown
    if missing:
        said = "; ".join(f"{root}: {why}" for root, why in missing.items())
        unknown = {**unknown, "disks": plain(said)}
    return replace(execution, disks=disks, unknown=unknown)
