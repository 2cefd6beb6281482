"""Bring the running daemon in line with its configuration files, without a restart.

Asked for by a command, or by SIGHUP, which waits until the start is over: that adds the same datasets.
A wrong reprod.toml changes nothing and is refused as a whole; a wrong datasets.d file disables that dataset alone. What
only a restart can change is named and stays as it was.
"""

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from reprod.config import Config, load, nested_in
from reprod.daemon import systemd
from reprod.daemon.headline import headline
from reprod.errors import ConfigError
from reprod.fs.pace import Limits

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon


class Reloads:
    """One after the other: each adds and removes datasets."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._one = anyio.Lock()
        self._asked = anyio.Event()
        self._is_started = False

    async def run(self) -> None:
        """Reload when somebody has asked, from the end of the start on and until cancelled; several at once are one."""
        self._is_started = True
        while True:
            await self._asked.wait()
            self._asked = anyio.Event()
            with suppress(ConfigError):  # it is in the log, and the old configuration stays
                await self.now()

    def ask(self) -> None:
        """Have it done soon. On the loop."""
        self._asked.set()

    async def now(self) -> dict[str, Any]:
        """Read the configuration again; see ``reload``. The service manager hears of it, once it was told READY."""
        async with self._one:
            if not self._is_started:
                return await reload(self._daemon)
            systemd.notify(RELOADING=1, STATUS="reading the configuration")
            try:
                return await reload(self._daemon)
            finally:
                systemd.notify(READY=1, STATUS=headline(self._daemon))


async def reload(daemon: "Daemon") -> dict[str, Any]:
    """Read the files again and add, remove and change datasets. Returns what was done.

    :raises ConfigError: reprod.toml is wrong; everything goes on as before.
    """
    try:
        fresh = await to_thread.run_sync(load, daemon.config_file)
    except ConfigError as error:
        daemon.log.error("config.refused", error=error.message, hint=error.hint)
        raise
    old = daemon.config
    fixed = {
        "mlflow.tracking_uri": fresh.mlflow.tracking_uri == old.mlflow.tracking_uri,
        "state directory": fresh.state_dir == old.state_dir,
        "socket": fresh.socket == old.socket,
    }
    daemon.config = replace(
        fresh,
        state_dir=old.state_dir,
        socket=old.socket,
        mlflow=replace(fresh.mlflow, tracking_uri=old.mlflow.tracking_uri),
    )
    try:
        answer = await _align(daemon, old, daemon.config)
    finally:  # also where the registry is damaged: the trigger meets that too, and ends the daemon
        daemon.trigger.ring()
        daemon.listener.reconsider()
    return {**answer, "restart_needed": [key for key, same in fixed.items() if not same]}


async def _align(daemon: "Daemon", old: Config, new: Config) -> dict[str, Any]:
    was, now = {d.name: d for d in old.datasets}, {d.name: d for d in new.datasets}
    changed = {name for name in was.keys() & now.keys() if was[name] != now[name]}
    if (old.watch, old.scan) != (new.watch, new.scan):
        daemon.limits = Limits(new.scan.read_mb_per_second, new.scan.stats_per_second)
        changed = was.keys() & now.keys()
    for name in sorted((was.keys() - now.keys()) | changed):
        await daemon.at_work.remove(name)
    await daemon.at_work.settle_names()
    for name in sorted((now.keys() - was.keys()) | changed):
        await daemon.at_work.add(now[name])
    daemon.say_disabled()
    answer: dict[str, Any] = {
        "added": sorted(now.keys() - was.keys()),
        "removed": sorted(was.keys() - now.keys()),
        "changed": sorted(changed),
    }
    daemon.log.info("config.reloaded", **answer)
    answer["misconfigured"] = [
        {"name": m.name, "file": str(m.file), "message": m.message, "hint": m.hint} for m in new.misconfigured
    ]
    answer["nested"] = [list(pair) for pair in nested_in(new)]
    return answer
