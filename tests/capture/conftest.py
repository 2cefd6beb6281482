"""Real virtual environments and real processes for the capture tests."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_process import MINOR
from site_records import let_age, write_dist


@pytest.fixture
def dist() -> Callable[..., Path]:
    return write_dist


@pytest.fixture(scope="session")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real virtual environment with two packages, made by the standard library."""
    prefix = tmp_path_factory.mktemp("venvs") / "train"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True, timeout=90)
    site = prefix / "lib" / f"python{MINOR}" / "site-packages"
    write_dist(site, "only-here", "1.5+cu121")
    write_dist(site, "numpy", "1.26.4")
    let_age(site)
    return prefix


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that prints one line when it is ready and then waits on its stdin; ended by the fixture."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: object, **options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(30)
        process.stdin.close()
        process.stdout.close()
