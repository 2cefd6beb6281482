"""Where a command should look: at the configuration and state of the daemon that answers, else at this account's own.

Rule: a user's ``reprod log`` on a machine with the system's daemon must show that daemon's history, and ``dataset
add`` must write where that daemon reads. An explicit --config goes first.
"""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reprod.client import Client, connect
from reprod.config import Config, load
from reprod.config.places import known_state_dir
from reprod.errors import DaemonUnavailableError, StateError

# A stale socket refuses too, and these commands work without a daemon: wait less for one than `status` does.
RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """``client`` is open where ``live``; the caller closes it (``close``)."""

    client: Client | None
    hello: dict[str, Any]
    config_path: str | None

    @property
    def live(self) -> bool:
        """Whether a daemon answered."""
        return self.client is not None

    @property
    def reads_here(self) -> bool:
        """Whether the live daemon reads the configuration that this command changes."""
        if not self.live or self.config_path is None:
            return self.live
        return os.path.realpath(self.config_path) == os.path.realpath(str(self.hello.get("config")))

    @property
    def state(self) -> Path:
        """Return the state directory."""
        return Path(self.hello["state"]) if self.hello.get("state") else known_state_dir()

    def config(self) -> Config:
        """Read the configuration that the daemon reads. Raises ConfigError."""
        told = str(self.hello.get("config") or "")
        path = self.config_path or (told if os.path.exists(told) else None)
        config = load(path, tracking=False)
        if self.hello.get("folder") and self.config_path is None:
            from reprod.config.parse import read_folder

            folder = Path(self.hello["folder"])
            datasets, misconfigured = read_folder(folder, self.state)
            config = replace(config, folder=folder, datasets=datasets, misconfigured=misconfigured)
        return replace(config, state_dir=self.state) if self.live else config

    def close(self) -> None:
        """End the connection."""
        if self.client is not None:
            self.client.close()


def locate(args: argparse.Namespace) -> Place:
    """Ask the daemon where it reads and keeps its state; without one for this user, the places are this account's."""
    try:
        client = connect(retry_s=RETRY_S)
        return Place(client, client.call("hello"), args.config)
    except (DaemonUnavailableError, StateError):  # none, or the system's, which does not talk to this user
        return Place(None, {}, args.config)
