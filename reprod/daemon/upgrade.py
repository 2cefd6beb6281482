"""What the daemon does when its state was written by an older reprod: say what is going on, leave no file behind.

The registry is brought up to date before the daemon answers, a dataset's file when it is first opened, what nobody
opens (ended epochs, removed datasets) after that, one at a time, so that every command can read it. Copies that have
been kept long enough are deleted once a day. Times are seconds.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from reprod.daemon import systemd
from reprod.errors import ReprodError
from reprod.store import copies, migrate, registry
from reprod.store.connection import open_readonly

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

#: After the start the clock may still be set: one that is years ahead must not take the way back away.
FIRST_S = 600.0
EVERY_S = 86_400.0

#: A person reads this line; half a second is as often as one can.
TOLD_EVERY_S = 0.5

_under_way: dict[str, str] = {}  # by the name of the file


@contextmanager
def bringing_up_to_date(log: Any) -> Iterator[None]:
    """Let this process, which holds the state directory, bring its files up to date, and tell of it."""
    with migrate.permitted(_Teller(log).tell):
        yield


def under_way(file: str) -> str | None:
    """Return what is being done to a state file in this moment, for ``status``."""
    return _under_way.get(file)


class _Teller:
    """Logs where a migration begins, where its copy lies and how it ends; the service manager hears how far it is."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._lock = threading.Lock()  # two datasets may be opened at once
        self._began_s: dict[Path, float] = {}
        self._told_s = 0.0

    def tell(self, step: migrate.Step) -> None:
        with self._lock:
            self._tell(step)

    def _tell(self, step: migrate.Step) -> None:
        path, what = str(step.path), f"from format {step.found} to {step.wanted}"
        if step.path not in self._began_s:
            self._began_s[step.path] = time.monotonic()
            self._log.info("state.upgrading", path=path, change=what, bytes=copies.size_of(step.path))
        line = f"bringing {step.path.name} {what}: {_far(step)}"
        if step.stage == "copied":
            self._log.info("state.copied", path=path, copy=str(step.copy), format=step.found)
        if step.stage in {"done", "failed"}:
            took_s = round(time.monotonic() - self._began_s.pop(step.path), 1)
            _under_way.pop(step.path.name, None)
            if step.stage == "failed":
                self._log.error("state.upgrade_failed", path=path, change=what, seconds=took_s)
            else:
                self._log.info("state.upgraded", path=path, change=what, seconds=took_s, copy=str(step.copy))
            return
        _under_way[step.path.name] = line
        now_s = time.monotonic()
        if step.schema == "registry" and now_s - self._told_s > TOLD_EVERY_S:
            self._told_s = now_s  # of a dataset's file `status` tells: by then the daemon is up
            systemd.notify(STATUS=line)


def _far(step: migrate.Step) -> str:
    percent = f" {100 * step.done // step.total} %" if step.total else ""
    return {"copy": f"copying it first{percent}", "change": f"changing it{percent}", "commit": "writing it down"}.get(
        step.stage, "changing it"
    )


class Upgrade:
    """The part of it that runs beside everything else."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def run(self) -> None:
        """Work until cancelled."""
        await to_thread.run_sync(self._open_the_rest)
        await anyio.sleep(FIRST_S)
        while True:
            await to_thread.run_sync(self._forget)
            await anyio.sleep(EVERY_S)

    def _open_the_rest(self) -> None:
        daemon = self._daemon
        names = list(daemon.works)
        known = [daemon.records.read(lambda c, name=name: registry.dataset(c, name)) for name in names]  # type: ignore[misc]
        theirs = {each.file for each in known if each is not None}  # their own work opens these
        for path in sorted((daemon.config.state_dir / "datasets").glob("*.sqlite")):
            if path.name not in theirs:
                try:
                    with closing(open_readonly(path)):
                        pass
                except ReprodError as error:
                    daemon.log.warning("state.not_upgraded", path=str(path), error=error.message, hint=error.hint)

    def _forget(self) -> None:
        state = self._daemon.config.state_dir
        try:
            for folder in (state, state / "datasets"):
                for copy in copies.forget_old(folder, time.time_ns()):
                    self._daemon.log.info("state.copy_forgotten", copy=str(copy.path), format=copy.format)
        except OSError as error:
            self._daemon.log.warning("state.copy_kept", error=str(error))
