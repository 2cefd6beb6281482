"""What the sink's tests share: a client, an experiment for each test, servers that misbehave, looks at processes."""

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from waiting import eventually

from reprod.sinks.child import MlflowChild
from reprod.sinks.environment import set_client_defaults


@pytest.fixture(scope="session")
def client(mlflow_server: str) -> Any:
    """Return MLflow's own client, as a user's script has it."""
    set_client_defaults(os.environ)
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server)


@pytest.fixture
def experiment(client: Any) -> str:
    """Return the id of a fresh experiment."""
    return str(client.create_experiment(f"test-{uuid.uuid4().hex}"))


@pytest.fixture(scope="session")
def child(mlflow_server: str) -> Iterator[MlflowChild]:
    """Yield one child for the tests that do not hurt it."""
    shared = MlflowChild(mlflow_server)
    yield shared
    shared.close()


@pytest.fixture
def hung_url() -> Iterator[str]:
    """Yield the address of a server that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refused_url() -> str:
    """Return an address where nothing listens, nor begins to."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def until() -> Callable[..., None]:
    """Return a function that waits for a condition, and fails if it does not come true."""

    def wait(condition: Callable[[], Any]) -> None:
        eventually(condition, 60, "the condition is true")

    return wait


@pytest.fixture
def runs_still() -> Callable[[int], bool]:
    """Return a function that says whether a process id is of a live process (a zombie is not)."""

    def look(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    return look


@pytest.fixture
def group_members(runs_still: Callable[[int], bool]) -> Callable[[int], list[int]]:
    """Return a function that lists the live processes of a process group."""

    def members(group: int) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and runs_still(int(entry.name)):
                try:
                    if os.getpgid(int(entry.name)) == group:
                        found.append(int(entry.name))
                except ProcessLookupError:
                    continue
        return found

    return members
