"""A real daemon under changes that never stop for long: always right, and no larger at the end than in the middle.

``REPROD_SOAK_S`` says for how many seconds (``make torture``: an hour; here a short form), ``REPROD_SEED`` with which
changes.
"""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from chaos import Chaos
from harness import Daemon, dt1, eventually, running_daemon

SECONDS = float(os.environ.get("REPROD_SOAK_S", "5"))
SEED = int(os.environ.get("REPROD_SEED", "1"))
BURST = 60
NAMES = ["a", "b", "c", "d", "e\nf", "g h", "\udcff", "\udc80x"]

#: What the allocator may keep of a burst. A leak of one object a change would be 10 MB in an hour; in seconds there are
#: a few bursts, of which any may be the first to take more than those before.
SLACK_BYTES = (4 if SECONDS >= 600 else 32) << 20

#: A line needs some of them, however long a busy machine takes for each.
LEAST_ROUNDS = 6

#: Descriptors and threads of what is just under way come and go: this many at once, and in a line through all fewer.
MOST_AT_ONCE, SLACK_COUNT = 5, 3


def wait_for_the_truth(daemon: Daemon, data: Path, round_: int) -> None:
    """Wait until the dataset's digest is the oracle's."""
    wanted = dt1(data)
    eventually(
        lambda: daemon.dataset("soak")["digest"] == wanted,
        30,
        lambda: f"round {round_}: the digest is {wanted}; seed {SEED}; {daemon.dataset('soak')}",
    )


@dataclass(frozen=True, slots=True)
class Held:
    """What the daemon holds at one moment: resident bytes, descriptors, threads."""

    rss: int
    fds: int
    threads: int

    def __str__(self) -> str:
        return f"{self.rss / (1 << 20):.1f} MiB RSS, {self.fds} descriptors, {self.threads} threads"


def held_by(process: psutil.Process) -> Held:
    return Held(process.memory_info().rss, process.num_fds(), process.num_threads())


def growth(values: Sequence[int]) -> float:
    """Return by how much evenly spaced values rise from the first to the last, on a straight line through all."""
    return statistics.linear_regression(range(len(values)), values).slope * (len(values) - 1)


@pytest.mark.timeout(120 + 2 * SECONDS)
def test_soak(tmp_path: Path) -> None:
    """After every burst the digest is the oracle's; memory, descriptors and threads do not grow."""
    data, outside = tmp_path / "data", tmp_path / "outside"
    data.mkdir()
    outside.mkdir()
    chaos = Chaos(data, outside, NAMES, SEED)
    held: list[Held] = []
    with running_daemon(tmp_path / "d", "", {"soak": data}) as daemon:
        daemon.sealed("soak", 1)
        process = psutil.Process(daemon.pid)
        began = held_by(process)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until or len(held) < LEAST_ROUNDS:
            for _ in range(BURST):
                chaos.act()
            wait_for_the_truth(daemon, data, len(held))
            held.append(held_by(process))
        shown = daemon.dataset("soak")
    half = held[len(held) // 2 :]
    rises = {what: growth([getattr(moment, what) for moment in half]) for what in ("rss", "fds", "threads")}
    print(
        f"\nfigures: soak, seed {SEED}, {SECONDS:g} s: {chaos.done:,} operations, {len(held):,} rounds, "
        f"{shown['version']:,} versions, {shown['unannounced_changes']} unannounced, wrong digests 0, lost changes 0; "
        f"at start {began}, in the middle {half[0]}, at the end {held[-1]}; over the second half "
        f"{rises['rss'] / (1 << 20):+.2f} MiB, {rises['fds']:+.1f} descriptors, {rises['threads']:+.1f} threads",
        end="",
    )
    assert rises["rss"] < SLACK_BYTES
    assert (rises["fds"] < SLACK_COUNT, rises["threads"] < SLACK_COUNT) == (True, True)
    assert held[-1].fds - half[0].fds <= MOST_AT_ONCE
    assert held[-1].threads - half[0].threads <= MOST_AT_ONCE
