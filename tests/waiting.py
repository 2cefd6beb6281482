"""Waiting for a state, with a bound: the one way in which tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


def eventually(predicate: Callable[[], T], timeout_s: float, what: str | Callable[[], str]) -> T:
    """Return the first true result of ``predicate``; fail after ``timeout_s``, saying ``what`` did not happen."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)
