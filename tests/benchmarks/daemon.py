"""The real daemon: what it costs, how fast its status is, and how long a write takes to become a version."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from bench import Bench
from material import MIB, a_file, small
from measure import Sample, in_turn, one, process, until
from table import Target

from reprod.client import Client
from reprod.daemon.schedule import SEAL_SPACING_S, SETTLE_S
from reprod.errors import ReprodError
from reprod.store import files, timeline

STARTS_IN_S = 30
FIRST_SCAN_S = 1800

BEYOND = Target("50 ms", "25 ms")


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that answers."""

    pid: int
    client: Client
    environment: dict[str, str]
    state: Path

    def version(self) -> int | None:
        """Return the newest version of the dataset. Raises RuntimeError if the dataset cannot be scanned."""
        dataset = self.client.call("status")["datasets"][0]
        if dataset["reason"]:
            raise RuntimeError(f"the dataset is {dataset['state']}: {dataset['reason']}")
        found: int | None = dataset["version"]
        return found


def write_config(home: Path, root: Path, tracking_uri: str = "") -> Path:
    """Write a configuration with one dataset, ``bench``; return its file."""
    (home / "datasets.d").mkdir(parents=True)
    file = home / "reprod.toml"
    file.write_text(f'[mlflow]\ntracking_uri = "{tracking_uri}"\npoll_seconds = 10\n')
    (home / "datasets.d" / "bench.toml").write_text(f'path = "{root}"\n')
    return file


@contextmanager
def started(folder: Path, root: Path, tracking_uri: str = "") -> Iterator[Running]:
    """Run the daemon on one dataset; yields as soon as it answers, which is before its first scan has ended."""
    home = folder / "daemon"
    shutil.rmtree(home, ignore_errors=True)
    file = write_config(home, root, tracking_uri)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("REPROD_", "MLFLOW_"))}
    environment = {**kept, "REPROD_STATE_DIR": str(home / "state"), "REPROD_CONFIG": str(file)}
    with TemporaryDirectory(prefix="reprod-bench-") as short, open(home / "log", "wb") as log:
        environment["REPROD_SOCKET"] = f"{short}/socket"  # its path may have 107 bytes, whatever --dir is
        daemon = subprocess.Popen([sys.executable, "-m", "reprod", "daemon"], env=environment, stderr=log, stdout=log)
        client = Client(Path(environment["REPROD_SOCKET"]), timeout_s=120)
        try:
            until(lambda: _answers(client) or _ended(daemon, home), STARTS_IN_S, "the daemon to answer")
            yield Running(daemon.pid, client, environment, home / "state")
        finally:
            client.close()
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)


@contextmanager
def ready(folder: Path, root: Path, tracking_uri: str = "") -> Iterator[Running]:
    """Run the daemon on one dataset; yields when that is scanned."""
    with started(folder, root, tracking_uri) as running:
        running.client.call("scan", {"name": "bench"}, timeout_s=FIRST_SCAN_S)
        yield running


def _answers(client: Client) -> bool:
    try:
        client.open(0.0)
        client.call("hello")
    except ReprodError:
        return False
    return True


def _ended(daemon: "subprocess.Popen[bytes]", home: Path) -> bool:
    """Return False while it runs. Raises RuntimeError with the end of its log."""
    if daemon.poll() is None:
        return False
    raise RuntimeError(f"the daemon ended with {daemon.returncode}: {(home / 'log').read_text()[-2000:]}")


def costs(bench: Bench) -> None:
    """Status, memory, idle time, and the way from a write to a sealed version."""
    root = small(bench)
    with ready(bench.folder, root) as running:
        status, bare = in_turn(
            11,
            lambda: 1000 * process([sys.executable, "-m", "reprod", "status"], running.environment),
            lambda: 1000 * process([sys.executable, "-c", "pass"], running.environment),
        )
        bench.table.add("`reprod status`, the whole process", status, "ms", bare, "python -c pass")
        daemon = psutil.Process(running.pid)
        bench.table.add("daemon, resident, without the MLflow child", one(daemon.memory_info().rss / MIB), "MiB")
        before, began = sum(daemon.cpu_times()[:2]), time.monotonic()
        time.sleep(bench.idle_s)
        used = 100 * (sum(daemon.cpu_times()[:2]) - before) / (time.monotonic() - began)
        bench.table.add("daemon, idle, of one core", one(used), "%")
        add_changes(bench, running, root, f"{bench.files:,}", BEYOND)


def add_changes(bench: Bench, running: Running, root: Path, files_text: str, target: Target) -> None:
    """Measure changes of one file in a live daemon: from the write as a user sees it, and beyond what it waits for."""
    target_file = a_file(root)

    def change() -> float:
        version = running.version()
        time.sleep(SEAL_SPACING_S + 0.1)  # beyond the spacing, which is not what is measured here
        size = target_file.stat().st_size
        target_file.write_bytes(os.urandom(size))
        began = time.perf_counter()
        until(lambda: running.version() != version, 30, "a new version")
        return 1000 * (time.perf_counter() - began)

    whole = in_turn(2 * bench.rounds - 1, change)[0]  # each takes over a second
    what = f"one of {files_text} files changed, live daemon"
    bench.table.add(
        f"{what}: write to sealed version, beyond settle and seal spacing",
        beyond_settle(running.state, len(whole.values)), "ms", target=target,
    )  # fmt: skip
    bench.table.add(f"{what}: write to sealed version, as a client sees it", whole, "ms")


def beyond_settle(state: Path, count: int) -> Sample:
    """Return the milliseconds from write to seal of the newest ``count`` versions, less what a burst is given to end.

    The write is the ctime, which is up to one tick (4 ms here) too early.
    """
    db, _ = files.open_dataset_readonly(state, "bench")
    with closing(db):
        marks = [m for m in db.read(timeline.marks) if m.kind == "version" and m.low_ctime_ns is not None]
    waits_ms = 1000 * SETTLE_S
    return Sample(tuple((m.sealed_ns - (m.low_ctime_ns or 0)) / 1e6 - waits_ms for m in marks[-count:]))


_TAG = """
import mlflow, os, time, reprod
with mlflow.start_run() as run:
    began = time.perf_counter()
    reprod.tag_dataset("bench")
    state = reprod.wait_captured(run.info.run_id, timeout_s=120)
    print(state, time.perf_counter() - began)
"""


def tag(bench: Bench) -> None:
    """From ``tag_dataset`` to ``reprod.state`` on the run, over the socket, with a local server; the child is warm."""
    root = small(bench)
    with ready(bench.folder, root, "local") as running:
        uri = until(lambda: _reachable(running.client), 120, "the local MLflow server")
        training = {**running.environment, "MLFLOW_TRACKING_URI": uri}
        taken = [_tagged(training, bench.folder) for _ in range(4)]
    sample = Sample(tuple(taken[1:]))
    bench.table.add(f"`tag_dataset` until `reprod.state`, {bench.files:,} files, child warm", sample)


def _tagged(environment: dict[str, str], folder: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _TAG], env=environment, capture_output=True, text=True, check=True, cwd=folder
    )
    said = (line.split() for line in done.stdout.splitlines() if line.startswith(("captured", "None", "inc")))
    state, took = next(said)
    if state != "captured":
        raise RuntimeError(f"the run was not captured: {done.stdout} {done.stderr}")
    return float(took)


def _reachable(client: Client) -> str:
    tracking: dict[str, str] = client.call("status")["tracking"]
    return tracking["uri"] if tracking["state"] == "reachable" else ""


def spread(sample: Sample) -> str:
    """Return how many there were, and the slowest but one of a hundred."""
    return f"{len(sample.values):,} calls, 99 % within {sample.at(0.99):.1f} ms"


def worst(sample: Sample) -> Sample:
    """Return the slowest alone."""
    return one(max(sample.values))
