"""Owns the opt-in hardware benchmark: what it may disturb, how long it may take, and what it was measured beside.

All work is done in children at low priority and ends within ``BOUND_S`` seconds, whatever the hardware does; what was
measured until then is kept. It is refused while a run is in progress, because it would slow that run down and be
slowed down by it. Times are seconds.
"""

import json
import math
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

from reprod.capture.bounded import read_bounded
from reprod.capture.child import REAP_S, Outcome, run_module
from reprod.capture.gpu.accelerators import has_nvidia
from reprod.core.benchmark import Benchmark, Measurement, summarise
from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: All children together, the wait for killed ones included.
BOUND_S = 5.0
#: Less than this is not enough to import PyTorch and to start CUDA.
_GPU_AT_LEAST_S = 1.0
NAMES = (
    *("cpu_sha256", "cpu_sha256_all", "cpu_integer", "cpu_float", "cpu_matrix", "memory_copy"),
    *("disk_write", "disk_read"),
)


def run_benchmark(
    directory: str | None = None, *, running: Sequence[str] = (), seconds: float = BOUND_S, root: str = "/"
) -> Benchmark:
    """Measure this machine for at most ``seconds``, its disk in ``directory`` (None: not at all).

    ``running`` are the runs in progress, for the caller to say. Raises IncompleteError if there is one, or if no child
    can be started.
    """
    if running:
        raise IncompleteError(
            f"no benchmark while a run is in progress: {', '.join(sorted(running)[:3])}",
            hint="take it when the machine is idle: it would disturb the run, and the run would falsify it",
        )
    taken_ns, start = time.time_ns(), time.monotonic()
    load, busy = _load(), _busy_seconds(root)
    deadline = start + seconds - REAP_S
    skipped: dict[str, str] = {}
    given: dict[str, object] = {"directory": directory and os.path.abspath(directory)}
    outcome = _run("workload", given, deadline - start)
    lines = _lines(outcome)
    measured = _collect(lines, skipped)
    for name in NAMES:
        if all(line.get("name") != name for line in lines):
            skipped[name] = _why_missing(outcome, seconds)
    measured += _measure_gpu(deadline, skipped, root)
    told = next((line for line in lines if "cpu_seconds" in line), {})
    took = time.monotonic() - start
    return Benchmark(
        taken_ns=taken_ns,
        seconds=took,
        measurements=tuple(measured),
        skipped=skipped,
        load_before=load,
        load_after=_load(),
        others_cpu=_others(busy, _busy_seconds(root), told.get("cpu_seconds")),
        processors=len(os.sched_getaffinity(0)),
        niceness=told.get("niceness"),
        directory=None if directory is None else plain(os.path.abspath(directory)),
        python=platform.python_version(),
    )


def _measure_gpu(deadline: float, skipped: dict[str, str], root: str) -> list[Measurement]:
    left = deadline - time.monotonic()
    if not has_nvidia(root):
        skipped["gpu"] = "no NVIDIA driver is present"
        return []
    if left < _GPU_AT_LEAST_S:
        skipped["gpu"] = "no time was left for it"
        return []
    outcome = _run("workload_gpu", {}, left)
    lines = _lines(outcome)
    if all(line.get("name") != "gpu" for line in lines):
        skipped["gpu"] = _why_missing(outcome, left)
    return _collect(lines, skipped)


def _run(module: str, given: dict[str, object], seconds: float) -> Outcome:
    purpose = f"benchmark ({module})"
    return run_module(
        f"reprod.capture.benchmark.{module}", {**given, "seconds": seconds}, purpose=purpose, seconds=seconds
    )


def _why_missing(outcome: Outcome, seconds: float) -> str:
    if outcome.ended:
        return "the measuring process ended before it"
    return f"stopped: there were {seconds:.1f} s for it"


def _lines(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the complete lines; a child that was stopped while it wrote leaves half of one."""
    found = []
    for line in outcome.output.split(b"\n")[:-1]:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _collect(lines: Sequence[dict[str, Any]], skipped: dict[str, str]) -> list[Measurement]:
    """Return what was measured; what was not goes to ``skipped`` with its reason."""
    found = []
    for line in lines:
        rates = line.get("rates")
        if "skipped" in line:
            skipped[str(line.get("name"))] = plain(str(line["skipped"]))
        elif rates and all(isinstance(rate, float) and math.isfinite(rate) for rate in rates):
            found.append(summarise(str(line["name"]), line["unit"], rates, line["work"], line.get("note")))
    return found


def _load() -> tuple[float, float, float] | None:
    try:
        return os.getloadavg()
    except OSError:
        return None


def _busy_seconds(root: str) -> tuple[float, float] | None:
    """Return the seconds that all processors together have worked since boot, and have existed."""
    try:
        first = read_bounded(os.path.join(root, "proc/stat"), 1 << 12).split(b"\n", 1)[0].split()
        ticks = [int(field) for field in first[1:9]]
    except (OSError, ValueError):
        return None
    if len(ticks) < 5 or first[0] != b"cpu":
        return None
    each = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / each, sum(ticks) / each


def _others(before: tuple[float, float] | None, after: tuple[float, float] | None, own: float | None) -> float | None:
    """Return which part of all processors worked for others (for another virtual machine too) between two moments."""
    if before is None or after is None or own is None or after[1] <= before[1]:
        return None
    return min(1.0, max(0.0, (after[0] - before[0] - own) / (after[1] - before[1])))
