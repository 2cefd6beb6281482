"""What ``reprod demo`` works on: a training script, real files of installed packages, and ways to change them.

The originals are only read; what is changed are copies. Nothing here imports MLflow or scikit-learn. Times are seconds.
"""

import os
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

from reprod.cli import render
from reprod.errors import ConfigError

CHANGED_FILE = "breast_cancer.csv"
FLIPPED_FILE = "digits.csv.gz"
REMOVED_FILE = "wine_data.csv"
ADDED_FILE = "patients.csv"

TRAINING = """\
import sys
import mlflow, numpy
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

with mlflow.start_run(run_name=sys.argv[2]) as run:
    mlflow.set_tag("reprod.dataset", "tables")  # all that reprod needs
    print(run.info.run_id, flush=True)
    table = numpy.loadtxt(sys.argv[1], delimiter=",", skiprows=1)
    sys.stdin.read()  # for hours; here, until the demo ends it
    forest = RandomForestClassifier(n_estimators=50, random_state=0)
    scores = cross_val_score(forest, table[:, :-1], table[:, -1], cv=3)
    mlflow.log_param("n_estimators", 50)
    mlflow.log_metric("accuracy", scores.mean())
print(round(scores.mean(), 4))
"""
TAGGED = "train.py"
#: The same without the line that names the dataset.
PLAIN = "plain.py"

#: One commit, whatever the user's own git is set to; an author is needed, and is nobody.
_GIT = ("git", "-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")
GIT_S = 30.0


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
            hint='pip install "mlflow>=3.11,<4" scikit-learn',
        )


def copy_tables(target: Path) -> None:
    """Copy the tables that come with scikit-learn, as they were shipped."""
    _copy(_package("sklearn") / "datasets" / "data", target)


def copy_sources(target: Path) -> None:
    """Copy all files of two installed packages, without what Python compiled."""
    for name in ("mlflow", "sklearn"):
        _copy(_package(name), target / name)


def write_scripts(folder: Path) -> None:
    """Write the training script, once with and once without the line that names the dataset."""
    kept = [line for line in TRAINING.splitlines(keepends=True) if "reprod.dataset" not in line]
    (folder / TAGGED).write_text(TRAINING, "utf-8")
    (folder / PLAIN).write_text("".join(kept), "utf-8")


def commit_scripts(folder: Path) -> bool:
    """Make ``folder`` a git repository of the scripts alone; return False where git is missing or refuses."""
    if shutil.which("git") is None:
        return False
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment = {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def done(*arguments: str) -> bool:
        ran = subprocess.run(
            [*_GIT, *arguments], cwd=folder, env=environment, capture_output=True, timeout=GIT_S, check=False
        )
        return ran.returncode == 0

    if not done("init", "--quiet", "--initial-branch=main"):
        return False
    (folder / ".git" / "info" / "exclude").write_text("*\n", "ascii")  # nothing but what is added by name
    return done("add", "--force", TAGGED, PLAIN) and done("commit", "--quiet", "--message", "Train a forest")


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
    put(path, "\n".join(lines).encode())
    return old, new


def add_table(path: Path, like: Path) -> None:
    """Write a new table: the head and the first row of another one."""
    put(path, ("\n".join(like.read_text("utf-8").split("\n")[:2]) + "\n").encode())


def put(path: Path, content: bytes) -> None:
    """Put a file into a folder at once: half of it would be a version of its own, if this process were slow."""
    whole = path.parent.with_name(f"{path.name}.new")
    whole.write_bytes(content)
    whole.replace(path)


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
        raise ConfigError(f"{name} is not installed as a folder of files", hint='pip install "mlflow>=3.11,<4"')
    return Path(next(iter(spec.submodule_search_locations)))


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
