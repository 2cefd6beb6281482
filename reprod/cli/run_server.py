"""Where a command asks about runs: the configured tracking server, else MLFLOW_TRACKING_URI's. Needs no daemon."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from reprod.cli.place import Place, locate
from reprod.config import Config, load

if TYPE_CHECKING:
    from reprod.sinks.child import MlflowChild


@contextmanager
def asked(args: argparse.Namespace) -> Iterator[tuple["MlflowChild", Config]]:
    """Yield what asks the tracking server, and the configuration. Raises ConfigError without a server."""
    place = locate(args)
    place.close()
    with open_child(with_server(place)) as found:
        yield found


@contextmanager
def open_child(config: Config) -> Iterator[tuple["MlflowChild", Config]]:
    """Yield the same for a configuration that is read already. A server that is away is named in the error."""
    from reprod.core.redact import redact_text
    from reprod.ops.fetch_run import open_server, server_uri
    from reprod.sinks.protocol import SinkError

    child = open_server(config)
    try:
        yield child, config
    except SinkError as error:
        if error.kind != "unreachable":
            raise
        uri = server_uri(config)
        local = config.mlflow.tracking_uri == "local"
        hint = "reprod daemon runs that server; reprod status says whether it does" if local else error.hint
        raise SinkError(
            error.kind, f"tracking server {redact_text(uri)}: {error.message}", hint=hint, detail=error.detail
        ) from error
    finally:
        child.close()


def with_server(place: Place) -> Config:
    """Return the configuration with the tracking server that a client of this account has."""
    config = place.config()
    return config if config.mlflow.tracking_uri else replace(config, mlflow=load(place.config_path).mlflow)
