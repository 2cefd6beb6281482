"""How processes that import MLflow are started: the settings they get, and the check that MLflow is there at all.

Settings are defaults: what the user has set stays, except for the embedded server, which is ours alone. The tracking
URI travels in the environment and never in the arguments, because it may hold a password and ``ps`` shows arguments.
"""

import importlib.util
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from reprod.core.address import LOOPBACK
from reprod.errors import ConfigError

#: For every process of ours that talks to MLflow.
CLIENT_DEFAULTS = {
    # Back-off is the daemon's: MLflow's own seven retries blocked one call to a dead server for 247 s (measured).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}

#: For the embedded server. Its job runner would start worker processes for GenAI scorers that nobody asked for.
SERVER_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONSAFEPATH": "1",
}

#: The credential's name: LoadCredential=mlflow.token:/etc/reprod/mlflow.token (systemd/drop-ins).
CREDENTIAL = "mlflow.token"


def set_client_defaults(environ: MutableMapping[str, str]) -> None:
    """Add what is missing of `CLIENT_DEFAULTS`."""
    for key, value in CLIENT_DEFAULTS.items():
        environ.setdefault(key, value)


def take_credential(environ: MutableMapping[str, str]) -> None:
    """Take the token that the service manager handed over, unless the environment has one.

    For the child's own memory: what a process was started with can be read in /proc.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if folder and not (environ.get("MLFLOW_TRACKING_TOKEN") or environ.get("MLFLOW_TRACKING_USERNAME")):
        with suppress(OSError):  # none was handed over; a server that wants one says so
            environ["MLFLOW_TRACKING_TOKEN"] = Path(folder, CREDENTIAL).read_text("utf-8").strip()


def client_environment(base: MutableMapping[str, str], tracking_uri: str) -> dict[str, str]:
    """Return the environment of the MLflow child: ``base``, the defaults, and the server to talk to.

    A loopback server is reached without the proxy that the environment may name, since no proxy can reach it.
    """
    environ = dict(base)
    set_client_defaults(environ)
    environ["MLFLOW_TRACKING_URI"] = tracking_uri
    host = urlsplit(tracking_uri).hostname or ""
    if host in LOOPBACK:
        unproxied = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        environ["no_proxy"] = environ["NO_PROXY"] = ",".join(filter(None, [unproxied, host]))
    return environ


def server_environment(base: MutableMapping[str, str]) -> dict[str, str]:
    """Return the environment of the embedded server, without the caller's ``MLFLOW_*``: they mean other servers."""
    environ = {key: value for key, value in base.items() if not key.startswith("MLFLOW_")}
    return environ | SERVER_SETTINGS


def require_mlflow() -> None:
    """Raise `ConfigError` where this interpreter has no MLflow. Costs a look on the import path, no import."""
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError(
            f"MLflow is not installed for {sys.executable}, so nothing can be delivered",
            hint='pip install "mlflow>=3.11,<4"',
        )
