"""The daemon: one task group that holds everything, started in order and ended within two seconds.

Start: lock, registry, tracking, control socket, datasets (each arms its watch before its first walk), loops, READY.
A dataset that crashes is started again by itself (`daemon.at_work`); an exception anywhere else ends the process, and
systemd starts it again (law 7). Nothing here is clever: every piece is a class with a ``run``.
"""

import asyncio
import faulthandler
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from reprod import log as logs
from reprod.capture.process.identity import boot_id
from reprod.config import Config, load
from reprod.core.run import Payload
from reprod.daemon import systemd
from reprod.daemon.advertise import Advertiser
from reprod.daemon.answering import Answering
from reprod.daemon.at_work import AtWork
from reprod.daemon.clock_watch import ClockWatch
from reprod.daemon.control import Control
from reprod.daemon.counters import Counters
from reprod.daemon.courier import Courier
from reprod.daemon.dump import Dumps
from reprod.daemon.following import Following
from reprod.daemon.headline import headline
from reprod.daemon.listen import TcpDoor
from reprod.daemon.lock import locked
from reprod.daemon.nodes import Nodes
from reprod.daemon.notes import Notes
from reprod.daemon.pruner import Pruner
from reprod.daemon.pulse import Pulse
from reprod.daemon.reload import Reloads
from reprod.daemon.sampler import Sampler
from reprod.daemon.signals import DUMP, RELOAD, STOP, Signals
from reprod.daemon.tracking import Tracking
from reprod.daemon.trigger import Trigger
from reprod.daemon.unexpected import bug
from reprod.daemon.unhandled import say_unhandled
from reprod.daemon.upgrade import Upgrade, bringing_up_to_date
from reprod.errors import NotFoundError, ReprodError, StateError, TrackingError
from reprod.fs.pace import Limits
from reprod.ops import hosts
from reprod.ops.handovers import take_in
from reprod.sinks.protocol import SinkError
from reprod.store import files, outbox, registry

STUCK_WAIT_S = 5.0  # while the state directory cannot be written


def run(config_file: str | None = None, signals: Signals | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns 0. ``signals``: those of this process, if they are armed already.

    :raises ConfigError: reprod.toml is wrong. :raises AlreadyRunningError: another daemon holds the state directory.
    :raises ReprodError: what ended it outside one dataset's work: no socket, a damaged registry, a bug.
    """
    if signals is None:
        signals = Signals()
        signals.arm()
    try:
        return _run(config_file, signals)
    finally:
        signals.ignore()


def _run(config_file: str | None, signals: Signals) -> int:
    logs.configure()
    with suppress(RuntimeError, ValueError, OSError):  # no standard error, or a closed one
        faulthandler.enable()  # what the watchdog ends leaves its stacks in the journal
    dumps = Dumps(logs.get_logger())
    dumps.arm()
    signals.answer(DUMP, dumps.ask)
    config = load(config_file)
    with (
        locked(config.state_dir),
        bringing_up_to_date(logs.get_logger()),
        systemd.Startup("opening the registry") as startup,
    ):
        opened = files.open_registry(config.state_dir)
        try:
            daemon = Daemon(config, config_file, opened, startup, signals)
            signals.hold()
            try:
                anyio.run(dumps.around, daemon.main)
            except ExceptionGroup as group:
                first = _first(group)
                raise (first if isinstance(first, ReprodError) else daemon.bug(first)) from group
        finally:
            opened.db.close()
    return 0


def _first(error: Exception) -> Exception:
    """Return the first exception in a group, which ended the others."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


class Daemon:
    """What the pieces share. Attributes are theirs to read; each piece changes only its own."""

    def __init__(
        self,
        config: Config,
        config_file: str | None,
        opened: files.Opened,
        startup: systemd.Startup,
        signals: Signals,
    ) -> None:
        self.config = config
        self.config_file = config_file
        self.log: Any = logs.get_logger()
        self.records = opened.db
        self.registry_set_aside = opened.set_aside
        self._startup = startup
        self._signals = signals
        self.pid = os.getpid()
        self.started_ns = time.time_ns()
        self.limits = Limits(config.scan.read_mb_per_second, config.scan.stats_per_second)
        self.at_work = AtWork(self)
        self.works = self.at_work.works
        self._stuck: StateError | None = None
        self._stuck_until_s = 0.0
        host = hosts.identify(config.state_dir, opened.db)
        opened.db.write(lambda c: registry.see_boot(c, boot_id(), self.started_ns))
        self.boots = opened.db.read(registry.boots)
        self.scratch = config.state_dir / "scratch"
        self.counters = Counters()
        self.tracking = Tracking(config, self.log)
        self.trigger = Trigger(self)
        self.advertiser = Advertiser(self, host)
        self.answering = Answering(self)
        self.nodes = Nodes(self)
        self.notes = Notes(self)
        self.courier = Courier(self)
        self.sampler = Sampler(self)
        self.pruner = Pruner(self)
        self.pulse = Pulse()
        self.listener = TcpDoor(self)
        self.following = Following(self)
        self.reloads = Reloads(self)
        self._group: TaskGroup | None = None

    async def main(self) -> None:
        """Run until told to stop."""
        _empty(self.scratch)
        if self.registry_set_aside is not None:
            self.log.error("registry.rebuilt", set_aside=str(self.registry_set_aside))
        async with anyio.create_task_group() as group:
            self._group = group
            asyncio.get_running_loop().set_exception_handler(say_unhandled)
            self._obey(STOP, self._stop)
            with suppress(StateError):  # then they wait for the first run that asks for one
                await to_thread.run_sync(take_in, self.records)
            await self.at_work.begin(group)
            # From now on somebody may ask; the tracking server, if it is ours, takes seconds to start.
            await group.start(Control(self).run, name="control")
            await group.start(self.tracking.run, name="tracking")
            self.say_disabled()
            group.start_soon(self.trigger.run, name="trigger")
            group.start_soon(self.advertiser.run, name="advertiser")
            group.start_soon(self.nodes.run, name="nodes")
            group.start_soon(self.courier.run, name="courier")
            group.start_soon(self.notes.run, name="notes")
            group.start_soon(self.sampler.run, name="sampler")
            group.start_soon(self.pruner.run, name="pruner")
            group.start_soon(Upgrade(self).run, name="upgrade")
            group.start_soon(self.listener.run, name="listener")
            group.start_soon(self.pulse.run, name="pulse")
            group.start_soon(self.following.run, name="following")
            group.start_soon(ClockWatch(self).run, name="clock")
            group.start_soon(systemd.keep_alive, name="watchdog")
            group.start_soon(systemd.keep_told, partial(headline, self), name="headline")
            self.log.info(
                "daemon.started",
                pid=self.pid,
                socket=str(self.config.socket),
                datasets=len(self.works),
                tracking=self.tracking.key or None,
            )
            self._startup.end(headline(self))
            group.start_soon(self.reloads.run, name="reload")
            self._obey(RELOAD, self.reloads.ask)
        self.log.info("daemon.stopped", uptime_s=round((time.time_ns() - self.started_ns) / 1e9, 1))

    def say_disabled(self) -> None:
        """Log the datasets whose files are wrong."""
        for bad in self.config.misconfigured:
            self.log.error("config.dataset_disabled", dataset=bad.name, error=bad.message, hint=bad.hint)

    # --- runs --------------------------------------------------------------------------------------------------------

    def postpone(self, row: outbox.Delivery, error: ReprodError) -> None:
        """Put a row back with back-off, and say why if that is news. Blocking; call from a thread."""
        self.records.write(lambda c: outbox.postpone(c, row.id, error.message, time.time_ns()))
        self.counters.postpone()
        if error.message != row.error:  # the row, and with it `status`, keeps how often, and when again
            detail = getattr(error, "detail", "") or None
            self.log.warning("delivery.postponed", run_id=row.run_id, error=error.message, detail=detail)

    def be_stuck(self, error: StateError) -> float:
        """Note that the registry cannot be written (no space, read-only); return how long to wait with the next try."""
        if self.stuck is None:
            self.log.error("daemon.stuck", error=error.message, hint=error.hint)
        self._stuck, self._stuck_until_s = error, time.monotonic() + 2 * STUCK_WAIT_S
        return STUCK_WAIT_S

    @property
    def stuck(self) -> StateError | None:
        """Why the registry could not be written lately, if that was tried."""
        return self._stuck if time.monotonic() < self._stuck_until_s else None

    def bug(self, unexpected: Exception) -> ReprodError:
        """Log an exception that nobody expected, with its traceback, and return it as an error to go on with."""
        self.log.error("daemon.bug", traceback="".join(traceback.format_exception(unexpected)))
        return bug(unexpected)

    async def tag(self, run_id: str, dataset: str) -> None:
        """Set ``reprod.dataset`` on a run, so that it is noticed as any other."""
        if self.tracking.state == "none":
            raise TrackingError("no tracking server is configured", hint="set tracking_uri in reprod.toml")
        try:
            await to_thread.run_sync(self._tag, run_id, dataset)
        except SinkError as error:
            if error.kind == "gone":
                raise NotFoundError(f"there is no run {run_id}", hint="is it on another tracking server?") from error
            raise
        self.trigger.ring()

    def _tag(self, run_id: str, dataset: str) -> None:
        if self.tracking.child.runs([run_id]).missing:
            raise NotFoundError(f"there is no run {run_id} on {self.tracking.uri}", hint="give the whole run id")
        self.tracking.child.deliver(Payload(run_id, None, 0, tags={"reprod.dataset": dataset}))

    # --- loops -------------------------------------------------------------------------------------------------------

    def _obey(self, number: int, call: Callable[[], None]) -> None:
        """Do ``call`` on the loop for each such signal, also for one that came before."""
        loop = asyncio.get_running_loop()
        self._signals.answer(number, lambda: loop.call_soon_threadsafe(call))

    def _stop(self) -> None:
        """End everything: cancel, and cut the calls to MLflow short. What hangs is left at the deadline."""
        systemd.notify(STOPPING=1, STATUS="stopping")
        threading.Thread(target=self.tracking.kill, name="kill", daemon=True).start()
        if self._group is not None:
            self._group.cancel_scope.cancel()


def _empty(folder: Path) -> None:
    """Remove what a killed daemon left of deliveries under way; they are made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
