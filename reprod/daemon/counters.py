"""What has happened since the daemon started, in numbers that only grow: counted where it happens, read by ``metrics``.

A dataset's numbers stay here when a reload makes its ``DatasetWork`` anew, so that none falls back to 0. Those of one
dataset have one writer at a time, its refresh; those of deliveries are counted by several threads. Times are seconds,
sizes bytes.
"""

import threading
from collections import defaultdict
from dataclasses import dataclass, field

from reprod.ops.findings import Counts
from reprod.ops.refresh import Report


@dataclass(slots=True)
class DatasetCounts:
    """One dataset's numbers; ``full`` refreshes walk all, ``hinted`` ones look where the watch said."""

    full: int = 0
    hinted: int = 0
    full_s: float = 0.0
    hinted_s: float = 0.0
    failed: int = 0
    sealed: int = 0
    hashed_files: int = 0
    hashed_bytes: int = 0
    unannounced: int = 0
    overflows: int = 0
    _under_way: Counts = field(default_factory=Counts)
    _seen_files: int = 0
    _seen_bytes: int = 0

    def advance(self, counts: Counts) -> None:
        """Take in how far a refresh is: one that reads for hours, or fails in the end, shows what it reads."""
        if counts is not self._under_way:
            self._under_way, self._seen_files, self._seen_bytes = counts, 0, 0
        files, size = counts.hashed_files, counts.hashed_bytes
        self.hashed_files += files - self._seen_files
        self.hashed_bytes += size - self._seen_bytes
        self._seen_files, self._seen_bytes = files, size

    def end(self, report: Report) -> None:
        """Take in a refresh that is done."""
        self.advance(report.counts)
        if report.full:
            self.full, self.full_s = self.full + 1, self.full_s + report.seconds
        else:
            self.hinted, self.hinted_s = self.hinted + 1, self.hinted_s + report.seconds
        self.sealed += report.sealed
        self.unannounced += report.unannounced


class Counters:
    """All numbers of one daemon. ``deliveries`` are runs that were written to, ``captured`` those of them with all."""

    def __init__(self) -> None:
        self.deliveries = 0
        self.captured = 0
        self.postponed = 0
        self.failed = 0
        self._datasets: defaultdict[str, DatasetCounts] = defaultdict(DatasetCounts)
        self._lock = threading.Lock()

    def of(self, name: str) -> DatasetCounts:
        """Return the numbers of a dataset; those of one that comes back go on."""
        return self._datasets[name]

    def deliver(self, state: str) -> None:
        """A run got its ``reprod.state``."""
        with self._lock:
            self.deliveries += 1
            self.captured += state == "captured"

    def postpone(self) -> None:
        """A run could not be published or written, and is tried again."""
        with self._lock:
            self.postponed += 1

    def fail(self) -> None:
        """A run cannot be written until a person acts."""
        with self._lock:
            self.failed += 1
