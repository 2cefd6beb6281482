"""A real daemon under changes that never stop for long: always right, and no larger at the end than in the middle.

``REPROD_SOAK_S`` says for how many seconds (``make torture``: an hour; here a short form), ``REPROD_SEED`` with which
changes.
"""

import os
import statistics
import time
from pathlib import Path

import psutil
from chaos import Chaos
from harness import Daemon, dt1, eventually, running_daemon

SECONDS = float(os.environ.get("REPROD_SOAK_S", "8"))
SEED = int(os.environ.get("REPROD_SEED", "1"))
BURST = 60
NAMES = ["a", "b", "c", "d", "e\nf", "g h", "\udcff", "\udc80x"]

#: What the allocator may keep of a burst. A leak of one object a change would be 10 MB in an hour.
SLACK_BYTES = 4 << 20


def wait_for_the_truth(daemon: Daemon, data: Path, round_: int) -> None:
    """Wait until the dataset's digest is the oracle's."""
    wanted = dt1(data)
    eventually(
        lambda: daemon.dataset("soak")["digest"] == wanted,
        30,
        lambda: f"round {round_}: the digest is {wanted}; seed {SEED}; {daemon.dataset('soak')}",
    )


def test_soak(tmp_path: Path) -> None:
    """After every burst the digest is the oracle's; memory, descriptors and threads do not grow."""
    data, outside = tmp_path / "data", tmp_path / "outside"
    data.mkdir()
    outside.mkdir()
    chaos = Chaos(data, outside, NAMES, SEED)
    changes, rounds = 0, 0
    sizes: list[int] = []
    counts: list[tuple[int, int]] = []
    with running_daemon(tmp_path / "d", "", {"soak": data}) as daemon:
        daemon.sealed("soak", 1)
        process = psutil.Process(daemon.pid)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for _ in range(BURST):
                chaos.act()
            changes, rounds = changes + BURST, rounds + 1
            wait_for_the_truth(daemon, data, rounds)
            sizes.append(process.memory_info().rss)
            counts.append((process.num_fds(), process.num_threads()))
        shown = daemon.dataset("soak")
    print(f"{changes} changes, {rounds} rounds, {shown['version']} versions, seed {SEED}, {SECONDS:.0f} s: all right")
    half = len(sizes) // 2
    print(f"resident MiB: {[round(size / (1 << 20), 1) for size in sizes[:: max(1, len(sizes) // 12)]]}")
    assert statistics.median(sizes[half:]) - statistics.median(sizes[: half or 1]) < SLACK_BYTES
    assert max(counts[half:])[0] <= max(counts[: half or 1])[0] + 5
    assert max(threads for _, threads in counts[half:]) <= max(threads for _, threads in counts[: half or 1]) + 5
