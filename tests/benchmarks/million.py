"""One million files through the real daemon: time, memory of all its processes, status meanwhile, one change after it.

The files have 16 bytes: what is measured is what each file costs, and a million of 4 KiB would only fill the page
cache. They are made once in the folder of ``--dir``, where they stay for the next run.
"""

import os
import sys
import time
from contextlib import closing
from pathlib import Path

from bench import Bench
from daemon import FIRST_SCAN_S, Running, add_changes, spread, started, worst
from material import MIB, a_file, tiny_files
from measure import Sample, in_turn, one, process
from memory import Course, sampled
from table import NO_TARGET, Target

from reprod.config import DatasetConfig
from reprod.ops.plan import Order
from reprod.ops.refresh import Settings, refresh
from reprod.store import files

MEMORY = Target("200 MiB", "150 MiB")
SEAL = Target("50 ms", "5 ms")
STATUS = Target("50 ms")

PAUSE_S = 0.01  # between two calls of status
SHELL_EVERY = 500  # of these calls, one is the command itself


def million(bench: Bench) -> None:
    """Scan, ask for status meanwhile, change one file."""
    root = tiny_files((bench.kept or bench.folder) / f"reprod-bench-{bench.million}", bench.million)
    with started(bench.folder, root) as running:
        with sampled(running.pid) as course:
            began = time.monotonic()
            calls, commands = _first_scan(running)
            ended = time.monotonic()
        _add_scan(bench, course.between(began, ended), ended - began, calls, commands)
        state = running.state
        add_changes(bench, running, root, f"{bench.million:,}", NO_TARGET)
    _add_seal(bench, root, state)


def _first_scan(running: Running) -> tuple[Sample, Sample]:
    """Ask for status until the first version is there; return the milliseconds of each call, and of the command."""
    calls: list[float] = []
    commands: list[float] = []
    deadline = time.monotonic() + FIRST_SCAN_S
    while time.monotonic() < deadline:
        began = time.perf_counter()
        version = running.version()
        calls.append(1000 * (time.perf_counter() - began))
        if version is not None:
            return Sample(tuple(calls)), Sample(tuple(commands))
        if len(calls) % SHELL_EVERY == 1:
            commands.append(1000 * process([sys.executable, "-m", "reprod", "status"], running.environment))
        time.sleep(PAUSE_S)
    raise RuntimeError(f"no version after {FIRST_SCAN_S} s")


def _add_scan(bench: Bench, course: Course, took_s: float, calls: Sample, commands: Sample) -> None:
    what = f"{bench.million:,} files of 16 B"
    bench.table.add(f"{what}: cold scan by the daemon, while its status is asked for", one(took_s))
    quarters = ", ".join(f"{peak / MIB:.0f}" for peak in course.quarters())
    bench.table.add(
        f"{what}: memory of all processes, peak of the sum of PSS",
        one(course.peak_pss() / MIB), "MiB", target=MEMORY,
        note=f"by quarters of the scan {quarters}; of RSS {course.peak_rss() / MIB:.0f}",
    )  # fmt: skip
    bench.table.extra["memory"] = [(m.at_s, m.pss, m.rss, m.processes) for m in course.moments]
    bench.table.add(f"{what}: `status` during the cold scan, over the socket, worst", worst(calls), "ms", target=STATUS)
    bench.table.add("the same, median", calls, "ms", note=spread(calls))
    if commands.values:
        bench.table.add("the same, the whole process, median", commands, "ms")


def _add_seal(bench: Bench, root: Path, state: Path) -> None:
    """Change one file and refresh it: the verb alone on the daemon's own database, once the daemon is gone."""
    target = a_file(root)
    order = Order(frozenset({os.fsencode(target.relative_to(root))}))
    records = files.open_registry(state).db
    with closing(records), closing(files.open_dataset(state, records, "bench", os.fsencode(root)).db) as db:

        def change() -> float:
            target.write_bytes(os.urandom(16))
            time.sleep(0.03)
            began = time.perf_counter()
            report = refresh(db, DatasetConfig("bench", str(root)), order, Settings(str(state)))
            if report.full or not report.sealed:
                raise RuntimeError("the change was not sealed by looking at it alone")
            return 1000 * (time.perf_counter() - began)

        sample = in_turn(11, change)[0]
    bench.table.add(
        f"one of {bench.million:,} files changed: hint to sealed version, the verb alone", sample, "ms", target=SEAL
    )
