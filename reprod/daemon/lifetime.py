"""What was seen of a run's life while the daemon runs, and what that and its row say of when it lived.

Rule: a run that was resumed keeps the ``end_time`` of before, so one that was there while it was RUNNING says nothing.
Times are Unix nanoseconds, ``*_ms`` milliseconds as MLflow counts them.
"""

import time
from dataclasses import dataclass

from reprod.core.drift import GONE
from reprod.core.run import PendingRun
from reprod.ops.drift import Lifetime
from reprod.store.drifts import Said


@dataclass(slots=True)
class Seen:
    """One run as it was seen so far. ``end_ms`` is what it said of its end while it was RUNNING."""

    running_ns: int = 0
    end_ms: int | None = None
    ended: str | None = None
    ended_ns: int = 0  # when it was first seen so
    gone_ns: int = 0  # when its process was first seen gone
    not_before_ns: int = 0  # a run that refused what is owed to it is left alone until then
    error: str = ""  # why, as it was logged last

    def run_on(self, run: PendingRun, asked_ns: int) -> None:
        """It is RUNNING, and was when it was asked for."""
        self.running_ns, self.end_ms, self.ended, self.gone_ns = asked_ns, run.end_ms, None, 0

    def end(self, ended: str) -> None:
        """It has ended, and is seen so for the first time or again."""
        if self.ended != ended:
            self.ended, self.ended_ns = ended, self.gone_ns if ended == GONE else time.time_ns()


def is_news(said: Said, ended: str, run: PendingRun) -> bool:
    """Whether a drift was judged over another time than the run's, or may be proven now."""
    due = 0 < said.again_ns <= time.time_ns()
    return due or said.ended != ended or (ended != GONE and said.end_ms != run.end_ms)


def lifetime(run: PendingRun, ended: str, seen: Seen, said: Said | None, slack_ns: int) -> Lifetime:
    """Return when a run lived, from what was seen now and before the daemon was last started."""
    start_ns = run.start_ms * 1_000_000
    running_ns = max(seen.running_ns, said.running_ns if said is not None else start_ns)
    ended_ns, stale = seen.ended_ns, ended == GONE or run.end_ms == seen.end_ms
    if said is not None and said.ended == ended and said.end_ms == run.end_ms:
        ended_ns = said.ended_ns  # the same end, judged again
    elif said is not None and said.ended in {None, GONE}:
        stale = stale or said.end_ms == run.end_ms
    end_ns = None if stale or run.end_ms is None else run.end_ms * 1_000_000
    return Lifetime(start_ns, end_ns, running_ns, ended_ns, slack_ns)
