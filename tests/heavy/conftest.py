"""One daemon with a dataset of its own, on the session's server, for the heavy tests."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from heavy_place import Here

from harness import Tracker, let_slack_pass, make_data, running_daemon  # isort: skip - found through heavy_place


@pytest.fixture
def here(mlflow_server: str, tmp_path: Path) -> Iterator[Here]:
    """Yield a daemon that is current on a small dataset, whose name no other test has."""
    from reprod.sinks.environment import set_client_defaults

    set_client_defaults(os.environ)
    from mlflow import MlflowClient

    client, name = MlflowClient(mlflow_server), f"d{uuid.uuid4().hex[:10]}"
    tracker = Tracker(client, mlflow_server, str(client.create_experiment(f"heavy-{name}")))
    data = make_data(tmp_path / "data")
    with running_daemon(tmp_path / "d", mlflow_server, {name: data}) as daemon:
        daemon.sealed(name, 1)
        let_slack_pass()
        yield Here(daemon, tracker, name, data, tmp_path)
