"""What tests of ``reprod run`` need: the command, and training environments in which reprod is not installed."""

import shutil
import subprocess
import sys
import time
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from waiting import eventually

from reprod.core.packages import normalise

#: The command as users type it, whatever is on the path.
REPROD_RUN = [sys.executable, "-m", "reprod", "run"]

#: MLflow's server and its pages: most of what a wheel of it holds, and no training needs it.
_LEFT_OUT = ("mlflow/server/js/",)


def make_venv(folder: Path, *, mlflow: bool = True) -> Path:
    """Return the Python of a new virtual environment without reprod, and without pip.

    With ``mlflow`` it has a package of that name in which there is nothing.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    if mlflow:
        put_package(folder, "mlflow", "0.0")
    return folder / "bin" / "python"


def site(venv: Path) -> Path:
    """Return the directory of the packages of a virtual environment."""
    return next(venv.glob("lib/python3*/site-packages"))


def put_package(venv: Path, name: str, version: str) -> None:
    """Put a package that holds nothing into a virtual environment, with an installer's record."""
    (site(venv) / name).mkdir()
    (site(venv) / name / "__init__.py").write_text("")
    record = site(venv) / f"{name}-{version}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def settle() -> None:
    """Wait until what was installed until now is older, beyond doubt, than a process that starts now."""
    until = time.monotonic() + 0.1  # five times the slack of ``reprod.capture.packages.changed``
    eventually(lambda: time.monotonic() > until, 10, "time passes")


def copy_mlflow(venv: Path) -> None:
    """Put the MLflow that the tests run with, and what it needs to talk to a server, into a virtual environment."""
    wanted, seen = ["mlflow", "mlflow-tracing", "mlflow-skinny"], set()
    while wanted:
        name = normalise(wanted.pop())
        if name in seen or name == "reprod":
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # needed on other systems only
            continue
        _copy(found, site(venv))
        if name != "mlflow":  # without its extras, as MLflow for clients
            needed = (Requirement(text) for text in found.requires or ())
            wanted += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]


def _copy(found: Distribution, into: Path) -> None:
    for file in found.files or ():
        name = str(file)
        if name.startswith(("..", *_LEFT_OUT)):
            continue
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(found.locate_file(file), target)  # with its time, by which compiled modules are known
