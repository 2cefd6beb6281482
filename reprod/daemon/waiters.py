"""Who waits for a look at one dataset, and when that is due.

Somebody who asks by hand is served at once by a full walk. A run may have to be patient (``walk_at_most_every``), and
is content with what the watch was told where the dataset says so (``barrier = "events"``). Only a walk that begins
after a request can answer it; it answers all that came before. Seconds of the loop's clock.
"""

import math
from dataclasses import dataclass, field

import anyio

from reprod.config import DatasetConfig
from reprod.errors import ReprodError
from reprod.ops.refresh import Report


@dataclass(eq=False, slots=True)
class Waiter:
    """One who waits. After ``done``, ``error`` says why there was no look, else ``report`` is what it found."""

    rehash: bool = False
    accept_root: bool = False
    for_run: bool = False
    done: anyio.Event = field(default_factory=anyio.Event)
    report: Report | None = None
    error: ReprodError | None = None


class Waiters:
    """All who wait for one dataset."""

    def __init__(self, dataset: DatasetConfig) -> None:
        self._spacing_s = dataset.walk_at_most_every
        self._waiting: list[Waiter] = []

    def add(self, waiter: Waiter) -> None:
        """Let one more wait."""
        self._waiting.append(waiter)

    def due_s(self, walked_s: float, *, hears: bool) -> float:
        """Return when the first of them is due; infinite without any.

        :param walked_s: when the last full walk began.
        :param hears: whether runs are content with what the watch tells.
        """
        if not self._waiting:
            return math.inf
        return -math.inf if hears or not self.only_runs() else walked_s + self._spacing_s

    def only_runs(self) -> bool:
        """Whether nobody asks by hand."""
        return all(waiter.for_run for waiter in self._waiting)

    def take(self) -> list[Waiter]:
        """Return all of them; nobody waits any more."""
        taken, self._waiting = self._waiting, []
        return taken


def answer(waiters: list[Waiter], report: Report | None, error: ReprodError | None) -> None:
    """Tell them what came of it."""
    for waiter in waiters:
        waiter.report, waiter.error = report if error is None else None, error
        waiter.done.set()
