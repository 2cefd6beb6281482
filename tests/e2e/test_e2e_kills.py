"""kill -9 at random moments of the daemon's work, while files change: nothing lost, nothing half, nothing twice.

Cuts around each request of a delivery are in ``test_e2e_kill``; a power cut is not shown, only the end of the process.
"""

import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import oracle
import pytest
from harness import Daemon, Place, Tracker, dt1, eventually, let_slack_pass, make_data

from reprod.capture.process.identity import current_context
from reprod.ops.chain import verify_chain
from reprod.store import listing, versions
from reprod.store.files import open_dataset_readonly

#: How often the daemon is killed; ``make torture`` asks for 200. The seed decides what is changed and where it is cut.
KILLS = int(os.environ.get("REPROD_KILLS", "6"))
SEED = int(os.environ.get("REPROD_SEED", "4"))
PHASES = ("scan", "seal", "publish", "scan", "seal", "deliver")  # the last of each three waits for MLflow's import


class Change:
    """A tree that changes in small atomic steps, and every content that a path ever had."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.outside, self._rng, self._step = root, root.parent / "outside", rng, 0
        self.had: dict[bytes, set[bytes]] = {}
        self.operations = 0
        self.lock = threading.Lock()
        self.outside.mkdir(exist_ok=True)
        for number in range(120):
            self._write(root / f"dir{number % 6}" / f"file{number}")

    def step(self) -> None:
        """Replace, add or remove one file."""
        path = self.root / f"dir{self._rng.randrange(6)}" / f"file{self._rng.randrange(150)}"
        with self.lock:
            self.operations += 1
            if path.exists() and self._rng.random() < 0.2:
                path.unlink()
            else:
                self._write(path)

    def _write(self, path: Path) -> None:
        self._step += 1
        content = b"%d of %s" % (self._step, os.fsencode(path.name)) + b"." * self._rng.randrange(200)
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.outside / "next").write_bytes(content)
        (self.outside / "next").replace(path)
        self.had.setdefault(os.fsencode(path.relative_to(self.root)), set()).add(hashlib.sha256(content).digest())

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Change something about 200 times a second for the time of the block."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(0.005):
                self.step()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)


class Killing:
    """One daemon that is killed again and again, with a dataset that always changes and one that rests during runs."""

    def __init__(self, base: Path, tracker: Tracker, name: str, rng: random.Random) -> None:
        self.tracker, self.rng = tracker, rng
        self.busy, self.calm = name + "busy", name
        self.changing = Change(base / "busy", rng)
        self.resting = make_data(base / "calm")
        place = Place(base / "d", tracker.uri)
        place.register(self.busy, self.changing.root)
        place.register(self.calm, self.resting)
        self.daemon = Daemon(place)
        self.truth: dict[str, tuple[str, str]] = {}  # of each run: its dataset, and what that held at its start

    def kill_once(self, phase: str) -> None:
        """Bring the daemon into a phase of its work and kill it at a random moment of that."""
        daemon = self.daemon
        if phase == "scan":
            daemon.launch()
            self._let_pass(self.rng.uniform(0.1, 0.7))
            return daemon.kill()
        daemon.start()
        if phase == "seal":
            self._let_pass(self.rng.uniform(0.0, 1.3))
            return daemon.kill()
        eventually(lambda: daemon.status()["tracking"]["state"] == "reachable", 15, "the server is polled")
        # What was at a run's start is only known if it was walked after it, and before the next change.
        eventually(lambda: not self._unpublished(), 30, daemon.tail)
        (self.resting / "part-0.csv").write_text(f"{self.rng.random()}")
        eventually(lambda: daemon.dataset(self.calm)["digest"] == dt1(self.resting), 15, daemon.tail)
        let_slack_pass()
        with self.changing.lock:
            self._start_run(self.busy, dt1(self.changing.root))
        run_id = self._start_run(self.calm, dt1(self.resting))
        if phase == "deliver":
            daemon.wait_event("run.published", run_id=run_id)
        self._let_pass(self.rng.uniform(0.0, 0.4))
        return daemon.kill()

    def _start_run(self, name: str, truth: str) -> str:
        run_id = self.tracker.finished_run(name, context=current_context().to_json())
        self.truth[run_id] = (name, truth)
        return run_id

    def _unpublished(self) -> set[str]:
        """Return the runs of the resting dataset that no daemon has bound yet, as far as log and server tell."""
        runs = {run_id for run_id, (name, _) in self.truth.items() if name == self.calm}
        runs -= {event["run_id"] for event in self.daemon.events("run.published")}
        return {run_id for run_id in runs if "reprod.state" not in self.tracker.ours(run_id)}

    def _let_pass(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        eventually(lambda: time.monotonic() > until, seconds + 5, "time passes")

    def check_runs(self) -> int:
        """Every run was captured once: with what was there at its start, or with the reason why that is not known.

        Returns how many have a digest.
        """
        captured = 0
        for run_id, (name, truth) in self.truth.items():
            eventually(lambda run_id=run_id: "reprod.state" in self.tracker.ours(run_id), 60, self.daemon.tail)
            tags = self.tracker.ours(run_id)
            assert name == self.busy or tags["reprod.state"] == "captured", tags
            assert tags.get("reprod.digest") == (truth if tags["reprod.state"] == "captured" else None), tags
            assert tags["reprod.state"] == "captured" or tags["reprod.error"]
            assert len(self.tracker.history(run_id, "data_files_count")) == (tags["reprod.state"] == "captured")
            captured += tags["reprod.state"] == "captured"
        return captured

    def check_versions(self, name: str, had: dict[bytes, set[bytes]] | None) -> int:
        """Each number is there once and higher than the last, each version is whole and its digest is that of its rows;
        with ``had``, each content is one that the path had. Returns how many there are."""
        state = self.daemon.place.state
        db, known = open_dataset_readonly(state, name)
        try:
            sealed = db.read(versions.versions)
            for version in sealed:
                entries = db.read(lambda c, seq=version.seq: list(listing.entries(c, seq)))
                contents = {
                    e.path: ("link" if e.content.kind == 2 else "file", e.content.size, e.content.sha256 or b"")
                    for e in entries
                }
                assert version.digest is not None
                assert oracle.dt1(contents) == "dt1:" + version.digest.hex()
                assert had is None or all(content[2] in had[path] for path, content in contents.items())
        finally:
            db.close()
        numbers = [version.seq for version in sealed]
        assert numbers == sorted(set(numbers))
        assert known.seq == numbers[-1]
        checked = verify_chain(state, name)
        assert (checked["broken"], checked["lost"]) == ([], [])
        return len(sealed)


@pytest.mark.mlflow
@pytest.mark.timeout(120 + 10 * KILLS)
def test_kill_at_random_points_of_everything(tmp_path: Path, tracker: Tracker, name: str) -> None:
    """kill -9 at random moments of scan, seal, publish and deliver while files change: the manifests equal the oracle,
    each version is whole, no number is used twice, the chain verifies, every run is captured once and never wrongly."""
    rng = random.Random(SEED)
    killing = Killing(tmp_path, tracker, name, rng)
    phases = [PHASES[number % len(PHASES)] for number in range(KILLS)]
    rng.shuffle(phases)
    try:
        with killing.changing.going_on():
            for phase in phases:
                killing.kill_once(phase)
        killing.daemon.start()
        for dataset, root in ((killing.busy, killing.changing.root), (killing.calm, killing.resting)):
            wanted = dt1(root)
            eventually(lambda d=dataset, w=wanted: killing.daemon.dataset(d)["digest"] == w, 20, killing.daemon.tail)
        captured = killing.check_runs()
        eventually(lambda: killing.daemon.status()["attention"] == [], 15, killing.daemon.tail)
        sealed = killing.check_versions(killing.busy, killing.changing.had)
        sealed += killing.check_versions(killing.calm, None)
        print(
            f"\nfigures: kills, seed {SEED}: {killing.changing.operations:,} operations, {KILLS} kills "
            f"({', '.join(f'{count} {phase}' for phase, count in Counter(phases).items())}), {sealed:,} versions, "
            f"{captured} runs captured, {len(killing.truth) - captured} without digest, "
            "wrong digests 0, lost changes 0",
            end="",
        )
    finally:
        killing.daemon.end()
