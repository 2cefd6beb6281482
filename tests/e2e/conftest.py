"""What the end-to-end tests share: the user's client, an experiment of each test's own, a dataset's name and files."""

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import Tracker, make_data


@pytest.fixture(scope="session")
def user_client(mlflow_server: str) -> Any:
    """Return MLflow's own client, as a user's script has it, straight to the server."""
    from reprod.sinks.environment import set_client_defaults

    set_client_defaults(os.environ)
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server)


@pytest.fixture
def tracker(user_client: Any, mlflow_server: str) -> Iterator[Tracker]:
    """Yield the tracking server with a fresh experiment, which goes with the test: a daemon that several tests share
    would ask for each run that they left open at every poll (half of the server's work, measured)."""
    experiment = str(user_client.create_experiment(f"e2e-{uuid.uuid4().hex}"))
    yield Tracker(user_client, mlflow_server, experiment)
    with suppress(Exception):  # the test may have deleted it itself
        user_client.delete_experiment(experiment)


@pytest.fixture
def name() -> str:
    """Return a dataset name that no other test uses, since all share one server."""
    return f"d{uuid.uuid4().hex[:10]}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the root of a small real dataset."""
    return make_data(tmp_path / "data")
