"""Tell the other daemons on the tracking server which datasets this host has, and know what they have.

What decides who answers (names, scopes, roots) is told at once, digests every few minutes, and that we are still there
every few hours. Others are read before a run is answered that does not say where it ran, and now and then for their
number. A server that refuses this changes nothing else: then every daemon answers as if it were alone. Seconds are of
the loop's clock.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from reprod.core import digest
from reprod.core.hosts import Advertised, Host, Offer, Scope, newest, present, rival_names, to_tags
from reprod.core.manifest import rfc3339
from reprod.core.plain import plain
from reprod.core.process import ProcessContext
from reprod.core.run import PendingRun, dataset_names, split_name
from reprod.ops.hosts import machine_id, machine_mark
from reprod.sinks.host_messages import Advertise
from reprod.sinks.protocol import SinkError

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon
    from reprod.daemon.work import DatasetWork

ROUND_S = 5.0
DIGESTS_S = 180.0  # a dataset may change every second; for people, one look in three minutes is news enough
SEEN_S = 6 * 3600.0  # well within the 30 days after which a host counts as gone
READ_S = 900.0
FRESH_S = 30.0  # how old what we know of others may be when a run is answered that does not say where it ran


class Advertiser:
    """Writes this host's run in ``reprod-datasets`` and reads the others'."""

    def __init__(self, daemon: "Daemon", host: Host) -> None:
        self._daemon = daemon
        self.host = host
        self.others: tuple[Advertised, ...] = ()
        self.knows = False  # what the others have; also where the server will not tell
        self._machine = machine_mark(machine_id())
        self._told: Advertised | None = None
        self._told_s = self._read_s = float("-inf")
        self._run_id: str | None = None
        self._failed = ""
        self._turn = anyio.Lock()

    @property
    def daemons(self) -> int:
        """How many daemons ask the server, as far as we know: hosts that said so lately."""
        since_ns = time.time_ns() - int(2 * SEEN_S * 1e9)
        return 1 + sum(other.seen_ns > since_ns for other in self.others)

    async def run(self) -> None:
        """Tell and read until cancelled."""
        while True:
            if self._daemon.tracking.state == "reachable":
                async with self._turn:
                    await self._round(anyio.current_time())
            await anyio.sleep(ROUND_S)

    async def look(self, runs: Iterable[PendingRun]) -> None:
        """Know who else has the datasets of these runs, if that decides who answers for them."""
        if not any(map(self._matters, runs)):
            return
        async with self._turn:
            now_s = anyio.current_time()
            if now_s - self._read_s < FRESH_S:
                return
            if not self._is_told():  # first tell, then read: of two that start together one sees the other at least
                await self._tell(now_s)
            await self._read(now_s)

    def own(self) -> Advertised:
        """Return what this host says of itself now."""
        offers = {name: _offer(work) for name, work in list(self._daemon.works.items())}
        return Advertised(self.host, time.time_ns(), offers, self._machine)

    def rivals(self, names: Collection[str]) -> frozenset[str]:
        """Return those of the names that we have and other hosts have for themselves too."""
        works = self._daemon.works
        offers = {name: _offer(works[name]) for name in names if name in works} if self.others else {}
        return rival_names(Advertised(self.host, 0, offers, self._machine), self.others)

    async def _round(self, now_s: float) -> None:
        since_s = now_s - self._told_s
        changed = self._told is None or dict(self._told.offers) != dict(self.own().offers)
        if not self._is_told() or since_s >= SEEN_S or (changed and since_s >= DIGESTS_S):
            await self._tell(now_s)
        if now_s - self._read_s >= READ_S:
            await self._read(now_s)

    def _is_told(self) -> bool:
        """Whether the others know what decides who answers."""
        return self._told is not None and _deciding(self._told) == _deciding(self.own())

    def _matters(self, run: PendingRun) -> bool:
        works = self._daemon.works
        scopes: list[Scope] = [
            works[name].dataset.scope for name, _ in map(split_name, dataset_names(run.dataset)) if name in works
        ]
        return bool(scopes) and (ProcessContext.parse(run.context or "") is None or "shared" in scopes)

    async def _tell(self, now_s: float) -> None:
        said, child = self.own(), self._daemon.tracking.child
        ask = Advertise(f"host {said.host}", to_tags(said, rfc3339(said.seen_ns)), self._run_id)
        try:
            self._run_id = await to_thread.run_sync(lambda: child.advertise(ask), abandon_on_cancel=True)
        except SinkError as error:
            self._fail(error)
            if error.kind in {"unreachable", "stopped", "crashed"}:
                return
        else:
            self._failed = ""
        self._told, self._told_s = said, now_s  # a refusal is not asked for again at once

    async def _read(self, now_s: float) -> None:
        child = self._daemon.tracking.child
        try:
            rows = await to_thread.run_sync(child.hosts, abandon_on_cancel=True)
        except SinkError as error:
            self._fail(error)
            if error.kind in {"unreachable", "stopped", "crashed"}:
                return
        else:
            hosts = newest([row.tags for row in rows])
            self.others = present(hosts, self.host.id, time.time_ns())
            self._tell_again_unless(hosts)
        self._read_s, self.knows = now_s, True

    def _tell_again_unless(self, hosts: Iterable[Advertised]) -> None:
        """Forget that we told, unless it stands there: somebody deleted the run, or the server is that of a backup."""
        ours = next((each.offers for each in hosts if each.host.id == self.host.id), None)
        if self._told is not None and (ours is None or _scopes(ours) != _scopes(self._told.offers)):
            self._told = None

    def _fail(self, error: SinkError) -> None:
        if error.message != self._failed:
            self._failed = error.message
            self._daemon.log.warning("hosts.failed", error=error.message, kind=error.kind)


def _scopes(offers: Mapping[str, Offer]) -> dict[str, Scope]:
    return {name: offer.scope for name, offer in offers.items()}


def _deciding(said: Advertised) -> dict[str, tuple[Scope, str | None]]:
    return {name: (offer.scope, offer.root) for name, offer in said.offers.items()}


def _offer(work: "DatasetWork") -> Offer:
    """Return what is told of a dataset: as much as its runs are told."""
    config, version = work.dataset, work.report.version if work.report else None
    found = digest.text(version.digest) if version is not None and version.digest is not None else None
    if config.publish == "digest":
        return Offer(config.scope, digest=found)
    seq, files = (version.seq, version.files) if version is not None else (None, None)
    return Offer(config.scope, plain(config.path), found, seq, files)
