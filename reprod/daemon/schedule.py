"""When one dataset is looked at again: the timer, the back-off after a failure, the spacing of seals, moving files.

Pure: it is told what happened and when, and says what is due; waiting is the caller's part (daemon/turns.py). Times are
seconds of the loop's clock unless they end in ``_ns``, which are of the wall clock.
"""

import math
from dataclasses import dataclass

from reprod.core.entry import Problem
from reprod.ops.refresh import Report

SETTLE_S = 0.03  # just over law 3's slack, so that what was written last can be read clean at once


LONGEST_SETTLE_S = 0.5  # under a steady stream of writes


SEAL_SPACING_S = 1.0  # background seals of one dataset, to within the change of what a refresh takes
LONGEST_LEAD_S = 0.5  # of the spacing; a refresh that takes longer must not follow itself at once


POLL_S = 30.0  # without a watch: how often to walk, or ten times what a walk takes


FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0  # unavailable, state full, failed


FIRST_UNSTABLE_S, LONGEST_UNSTABLE_S = 0.05, 60.0


MOST_BARRED = 1000  # unreadable paths that are tried again; more of them are left to the walks


@dataclass(slots=True)
class Schedule:
    """``walk_s``: when everything is due; ``retry_s``: before that nothing is, after a failure."""

    walk_s: float = 0.0
    retry_s: float | None = None
    moving: frozenset[bytes] = frozenset()  # files that kept changing while they were read
    barred: frozenset[bytes] = frozenset()  # what could not be read: its healing need not make an event
    _moving_s: float = math.inf  # when these are due
    _moving_wait_s: float = FIRST_UNSTABLE_S
    _retry_wait_s: float = FIRST_RETRY_S
    _sealed_s: float = -math.inf
    _lead_s: float = 0.0  # how long before a seal the refresh that makes it has to begin

    def due_s(self) -> float:
        """Return when something is due although nothing was heard."""
        return min(self.walk_s, self._moving_s) if self.retry_s is None else self.retry_s

    def paths(self, hinted: frozenset[bytes], closed: frozenset[bytes], now: float) -> frozenset[bytes]:
        """Return what to look at of what was hinted at.

        Files that keep changing are left to their own back-off, or a growing log would be read all the time; but not
        those that were ``closed`` by who wrote them.
        """
        due = now >= self._moving_s
        return hinted | self.moving | self.barred if due else hinted - (self.moving - closed)

    def settle_s(self, now: float, quiet_s: float, latest: float) -> float:
        """Return how long to wait yet: a burst of writes ends (by ``latest``), and seals are a second apart."""
        settling = min(SETTLE_S - quiet_s, latest - now) if 0 <= quiet_s < SETTLE_S else 0.0
        return max(self._sealed_s + SEAL_SPACING_S - self._lead_s - now, settling)

    def succeed(
        self,
        report: Report,
        looked: frozenset[bytes] | None,
        began: float,
        now: float,
        reconcile_s: float,
        *,
        watched: bool,
    ) -> None:
        """Plan what comes after a refresh of ``looked`` (None: everything) that began at ``began``.

        :param reconcile_s: the longest between two walks.
        """
        self._retry_wait_s, self.retry_s = FIRST_RETRY_S, None
        if report.sealed:
            self._sealed_s, self._lead_s = now, min(now - began, LONGEST_LEAD_S)
        if report.full:
            unwatched_s = min(reconcile_s, max(POLL_S, 10 * report.seconds))
            self.walk_s = now + (reconcile_s if watched else unwatched_s)
        self._plan_moving(report, looked, began, now)

    def fail(self, now: float) -> None:
        """Plan the next attempt, each after twice the time; it looks at everything."""
        self.walk_s, self.retry_s = 0.0, now + self._retry_wait_s
        self._retry_wait_s = min(2 * self._retry_wait_s, LONGEST_RETRY_S)

    def _plan_moving(self, report: Report, looked: frozenset[bytes] | None, began: float, now: float) -> None:
        """Files that kept changing, or could not be read, are read again, less and less often."""
        unstable = frozenset(path for path, problem in report.problems if problem is Problem.UNSTABLE)
        unreadable = frozenset(path for path, problem in report.problems if problem is Problem.UNREADABLE)
        looked_at_all = report.full or looked is None or began >= self._moving_s
        if not looked_at_all and looked is not None:
            unstable, unreadable = unstable | (self.moving - looked), unreadable | (self.barred - looked)
        self.moving, self.barred = unstable, unreadable if len(unreadable) <= MOST_BARRED else frozenset()
        if not self.moving and not self.barred:
            self._moving_s, self._moving_wait_s = math.inf, FIRST_UNSTABLE_S
        elif looked_at_all or math.isinf(self._moving_s):
            self._moving_s = now + self._moving_wait_s
            self._moving_wait_s = min(2 * self._moving_wait_s, LONGEST_UNSTABLE_S)
