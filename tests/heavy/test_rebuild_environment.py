"""A real scientific environment, captured, and built again from its own requirements.txt.

Not in the suite: it fetches 150 packages (1 GB) from the package index that pip and uv are configured for, and takes
minutes. ``REPROD_HEAVY=1 pytest tests/heavy`` runs it. A small version with the same steps and no network is
tests/capture/test_rebuild_installed.py.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reprod.capture.packages.edited_files import deepen
from reprod.capture.packages.installed import read_packages
from reprod.capture.process.interpreter import read_layout
from reprod.core.rebuild import Rebuildable, judge, requirements_text

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("REPROD_HEAVY") != "1", reason="fetches 1 GB from a package index: REPROD_HEAVY=1"
    ),
    pytest.mark.timeout(3600),
]

#: What a training script of a scientist has: full MLflow with scikit-learn, statistics, plots, notebooks, deep models.
WANTED = ["mlflow", "scikit-learn", "seaborn", "statsmodels", "jupyterlab", "dask", "distributed", "transformers"]


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def uv(tmp_path_factory):
    """Return uv, from the path or fetched."""
    found = shutil.which("uv")
    if found is None:
        target = tmp_path_factory.mktemp("uv")
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", target, "uv")
        found = target / "bin" / "uv"
    return found


def read(prefix):
    layout = read_layout(str(prefix))
    return layout.python, read_packages(layout.site_dirs)


def test_a_scientific_environment_is_built_again_with_equal_digests(tmp_path, uv):
    """More than 100 packages, by uv and by pip, at other prefixes: the same set, every RECORD digest equal, no edit."""
    first = tmp_path / "first"
    run(uv, "venv", "--python", sys.executable, first)
    run(uv, "pip", "install", "--python", first / "bin/python", *WANTED)
    python, before = read(first)
    assert len(before.packages) > 100
    assert judge(before, python=python) == Rebuildable("yes")
    file = tmp_path / "requirements.txt"
    file.write_text(requirements_text(before, header=[f"Python: {python.version}"]))

    again = {name: tmp_path / name for name in ("synced", "resolved", "by-pip")}
    for prefix in again.values():
        run(uv, "venv", "--python", python.version, prefix)
    run(uv, "pip", "sync", "--python", again["synced"] / "bin/python", file)
    run(uv, "pip", "install", "--python", again["resolved"] / "bin/python", "-r", file)
    interpreter = again["by-pip"] / "bin/python"
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-cache-dir", "-r", file)

    expected = {each.name: (each.version, each.record_sha256) for each in before.packages}
    assert None not in {digest for _, digest in expected.values()}
    for name, prefix in again.items():
        _, after = read(prefix)
        assert {each.name: (each.version, each.record_sha256) for each in after.packages} == expected, name
        assert {each.installer for each in after.packages} == {"pip" if name == "by-pip" else "uv"}
        assert [each.name for each in deepen(after).packages if each.edited != ()] == []


def test_reading_it_is_fast(tmp_path, uv):
    """The set of a large environment is read in milliseconds: the numbers are printed, for a person to judge."""
    prefix = Path(tmp_path / "env")
    run(uv, "venv", "--python", sys.executable, prefix)
    run(uv, "pip", "install", "--python", prefix / "bin/python", *WANTED)
    sites = read_layout(str(prefix)).site_dirs
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        found = read_packages(sites)
        times.append((time.perf_counter() - begin) * 1000)
    print(f"{len(found.packages)} packages: first {times[0]:.1f} ms, then {sorted(times[1:])[4]:.1f} ms")
    assert not found.broken
