"""A stream of new files into a live daemon: how long each takes to be in a sealed version.

    python stream.py ROOT SECONDS SMALLEST LARGEST

writes ``RATE`` files a second below ROOT, SMALLEST to LARGEST bytes each (every doubling as often as any other), and
prints JSON: a list of ``[path, bytes, returned_ns]``, the last being when ``close`` returned. A process of its own, so
that it shares no interpreter with who measures.

A file is in the first version that holds what the writer wrote, not in one that met it half written. The time of a
version is its mark's in the daemon's database: just before the commit, which the note tells apart.
"""

import datetime as dt
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from bench import Bench
from daemon import Running, ready
from material import A_DIRECTORY, MIB
from measure import Sample, in_turn, one, shell, until
from table import NO_TARGET, Target

from reprod.daemon.schedule import SEAL_SPACING_S
from reprod.store import files, versions

RATE = 200  # files a second
KIB = 1024

BEYOND = Target("100 ms")

#: What is streamed: smallest and largest file, what the table calls it, and what issue 4 asks for.
STREAMS = (
    (KIB, MIB, "1 KiB to 1 MiB", BEYOND),
    (MIB, MIB, "1 MiB", NO_TARGET),
)

#: How long the last version may take after the last write.
SEALED_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Written:
    """One file as its writer knows it."""

    path: str
    size: int
    returned_ns: int


@dataclass(frozen=True, slots=True)
class Seals:
    """What the daemon did meanwhile: when each version was sealed, and how many ms its refresh and its commit took."""

    at_ns: dict[int, int]
    refresh: Sample
    commit: Sample
    incomplete: int

    def said(self) -> str:
        """Return it for the note of a line."""
        return (
            f"{len(self.at_ns)} versions, {self.incomplete} of them incomplete; a refresh took "
            f"{self.refresh.median:.0f} ms, at most {max(self.refresh.values):.0f}; until committed and logged "
            f"{self.commit.median:.0f} more"
        )


def stream(bench: Bench) -> None:
    """From the return of a write to the seal of the version that holds it, for a mix of sizes and for large files."""
    for smallest, largest, sizes, target in STREAMS:
        root = bench.folder / "stream"
        root.mkdir()
        with ready(bench.folder, root) as running:
            written = _streamed(bench, running, root, smallest, largest)
            state = running.state
        waits, seals = _waits(state, root, written), _seals(state)
        second = written[len(written) // 2 :][:RATE]
        what = f"{RATE} new files of {sizes} a second, live daemon"
        rate = f"{_rate(written):.0f} a second for {bench.stream_seconds} s, load {os.getloadavg()[0]:.1f}"
        bench.table.add(f"{what}: write to sealed version, median", waits, "ms", note=rate)
        bench.table.add("the same, 99 % within", one(waits.at(0.99)), "ms", note=seals.said())
        bench.table.add(
            "the same, beyond the seal spacing",
            one(waits.at(0.99) - 1000 * SEAL_SPACING_S), "ms", _hashing(bench, root, second),
            f"xargs -P2 sha256sum, {len(second)} of them", target=target,
        )  # fmt: skip
        rmtree(root)


def _streamed(bench: Bench, running: Running, root: Path, smallest: int, largest: int) -> list[Written]:
    """Have the files written, and wait until all of them are recorded."""
    if (watch := running.client.call("status")["datasets"][0]["watch"]) != "inotify":
        raise RuntimeError(f"the watch is {watch}, not inotify")
    written = _write(root, bench.stream_seconds, smallest, largest)
    until(lambda: _holds(running, len(written)), SEALED_WITHIN_S, "the last version")
    return written


def _rate(written: list[Written]) -> float:
    took_ns = written[-1].returned_ns - written[0].returned_ns
    return (len(written) - 1) / (took_ns / 1e9)


def _write(root: Path, seconds: int, smallest: int, largest: int) -> list[Written]:
    command = [sys.executable, __file__, str(root), str(seconds), str(smallest), str(largest)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60 + 10 * seconds)
    return [Written(*row) for row in json.loads(done.stdout)]


def _holds(running: Running, count: int) -> bool:
    dataset = running.client.call("status")["datasets"][0]
    return bool(dataset["state"] == "current" and dataset["files"] == count)


def _waits(state: Path, root: Path, written: list[Written]) -> Sample:
    """Return the milliseconds of each file. Raises RuntimeError if one is not in the index as it was written."""
    since: dict[str, tuple[int, int, bytes]] = {}
    db, _ = files.open_dataset_readonly(state, "bench")
    with closing(db):
        sealed = {version.seq: version.sealed_ns for version in db.read(versions.versions)}
        for path, size, sha256, seq in db.read(lambda c: c.execute(_SINCE).fetchall()):
            since[os.fsdecode(path)] = seq, size, sha256
    for file in written:
        found = since.get(file.path)
        if found is None or found[1:] != (file.size, hashlib.sha256((root / file.path).read_bytes()).digest()):
            raise RuntimeError(f"{file.path} is recorded as {found}")
    return Sample(tuple((sealed[since[file.path][0]] - file.returned_ns) / 1e6 for file in written))


#: What a file holds now it holds since its last row in ``history``, which says what it was before that version.
_SINCE = """
SELECT CAST(d.path || x'2f' || f.name AS BLOB), f.size, f.sha256, max(h.version)
FROM file f JOIN directory d ON d.id = f.directory JOIN history h ON h.file = f.id
WHERE f.kind = 1 AND f.problem IS NULL GROUP BY f.id
"""


def _seals(state: Path) -> Seals:
    """Return what log and database say of every version but the first, which was of nothing."""
    db, _ = files.open_dataset_readonly(state, "bench")
    with closing(db):
        sealed = [version for version in db.read(versions.versions) if version.seq > 1]
    at_ns = {version.seq: version.sealed_ns for version in sealed}
    lines = (state.parent / "log").read_bytes().splitlines()
    events = [json.loads(line) for line in lines if b'"dataset.refreshed"' in line]
    told = {event["version"]: event for event in events if event["sealed"] and event["version"] in at_ns}
    return Seals(
        at_ns,
        Sample(tuple(event["took_ms"] for event in told.values())),
        Sample(tuple(_since(event["timestamp"], at_ns[seq]) for seq, event in told.items())),
        sum(version.digest is None for version in sealed),
    )


def _since(timestamp: str, ns: int) -> float:
    """Return the milliseconds from a time in nanoseconds to a time stamp of the log."""
    return 1000 * dt.datetime.fromisoformat(timestamp).timestamp() - ns / 1e6


def _hashing(bench: Bench, root: Path, some: list[Written]) -> Sample:
    """Return the milliseconds that hashing the files of one second takes."""
    names = bench.folder / "names"
    names.write_bytes(b"\0".join(os.fsencode(file.path) for file in some))
    command = f"xargs -0 -P2 -n {max(1, len(some) // 8)} sha256sum < {names}"
    return in_turn(bench.rounds, lambda: 1000 * shell(command, root))[0]


def main(root: Path, seconds: int, smallest: int, largest: int) -> None:
    """Write at a steady rate, and say what was written when."""
    noise = memoryview(os.urandom(largest + RATE * seconds))
    rng = random.Random(smallest)
    rows = []
    began = time.monotonic()
    for number in range(RATE * seconds):
        size = int(smallest * (largest / smallest) ** rng.random())
        directory = root / f"d{number // A_DIRECTORY:04}"
        if number % A_DIRECTORY == 0:
            directory.mkdir()
        time.sleep(max(0.0, began + number / RATE - time.monotonic()))
        path = directory / f"f{number:07}.bin"
        with open(path, "wb", buffering=0) as file:
            file.write(noise[number : number + size])
        rows.append((str(path.relative_to(root)), size, time.time_ns()))
    print(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
