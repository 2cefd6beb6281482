"""What a scan saw on its way into the index: gathered, and written batch by batch.

A crash hashes again what was gathered and not yet written, so a batch is bounded in rows, in bytes that were read for
it, and in time.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from reprod.store import changes
from reprod.store.changes import Applied
from reprod.store.connection import Database
from reprod.store.observation import NewFiles, Observation, SeenDirectory

#: A commit costs about 1 ms. More rows at once keep the caller away for longer than the workers have work.
BATCH_ROWS = 2000

#: Large files come one by one: what took seconds to read is written at once.
BATCH_BYTES = 4 << 30
BATCH_S = 2.0


@dataclass(slots=True)
class Batches:
    """Rows for the index of one dataset. ``applied`` counts what became of those that were written."""

    db: Database
    applied: Applied = field(default_factory=Applied)
    _rows: list[Observation] = field(default_factory=list)
    _new: list[NewFiles] = field(default_factory=list)
    _directories: list[SeenDirectory] = field(default_factory=list)
    _complete: list[bytes] = field(default_factory=list)
    _count: int = 0
    _bytes: int = 0
    _since: float = 0.0

    def add(self, rows: Sequence[Observation]) -> None:
        """Take entries one by one."""
        self._rows += rows
        self._grow(len(rows), sum([row.stat[1] for row in rows]))

    def add_new(self, files: NewFiles) -> None:
        """Take files of a directory that the index did not know."""
        self._new.append(files)
        self._grow(len(files.names), files.size())

    def add_directory(self, seen: SeenDirectory) -> None:
        """Take a directory that is new or whose stat is another."""
        self._directories.append(seen)
        self._grow(1, 0)

    def complete(self, directory: bytes) -> None:
        """Take note that a new directory without subdirectories is here as a whole, so that its node can be computed.

        While workers are busy anyway; what is not told of is computed by the seal, when nobody else has work.
        """
        self._complete.append(directory)

    def flush_if_due(self) -> None:
        """Write if the batch is full or old."""
        if self._count >= BATCH_ROWS or self._bytes >= BATCH_BYTES or self._is_old():
            self.flush()

    def flush(self) -> None:
        """Write what there is, in one transaction."""
        if not self._count:
            return
        rows, new, directories, complete = self._rows, self._new, self._directories, self._complete
        self._rows, self._new, self._directories, self._complete = [], [], [], []
        self._count = self._bytes = 0
        applied = self.db.write(lambda db: changes.apply(db, rows, directories, time.time_ns(), new, complete))
        self.applied.changed += applied.changed
        self.applied.touched += applied.touched

    def _grow(self, count: int, size: int) -> None:
        if not self._count:
            self._since = time.monotonic()
        self._count += count
        self._bytes += size

    def _is_old(self) -> bool:
        return self._count > 0 and time.monotonic() - self._since > BATCH_S
