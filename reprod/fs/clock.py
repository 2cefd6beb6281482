"""Whether the wall clock was set: then times before and after cannot be compared.

The wall clock and the time since boot are slewed together, so what is between them changes only when somebody, or the
time service, sets the clock. Nanoseconds.
"""

import time

#: Two clocks are read one after the other: a busy machine may do something else for some milliseconds between them.
STEP_NS = 15_000_000

# Elsewhere than on Linux the monotonic clock stands still while the machine sleeps: waking up looks like a step there.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot_ns() -> int:
    """Return the time since boot, with the time that the machine slept."""
    return time.clock_gettime_ns(_SINCE_BOOT)


def offset_ns() -> int:
    """Return how far the wall clock is ahead of the time since boot."""
    return time.time_ns() - since_boot_ns()


def was_set(offset_before_ns: int, offset_now_ns: int) -> bool:
    """Whether the clock was set between two looks at its offset, of the same boot."""
    return abs(offset_now_ns - offset_before_ns) > STEP_NS
