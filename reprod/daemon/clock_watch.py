"""Notice when the wall clock is set: then times of before and after cannot be compared, and every history has to know.

A step that cannot be written down now (no space) is owed, because bindings rest on it. Nanoseconds, but for ``LOOK_S``.
"""

import time
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from reprod.errors import DamagedError, StateError
from reprod.fs import clock

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon
    from reprod.daemon.work import DatasetWork

LOOK_S = 5.0


class ClockWatch:
    """Looks at the clock."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def run(self) -> None:
        """Look until cancelled."""
        offset, looked = clock.offset_ns(), clock.since_boot_ns()
        owed: list[tuple[DatasetWork, int, int, int]] = []
        while True:
            await anyio.sleep(LOOK_S)
            # Not LOOK_S: the machine may have slept for hours since the last look, or the daemon have been stopped.
            now, within = clock.offset_ns(), clock.since_boot_ns() - looked
            looked += within
            moved = now - offset
            if clock.was_set(offset, now):
                after = time.time_ns()
                self._daemon.log.warning("clock.stepped", by_ms=round(moved / 1e6, 1))
                self._daemon.pruner.hold(moved)
                owed += [(work, after - moved, after, within) for work in self._daemon.works.values()]
            offset = now
            owed = [step for step in owed if not await self._note(*step)]

    async def _note(self, work: "DatasetWork", before: int, after: int, within: int) -> bool:
        """Write a step down; False where that cannot be done now."""
        try:
            await to_thread.run_sync(work.note_step, before, after, within)
        except StateError as error:
            self._daemon.be_stuck(error)
            known = self._daemon.works.get(work.dataset.name)
            return known is not work  # nobody asks any more what a removed one did
        except DamagedError as error:  # its own work meets that too, and sets the file aside with all its marks
            self._daemon.log.warning("dataset.failed", dataset=work.dataset.name, error=error.message, hint=error.hint)
        return True
