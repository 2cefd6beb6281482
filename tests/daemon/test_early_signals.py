"""Signals while the daemon starts and stops: it sends them to itself where it opens, imports, connects or binds.

The points are audit events of the interpreter, so that each signal comes at the same step every time.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from waiting import eventually

from reprod.client import Client
from reprod.errors import DaemonUnavailableError

#: In the order in which they come: an event of the interpreter, and what its first argument ends with.
POINTS = {
    "the daemon is imported": ("import", "reprod.daemon.app"),
    "the configuration is read": ("open", "reprod.toml"),
    "the state is locked": ("open", "state/lock"),
    "the registry is opened": ("sqlite3.connect", "registry.sqlite"),
    "the socket is bound": ("socket.bind", "control.sock"),
}

#: Runs the product's own command line; ``at(point)`` is done in the main thread, once for each. Whatever hangs when it
#: is stopped is cut off after ``deadline_s``.
PROGRAM = """
import os, signal, sqlite3, sys, traceback
from reprod.daemon import signals
signals.STOP_DEADLINE_S = {deadline_s}
points = {points!r}
def at(point):
    print(point, flush=True)
{at}
def note(event, args):
    text = str(next((a for a in args if isinstance(a, (str, bytes, os.PathLike))), "")).partition("?")[0]
    for point, (kind, end) in list(points.items()):
        if event == kind and text.endswith(end):
            del points[point]
            at(point)
sys.addaudithook(note)
from reprod.__main__ import main
sys.exit(main(["daemon"]))
"""

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


class Place:
    """A daemon's places with one dataset, and what it printed."""

    def __init__(self, base: Path) -> None:
        self.base, self.state = base, base / "state"
        (base / "datasets.d").mkdir()
        (base / "reprod.toml").write_text("")
        self.add("first")

    def add(self, name: str) -> None:
        (self.base / name).mkdir()
        (self.base / name / "a").write_text("one")
        (self.base / "datasets.d" / f"{name}.toml").write_text(f"path = {json.dumps(str(self.base / name))}\n")

    @contextmanager
    def running(self, at: str, points: list[str], deadline_s: float = 60) -> Iterator["subprocess.Popen[bytes]"]:
        """Start the daemon, which does the lines ``at`` when it comes to each of the points."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "REPROD_"))}
        places = {"REPROD_STATE_DIR": str(self.state), "REPROD_CONFIG": str(self.base / "reprod.toml")}
        program = PROGRAM.format(points={point: POINTS[point] for point in points}, at=at, deadline_s=deadline_s)
        with (self.base / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", program], env=kept | places, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)

    @property
    def said(self) -> str:
        return (self.base / "log").read_text()

    def events(self, name: str | None = None) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.said.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if name is None or line["event"] == name]

    def datasets(self) -> list[str]:
        try:
            with Client(self.state / "control.sock", timeout_s=30) as client:
                return [shown["name"] for shown in client.call("status")["datasets"]]
        except DaemonUnavailableError:
            return []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_reload_that_is_asked_for_during_the_start_is_done_after_it(place: Place) -> None:
    """SIGHUP at any step of the start ends nothing: what was configured since is there when the start is over. SIGUSR2
    ends nothing either, and each point before the first answer is one dump at least."""
    late = place.base / "late.toml"
    (place.base / "late").mkdir()
    late.write_text(f"path = {json.dumps(str(place.base / 'late'))}\n")
    there = place.base / "datasets.d" / "late.toml"
    at = (
        f"    if point == 'the socket is bound': os.rename({str(late)!r}, {str(there)!r})\n"
        "    os.kill(os.getpid(), signal.SIGUSR2); os.kill(os.getpid(), signal.SIGHUP)"
    )
    with place.running(at, list(POINTS)) as process:
        eventually(lambda: process.poll() is not None or "late" in place.datasets(), 60, lambda: place.said)
        assert process.poll() is None, place.said
        assert [line for line in place.said.splitlines() if line in POINTS] == list(POINTS)
        for event in ("daemon.dump", "config.reloaded"):
            eventually(lambda event=event: place.events(event), 10, lambda: place.said)
        started, *reloaded = [
            line["event"] for line in place.events() if line["event"] in {"daemon.started", "config.reloaded"}
        ]
        assert (started, set(reloaded)) == ("daemon.started", {"config.reloaded"})


@pytest.mark.parametrize("point", POINTS)
def test_a_stop_during_the_start_is_clean(place: Place, point: str) -> None:
    """SIGTERM at any step of the start: 0, not a word, nothing half-way; the lock is free for the next."""
    with place.running("    os.kill(os.getpid(), signal.SIGTERM)", [point]) as process:
        assert process.wait(60) == 0, place.said
    words = [line for line in place.said.splitlines() if not line.startswith("{")]
    assert words == [point]
    left = sorted(path.name for path in place.state.rglob("*")) if place.state.exists() else []
    assert not [name for name in left if name.endswith(("-wal", "-shm", ".sock"))]
    if "registry.sqlite" in left:
        with sqlite3.connect(place.state / "registry.sqlite") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_start_that_is_stuck_can_be_stopped(place: Place) -> None:
    """SIGTERM while the main thread is in one long call of a library, as copying a large database is: the process ends
    at the deadline, with 0."""
    at = f"    sqlite3.connect(':memory:').execute({ENDLESS!r})"
    with place.running(at, ["the state is locked"], deadline_s=1.8) as process:
        eventually(lambda: "the state is locked" in place.said, 30, lambda: place.said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, place.said


def test_more_signals_during_the_stop_change_nothing(place: Place) -> None:
    """SIGTERM again and again, SIGINT, SIGHUP and SIGUSR2 until the process is gone: it ends with 0."""
    with place.running("    pass", []) as process:
        eventually(lambda: process.poll() is not None or place.datasets(), 60, lambda: place.said)
        process.send_signal(signal.SIGTERM)
        more, give_up = (signal.SIGHUP, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM), time.monotonic() + 60
        while process.poll() is None and time.monotonic() < give_up:
            for number in more:
                process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.005)
        assert process.wait(30) == 0, place.said
    assert "Traceback" not in place.said
