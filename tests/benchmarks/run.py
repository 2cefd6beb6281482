"""Measure reprod beside its yardsticks, in one run on one machine: ``make bench``, or this file with ``--help``.

Nothing here is asserted: the figures go into docs/performance.md by hand, with the machine. Each row is a median, and
each ratio is that of medians taken in turn, so that a drift of the machine's speed hits both. Needs the extra `mlflow`
for the rows that talk to a tracking server.
"""

import argparse
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reprod.client import Client
from reprod.config import DatasetConfig
from reprod.ops.plan import Order
from reprod.ops.refresh import Report, Settings, refresh
from reprod.store.connection import Database, open_database

MIB = 1 << 20


def main() -> int:
    """Run the chosen rows and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="small files of 4 KiB (default: %(default)s)")
    parser.add_argument(
        "--large-mib", type=int, default=512, help="size of each of 4 large files (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement (default: %(default)s)")
    parser.add_argument(
        "--dir", help="where to make the files; they are removed at the end (default: a temporary folder)"
    )
    parser.add_argument("--only", nargs="+", choices=sorted(ROWS), default=list(ROWS), help="rows to run")
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every worker compiles reprod anew
    folder = Path(tempfile.mkdtemp(prefix="reprod-bench-", dir=args.dir))
    print(f"{platform.platform()}, {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}")
    print(f"load at start {os.getloadavg()[0]:.2f}\n")
    print(f"{'what':58} {'reprod':>12} {'yardstick':>12} {'ratio':>7}  yardstick is")
    try:
        for name in args.only:
            ROWS[name](folder, args)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def row(what: str, ours: float, unit: str, yard: float | None = None, by: str = "") -> None:
    """Print one measurement beside its yardstick."""
    ratio = f"{ours / yard:7.2f}" if yard else " " * 7
    yards = f"{yard:10.3f} {unit:>1}" if yard else " " * 12
    print(f"{what:58} {ours:10.3f} {unit:>1} {yards} {ratio}  {by}", flush=True)


def in_turn(rounds: int, *calls: Callable[[], float]) -> list[float]:
    """Call each in turn, ``rounds`` times after one round that does not count; return the medians."""
    seen: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for values, call in zip(seen, calls, strict=True):
            value = call()
            if number:
                values.append(value)
    return [statistics.median(values) for values in seen]


def timed(command: str, cwd: Path) -> float:
    """Run a shell pipeline of the benchmark's own and return its seconds."""
    began = time.perf_counter()
    subprocess.run(["bash", "-c", command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


# --- the verb alone ------------------------------------------------------------------------------------------------


def small_files(folder: Path, count: int) -> Path:
    """Make ``count`` different files of 4 KiB, 1,000 in a directory."""
    root = folder / "small"
    if root.exists():
        return root
    noise = os.urandom(4096 + count)
    for i in range(count):
        directory = root / f"d{i // 1000:04}"
        if i % 1000 == 0:
            directory.mkdir(parents=True)
        (directory / f"f{i:07}.bin").write_bytes(noise[i : i + 4096])
    return root


def fresh(folder: Path) -> Database:
    """Return an empty index."""
    for path in folder.glob("bench.sqlite*"):
        path.unlink()
    return open_database(folder / "bench.sqlite", "dataset")


def scan(folder: Path, root: Path, db: Database, paths: frozenset[bytes] | None = None) -> tuple[float, Report]:
    """Refresh and return the seconds."""
    began = time.perf_counter()
    report = refresh(db, DatasetConfig("bench", str(root)), Order(paths), Settings(str(folder / "state")))
    return time.perf_counter() - began, report


def cold(folder: Path, root: Path) -> float:
    """A first scan into an empty index."""
    db = fresh(folder)
    seconds, _ = scan(folder, root, db)
    db.close()
    return seconds


def bench_cold_small(folder: Path, args: argparse.Namespace) -> None:
    """Cold scan of many small files (page cache warm)."""
    root = small_files(folder, args.files)
    ours, yard = in_turn(
        args.rounds,
        lambda: cold(folder, root),
        lambda: timed("find . -type f -print0 | xargs -0 -P2 -n 5000 sha256sum", root),
    )
    row(f"cold scan, {args.files:,} files of 4 KiB, into SQLite", ours, "s", yard, "xargs -P2 sha256sum")
    if shutil.which("b3sum"):
        yard = in_turn(args.rounds, lambda: timed("find . -type f -print0 | xargs -0 -n 20000 b3sum", root))[0]
        row("  the same", ours, "s", yard, "b3sum")


def bench_cold_large(folder: Path, args: argparse.Namespace) -> None:
    """Cold scan of four large files (page cache warm)."""
    root = folder / "large"
    root.mkdir()
    block = os.urandom(MIB)
    for i in range(4):
        with open(root / f"{i}.bin", "wb") as file:
            for j in range(args.large_mib):
                file.write(j.to_bytes(8, "little") + block[8:])
    ours, yard = in_turn(
        args.rounds,
        lambda: cold(folder, root),
        lambda: timed("find . -type f -print0 | xargs -0 -P2 -n1 sha256sum", root),
    )
    row(f"cold scan, 4 files of {args.large_mib} MiB", ours, "s", yard, "xargs -P2 sha256sum")
    shutil.rmtree(root)


def bench_no_change(folder: Path, args: argparse.Namespace) -> None:
    """A full walk that finds nothing."""
    root = small_files(folder, args.files)
    db = fresh(folder)
    scan(folder, root, db)
    ours, yard = in_turn(
        max(5, args.rounds),
        lambda: scan(folder, root, db)[0],
        lambda: timed("find . -printf '%p %s %T@ %C@ %i\\n'", root),
    )
    row(f"no-change scan, {args.files:,} files", ours, "s", yard, "find -printf")
    size = sum(path.stat().st_size for path in folder.glob("bench.sqlite*"))
    row("  database, bytes a file", size / args.files, "B")
    db.close()


def bench_one_change(folder: Path, args: argparse.Namespace) -> None:
    """One hinted change, from hint to sealed version: the verb alone, without settle and spacing."""
    root = small_files(folder, args.files)
    db = fresh(folder)
    scan(folder, root, db)
    target = next(root.rglob("*.bin"))
    relative = os.fsencode(target.relative_to(root))

    def change() -> float:
        target.write_bytes(os.urandom(4096))
        time.sleep(0.03)  # what the daemon waits for a burst to end, and law 3 asks for
        seconds, report = scan(folder, root, db, frozenset({relative}))
        if not report.sealed:
            raise SystemExit("the change was not sealed")
        return 1000 * seconds

    row(f"one of {args.files:,} files changed: hint to sealed version", in_turn(11, change)[0], "ms")
    db.close()


# --- the daemon ----------------------------------------------------------------------------------------------------


@contextmanager
def daemon(folder: Path, root: Path, tracking_uri: str) -> Iterator[tuple[int, Client, dict[str, str]]]:
    """Run the real daemon on one dataset; yields its pid, a client and its environment."""
    home = folder / "daemon"
    shutil.rmtree(home, ignore_errors=True)
    (home / "datasets.d").mkdir(parents=True)
    (home / "reprod.toml").write_text(f'[mlflow]\ntracking_uri = "{tracking_uri}"\npoll_seconds = 10\n')
    (home / "datasets.d" / "bench.toml").write_text(f'path = "{root}"\n')
    environment = {**os.environ, "REPROD_STATE_DIR": str(home / "state"), "REPROD_CONFIG": str(home / "reprod.toml")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with open(home / "log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "reprod", "daemon"], env=environment, stderr=log, stdout=log)
    client = Client(home / "state" / "control.sock", timeout_s=120)
    try:
        until(lambda: _answers(client), 30, "the daemon to answer")
        client.call("scan", {"name": "bench"}, timeout_s=600)
        yield process.pid, client, environment
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _answers(client: Client) -> bool:
    try:
        client.open(0.0)
        client.call("hello")
    except Exception:  # noqa: BLE001 - whatever it is, it is not up yet
        return False
    return True


def until(done: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a state, bounded."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds} s for {what}")
        time.sleep(0.005)
    return found


def bench_daemon(folder: Path, args: argparse.Namespace) -> None:
    """Status, memory, idle time, and the way from a write to a sealed version, with a real daemon."""
    import psutil

    root = small_files(folder, args.files)
    with daemon(folder, root, "") as (pid, client, environment):
        status, bare = in_turn(
            11,
            lambda: 1000 * _run([sys.executable, "-m", "reprod", "status"], environment),
            lambda: 1000 * _run([sys.executable, "-c", "pass"], environment),
        )
        row("reprod status, end to end", status, "ms", bare, "python -c pass")
        process = psutil.Process(pid)
        row("daemon, resident", process.memory_info().rss / MIB, "MiB")
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(10)
        used = 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        row("daemon, idle, of one core", used, "%")
        target = next(root.rglob("*.bin"))

        def change() -> float:
            version = client.call("status")["datasets"][0]["version"]
            time.sleep(1.1)  # beyond the seal spacing, which is not what is measured here
            target.write_bytes(os.urandom(4096))
            began = time.perf_counter()
            until(lambda: client.call("status")["datasets"][0]["version"] != version, 30, "a new version")
            return 1000 * (time.perf_counter() - began)

        row("write to sealed version (watchfiles debounce included)", in_turn(5, change)[0], "ms")


def _run(command: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


_TAG = """
import mlflow, os, time, reprod
with mlflow.start_run() as run:
    began = time.perf_counter()
    reprod.tag_dataset("bench")
    state = reprod.wait_captured(run.info.run_id, timeout_s=120)
    print(state, time.perf_counter() - began)
"""


def bench_tag(folder: Path, args: argparse.Namespace) -> None:
    """From ``tag_dataset`` to ``reprod.state`` on the run, over the socket, with a local server; the child is warm."""
    root = small_files(folder, args.files)
    with daemon(folder, root, "local") as (_, client, environment):
        uri = until(lambda: _reachable(client), 120, "the local MLflow server")
        training = {**environment, "MLFLOW_TRACKING_URI": uri}
        seconds = []
        for _ in range(4):
            done = subprocess.run(
                [sys.executable, "-c", _TAG], env=training, capture_output=True, text=True, check=True, cwd=folder
            )
            said = (line.split() for line in done.stdout.splitlines() if line.startswith(("captured", "None", "inc")))
            state, took = next(said)
            if state != "captured":
                raise SystemExit(f"the run was not captured: {done.stdout} {done.stderr}")
            seconds.append(float(took))
        row(f"tag to captured, {args.files:,} files, child warm", statistics.median(seconds[1:]), "s")


def _reachable(client: Client) -> str | None:
    tracking = client.call("status")["tracking"]
    return tracking["uri"] if tracking["state"] == "reachable" else None


ROWS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "cold-small": bench_cold_small,
    "cold-large": bench_cold_large,
    "no-change": bench_no_change,
    "one-change": bench_one_change,
    "daemon": bench_daemon,
    "tag": bench_tag,
}

if __name__ == "__main__":
    sys.exit(main())
