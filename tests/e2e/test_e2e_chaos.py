"""Changes at full speed under a real daemon that is asked for its status and for snapshots all the while: in the end it
knows what is there, by hints alone, and no version ever held what no file did.

``REPROD_CHAOS_S`` says for how many seconds, ``REPROD_CHAOS_SEEDS`` how often with each backend (``make torture``: 10
seconds, 20 seeds; here a short form). Nothing is found by a timer: the daemons walk on their own once an hour.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chaos
import oracle
import pytest
from harness import QUICKER, REAL, Daemon, dt1, eventually, make_data, running_daemon

from reprod.ops.chain import verify_chain
from reprod.store import listing, versions
from reprod.store.files import open_dataset_readonly

SECONDS = float(os.environ.get("REPROD_CHAOS_S", "1.5"))
SEEDS = int(os.environ.get("REPROD_CHAOS_SEEDS", "2"))
NAMES = ["a", "b", "c", "d", "e\nf", "g h"]
NOT_UTF_8 = ["\udcff", "\udc80x"]  # watchfiles gives up on these: test_e2e_watching

#: How long it may take after the last change. Ten seconds of changes are looked at in two.
CURRENT_S = 60.0

#: Of the time of every second seed the daemon stands still: then all that is made meanwhile comes at once.
STOPPED = 0.4

Figures = Counter[str]
TOTALS: dict[str, Figures] = {}


@pytest.fixture(scope="module", autouse=True)
def totals() -> Iterator[None]:
    """Print the sums over all seeds."""
    yield
    for backend, figures in TOTALS.items():
        print(f"\nfigures: chaos, {backend}, seeds 0 to {SEEDS - 1}, {SECONDS:g} s each: {said(figures)}", end="")


def said(figures: Figures) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in figures.items())


@dataclass(slots=True)
class Storm:
    """The process that changes the tree; what it did is there once it has ended."""

    root: Path
    outside: Path
    seed: int
    names: list[str]
    operations: int = 0
    contents: frozenset[bytes] = frozenset()

    @contextmanager
    def raging(self) -> Iterator["subprocess.Popen[str]"]:
        """Change the tree for ``SECONDS``, and no longer than the block."""
        command = [sys.executable, chaos.__file__, str(self.root), str(self.outside), str(self.seed)]
        command += [json.dumps(self.names), "run", str(SECONDS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
                told = json.loads(process.communicate(timeout=SECONDS + 90)[0])
            finally:
                process.kill()
        self.operations, self.contents = told["operations"], frozenset(map(bytes.fromhex, told["contents"]))


def disturb(daemon: Daemon, process: "subprocess.Popen[str]", figures: Figures, *, stop: bool) -> None:
    """Ask for the status as a person does and for snapshots, in turn, until the storm is two thirds over.

    What comes after that is found by hints, not by the walk of a snapshot.
    """
    until = time.monotonic() + 2 / 3 * SECONDS
    while time.monotonic() < until and process.poll() is None:
        done = daemon.place.cli("status", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["datasets"][0]["state"] in {"current", "dirty", "scanning", "incomplete"}
        assert daemon.call("snapshot", name="data", timeout_s=60)["assurance"] == "walk"
        figures["status and snapshots"] += 2
        if stop:
            stop = False
            stand_still(daemon, STOPPED * SECONDS)


def stand_still(daemon: Daemon, seconds: float) -> None:
    """Stop the daemon for a while, as a suspended or overloaded machine does."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        until = time.monotonic() + seconds
        eventually(lambda: time.monotonic() > until, seconds + 5, "time passes")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def note_versions(daemon: Daemon, contents: frozenset[bytes], truth: oracle.Contents, figures: Figures) -> None:
    """Count versions, those that are wrong by an independent look, and what the newest has missed of ``truth``.

    A version is wrong if its digest is not that of its entries, or if one of them is no content that ever was.
    """
    db, _ = open_dataset_readonly(daemon.place.state, "data")
    found: oracle.Contents = {}
    try:
        for version in db.read(versions.versions):
            entries = db.read(lambda c, seq=version.seq: list(listing.entries(c, seq)))
            found = {
                e.path: ("link" if e.content.kind == 2 else "file", e.content.size, e.content.sha256 or b"")
                for e in entries
                if e.content.kind in {1, 2}
            }
            read = {sha256 for _, _, sha256 in found.values() if sha256}
            wrong = version.digest is not None and oracle.dt1(found) != "dt1:" + version.digest.hex()
            figures["versions"] += 1
            figures["without digest"] += version.digest is None
            figures["wrong digests"] += wrong or not read <= contents
    finally:
        db.close()
    figures["lost changes"] += sum(found.get(path) != truth.get(path) for path in found.keys() | truth.keys())
    checked = verify_chain(daemon.place.state, "data")
    assert (checked["broken"], checked["lost"]) == ([], [])


@pytest.mark.parametrize("backend", ["inotify", "watchfiles"])
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.timeout(120 + 5 * SECONDS)
def test_chaos_at_full_speed(tmp_path: Path, backend: str, seed: int) -> None:
    """After random changes at full speed the daemon becomes current by itself (watchfiles: with one snapshot) and
    equals the oracle; each version is whole and holds only what once was there."""
    data, outside = make_data(tmp_path / "data"), tmp_path / "outside"
    outside.mkdir()
    first = {sha256 for _, _, sha256 in oracle.scan(os.fsencode(data)).values()}
    storm = Storm(data, outside, seed, NAMES + (NOT_UTF_8 if backend == "inotify" else []))
    figures: Figures = Counter({"operations": 0, "status and snapshots": 0, "versions": 0, "without digest": 0})
    watch = {"backend": backend, "reconcile_seconds": 3600}
    with running_daemon(tmp_path / "d", "", {"data": data}, program=REAL, watch=watch) as daemon:
        daemon.sealed("data", 1)
        with storm.raging() as process:
            disturb(daemon, process, figures, stop=seed % 2 == 1)
        if backend == "watchfiles":
            daemon.call("snapshot", name="data", timeout_s=60)
        truth = oracle.scan(os.fsencode(data))
        shown = settled(daemon, oracle.dt1(truth), backend)
        figures["operations"] += storm.operations
        figures["overflows"] += len(daemon.events("watch.overflow"))
        figures["unannounced"] += shown["unannounced_changes"]
        note_versions(daemon, storm.contents | first, truth, figures)
        print(f"\nfigures: chaos, {backend}, seed {seed}, {SECONDS:g} s: {said(figures)}", end="")
        TOTALS.setdefault(backend, Counter()).update(figures)
        tail = f"{shown}; {daemon.tail()}"
    assert (shown["state"], shown["digest"], shown["watch"]) == ("current", oracle.dt1(truth), backend), tail
    assert (figures["wrong digests"], figures["lost changes"]) == (0, 0), tail
    assert backend == "watchfiles" or shown["unannounced_changes"] == 0, tail


def settled(daemon: Daemon, digest: str, backend: str) -> dict[str, Any]:
    """Wait until the dataset is current with this digest, but not for ever; return its status, whatever it is.

    A daemon that was stopped may take its watch for deaf, and arm it anew a moment later.
    """
    until = time.monotonic() + CURRENT_S

    def there() -> dict[str, Any] | None:
        shown = daemon.dataset("data")
        right = (shown["state"], shown["digest"], shown["watch"]) == ("current", digest, backend)
        return shown if right or time.monotonic() > until else None

    found = eventually(there, CURRENT_S + 10, daemon.tail)
    assert found is not None
    return found


# --- what the storm had shown ----------------------------------------------------------------------------------------


def test_a_file_that_stays_open_is_no_unannounced_change(tmp_path: Path) -> None:
    """Walks that meet a file which is still open for writing, and was not written since, count nothing that no event
    announced."""
    data = make_data(tmp_path / "data")
    with running_daemon(tmp_path / "d", "", {"data": data}, watch={"reconcile_seconds": 3600}) as daemon:
        daemon.sealed("data", 1)
        with (data / "log").open("wb", buffering=0) as file:
            file.write(b"half")
            eventually(lambda: daemon.dataset("data")["state"] == "incomplete", 15, daemon.tail)
            for _ in range(3):
                assert daemon.call("snapshot", name="data")["complete"] is False
            assert daemon.dataset("data")["unannounced_changes"] == 0
        assert settled(daemon, dt1(data), "inotify")["state"] == "current"


#: A daemon that reads what keeps changing again after ten minutes, not after 0.05 s, 0.1 s and so on.
PATIENT = (
    f"import sys; {QUICKER}schedule.FIRST_UNSTABLE_S = schedule.LONGEST_UNSTABLE_S = 600.0; "
    "from reprod.__main__ import main; sys.exit(main(['daemon']))"
)


@pytest.mark.parametrize("how", ["unlinked", "moved out"])
def test_an_open_file_that_goes_is_gone_at_once(tmp_path: Path, how: str) -> None:
    """A file that is open for writing, so that it is read less and less often, and then is unlinked or moved out, is
    gone with the next look: the set is complete again."""
    data, watch = make_data(tmp_path / "data"), {"reconcile_seconds": 3600}
    with running_daemon(tmp_path / "d", "", {"data": data}, program=("-c", PATIENT), watch=watch) as daemon:
        daemon.sealed("data", 1)
        with (data / "log").open("wb", buffering=0) as file:
            file.write(b"half")
            eventually(lambda: daemon.dataset("data")["state"] == "incomplete", 15, daemon.tail)
            (data / "log").unlink() if how == "unlinked" else (data / "log").rename(tmp_path / "log")
            wanted = dt1(data)
            eventually(lambda: daemon.dataset("data")["digest"] == wanted, 30, lambda: f"{daemon.dataset('data')}")
