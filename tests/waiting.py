"""Waiting for a state, with a bound: the one way in which tests wait. Times are seconds."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: The pause between two looks is a fifth of the wait so far, so that it adds a fifth at most, within these: a look
#: is mostly a request to a server (8 ms of CPU for one run of MLflow's, a quarter of a core at 50 a second).
LEAST_PAUSE_S = 0.02
MOST_PAUSE_S = 0.25

#: No wait gives up sooner, whatever its caller found enough: a bound is there to end what hangs, and tells nothing else
#: of a machine that is busy with other tests. Half of what a test may take (``timeout`` in pyproject.toml).
LEAST_BOUND_S = 60.0


def eventually(predicate: Callable[[], T], timeout_s: float, what: str | Callable[[], str]) -> T:
    """Return the first true result of ``predicate``; fail, saying ``what`` did not happen, after ``timeout_s`` or
    ``LEAST_BOUND_S``, whichever is longer."""
    bound_s = max(timeout_s, LEAST_BOUND_S)
    began = time.monotonic()
    while True:
        waited_s = time.monotonic() - began  # before the last look: this process itself may have been held up
        found = predicate()
        if found:
            return found
        if waited_s > bound_s:
            raise AssertionError(f"not within {bound_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(min(max(waited_s / 5, LEAST_PAUSE_S), MOST_PAUSE_S))
