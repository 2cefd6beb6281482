"""The SQLite file of one dataset as its daemon keeps it: opened when first needed, and told what happened meanwhile.

What happens while it is closed or busy (a gap in the watch) is kept in memory until it can be written; a step of the
clock is written at once, or owed by the caller. Blocking: call from worker threads. Times are wall-clock nanoseconds.
"""

import os
import time
from pathlib import Path
from typing import Any

from reprod.capture.process.identity import boot_id
from reprod.config import DatasetConfig
from reprod.errors import DamagedError, StateError
from reprod.fs import clock
from reprod.store import files, meta, registry, timeline
from reprod.store.connection import Database
from reprod.store.index import Connection
from reprod.store.versions import Version


class DatasetFile:
    """``db`` is the open file, None before the first look and after damage; ``set_aside`` what was found damaged."""

    def __init__(self, dataset: DatasetConfig, state_dir: Path, records: Database, log: Any) -> None:
        self.db: Database | None = None
        self.set_aside: Path | None = None
        self._dataset, self._state_dir, self._records, self._log = dataset, state_dir, records, log
        self._gap: tuple[int, str] | None = None

    def open(self) -> Database:
        """Return the file, opened if it was not, with all gaps written. Raises StateError, DamagedError."""
        if self.db is None:
            root = os.fsencode(self._dataset.path)
            opened = files.open_dataset(self._state_dir, self._records, self._dataset.name, root)
            self.db, self.set_aside = opened.db, opened.set_aside or self.set_aside
            if opened.set_aside is not None:
                self._log.error("dataset.rebuilt", set_aside=str(opened.set_aside))
            now = time.time_ns(), boot_id(), clock.offset_ns(), clock.STEP_NS
            self.db.write(lambda c: timeline.open_downtime(c, *now))
        if self._gap is not None:
            gap, self._gap = self._gap, None
            self.db.write(lambda c: timeline.open_gap(c, *gap))
        return self.db

    def close(self) -> None:
        """Close it; the next ``open`` opens it anew."""
        db, self.db = self.db, None
        if db is not None:
            db.close()

    def note_gap(self, kind: str, since_ns: int) -> None:
        """The watch was not whole since then; written before the next look. From any thread, never blocks."""
        if self._gap is None or since_ns < self._gap[0]:
            self._gap = (since_ns, kind)

    def note_step(self, before_ns: int, after_ns: int, within_ns: int) -> None:
        """The clock, which would show ``before_ns`` now, shows ``after_ns``, since at most ``within_ns`` ago.

        Raises StateError, DamagedError.
        """

        def note(c: Connection) -> None:
            timeline.step(c, before_ns, after_ns, within_ns)
            meta.write(c, clock_boot=boot_id(), clock_offset_ns=clock.offset_ns())

        if self.db is not None:
            self.db.write(note)

    def note_heard(self, moment_ns: int) -> None:
        """All that the watch told of up to then is in the newest version. Raises StateError, DamagedError."""
        if self._gap is None:
            self.open().write(lambda c: timeline.hear(c, moment_ns))

    def record(self, version: Version, *, sealed: bool) -> int | None:
        """Write into the registry what a look has found; returns when the whole was last confirmed."""
        name = self._dataset.name
        confirmed_ns = self.open().read(timeline.proved_ns)
        state = "incomplete" if version.problems else "current"

        def note(c: Connection) -> None:
            if sealed:
                registry.sealed(c, name, version)
            registry.noted(c, name, state, None, confirmed_ns)

        self._records.write(note)
        return confirmed_ns

    def record_failure(self, state: str, message: str) -> None:
        """Write into the registry that a look has failed, if that can be done."""
        try:
            self._records.write(lambda c: registry.noted(c, self._dataset.name, state, message, None))
        except (StateError, DamagedError):
            pass  # the registry is what failed; status tells, and the next success writes it
