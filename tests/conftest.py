"""Fixtures that several areas share."""

import importlib.util
from collections.abc import Iterator

import pytest
from mlflow_server import running_server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of one real MLflow server for the whole session; tests keep apart by experiments of their own."""
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("MLflow is not installed (extra mlflow)")
    with running_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url
