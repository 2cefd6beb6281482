"""What machine the figures are of: said above the table and written into the JSON."""

import os
import platform
import shutil
import sqlite3
import ssl
import subprocess
from pathlib import Path
from typing import Any

import peers

import reprod
from reprod.fs.root import open_root

#: Processor features that decide how fast digests are.
FEATURES = ("sha_ni", "avx2", "avx512f", "sha2", "sha512", "asimd")


def describe(folder: Path) -> dict[str, Any]:
    """Return the machine, its software and the yardsticks' versions; ``folder`` is where the files will lie."""
    with open_root(str(folder)) as root:
        fs_type = root.identity.fs_type
    model, features = _processor()
    return {
        "processor": model,
        "features": features,
        "cores_used": len(os.sched_getaffinity(0)),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "file_system": fs_type,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION,
        "reprod": reprod.__version__,
        "commit": _first_line(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]),
        "yardsticks": {name: line for name, line in yardsticks().items() if line},
        "load_at_start": os.getloadavg()[0],
    }


def sentence(machine: dict[str, Any]) -> str:
    """Return the description as one sentence for docs/performance.md."""
    used, cores = machine["cores_used"], machine["cores"]
    processors = f"{used} of {cores} processors" if used != cores else f"{cores} processors"
    return (
        f"Machine: {machine['processor']} ({' '.join(machine['features']) or 'no known features'}), {processors}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}, {machine['file_system']}, "
        f"Python {machine['python']}, SQLite {machine['sqlite']}, {machine['openssl']}; reprod {machine['reprod']} "
        f"({machine['commit'] or 'no commit'}); load at start {machine['load_at_start']:.2f}."
    )


def yardsticks() -> dict[str, str]:
    """Return the version that each tool says of itself, "" where it is not installed."""
    dvc, python = peers.program("dvc"), peers.program("python")
    return {
        "sha256sum": _first_line(["sha256sum", "--version"]),
        "find": _first_line(["find", "--version"]),
        "b3sum": _first_line(["b3sum", "--version"]),
        "hashdeep": _first_line(["hashdeep", "-V"]),
        "git": _first_line(["git", "--version"]),
        "dvc": _first_line([str(dvc), "--version"]) if dvc else "",
        "model_signing": _first_line([str(python), "-c", _VERSION]) if python else "",
    }


_VERSION = "from importlib.metadata import version; print(version('model-signing'))"


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""


def _processor() -> tuple[str, list[str]]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    fields = dict(line.partition(":")[::2] for line in reversed(text.splitlines()) if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    known = set((named.get("flags") or named.get("Features") or "").split())
    return named.get("model name") or platform.machine(), [f for f in FEATURES if f in known]
