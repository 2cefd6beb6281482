"""Several digests of the same bytes: blake3 beside b3sum, and md5 beside sha256 in one read.

reprod always computes sha256, so its scan with blake3 does the work of b3sum and sha256sum together; the engine alone
(the same reads and the same hash objects, on two threads, without sha256) shows what blake3 itself costs. The slower
algorithm alone is measured with coreutils and with hashlib, which are not equally fast.
"""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import peers
from bench import Bench
from material import cold, large_files
from measure import in_turn, seconds, shell
from table import Target

from reprod.fs.read import CHUNK, new_hash

BLAKE3 = Target("1.5", "1.2")
TWO = Target("1.2", "1.05")

_SHA256 = "find . -type f -print0 | xargs -0 -P2 -n1 sha256sum"


def digest(path: Path, algorithm: str) -> bytes:
    """Return a file's digest, read as reprod reads it."""
    state, buffer = new_hash(algorithm), memoryview(bytearray(CHUNK))
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while got := os.readv(fd, [buffer]):
            state.update(buffer[:got])
    finally:
        os.close(fd)
    return state.digest()


def in_threads(root: Path, algorithm: str) -> float:
    """Return the seconds that two threads take for the digests of all files of a directory."""
    with ThreadPoolExecutor(2) as pool:
        return seconds(lambda: list(pool.map(lambda path: digest(path, algorithm), sorted(root.iterdir()))))


def blake3(bench: Bench) -> None:
    """sha256 and blake3 in one read, beside b3sum and beside b3sum and sha256sum at the same time."""
    what = f"cold scan, 4 files of {bench.large_mib} MiB, sha256 and blake3"
    if importlib.util.find_spec("blake3") is None:
        bench.table.skip(what, "the extra blake3 is not installed", BLAKE3)
        return
    if not peers.installed("b3sum"):
        bench.table.skip(what, "b3sum is not installed: make bench-peers", BLAKE3)
        return
    root = large_files(bench)
    ours, engine, b3sum, both = in_turn(
        bench.rounds,
        lambda: cold(bench, root, ("sha256", "blake3")),
        lambda: in_threads(root, "blake3"),
        lambda: shell("b3sum *", root),
        lambda: shell(f"b3sum * & {_SHA256}; wait", root),
    )
    bench.table.add(what, ours, yard=b3sum, by="b3sum", target=BLAKE3)
    bench.table.add("the same", ours, yard=both, by="b3sum & xargs -P2 sha256sum")
    bench.table.add("the hash engine alone, blake3, two threads, the same files", engine, yard=b3sum, by="b3sum")


def md5(bench: Bench) -> None:
    """md5 and sha256 in one read, beside the slower one alone: one file on two cores, and four."""
    root = large_files(bench)
    single = min(root.iterdir())
    ours, yard = in_turn(
        bench.rounds, lambda: cold(bench, single, ("sha256", "md5")), lambda: shell(f"md5sum {single.name}", root)
    )
    bench.table.add(
        f"md5 and sha256 in one read, one file of {bench.large_mib} MiB, two cores",
        ours,
        yard=yard,
        by="md5sum",
        target=TWO,
    )
    ours, coreutils, engine = in_turn(
        bench.rounds,
        lambda: cold(bench, root, ("sha256", "md5")),
        lambda: shell("find . -type f -print0 | xargs -0 -P2 -n1 md5sum", root),
        lambda: in_threads(root, "md5"),
    )
    bench.table.add(
        f"the same, 4 files of {bench.large_mib} MiB", ours, yard=coreutils, by="xargs -P2 md5sum", target=TWO
    )
    bench.table.add("the same", ours, yard=engine, by="hashlib, md5, two threads")
