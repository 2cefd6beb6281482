"""Waiting for a state, with a bound: the one way in which tests wait. Times are seconds."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02

#: No wait gives up sooner, whatever its caller found enough: a bound is there to end what hangs, and tells nothing else
#: of a machine that is busy with other tests. Half of what a test may take (``timeout`` in pyproject.toml).
LEAST_BOUND_S = 60.0


def eventually(predicate: Callable[[], T], timeout_s: float, what: str | Callable[[], str]) -> T:
    """Return the first true result of ``predicate``; fail, saying ``what`` did not happen, after ``timeout_s`` or
    ``LEAST_BOUND_S``, whichever is longer."""
    bound_s = max(timeout_s, LEAST_BOUND_S)
    deadline = time.monotonic() + bound_s
    while True:
        late = time.monotonic() > deadline  # before the last look: this process itself may have been held up
        found = predicate()
        if found:
            return found
        if late:
            raise AssertionError(f"not within {bound_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)
