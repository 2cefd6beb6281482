"""The benchmarks run: every row that needs no tracking server gives its figures. Nothing is said of how fast."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).with_name("run.py")
CHEAP = [
    "cold-small",
    "cold-large",
    "md5",
    "no-change",
    "one-change",
    "history",
    "manifest",
    "workers",
    "blake3",
    "training",
]


def run(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run the benchmarks with tiny sizes; return the lines of the table."""
    said = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", "--dir", str(tmp_path), "--json", str(said), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(said.read_text())
    assert document["failed"] == []
    assert done.stdout.count("\n| ") == len(document["lines"]) + 2  # the head and the rule below it
    lines: list[dict[str, Any]] = document["lines"]
    return lines


def names(lines: list[dict[str, Any]]) -> set[str]:
    """Return the rows of which something was measured."""
    return {line["row"] for line in lines if line["reprod"]}


def test_every_cheap_row_gives_figures(tmp_path: Path) -> None:
    """Each row of the table is measured, each line says how to repeat it, and nothing is left behind."""
    lines = run(tmp_path, "--only", *CHEAP)

    wanted = set(CHEAP)
    if (os.cpu_count() or 1) < 8:
        wanted.discard("workers")
    if importlib.util.find_spec("blake3") is None or shutil.which("b3sum") is None:
        wanted.discard("blake3")
    assert names(lines) == wanted
    assert {line["row"] for line in lines} == set(CHEAP)
    assert all(f"--only {line['row']} --quick" in line["repeat"] for line in lines)
    assert all(line["reprod"] or line["note"].startswith("not measured: ") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_the_rows_with_a_daemon_give_figures(tmp_path: Path) -> None:
    """Memory, status and changes of a live daemon are measured; only the many tiny files stay for the next run."""
    lines = run(tmp_path, "--only", "daemon", "million", "stream")

    assert names(lines) == {"daemon", "million", "stream"}
    # What is beyond the seal spacing is less than nothing where all came within a second of the last seal.
    assert all(line["reprod"]["median"] >= 0 for line in lines if "beyond the seal spacing" not in line["what"])
    memory = [line for line in lines if "memory" in line["what"]]
    assert [20 < line["reprod"]["median"] < 1000 for line in memory] == [
        True
    ]  # MiB: at least a Python with its modules
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["figures.json", "reprod-bench-1500", "reprod-bench-1500.complete"]


@pytest.mark.parametrize("arguments", [["--only", "nonsense"], ["--files", "many"]])
def test_a_mistyped_option_measures_nothing(tmp_path: Path, arguments: list[str]) -> None:
    """A wrong argument is refused before any file is made."""
    done = subprocess.run(
        [sys.executable, str(RUN), "--dir", str(tmp_path), *arguments], capture_output=True, timeout=60
    )

    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []
