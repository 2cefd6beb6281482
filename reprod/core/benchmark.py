"""Owns what a hardware benchmark says: how fast this machine did a fixed piece of work, how evenly, and beside what.

It is asked for, never taken by itself, and no part of an environment or of any comparison: it tells a machine that is
slow today from one that is slow. Rates are per second (bytes, iterations or floating-point operations), times are
seconds.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Measurement:
    """One piece of work, done ``repeats`` times: the middle, lowest and highest rate in ``unit``.

    ``unit`` is ``B/s``, ``iterations/s`` or ``FLOP/s``; ``work`` says what one repeat is, ``note`` what a reader has to
    know of this one (that a file came from memory, for example).
    """

    name: str
    unit: str
    median: float
    lowest: float
    highest: float
    repeats: int
    work: str
    note: str | None = None

    @property
    def spread(self) -> float:
        """Return (highest - lowest) / median: 0.02 is an even measurement, 0.5 one that says little."""
        return (self.highest - self.lowest) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark, taken at ``taken_ns`` (nanoseconds since the epoch) within ``seconds``.

    ``skipped`` says why a measurement is not there. ``load_before`` and ``load_after`` are the machine's load averages
    over 1, 5 and 15 minutes; ``others_cpu`` is the part (0 to 1) of all processors that anything else used meanwhile.
    ``processors`` is how many it could use, ``niceness`` its priority, ``directory`` where the disk was measured.
    """

    taken_ns: int
    seconds: float
    measurements: tuple[Measurement, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    load_before: tuple[float, float, float] | None = None
    load_after: tuple[float, float, float] | None = None
    others_cpu: float | None = None
    processors: int | None = None
    niceness: int | None = None
    directory: str | None = None
    python: str | None = None


def summarise(name: str, unit: str, rates: Sequence[float], work: str, note: str | None = None) -> Measurement:
    """Return the measurement of at least one repeat; raises ValueError for none."""
    if not rates:
        raise ValueError(f"{name} has no repeats")
    middle = statistics.median(rates)
    return Measurement(name, unit, middle, min(rates), max(rates), len(rates), work, note)
