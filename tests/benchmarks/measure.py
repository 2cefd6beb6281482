"""How a time is taken: several times, in turn with what it is compared with, and the median counts.

Taking turns makes a drift of the machine's speed hit both sides; the first round of each does not count. Seconds unless
a name says otherwise.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured, each time; the median stands for it."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def at(self, share: float) -> float:
        """The value that so many of all do not exceed, from 0 to 1."""
        return sorted(self.values)[int(share * (len(self.values) - 1))]


def one(value: float) -> Sample:
    """Return what was measured only once."""
    return Sample((value,))


def in_turn(rounds: int, *calls: Callable[[], float]) -> list[Sample]:
    """Call each in turn, ``rounds`` times after one round that does not count."""
    seen: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for values, call in zip(seen, calls, strict=True):
            value = call()
            if number:
                values.append(value)
    return [Sample(tuple(values)) for values in seen]


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def shell(command: str, folder: Path) -> float:
    """Return how long a shell pipeline of the benchmark's own takes. Raises CalledProcessError."""
    return seconds(lambda: subprocess.run(["bash", "-c", command], cwd=folder, check=True, stdout=subprocess.DEVNULL))


def process(command: list[str], environment: Mapping[str, str] | None = None, folder: Path | None = None) -> float:
    """Return how long a whole process takes. Raises CalledProcessError."""
    return seconds(lambda: subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, check=True))


def until(done: Callable[[], T], limit_s: float, what: str) -> T:
    """Return the first true result of ``done``. Raises RuntimeError that says ``what`` was waited for."""
    deadline = time.monotonic() + limit_s
    while not (found := done()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {limit_s} s for {what}")
        time.sleep(POLL_S)
    return found
