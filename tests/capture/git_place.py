"""Real repositories for the tests of what is captured of one, and the way back from a capture to the code."""

import os
import shutil
import subprocess
from pathlib import Path

from reprod.capture.git.command import Budget
from reprod.capture.git.repository import read_git
from reprod.core.repository import BUNDLE_NAME, PATCH_NAME, Git

#: A machine under load must not decide what a test sees.
PATIENT = Budget(seconds=60.0)

#: As a user without settings, so that those of this machine do not matter; ``file`` transport for submodules.
CLEAN = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOW_PROTOCOL": "file"}
CLEAN |= {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(path: Path | str, *arguments: str, stdin: bytes | None = None, **variables: str) -> str:
    """Run git and return what it prints; a failure says why."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | CLEAN | variables
    result = subprocess.run(["git", *arguments], cwd=path, env=environ, input=stdin, capture_output=True, timeout=60)
    assert result.returncode == 0, (arguments, result.stderr.decode())
    return os.fsdecode(result.stdout).strip()


def make_repo(path: Path, files: dict[str, bytes] | None = None) -> Path:
    """Make a repository with one commit of ``files``."""
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "-q", "-b", "main")
    write(path, {"a.txt": b"1\n"} if files is None else files)
    commit(path)
    return path


def write(path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def commit(path: Path, message: str = "x") -> str:
    git(path, "add", "-A")
    git(path, "commit", "-q", "--allow-empty", "-m", message)
    return git(path, "rev-parse", "HEAD")


def capture(path: Path, **options: object) -> tuple[Git, dict[str, bytes]]:
    """Capture with time enough."""
    return read_git(str(path), **{"budget": PATIENT, **options})


def true_tree(path: Path, scratch: Path, **settings: str) -> str:
    """Return the tree of everything that lies in the working tree, found out by git in a copy of the repository."""
    if scratch.exists():
        shutil.rmtree(scratch)
    shutil.copytree(path, scratch, symlinks=True)
    options = [part for name, value in settings.items() for part in ("-c", f"{name.replace('_', '.')}={value}")]
    lines = [line.partition(" ") for line in git(scratch, "ls-files", "-v", "-z").split("\0") if line]
    there = [name for flag, _, name in lines if flag in "hS" and os.path.lexists(scratch / name)]
    paths = os.fsencode("".join(f"{name}\0" for name in there))
    for option in ("--no-assume-unchanged", "--no-skip-worktree"):
        git(scratch, "update-index", option, "-z", "--stdin", stdin=paths)
    git(scratch, *options, "-c", "core.safecrlf=false", "add", "-A", "--sparse", ".")
    return git(scratch, "write-tree")


def restore(state: Git, files: dict[str, bytes], into: Path, *, remote: Path | None = None, number: str = "") -> str:
    """Rebuild the code in ``into`` from the record alone (and the remote); return its tree as git sees it."""
    into.mkdir(parents=True)
    git(into, "init", "-q", *(["--object-format=sha256"] if len(state.commit) == 64 else []))
    if remote is not None:
        git(into, "fetch", "-q", str(remote), "+refs/*:refs/kept/*")
    bundle = files.get(BUNDLE_NAME.replace(".bundle", f"{number}.bundle"))
    if bundle is not None:
        (into / ".git/kept.bundle").write_bytes(bundle)
        git(into, "fetch", "-q", ".git/kept.bundle", "HEAD")
    git(into, "checkout", "-q", "--detach", state.base or state.commit)
    patch = files.get(PATCH_NAME.replace(".txt", f"{number}.txt"))
    if patch is not None:
        git(into, "apply", "--index", "--whitespace=nowarn", "-", stdin=patch)
    assert git(into, "status", "--porcelain", "--ignore-submodules=all", "-uall").count("\n??") == 0
    return git(into, "write-tree")
