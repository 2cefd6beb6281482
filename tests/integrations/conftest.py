"""A control socket, processes that announce themselves, and one MLflow database for the session."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_seam import ControlSeam


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlSeam]:
    seam = ControlSeam(tmp_path / "control.sock")
    yield seam
    seam.close()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A user's environment in which no other daemon of this machine can be found."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    places = {"REPROD_SOCKET": str(tmp_path / "control.sock"), "REPROD_STATE_DIR": str(tmp_path / "state")}
    return kept | places | {"HOME": str(home), "GIT_PYTHON_REFRESH": "quiet"}


@pytest.fixture
def script(tmp_path: Path, environ: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a user's script to its end as a process of its own, in a directory of its own."""

    def run(code: str, *options: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        directory = cwd or tmp_path / "work"
        directory.mkdir(exist_ok=True)
        (directory / "train.py").write_text(code)
        return subprocess.run(
            [sys.executable, *options, "train.py"],
            cwd=directory,
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of an MLflow database; made once, because its migrations take seconds."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("tracking")
    uri = f"sqlite:///{folder}/mlflow.db"
    code = "import mlflow, sys; mlflow.create_experiment('t', artifact_location=sys.argv[2])"
    subprocess.run(
        [sys.executable, "-c", code, "", str(folder / "artifacts")],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        check=True,
        capture_output=True,
        timeout=110,
    )
    return uri
