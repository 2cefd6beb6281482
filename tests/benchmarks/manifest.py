"""``reprod manifest`` as a whole process, beside those of other tools."""

import sys

import peers
from bench import Bench
from material import small_files
from measure import in_turn, one, process, shell

KIB_16 = 16 << 10


def manifest(bench: Bench) -> None:
    """Write a data_manifest.json of some thousand files of 16 KiB."""
    root = small_files(bench.folder / "manifest", bench.manifest_files, KIB_16)
    what = f"`reprod manifest`, {bench.manifest_files:,} files of 16 KiB, the whole process"
    command = [sys.executable, "-m", "reprod", "manifest", str(root), "--output", str(bench.folder / "manifest.json")]
    calls = {
        "": lambda: process(command),
        "xargs -P2 sha256sum": lambda: shell("find . -type f -print0 | xargs -0 -P2 -n 2500 sha256sum", root),
    }
    if peers.installed("hashdeep"):
        calls["hashdeep"] = lambda: shell("hashdeep -r -c sha256 -j2 .", root)
    signing = peers.model_signing_command(root)
    if bench.peers and signing is not None:
        calls["model_signing.hashing"] = lambda: process(signing)
    ours, *theirs = in_turn(bench.rounds, *calls.values())
    for by, yard in zip(list(calls)[1:], theirs, strict=True):
        more = "--peers" if by.startswith("model") else ""
        bench.table.add(what, ours, yard=yard, by=by, more=more)
        what = "the same"
    dvc = peers.Dvc.with_files(bench.folder / "dvc-manifest", bench.manifest_files, KIB_16) if bench.peers else None
    if dvc is not None:
        yard = one(dvc.add(commit=False))
        bench.table.add(what, ours, yard=yard, by="dvc add --no-commit (md5), once", more="--peers")
