"""The other tools: where they are, and how each does what reprod is measured at.

``make bench-peers`` puts DVC and model_signing into ``.bench-peers`` beside the Makefile, a virtual environment of
their own, because they bring 100 packages along. DVC is far slower than the rest: it is measured once, on fewer files,
and only with ``--peers``. Everything it writes stays in the benchmark's folder.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

from material import a_file, small_files
from measure import process

PLACE = Path(__file__).parents[2] / ".bench-peers"

#: The shared part of signing and verifying, and most of the work of both; prints its seconds.
_SERIALIZE = """
import sys, time
from model_signing import hashing
began = time.perf_counter()
hashing.hash(sys.argv[1])
print(time.perf_counter() - began)
"""


def program(name: str) -> Path | None:
    """Return a program of the peers' environment, None if it is not installed."""
    path = PLACE / "bin" / name
    return path if path.exists() else None


def installed(name: str) -> bool:
    """Whether a tool of the system is there."""
    return shutil.which(name) is not None


def model_signing_command(root: Path) -> list[str] | None:
    """Return a process that hashes a tree with model_signing, None if it is not installed."""
    python = program("python")
    return [str(python), "-c", _SERIALIZE, str(root)] if python and program("model_signing") else None


def model_signing(root: Path) -> float:
    """Return the seconds that model_signing's library takes for a tree, without the start of its process."""
    command = model_signing_command(root)
    if command is None:
        raise RuntimeError("model_signing is not installed: make bench-peers")
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Dvc:
    """A DVC repository with a tree in it; the cache holds hard links, so that nothing is copied."""

    def __init__(self, dvc: Path, folder: Path) -> None:
        self.repository = folder / "repository"
        self.data = self.repository / "data"
        self._own = folder / "own"  # what DVC would write into the user's and the system's folders
        self._dvc = str(dvc)
        self._environment = {
            **os.environ,
            "DVC_NO_ANALYTICS": "1",
            **{f"DVC_{kind}_DIR": str(self._own / kind) for kind in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")},
        }

    @classmethod
    def with_files(cls, folder: Path, count: int, size: int = 4096) -> "Dvc | None":
        """Return the repository in ``folder``, made with a tree of new files if need be; None without DVC or git."""
        dvc = program("dvc")
        if dvc is None or not installed("git"):
            return None
        self = cls(dvc, folder)
        if not self.repository.exists():
            self.repository.mkdir(parents=True)
            subprocess.run(["git", "init", "-q", "."], cwd=self.repository, check=True)
            self._run("init", "-q")
            self._run("config", "cache.type", "hardlink")
            self._run("config", "core.check_update", "false")
        small_files(self.data, count, size)
        return self

    def forget(self) -> None:
        """Forget all that is known of the tree."""
        (self.repository / "data.dvc").unlink(missing_ok=True)
        for path in (self.repository / ".dvc" / "cache", self._own):
            shutil.rmtree(path, ignore_errors=True)

    def add(self, *, commit: bool = True) -> float:
        """Return the seconds of ``dvc add``; without ``commit`` nothing goes into the cache: it only hashes."""
        return self._run("add", "-q", *([] if commit else ["--no-commit"]), "data")

    def status(self) -> float:
        """Return the seconds of ``dvc data status``."""
        return self._run("data", "status")

    def change_one(self) -> None:
        """Replace one file; it may be a read-only link into the cache."""
        target = a_file(self.data)
        target.unlink()
        target.write_bytes(os.urandom(4096))
        time.sleep(0.03)

    def _run(self, *arguments: str) -> float:
        return process([self._dvc, *arguments], self._environment, self.repository)
