"""Scans by the verb alone: first ones, ones that find nothing, ones of a single change, ones with more workers."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import peers
from bench import Bench
from material import a_file, cold, fresh_index, large_files, scan, small
from measure import Sample, in_turn, one, seconds, shell
from table import NO_TARGET, Target

COLD_SMALL = Target("0.83", "0.57")
COLD_LARGE = Target("0.22", "0.20")
NO_CHANGE = Target("2.8", "1.5")
ONE_CHANGE = Target("50 ms", "25 ms")
WORKERS = Target("4", "6")

#: What the row of workers compares.
MANY_WORKERS = 8


def cold_small(bench: Bench) -> None:
    """Cold scan of many small files (page cache warm)."""
    root = small(bench)
    yards = {"xargs -P2 sha256sum": "find . -type f -print0 | xargs -0 -P2 -n 5000 sha256sum"}
    if peers.installed("b3sum"):
        yards["b3sum"] = "find . -type f -print0 | xargs -0 -n 20000 b3sum"
    if peers.installed("hashdeep"):
        yards["hashdeep"] = "hashdeep -r -c sha256 -j2 ."
    beside(bench, f"cold scan, {bench.files:,} files of 4 KiB, into SQLite", root, yards, COLD_SMALL)
    if bench.peers:
        _cold_small_of_slow_peers(bench)


def _cold_small_of_slow_peers(bench: Bench) -> None:
    dvc = peers.Dvc.with_files(bench.folder / "dvc", bench.peer_files)
    if dvc is None:
        bench.table.skip("cold scan beside DVC and model_signing", "make bench-peers installs them")
        return
    what = f"cold scan, {bench.peer_files:,} files of 4 KiB"
    calls: list[Callable[[], float]] = [lambda: cold(bench, dvc.data)]
    if peers.model_signing_command(dvc.data):
        calls.append(lambda: peers.model_signing(dvc.data))
    ours, *signing = in_turn(bench.rounds, *calls)
    for yard in signing:
        bench.table.add(what, ours, yard=yard, by="model_signing.hashing", more="--peers")
    for commit, by in ((False, "dvc add --no-commit (md5), once"), (True, "dvc add, hard links (md5), once")):
        dvc.forget()
        bench.table.add(what, ours, yard=one(dvc.add(commit=commit)), by=by, more="--peers")


def cold_large(bench: Bench) -> None:
    """Cold scan of four large files (page cache warm)."""
    root = large_files(bench)
    yards = {"xargs -P2 sha256sum": "find . -type f -print0 | xargs -0 -P2 -n1 sha256sum"}
    if peers.installed("hashdeep"):
        yards["hashdeep"] = "hashdeep -r -c sha256 -j2 ."
    what = f"cold scan, 4 files of {bench.large_mib} MiB"
    beside(bench, what, root, yards, COLD_LARGE)
    if bench.peers and peers.model_signing_command(root):
        ours, yard = in_turn(bench.rounds, lambda: cold(bench, root), lambda: peers.model_signing(root))
        bench.table.add(what, ours, yard=yard, by="model_signing.hashing", more="--peers")


def beside(bench: Bench, what: str, root: Path, yards: dict[str, str], target: Target) -> None:
    """Measure a cold scan in turn with shell pipelines; the target is that of the first."""
    calls: list[Callable[[], float]] = [lambda: cold(bench, root)]
    calls += [lambda command=command: shell(command, root) for command in yards.values()]  # type: ignore[misc]
    ours, *theirs = in_turn(bench.rounds, *calls)
    for number, (by, yard) in enumerate(zip(yards, theirs, strict=True)):
        bench.table.add(
            what if not number else "the same", ours, yard=yard, by=by, target=NO_TARGET if number else target
        )


def no_change(bench: Bench) -> None:
    """A full walk that finds nothing."""
    root = small(bench)
    db = fresh_index(bench)
    scan(bench, root, db)
    ours, yard = in_turn(
        max(5, bench.rounds),
        lambda: seconds(lambda: scan(bench, root, db)),
        lambda: shell("find . -printf '%p %s %T@ %C@ %i\\n'", root),
    )
    bench.table.add(f"no-change scan, {bench.files:,} files", ours, yard=yard, by="find -printf", target=NO_CHANGE)
    size = sum(path.stat().st_size for path in bench.folder.glob("bench.sqlite*"))
    bench.table.add("its database, a file, the log not folded in", one(size / bench.files), "B")
    if bench.peers:
        _no_change_of_git(bench, root, lambda: seconds(lambda: scan(bench, root, db)))
    db.close()
    if bench.peers:
        _no_change_of_dvc(bench)


def _no_change_of_git(bench: Bench, root: Path, ours: Callable[[], float]) -> None:
    if not peers.installed("git"):
        bench.table.skip("no-change scan beside git status", "git is not installed")
        return
    git = f"git --git-dir={bench.folder / 'git'} --work-tree=. -c core.compression=0"
    shell(f"{git} init -q && {git} add -A .", root)
    sample, yard = in_turn(bench.rounds, ours, lambda: shell(f"{git} status --porcelain | wc -l", root))
    bench.table.add("the same scan", sample, yard=yard, by="git status", more="--peers")


def _no_change_of_dvc(bench: Bench) -> None:
    dvc = peers.Dvc.with_files(bench.folder / "dvc", bench.peer_files)
    if dvc is None:
        bench.table.skip("no-change scan beside dvc data status", "make bench-peers installs DVC")
        return
    dvc.add()
    db = fresh_index(bench)
    scan(bench, dvc.data, db)
    ours, yard = in_turn(bench.rounds, lambda: seconds(lambda: scan(bench, dvc.data, db)), dvc.status)
    db.close()
    bench.table.add(
        f"no-change scan, {bench.peer_files:,} files", ours, yard=yard, by="dvc data status", more="--peers"
    )


def one_change(bench: Bench) -> None:
    """One hinted change, from hint to sealed version: the verb alone, without settle and spacing."""
    root = small(bench)
    db = fresh_index(bench)
    scan(bench, root, db)
    target = a_file(root)
    relative = os.fsencode(target.relative_to(root))

    def change() -> float:
        target.write_bytes(os.urandom(4096))
        time.sleep(0.03)  # what the daemon waits for a burst to end, and law 3 asks for
        began = time.perf_counter()
        report = scan(bench, root, db, frozenset({relative}))
        if not report.sealed:
            raise RuntimeError("the change was not sealed")
        return 1000 * (time.perf_counter() - began)

    ours: Sample = in_turn(11, change)[0]
    db.close()
    bench.table.add(
        f"one of {bench.files:,} files changed: hint to sealed version, the verb alone", ours, "ms", target=ONE_CHANGE
    )
    dvc = peers.Dvc.with_files(bench.folder / "dvc", bench.peer_files) if bench.peers else None
    if dvc is not None:
        dvc.add()
        dvc.change_one()
        yard, by = one(1000 * dvc.add()), f"dvc add, {bench.peer_files:,} files, once"
        bench.table.add("the same", ours, "ms", yard, by, more="--peers")


def workers(bench: Bench) -> None:
    """Eight workers against one, on as many processors."""
    what = f"{MANY_WORKERS} workers against one, cold scan"
    present = os.cpu_count() or 1
    if present < MANY_WORKERS:
        bench.table.skip(what, f"{present} processors", WORKERS)
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(present))
    try:
        for root, of in (
            (small(bench), f"{bench.files:,} files of 4 KiB"),
            (large_files(bench), f"4 files of {bench.large_mib} MiB"),
        ):
            many, single = in_turn(
                bench.rounds,
                lambda root=root: cold(bench, root, workers=MANY_WORKERS),  # type: ignore[misc]
                lambda root=root: cold(bench, root, workers=1),  # type: ignore[misc]
            )
            faster = Sample(tuple(b / a for a, b in zip(many.values, single.values, strict=True)))
            bench.table.add(f"{what}, {of}: times as fast", faster, "x", target=WORKERS)
    finally:
        os.sched_setaffinity(0, before)
