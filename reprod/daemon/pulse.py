"""How late the event loop is: every client, signal and timer of the daemon waits for it.

A timer of a few seconds notes by how much it was late. What holds the loop up for longer than ``EVERY_S`` is seen for
certain, something shorter with a chance of its length by that: more often would cost more than an idle daemon may (two
wake-ups in five seconds are 0.003 % of a core). Seconds.
"""

from collections import deque

import anyio

EVERY_S = 2.5
KEPT = 24  # a minute: between two scrapes nothing is lost


class Pulse:
    """Feels it."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque([0.0], maxlen=KEPT)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            due = anyio.current_time() + EVERY_S
            await anyio.sleep(EVERY_S)
            self._late_s.append(max(0.0, anyio.current_time() - due))

    @property
    def lag_s(self) -> float:
        """Return by how much the loop was late at most, within the last minute."""
        return max(tuple(self._late_s))
