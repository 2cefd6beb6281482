"""What ``reprod demo`` works on: a training script, real files of installed packages, and two ways to change them.

The originals are only read; what is changed are copies. Nothing here imports MLflow or scikit-learn.
"""

import os
import shutil
import sys
from importlib import util
from pathlib import Path

from reprod.cli import render
from reprod.errors import ConfigError

CHANGED_FILE = "breast_cancer.csv"
FLIPPED_FILE = "digits.csv.gz"

TRAINING = """\
import sys
import mlflow, numpy
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

with mlflow.start_run(run_name=sys.argv[2]) as run:
    mlflow.set_tag("reprod.dataset", "tables")  # all that reprod needs

    table = numpy.loadtxt(sys.argv[1], delimiter=",", skiprows=1)
    forest = RandomForestClassifier(n_estimators=50, random_state=0)
    scores = cross_val_score(forest, table[:, :-1], table[:, -1], cv=3)
    mlflow.log_param("n_estimators", 50)
    mlflow.log_metric("accuracy", scores.mean())
print(run.info.run_id, round(scores.mean(), 4))
"""


def require_packages() -> None:
    """Raise ConfigError unless MLflow (the full package, for its server) and scikit-learn are installed."""
    missing = []
    # The slim package has no server; asked of the folder, because find_spec("mlflow.server") would import mlflow.
    if not util.find_spec("mlflow") or not (_package("mlflow") / "server").is_dir():
        missing.append("mlflow")
    if not util.find_spec("sklearn"):
        missing.append("scikit-learn")
    if missing:
        raise ConfigError(
            f"the demo trains a real model and needs {' and '.join(missing)}, not installed for {sys.executable}",
            hint='pip install "reprod[mlflow]" scikit-learn',
        )


def copy_tables(target: Path) -> None:
    """Copy the tables that come with scikit-learn, as they were shipped."""
    _copy(_package("sklearn") / "datasets" / "data", target)


def copy_sources(target: Path) -> None:
    """Copy all files of two installed packages, without what Python compiled."""
    for name in ("mlflow", "sklearn"):
        _copy(_package(name), target / name)


def extent(folder: Path) -> str:
    """Return how many files are below ``folder`` and how large they are, for people."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{render.plural(len(sizes), 'file')}, {render.size(sum(sizes))}"


def change_value(path: Path) -> tuple[str, str]:
    """Add 1 to the first value below the header of a table; return the value as it was and as it is."""
    lines = path.read_text("utf-8").split("\n")
    old, comma, rest = lines[1].partition(",")
    new = f"{float(old) + 1:g}"
    lines[1] = new + comma + rest
    path.write_text("\n".join(lines), "utf-8")
    return old, new


def flip_bit(path: Path) -> tuple[int, int]:
    """Flip the lowest bit of the byte in the middle and put the mtime back; return its place and its old value."""
    before = path.stat()
    middle = before.st_size // 2
    with path.open("r+b") as stream:
        stream.seek(middle)
        (byte,) = stream.read(1)
        stream.seek(middle)
        stream.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return middle, byte


def _package(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{name} is not installed as a folder of files", hint='pip install "reprod[mlflow]"')
    return Path(next(iter(spec.submodule_search_locations)))


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
