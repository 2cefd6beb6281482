"""Following a daemon over its socket: what is pushed, what a slow reader gets, and that nobody waits for it.

The stream is tested with documents made here; who reads slowly, with a real daemon in a process of its own.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import eventually

from reprod.client import Client
from reprod.daemon.following import MAX_FOLLOWERS, _Follower, _of, _resting
from reprod.errors import DaemonUnavailableError, NotFoundError


def document(*datasets: tuple[str, int], uptime: float = 1.0, polled: str = "t", **more: Any) -> dict[str, Any]:
    return {
        "uptime_seconds": uptime,
        "rss_bytes": int(uptime),
        "tracking": {"state": "reachable", "last_poll_at": polled},
        "runs": {"waiting": 0, "oldest_waiting_seconds": uptime},
        "environment": {"digest": "e", "taken_at": polled},
        "datasets": [{"name": name, "version": version} for name, version in datasets],
        "attention": [{"what": f"{name}: broken", "hint": "", "dataset": name} for name, _ in datasets],
        **more,
    }


async def test_time_alone_is_no_news() -> None:
    """What changes by itself makes no new state; it comes with a beat, which repeats the number and has no datasets."""
    follower = _Follower(None)
    follower.offer(document(("a", 1)))
    first = follower.take()
    assert first == {"seq": 1, "status": document(("a", 1))}
    follower.offer(document(("a", 1), uptime=9.0, polled="later"))
    beat = follower.take()
    assert beat is not None
    assert beat["seq"] == 1
    assert beat["status"]["uptime_seconds"] == 9.0
    assert "datasets" not in beat["status"]
    follower.offer(document(("a", 2)))
    assert (follower.take() or {})["seq"] == 2


async def test_who_is_slow_gets_the_newest_and_how_many_it_missed() -> None:
    """However many changes come, one document waits: the last; ``lagged`` counts the others, and then begins anew."""
    follower = _Follower(None)
    for version in range(1, 1001):
        follower.offer(document(("a", version)))
    assert follower.take() == {"seq": 1000, "lagged": 999, "status": document(("a", 1000))}
    follower.offer(document(("a", 1001)))
    assert follower.take() == {"seq": 1001, "status": document(("a", 1001))}


async def test_one_dataset_alone() -> None:
    """Who follows one dataset hears of others nothing; when it is gone, the stream ends with that."""
    follower = _Follower("a")
    follower.offer(document(("a", 1), ("b", 1)))
    told = (follower.take() or {})["status"]
    assert [d["name"] for d in told["datasets"]] == ["a"]
    assert [need["dataset"] for need in told["attention"]] == ["a"]
    follower.offer(document(("a", 1), ("b", 2)))
    assert not follower.bell.is_set()
    follower.offer(document(("b", 2)))
    assert follower.bell.is_set()
    with pytest.raises(NotFoundError, match="a is no longer registered"):
        follower.take()


def test_what_is_compared_is_all_but_what_moves_by_itself() -> None:
    """Every other key counts, also one that a later version adds."""
    assert _resting(document(uptime=1.0)) == _resting(document(uptime=2.0, polled="x"))
    assert _resting(document()) != _resting(document(new=1))
    assert _of(document(("a", 1)), None)["datasets"]


# --- a real daemon ---------------------------------------------------------------------------------------------------

#: So many that a state is longer than a pipe; each takes one of the 128 inotify instances that a user has on most
#: machines, for all tests that run at the same time.
DATASETS = 24

#: How many files are changed while somebody reads slowly; ``make torture`` asks for 100,000. Five seconds in any case,
#: for the slow one's socket has to fill.
EVENTS = int(os.environ.get("REPROD_EVENTS", "1000"))

#: The product's own daemon, which looks more often: a busy machine too makes more than a socket holds, within seconds.
EAGER = (
    "from reprod.daemon import following; following.PUSH_S, following.REST = 0.05, 0; "
    "from reprod.__main__ import main; main(['daemon'])"
)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A daemon's places, with many small datasets: a state of some 20 KB, so that pipes fill."""
    with tempfile.TemporaryDirectory(prefix="reprod-follow-") as folder:
        found = Path(folder)
        (found / "etc" / "datasets.d").mkdir(parents=True)
        for i in range(DATASETS):
            (found / "data" / f"d{i}").mkdir(parents=True)
            (found / "etc" / "datasets.d" / f"d{i}.toml").write_text(f'path = "{found}/data/d{i}"\n')
        (found / "etc" / "reprod.toml").write_text("")
        yield found


@pytest.fixture(scope="module")
def daemon(base: Path) -> Iterator[psutil.Process]:
    """The daemon, every dataset of which is current."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REPROD_", "MLFLOW_", "XDG_"))}
    places = {"REPROD_STATE_DIR": str(base / "state"), "REPROD_CONFIG": str(base / "etc" / "reprod.toml")}
    with (base / "log").open("wb") as log:
        command = [sys.executable, "-c", EAGER]
        process = subprocess.Popen(command, env=kept | places, stdout=log, stderr=log)
    try:
        give_up = time.monotonic() + 100
        while not is_current(base):
            assert process.poll() is None, (base / "log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def is_current(base: Path) -> bool:
    try:
        return all(d["state"] == "current" for d in status(base)["datasets"])
    except DaemonUnavailableError:
        return False


def status(base: Path) -> dict[str, Any]:
    with Client(base / "state" / "control.sock", timeout_s=30) as client:
        return client.call("status")


def follower(base: Path, name: str | None = None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(base / "state" / "control.sock"))
    request = {"jsonrpc": "2.0", "id": 1, "method": "watch", "params": {"name": name}}
    connection.sendall(json.dumps(request).encode() + b"\n")
    return connection


def change(base: Path, number: int) -> None:
    (base / "data" / f"d{number % DATASETS}" / "f").write_text(str(number))


def test_a_change_is_pushed_and_a_beat_comes_without(base: Path, daemon: psutil.Process) -> None:
    """A file is written, and a document that says so comes; while nothing happens, a beat a second."""
    with follower(base, "d0") as connection, connection.makefile("rb") as lines:
        first = json.loads(lines.readline())["params"]
        assert [d["name"] for d in first["status"]["datasets"]] == ["d0"]
        change(base, 1_000_000 * DATASETS)
        give_up, told, before = time.monotonic() + 60, first, first["status"]["datasets"][0]["version"]
        while told["status"].get("datasets", [{"version": before}])[0]["version"] == before:
            told = json.loads(lines.readline())["params"]
            assert time.monotonic() < give_up
        assert told["seq"] > first["seq"]
        beats = [json.loads(lines.readline())["params"] for _ in range(3)]
        assert any("datasets" not in beat["status"] for beat in beats)


@pytest.mark.timeout(120 + EVENTS // 100)
def test_a_reader_that_reads_slowly_holds_nobody_up(base: Path, daemon: psutil.Process) -> None:
    """Acceptance 32: while one follows and takes nothing for seconds, and then two lines a second, others are answered,
    memory stays; then it hears how many it missed and has the state."""
    lagged, told = 0, {}

    def take() -> None:
        nonlocal lagged, told
        message = json.loads(lines.readline())["params"]
        lagged += message.get("lagged", 0)
        if "datasets" in message["status"]:
            told = {d["name"]: d["version"] for d in message["status"]["datasets"]}

    with follower(base) as slow, slow.makefile("rb") as lines:
        memory, times, began, number = daemon.memory_info().rss, [], time.monotonic(), 0
        taken = began
        # On a busy machine the first documents that are too many for a slow reader come late.
        while number < EVENTS or time.monotonic() - began < (5 if lagged else 60):
            change(base, number)
            number += 1
            if number % 5 == 0:
                before = time.perf_counter()
                with Client(base / "state" / "control.sock", timeout_s=30) as client:
                    client.call("hello")
                times.append(time.perf_counter() - before)
            if time.monotonic() - taken > (
                0.5 if taken > began else 4
            ):  # who takes too little in ten seconds is let go
                take()
                taken = time.monotonic()
        took, grown = time.monotonic() - began, daemon.memory_info().rss - memory
        final = {d["name"]: d["version"] for d in settled(base)["datasets"]}
        give_up = time.monotonic() + 60
        while told != final:
            take()
            assert time.monotonic() < give_up, (told, final)
    print(
        f"\nfigures: a slow follower, {number:,} changes in {took:.0f} s: {lagged:,} documents missed, daemon "
        f"{grown / (1 << 20):+.1f} MiB, others answered in {statistics.median(times) * 1000:.1f} ms (median), "
        f"{statistics.quantiles(times, n=100)[98] * 1000:.1f} ms (99 %), {max(times) * 1000:.0f} ms at most",
        end="",
    )
    assert lagged > 0
    assert grown < 48 << 20  # what lies in the allocator of a process with some threads comes and goes


def settled(base: Path) -> dict[str, Any]:
    """Return the state once it has stayed the same for a second."""
    give_up, last, since = time.monotonic() + 60, None, time.monotonic()
    while True:
        now = status(base)
        versions = [(d["name"], d["version"], d["state"]) for d in now["datasets"]]
        if versions != last:
            last, since = versions, time.monotonic()
        elif time.monotonic() - since > 1.5 and {state for _, _, state in versions} == {"current"}:
            return now
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_no_more_than_some_follow(base: Path, daemon: psutil.Process) -> None:
    """One more than the most is told so; when one leaves there is room, within two beats."""
    followers = [follower(base) for _ in range(MAX_FOLLOWERS)]
    try:
        for each in followers:
            each.makefile("rb").readline()
        with (
            Client(base / "state" / "control.sock", timeout_s=30) as client,
            pytest.raises(DaemonUnavailableError, match=f"{MAX_FOLLOWERS} already watch"),
        ):
            client.call("watch", {})
    finally:
        for each in followers:
            each.close()
    give_up = time.monotonic() + 60
    while True:
        with follower(base) as last, last.makefile("rb") as lines:
            if "params" in json.loads(lines.readline()):
                break
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_nobody_follows_nothing_is_done(base: Path, daemon: psutil.Process) -> None:
    """When all have left, the connections are gone and the daemon does not look any more."""
    eventually(lambda: len(daemon.net_connections("unix")) <= 3, 60, lambda: f"{daemon.net_connections('unix')}")

    def rests() -> bool:
        """Two seconds with little work: of the tests before something may still be under way at first."""
        before, began = sum(daemon.cpu_times()[:2]), time.monotonic()
        while time.monotonic() - began < 2:
            time.sleep(0.1)
        return sum(daemon.cpu_times()[:2]) - before < 0.4

    eventually(rests, 60, "it rests")
