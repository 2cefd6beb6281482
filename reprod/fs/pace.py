"""How fast and how many at once: rate limits that an administrator sets, and how many reads a slow disk gains from.

Neither owns a thread; both are told what happened and answer what may happen next. Times are monotonic seconds.
"""

import threading
import time
from collections.abc import Callable

#: A limit is kept over so long a time, so that small amounts do not wait for each other.
BURST_S = 0.2

#: Waits end at least so often to ask whether to stop.
TICK_S = 0.05

#: How long one number of readers is watched before another is tried: a hundred seeks.
WINDOW_S = 1.0

#: One more reader has to bring so much more, or it is one too many: a disk that seeks loses by it.
GAIN = 1.15

#: What opening a file costs, in bytes: throughput counts both, so that a run of small files does not look slow.
FILE_COST = 64 << 10


class Pace:
    """A limit of so many units a second; 0: none. Amounts are charged when known, and whoever comes next waits."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._paid_until = 0.0
        self._lock = threading.Lock()

    def charge(self, amount: float) -> None:
        """Count an amount."""
        if self._per_second:
            with self._lock:
                self._paid_until = max(self._paid_until, self._clock()) + amount / self._per_second

    def wait_s(self) -> float:
        """Return how long to wait until what was charged is within the limit."""
        return max(0.0, self._paid_until - BURST_S - self._clock()) if self._per_second else 0.0

    def wait(self, checkpoint: Callable[[], None]) -> None:
        """Wait so long; ``checkpoint`` is called every 50 ms and raises to stop."""
        while (left := self.wait_s()) > 0:
            checkpoint()
            time.sleep(min(left, TICK_S))


class Limits:
    """What a whole process may do to its disks, whatever it scans at the same time; 0: as much as it can.

    :param read_mb_per_second: megabytes (10^6 bytes) that are read.
    :param stats_per_second: files that are looked at.
    """

    def __init__(self, read_mb_per_second: float = 0, stats_per_second: float = 0) -> None:
        self.reads = Pace(read_mb_per_second * 1e6)
        self.stats = Pace(stats_per_second)


class Readers:
    """How many reads may be under way: all at once, or on a slow disk one, and more while each brings more."""

    def __init__(self, most: int, *, slow: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.allowed = 1 if slow else most
        self._most = most
        self._growing = slow and most > 1
        self._clock = clock
        self._since = clock()
        self._done = 0.0
        self._before = 0.0

    def note(self, files: int, size: int, *, busy: bool) -> None:
        """Count finished reads. ``busy``: more were waiting all the time; else the rate says nothing."""
        if not self._growing:
            return
        now = self._clock()
        if not busy:
            self._since, self._done = now, 0.0
            return
        self._done += size + files * FILE_COST
        seconds = now - self._since
        if seconds < WINDOW_S:
            return
        rate = self._done / seconds
        self._since, self._done = now, 0.0
        if rate < self._before * GAIN:
            self.allowed = max(1, self.allowed - 1)
            self._growing = False
        elif self.allowed < self._most:
            self._before = rate
            self.allowed += 1
        else:
            self._growing = False
