"""How long to wait between two polls, so that daemons are a light load on the server they share.

A poll of a large store takes the server as much computing as it lasts (51 ms of 50 ms with 100,000 runs in SQLite), so
what a poll takes says how seldom it may come: at most 1 % of the time from one daemon at the default interval, and from
all together a quarter of one core. Who sets a shorter interval asks for a larger share. Waits are drawn at random, so
that daemons that started together do not stay together; while the server does not answer, they double up to five
minutes. Seconds everywhere.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

LONGEST_S = 300.0

#: A poll may take a hundredth of the interval at ``poll_seconds = 10``, the default and more, and 0.1 s at any shorter
#: one before that is stretched.
MOST_TIMES, AT_CONFIGURED_S = 100.0, 0.1

#: All daemons together leave the server three quarters of a core for training.
SHARE = 0.25

#: The weight of the latest poll: three slow ones in a row count, a single one hardly.
WEIGHT = 0.2

#: The shortest part of the interval that is waited. Never more than the whole: a tag is noticed within one interval.
LEAST_PART = 0.75


@dataclass(slots=True)
class Interval:
    """Says after each poll how long to wait until the next. ``draw`` returns a number in [0, 1)."""

    draw: Callable[[], float] = random.random
    took_s: float | None = None  # exponentially weighted mean of what the server needs for one poll
    _failures: int = 0
    _spread: bool = False

    def answered(self, base_s: float, took_s: float, daemons: int = 1) -> float:
        """Return the wait after a poll that took the server ``took_s``, on a server that ``daemons`` ask.

        ``base_s`` is the configured interval. The first wait after a start or an outage is anything up to the interval:
        that is what brings daemons apart which woke together.
        """
        self.took_s = took_s if self.took_s is None else WEIGHT * took_s + (1 - WEIGHT) * self.took_s
        interval_s = self.interval_s(base_s, daemons)
        fresh, self._spread, self._failures = not self._spread, True, 0
        return interval_s * (self.draw() if fresh else LEAST_PART + (1 - LEAST_PART) * self.draw())

    def failed(self, base_s: float) -> float:
        """Return the wait after a poll that was not answered, or was refused: twice as long each time."""
        self._failures, self._spread = min(self._failures + 1, 30), False
        longest_s = min(LONGEST_S, max(base_s, 0.1) * 2.0**self._failures)
        return longest_s * (0.5 + 0.5 * self.draw())

    def interval_s(self, base_s: float, daemons: int = 1) -> float:
        """Return the interval that waits are drawn from: the configured one, or what the server's load asks for."""
        took_s = self.took_s or 0.0
        times = min(MOST_TIMES, base_s / AT_CONFIGURED_S)
        alone_s = took_s * times
        together_s = took_s * daemons / SHARE * times / MOST_TIMES if daemons > 1 else 0.0
        return max(base_s, min(max(alone_s, together_s), LONGEST_S))
