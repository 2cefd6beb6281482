"""The files that are measured, each made once in a run, and a first scan of them.

All contents differ, nothing compresses. The page cache is warm, because the first round of every measurement does not
count. Trees have 1,000 files a directory.
"""

import os
import time
from pathlib import Path

from bench import Bench
from measure import seconds

from reprod.config import DatasetConfig
from reprod.fs.read import WRITE_BACK_NS
from reprod.ops.plan import Order
from reprod.ops.refresh import Report, Settings, refresh
from reprod.store.connection import Database, open_database

MIB = 1 << 20
A_DIRECTORY = 1000
AT_REST_FROM = 10_000  # files: fewer are for a look at whether the rows run


def small_files(root: Path, count: int, size: int = 4096) -> Path:
    """Make ``count`` different files of ``size`` bytes below ``root``, unless they are there."""
    if root.exists():
        return root
    noise = os.urandom(size + count)
    for first in range(0, count, A_DIRECTORY):
        directory = root / f"d{first // A_DIRECTORY:04}"
        directory.mkdir(parents=True)
        for i in range(first, min(first + A_DIRECTORY, count)):
            (directory / f"f{i:07}.bin").write_bytes(noise[i : i + size])
    return root


def tiny_files(root: Path, count: int) -> Path:
    """Make ``count`` different files of 16 bytes below ``root``; an unfinished tree is completed."""
    done = root.with_name(root.name + ".complete")  # beside it: a file in it would be part of the data
    if done.exists():
        return root
    for first in range(0, count, A_DIRECTORY):
        directory = root / f"d{first // A_DIRECTORY:04}"
        directory.mkdir(parents=True, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for i in range(first, min(first + A_DIRECTORY, count)):
                file = os.open(f"f{i:07}.bin", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=folder)
                os.write(file, i.to_bytes(16, "big"))
                os.close(file)
        finally:
            os.close(folder)
    done.touch()
    return root


def large_files(bench: Bench) -> Path:
    """Make four different large files."""
    root = bench.folder / "large"
    if root.exists():
        return root
    root.mkdir()
    block = os.urandom(MIB)
    for i in range(4):
        with open(root / f"{i}.bin", "wb") as file:
            for j in range(bench.large_mib):
                file.write((i * bench.large_mib + j).to_bytes(8, "little") + block[8:])
    return root


def small(bench: Bench) -> Path:
    """Return the tree of small files of this run, as most data is: nothing in it changed within the last minute.

    Whether a file that did is open for writing has to be asked, which costs 1.3 us.
    """
    root = small_files(bench.folder / "small", bench.files)
    if bench.files >= AT_REST_FROM:
        made_ns = max(folder.stat().st_ctime_ns for folder in root.iterdir())
        time.sleep(max(0, made_ns + WRITE_BACK_NS - time.time_ns()) / 1e9)
    return root


def a_file(root: Path) -> Path:
    """Return one file of a tree."""
    return next(root.rglob("*.bin"))


def fresh_index(bench: Bench) -> Database:
    """Return an empty index."""
    for path in bench.folder.glob("bench.sqlite*"):
        path.unlink()
    return open_database(bench.folder / "bench.sqlite", "dataset")


def scan(bench: Bench, root: Path, db: Database, paths: frozenset[bytes] | None = None) -> Report:
    """Refresh an index: all of it, or what is hinted at."""
    return refresh(db, DatasetConfig("bench", str(root)), Order(paths), Settings(str(bench.folder / "state")))


def cold(bench: Bench, root: Path, algorithms: tuple[str, ...] = ("sha256",), workers: int = 0) -> float:
    """Return the seconds of a first scan into an empty index."""
    db = fresh_index(bench)
    dataset = DatasetConfig("bench", str(root), algorithms=algorithms)
    settings = Settings(str(bench.folder / "state"), workers=workers)
    try:
        return seconds(lambda: refresh(db, dataset, Order(), settings))
    finally:
        db.close()
