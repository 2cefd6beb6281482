"""Fixtures that several areas share, and what every process that a test starts inherits."""

import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from mlflow_server import running_server

# Without compiled files each of some thousand processes would compile the package anew (0.1 s of CPU for a daemon), and
# each worker of pytest all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What a shell starts in the background ignores Ctrl-C, and so would all that is started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A process that starts a run of MLflow's where no daemon is found leaves its environment in its user's state: never in
# the real one of who runs the tests. Not undone, because the end of this process is told there too.
os.environ.setdefault("REPROD_STATE_DIR", f"{tempfile.gettempdir()}/reprod-tests-{os.getuid()}")

# What is drawn is the same each time, so that a change is not held up by what is not its doing; ``make torture`` draws
# anew. How long one example takes says something about the machine.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize="REPROD_TORTURE" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")

#: What takes long goes first, so that no worker is left alone with it at the end; the rest in the order of the names.
FIRST = ("e2e", "systemd", "cli", "sinks", "ops")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist would put the files with the fewest tests last
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        area = item.path.parent.name
        return FIRST.index(area) if area in FIRST else len(FIRST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of one real MLflow server for the whole session; tests keep apart by experiments of their own."""
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("MLflow is not installed (extra mlflow)")
    with running_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url
