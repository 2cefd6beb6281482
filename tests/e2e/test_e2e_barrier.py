"""Write, return, publish: what a system call had returned from when a snapshot was asked for, is in that snapshot.

The writers are processes of their own that are told over a pipe to make one change each and say when it is made; the
oracle is an independent hash of the tree. ``REPROD_ROUNDS`` says how often (``make torture``: 1,000), ``REPROD_SEED``
with which changes.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chaos
import oracle
import pytest
from harness import REAL, Daemon, Tracker, dt1, eventually, make_data, running_daemon

from reprod.capture.process.identity import current_context
from reprod.client import Client
from reprod.store import listing
from reprod.store.files import open_dataset_readonly

ROUNDS = int(os.environ.get("REPROD_ROUNDS", "40"))
SEED = int(os.environ.get("REPROD_SEED", "1"))
NAMES = ["a", "b", "c", "d", "e\nf", "g h"]
WRITERS = 3
LONGEST_S = 30.0  # a snapshot on a busy machine

BACKENDS = pytest.mark.parametrize("backend", ["inotify", "watchfiles"])
TIMEOUT = pytest.mark.timeout(120 + 2 * ROUNDS)


@dataclass(frozen=True, slots=True)
class Writer:
    """A process that makes one change whenever it is told to."""

    root: Path
    process: "subprocess.Popen[str]"

    def change(self) -> str:
        """Have one change made; return its kind when its system calls have returned."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        done = self.process.stdout.readline().strip()
        assert done, f"the writer ended with {self.process.poll()}"
        return done


@contextmanager
def writing(root: Path, outside: Path, seed: int) -> Iterator[Writer]:
    """Yield a writer of the tree at ``root``; ``outside`` is where it moves things to and from."""
    outside.mkdir(parents=True)
    command = [sys.executable, chaos.__file__, str(root), str(outside), str(seed), json.dumps(NAMES), "step"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Writer(root, process)
        finally:
            process.kill()


@contextmanager
def watching(base: Path, backend: str, data: Path) -> Iterator[Daemon]:
    """Yield a daemon that has scanned the data once and walks for nothing but requests."""
    watch = {"backend": backend, "reconcile_seconds": 3600}
    with running_daemon(base, "", {"data": data}, program=REAL, watch=watch) as daemon:
        assert daemon.sealed("data", 1)["watch"] == backend
        yield daemon


@BACKENDS
@TIMEOUT
def test_every_write_is_in_the_snapshot_that_is_asked_for_after_it(tmp_path: Path, backend: str) -> None:
    """A snapshot that is asked for when a change has returned has the digest of the tree with that change, each time,
    whatever the change was."""
    data, kinds, digests = make_data(tmp_path / "data"), Counter[str](), {""}
    with watching(tmp_path / "d", backend, data) as daemon, writing(data, tmp_path / "out", SEED) as writer:
        began = time.monotonic()
        for round_ in range(ROUNDS):
            kind = writer.change()
            taken = daemon.call("snapshot", name="data", timeout_s=LONGEST_S)
            truth = dt1(data)
            assert (taken["digest"], taken["complete"]) == (truth, True), f"round {round_}, {kind}, seed {SEED}"
            kinds[kind] += 1
            digests.add(truth)
        seconds, shown = time.monotonic() - began, daemon.dataset("data")
    print(
        f"\nfigures: barrier, {backend}, seed {SEED}: {ROUNDS:,} rounds in {seconds:.0f} s, "
        f"{len(digests) - 1:,} contents, {shown['version']:,} versions, {shown['unannounced_changes']} unannounced, "
        f"wrong digests 0, lost changes 0; {dict(kinds.most_common())}",
        end="",
    )
    assert len(digests) > ROUNDS / 2  # or what was changed was not content
    assert len(kinds) >= 8


@BACKENDS
@TIMEOUT
def test_every_write_is_in_a_walk_that_others_share(tmp_path: Path, backend: str) -> None:
    """The same while others write and ask too: a request that comes during a walk is not answered by that walk."""
    data = tmp_path / "data"
    rounds = max(5, ROUNDS // WRITERS)
    with watching(tmp_path / "d", backend, make_data(data)) as daemon:

        def write_and_ask(number: int) -> int:
            root = data / f"writer-{number}"
            root.mkdir()
            with writing(root, tmp_path / "out" / f"{number}", SEED + number) as writer:
                return sum(check_own_part(daemon, writer) for _ in range(rounds))

        with ThreadPoolExecutor(WRITERS) as threads:
            changed = list(threads.map(write_and_ask, range(WRITERS)))
        taken = daemon.call("snapshot", name="data", timeout_s=LONGEST_S)
        walks = sum(event["full"] for event in daemon.events("dataset.refreshed"))
    assert taken["digest"] == dt1(data)
    print(
        f"\nfigures: barrier, {backend}, {WRITERS} writers, seeds {SEED} to {SEED + WRITERS - 1}: "
        f"{WRITERS * rounds:,} rounds, {sum(changed):,} of another content, {walks:,} walks, "
        f"{taken['version']:,} versions, wrong digests 0, lost changes 0",
        end="",
    )


def check_own_part(daemon: Daemon, writer: Writer) -> bool:
    """Make one change and take a snapshot: below the writer's root it must be what is there. Whether that is news."""
    before = oracle.scan(os.fsencode(writer.root))
    kind = writer.change()
    with Client(daemon.place.socket, timeout_s=LONGEST_S) as client:
        taken = client.call("snapshot", {"name": "data"})
    truth = oracle.scan(os.fsencode(writer.root))
    entries = contents(daemon, taken)
    below = os.fsencode(writer.root.name) + b"/"
    own = {path[len(below) :]: content for path, content in entries.items() if path.startswith(below)}
    assert own == truth, f"{kind} of {writer.root.name}, version {taken['version']}, seed {SEED}"
    assert taken["digest"] in {None, oracle.dt1(entries)}  # another's file may have been moving
    return before != truth


def contents(daemon: Daemon, taken: dict[str, Any]) -> oracle.Contents:
    """Return what a version holds, as the database has it."""
    db, _ = open_dataset_readonly(daemon.place.state, "data")
    try:
        entries = db.read(lambda c: list(listing.entries(c, taken["version"])))
    finally:
        db.close()
    return {
        e.path: ("link" if e.content.kind == 2 else "file", e.content.size, e.content.sha256 or b"")
        for e in entries
        if e.content.kind in {1, 2}
    }


@pytest.mark.mlflow
@pytest.mark.parametrize("barrier", ["walk", "events"])
@TIMEOUT
def test_a_tagged_run_has_what_was_written_before_it_started(
    tmp_path: Path, tracker: Tracker, name: str, barrier: str
) -> None:
    """A run that starts when a change has returned gets the digest of the tree with that change, or none: never that
    before it, and never that of the change which follows."""
    data, rng = make_data(tmp_path / "data"), random.Random(SEED)
    rounds = max(8, ROUNDS // 10)
    truth: dict[str, str] = {}
    rested: set[str] = set()  # runs whose data was recorded before they started, and did not change until published
    context = current_context().to_json()  # the same boot, so that the slack is 20 ms
    with (
        running_daemon(tmp_path / "d", tracker.uri, program=REAL) as daemon,
        writing(data, tmp_path / "out", SEED) as writer,
    ):
        daemon.place.register(name, data, barrier=barrier)
        daemon.call("reload")
        daemon.sealed(name, 1)
        eventually(lambda: daemon.status()["tracking"]["state"] == "reachable", 30, daemon.tail)
        for round_ in range(rounds):
            at_rest = round_ % 4 == 0
            let_pass(rng.choice([0, 0.05, 0.3]))
            writer.change()
            digest = dt1(data)
            if at_rest or rng.random() < 0.3:  # without walks the version must be there when the run starts
                becomes(daemon, name, digest)
            let_pass(0.1 if at_rest else rng.choice([0, 0.03, 0.06, 0.2]))
            run_id = tracker.finished_run(name, context=context)
            truth[run_id] = digest
            rested |= {run_id} if at_rest else set()
            if at_rest or rng.random() < 0.4:  # else the next change comes before the poll has seen the run
                eventually(lambda: len(daemon.events("run.published")) == len(truth), 30, daemon.tail)
        tags = {run_id: captured(tracker, daemon, run_id) for run_id in truth}
    wrong = [run_id for run_id, digest in truth.items() if tags[run_id].get("reprod.digest", digest) != digest]
    with_digest = sum("reprod.digest" in found for found in tags.values())
    print(
        f"\nfigures: barrier, tagged runs, barrier = {barrier}, seed {SEED}: {rounds} runs, {with_digest} captured, "
        f"{rounds - with_digest} without digest, wrong digests {len(wrong)}, "
        f"bound {dict(Counter(found['reprod.bound'] for found in tags.values()))}",
        end="",
    )
    assert wrong == []
    assert {run_id for run_id in rested if "reprod.digest" not in tags[run_id]} == set()
    assert all((found["reprod.state"] == "captured") == ("reprod.digest" in found) for found in tags.values())


def becomes(daemon: Daemon, name: str, digest: str) -> None:
    eventually(lambda: daemon.dataset(name)["digest"] == digest, 15, daemon.tail)


def captured(tracker: Tracker, daemon: Daemon, run_id: str) -> dict[str, str]:
    """Wait until the run was recorded; return its tags."""
    eventually(lambda: "reprod.state" in tracker.ours(run_id), 60, daemon.tail)
    return tracker.ours(run_id)


def let_pass(seconds: float) -> None:
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until, seconds + 5, "time passes")
