"""When the next look at one dataset begins, and at what it looks: for hints, on a timer, or because somebody asks.

Rule: after a failure only the back-off or who asks counts; a burst of writes is let end, and somebody who asks ends
that wait. Requests that come while a walk is under way wait for the next one. Seconds of the loop's clock, but
``*_ns``, which are of the wall clock.
"""

import math
import time
from collections.abc import Callable

import anyio

from reprod.config import DatasetConfig
from reprod.daemon.dirty import DirtySet, Lease
from reprod.daemon.schedule import LONGEST_SETTLE_S, Schedule
from reprod.daemon.waiters import Waiter, Waiters
from reprod.ops.plan import Order


class Turns:
    """Waits for what makes a look due. ``hears`` says whether a run is content now with what the watch tells."""

    def __init__(self, dataset: DatasetConfig, dirty: DirtySet, hears: Callable[[], bool]) -> None:
        self.schedule = Schedule()
        self.waiters = Waiters(dataset)
        self._dirty, self._hears = dirty, hears
        self._wake = anyio.Event()
        self._walked_s = -math.inf

    def ring(self) -> None:
        """See at once whether something is due."""
        self._wake.set()

    def add(self, waiter: Waiter) -> None:
        """Let one more wait for a look."""
        self.waiters.add(waiter)
        self.ring()

    def note_walk(self, began_s: float) -> None:
        """A full walk has begun."""
        self._walked_s = began_s

    def asked_s(self) -> float:
        """Return when the next of those who wait is due."""
        return self.waiters.due_s(self._walked_s, hears=self._hears())

    async def until_due(self) -> None:
        """Wait for a hint, somebody who asks or a timer, and then for a burst of writes to end."""
        await self._until_needed()
        await self._settle()

    def is_full(self, lease: Lease, *, asked: bool, heard: bool, began_s: float) -> bool:
        """Return whether a look has to be a full walk: somebody asks, a timer says so, or the watch cannot tell."""
        return (asked and not heard) or lease.everything or began_s >= self.schedule.walk_s

    def order(self, lease: Lease, waiters: list[Waiter], began_s: float, *, full: bool) -> Order:
        """Return what to look at: everything, or what was hinted at."""
        if full:
            return Order(None, any(w.rehash for w in waiters), any(w.accept_root for w in waiters))
        return Order(self.schedule.paths(frozenset(lease.paths), lease.closed, began_s))

    async def _until_needed(self) -> None:
        while True:
            self._wake = wake = anyio.Event()
            if self.schedule.retry_s is None and self._dirty.pending():
                return
            left = min(self.schedule.due_s(), self.asked_s()) - anyio.current_time()
            if left <= 0:
                return
            with anyio.move_on_after(left):
                await wake.wait()

    async def _settle(self) -> None:
        """Let a burst of writes end, and background seals be a second apart; somebody who asks ends the wait."""
        latest = anyio.current_time() + LONGEST_SETTLE_S
        while self.asked_s() > anyio.current_time():
            newest = self._dirty.newest_ns
            quiet_s = (time.time_ns() - newest) / 1e9 if newest is not None else math.inf
            left = self.schedule.settle_s(anyio.current_time(), quiet_s, latest)
            if left <= 0:
                return
            self._wake = anyio.Event()
            with anyio.move_on_after(left):
                await self._wake.wait()
