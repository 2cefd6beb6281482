"""The socket's ``watch``: the status document pushed to whoever follows it, when something in it changed.

One loop looks, a few times a second and only while somebody follows; each follower has room for one document, the
newest. Who takes what is sent too slowly therefore misses documents, is told how many (``lagged``), and gets the full
state next: nobody waits for anybody. A message without news (a *beat*) comes once a second: it carries what changes by
itself, lets the other side notice a daemon that hangs, and this side one that is gone. Seconds of the loop's clock.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from reprod.daemon.status import status
from reprod.errors import DaemonUnavailableError, NotFoundError, ReprodError, UsageError, did_you_mean

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon
    from reprod.daemon.methods import Caller

PUSH_S = 0.25
BEAT_S = 1.0
#: Looking takes at most a twentieth of a core, however many datasets there are.
REST = 20
#: Of 64 connections; each holds one for hours.
MAX_FOLLOWERS = 16

_LONGEST_NAME = 128

#: What changes by itself, and is news to nobody.
_RESTLESS = ("uptime_seconds", "rss_bytes")
_RESTLESS_IN = {"tracking": "last_poll_at", "runs": "oldest_waiting_seconds", "environment": "taken_at"}


@dataclass(eq=False, slots=True)
class _Follower:
    """One who follows. ``news`` waits to be sent, ``missed`` documents came before it and were not."""

    name: str | None
    bell: anyio.Event = field(default_factory=anyio.Event)
    seq: int = 0
    news: dict[str, Any] | None = None
    seen: dict[str, Any] | None = None
    latest: dict[str, Any] | None = None
    missed: int = 0
    error: ReprodError | None = None

    def offer(self, document: dict[str, Any]) -> None:
        """Take in what was just seen."""
        shown = _of(document, self.name)
        if self.name is not None and not shown["datasets"]:
            self.fail(NotFoundError(f"{self.name} is no longer registered", hint="reprod dataset list"))
            return
        self.latest = shown
        resting = _resting(shown)
        if resting == self.seen:
            return
        self.missed += self.news is not None
        self.seq += 1
        self.seen, self.news = resting, shown
        self.bell.set()

    def fail(self, error: ReprodError) -> None:
        """End it."""
        self.error = error
        self.bell.set()

    def take(self) -> dict[str, Any] | None:
        """Return the next message; None before anything was seen. Raises the error that ends it."""
        if self.error is not None:
            raise self.error
        news, missed = self.news, self.missed
        self.bell, self.news, self.missed = anyio.Event(), None, 0
        if news is not None:
            return {"seq": self.seq, **({"lagged": missed} if missed else {}), "status": news}
        if self.latest is None:
            return None
        return {"seq": self.seq, "status": {k: v for k, v in self.latest.items() if k != "datasets"}}


class Following:
    """Looks, and tells all who follow."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._followers: set[_Follower] = set()
        self._wanted = anyio.Event()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._wanted.wait()
            began = time.monotonic()
            try:
                document = await to_thread.run_sync(status, self._daemon)
            except ReprodError as error:
                self._fail(error)
            except Exception as unexpected:  # noqa: BLE001 - who looks must not end the daemon
                self._fail(self._daemon.bug(unexpected))
            else:
                for follower in self._followers:
                    follower.offer(document)
            await anyio.sleep(max(PUSH_S, REST * (time.monotonic() - began)))

    async def follow(self, name: str | None, send: Callable[[dict[str, Any]], Awaitable[bool]]) -> None:
        """Send what is new, until ``send`` says that nobody listens. Raises NotFoundError once ``name`` is gone."""
        if len(self._followers) >= MAX_FOLLOWERS:
            raise DaemonUnavailableError(f"{MAX_FOLLOWERS} already watch this daemon", hint="end one of them")
        follower = _Follower(name)
        self._followers.add(follower)
        self._wanted.set()
        try:
            while True:
                with anyio.move_on_after(BEAT_S):
                    await follower.bell.wait()
                message = follower.take()
                if message is not None and not await send(message):
                    return
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._wanted = anyio.Event()

    def _fail(self, error: ReprodError) -> None:
        for follower in self._followers:
            follower.fail(error)


async def watch(
    daemon: "Daemon", params: dict[str, Any], _caller: "Caller", notify: Callable[[dict[str, Any]], Awaitable[bool]]
) -> dict[str, Any]:
    """Send ``{"seq", "lagged", "status"}`` as progress, of all datasets or of one, until the client goes away.

    ``status`` of a new ``seq`` is the whole document; one that repeats a ``seq`` holds only what else there is to say.
    """
    name = params.get("name")
    if name is not None and not isinstance(name, str):
        raise UsageError("name is a text", hint="is the client older or newer than the daemon? restart it")
    known = [*daemon.works, *(m.name for m in daemon.config.misconfigured)]
    if name is not None and name not in known:
        near = did_you_mean(name[:_LONGEST_NAME], known)
        raise NotFoundError(f"no dataset named {name[:_LONGEST_NAME]!r}", hint=near or "reprod dataset list")
    await daemon.following.follow(name, notify)
    return {}


def _of(document: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Return the document as ``status NAME`` has it."""
    if name is None:
        return document
    needs = [need for need in document["attention"] if need.get("dataset", name) == name]
    return {**document, "datasets": [d for d in document["datasets"] if d["name"] == name], "attention": needs}


def _resting(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without what changes by itself."""
    kept = {key: value for key, value in document.items() if key not in _RESTLESS}
    for key, inner in _RESTLESS_IN.items():
        kept[key] = {k: v for k, v in (kept.get(key) or {}).items() if k != inner}
    return kept
