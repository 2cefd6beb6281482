"""What a tree of processes holds in memory over time: a process of its own, so that it slows nobody it looks at.

    python memory.py PID

samples PID and all its descendants every 50 ms until PID is gone or standard input ends, then prints JSON: a list of
``[time, pss_bytes, rss_bytes, processes]``, time being ``time.monotonic``'s. PSS counts a page that n processes share
as 1/n in each, so its sum is what the tree costs; the sum of RSS counts such pages n times. A share that processes
outside the tree have is not counted (the interpreter's own pages, some 3 MiB, while the benchmark runs beside it).
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL_S = 0.05
KIB = 1024


@dataclass(frozen=True, slots=True)
class Moment:
    """What the tree held at one time."""

    at_s: float
    pss: int
    rss: int
    processes: int


@dataclass(slots=True)
class Course:
    """All moments; complete once the context that gave it has ended."""

    moments: list[Moment] = field(default_factory=list)

    def between(self, begin_s: float, end_s: float) -> "Course":
        """Return a part of it."""
        return Course([m for m in self.moments if begin_s <= m.at_s <= end_s])

    def peak_pss(self) -> int:
        """The largest sum of PSS."""
        return max(m.pss for m in self.moments)

    def peak_rss(self) -> int:
        """The largest sum of RSS."""
        return max(m.rss for m in self.moments)

    def quarters(self) -> list[int]:
        """The largest sum of PSS in each quarter of the moments: whether it grows."""
        count = len(self.moments)
        parts = [self.moments[i * count // 4 : (i + 1) * count // 4] for i in range(4)]
        return [max((m.pss for m in part), default=0) for part in parts]


@contextmanager
def sampled(pid: int) -> Iterator[Course]:
    """Sample a process and its descendants for the time of the context; the course is filled at its end."""
    course = Course()
    sampler = subprocess.Popen([sys.executable, __file__, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield course
    finally:
        said, _ = sampler.communicate(timeout=30)
        course.moments += [Moment(*row) for row in json.loads(said)]


def descendants(pid: int) -> list[int]:
    """Return ``pid`` and all its descendants that live."""
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        found.append(parent)
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                todo += [int(child) for child in children.read_text().split()]
            except OSError:  # the thread ended
                continue
    return found


def held(pid: int) -> tuple[int, int]:
    """Return PSS and RSS of one process in bytes, nothing if it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    fields = dict(line.split()[:2] for line in text.splitlines()[1:])
    return int(fields.get("Pss:", 0)) * KIB, int(fields.get("Rss:", 0)) * KIB


def main(pid: int) -> None:
    """Sample until there is nothing to sample, or nobody to sample for."""
    rows = []
    while Path(f"/proc/{pid}").exists():
        tree = [held(one) for one in descendants(pid)]
        rows.append((time.monotonic(), sum(p for p, _ in tree), sum(r for _, r in tree), sum(r > 0 for _, r in tree)))
        if select.select([sys.stdin], [], [], INTERVAL_S)[0]:
            break
    print(json.dumps(rows))


if __name__ == "__main__":
    main(int(sys.argv[1]))
