"""The watch of one dataset: keeps a watcher armed, and says honestly since when it can be believed.

Owns the watcher instance, its re-arming and the cookie barrier. Rules:

* Whenever the watch was not whole, ``on_gap`` is called first and everything marked dirty after, at the loss and again
  when armed: whoever seals a version because of the marks already knows of the gap.
* Between failures it waits 1 s, doubling to 300 s; only a watch that held for 300 s starts over at 1 s.
* What cannot be watched (a network file system, a limit; for watchfiles names that are not UTF-8) is polled: ``mode``
  says so, the refresher does it.

``on_gap`` and the dirty set's ``on_dirty`` may be called on the watcher's thread. Times: ``_ns`` wall clock, ``_s``
seconds.
"""

import asyncio
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import aiofiles
import anyio
import anyio.abc
import anyio.to_thread

from reprod.daemon.dirty import DirtySet
from reprod.fs import mounts
from reprod.fs.root import split_root
from reprod.fs.watch import ROOT_CHECK_S, Hint, Watcher, WatcherFactory, WatchFailure, watcher_factory

Mode = Literal["inotify", "watchfiles", "poll", "none"]
GapKind = Literal["re-arm", "overflow"]

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0

# A cookie takes 100 ms. One that is late may be a busy machine; only a second one in a row, waited for at least this
# long, is a watch that has gone deaf without saying so.
DEAF_AFTER_S = 0.5


class Log(Protocol):
    """What is asked of a logger; structlog's fit."""

    def info(self, event: str, **keys: object) -> object:
        """Record an event of normal operation."""
        ...

    def warning(self, event: str, **keys: object) -> object:
        """Record an event that an operator should see."""
        ...


@dataclass(eq=False, slots=True)
class _Arming:
    """One life of a watcher: from being armed to its failure."""

    lost: anyio.Event
    watcher: Watcher | None = None
    failure: WatchFailure | None = None
    abandoned: bool = False
    link: tuple[bytes, bytes | None] | None = None  # where a symlink to one file led


class _Unsuited(WatchFailure):
    """Raised instead of arming where a watch would arm and see nothing, or is not wanted."""


class WatchService:
    """Keeps the watch of one dataset. ``root`` and ``only`` are as in ``fs.watch.WatcherFactory``, but looked at again
    whenever it arms; ``cookies_dir`` is its own, and made.

    ``mode``: who has to look: ``inotify`` or ``watchfiles``; ``poll`` (the refresher must walk on its own clock);
    ``none`` (not armed yet, or there is no root to look at). ``reason``: why neither watches. ``whole_since_ns``:
    nothing is known to have been missed since then; None unless armed. ``lost_since_ns``: the last moment at which the
    watch was whole; None while it is, the start of ``run`` before it first was.
    """

    def __init__(
        self,
        name: str,
        root: bytes,
        cookies_dir: Path,
        dirty: DirtySet,
        *,
        log: Log,
        backend: str = "auto",
        make_watcher: WatcherFactory | None = None,
        clock: Callable[[], int] = time.time_ns,
        on_gap: Callable[[GapKind, int], None] | None = None,
        only: bytes | None = None,
        first_wait_s: float = FIRST_WAIT_S,
        longest_wait_s: float = LONGEST_WAIT_S,
    ) -> None:
        self.name = name
        self.mode: Mode = "none"
        self.reason: str | None = "not armed yet"
        self.armed = False
        self.whole_since_ns: int | None = None
        self.lost_since_ns: int | None = None
        self._root = root
        self._cookies = cookies_dir
        self._dirty = dirty
        self._log = log
        self._backend = backend
        self._make_watcher = make_watcher or watcher_factory(backend)
        self._clock = clock
        self._on_gap = on_gap
        self._only = only
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._lock = threading.Lock()  # the state above changes on the loop and on the watcher's thread
        self._arming: _Arming | None = None
        self._waiting: dict[str, anyio.Event] = {}
        self._seen: set[str] = set()
        self._late_since: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; "started" when the first attempt to arm has ended, however it did."""
        self._loop = asyncio.get_running_loop()
        self.lost_since_ns = self._clock()
        wait_s = self._first_wait_s
        announced = False
        try:
            while True:
                arming = await self._arm()
                if not announced:
                    announced = True
                    task_status.started()
                began = anyio.current_time()
                while arming.failure is None and not arming.lost.is_set():
                    await self._until_lost(arming)
                await self._stop(arming)
                if anyio.current_time() - began >= self._longest_wait_s:
                    wait_s = self._first_wait_s
                await anyio.sleep(self._pause_s(arming.failure, wait_s))
                wait_s = min(2 * wait_s, self._longest_wait_s)
        finally:
            with anyio.CancelScope(shield=True):
                await self._abandon(self._arming)

    async def _until_lost(self, arming: _Arming) -> None:
        """Wait for the end of this watch; what a symlink to one file leads to is looked at every second."""
        if arming.link is None:
            await arming.lost.wait()
            return
        with anyio.move_on_after(ROOT_CHECK_S):
            await arming.lost.wait()
        if arming.lost.is_set():
            return
        place = await anyio.to_thread.run_sync(self._place, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        if place != arming.link:
            self._lose(arming, WatchFailure("missing", "the symlink leads to another file now"))

    async def barrier(self, timeout_s: float) -> bool:
        """Whether all hints of what happened before this call are in the dirty set now.

        False when not armed, not proven within ``timeout_s``, or lost on the way. True says nothing about events that
        were dropped silently. Concurrent calls do not disturb each other.
        """
        if not self.armed:
            return False
        name, event, began = secrets.token_hex(8), anyio.Event(), anyio.current_time()
        arming, path = self._arming, self._cookies / name
        self._waiting[name] = event
        try:
            with anyio.move_on_after(timeout_s):
                async with aiofiles.open(path, "xb"):
                    pass
                await event.wait()
        except FileNotFoundError as error:  # the directory was removed, and the watch on it with it
            self._lose(arming, WatchFailure("other", f"cannot write a cookie: {error}"))
        except OSError as error:  # a full disk says nothing about the watch
            self._log.warning("watch.no_cookie", dataset=self.name, reason=str(error))
            return False
        finally:
            del self._waiting[name]
            seen = name in self._seen
            self._seen.discard(name)
            with anyio.CancelScope(shield=True):
                await _in_thread(_unlink, path)
        if not seen and not event.is_set():
            self._note_late(arming, began)
        return seen

    async def _arm(self) -> _Arming:
        """Try to arm once; the result holds the failure if there was one."""
        arming, began = _Arming(anyio.Event()), anyio.current_time()
        self._arming = arming
        try:
            await _in_thread(self._arm_in_thread, arming, abandon_on_cancel=True)
        except WatchFailure as failure:
            self._lose(arming, failure)
            return arming
        with self._lock:
            if arming.failure is not None or arming.watcher is None:
                return arming
            gap_ns, now_ns = self.lost_since_ns, self._clock()
            self.armed, self.mode, self.reason = True, arming.watcher.backend, None
            self.whole_since_ns, self.lost_since_ns = now_ns, None
        self._late_since = None
        self._report_gap("re-arm", now_ns if gap_ns is None else gap_ns)
        self._dirty.mark_all(now_ns, "watch armed")
        took_ms = round((anyio.current_time() - began) * 1000, 1)
        self._log.info("watch.armed", dataset=self.name, backend=arming.watcher.backend, took_ms=took_ms)
        return arming

    def _arm_in_thread(self, arming: _Arming) -> None:
        if reason := self._reason_to_poll():
            raise _Unsuited("other", reason)
        try:
            self._cookies.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in self._cookies.iterdir():
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise WatchFailure("other", f"cannot prepare {self._cookies}: {error}") from error
        root, only = self._place()
        watcher = self._make_watcher(
            root,
            os.fsencode(self._cookies),
            lambda hints: self._take_hints(arming, hints),
            lambda name: self._post(self._cookie_seen, name),
            lambda failure: self._lose(arming, failure),
            only=only,
        )
        watcher.start()
        if only is not None and (root, only) != (os.path.dirname(self._root), os.path.basename(self._root)):
            arming.link = root, only
        with self._lock:
            arming.watcher = watcher
        if arming.abandoned:  # cancelled meanwhile: nobody else will stop it
            watcher.stop()

    def _place(self) -> tuple[bytes, bytes | None]:
        """Return what to watch: a directory may have become a file since, or a missing path either of them."""
        path = self._root if self._only is None else os.path.join(self._root, self._only)
        folder, name = split_root(os.fsdecode(path))
        if name is not None:
            return os.fsencode(folder), os.fsencode(name)
        return (path, None) if os.path.isdir(path) else (self._root, self._only)

    def _reason_to_poll(self) -> str | None:
        if self._backend == "poll":
            return "configured: watch.backend = poll"
        try:
            descriptor = os.open(self._root, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None  # arming will say it better
        try:
            mount = mounts.mount_of(descriptor)
        finally:
            os.close(descriptor)
        if mount is not None and mounts.is_network(mount.fs_type):
            return f"{mount.fs_type}: changes made by other hosts make no events here"
        return None

    def _take_hints(self, arming: _Arming, hints: list[Hint]) -> None:
        """On the watcher's thread: an overflow is a gap, told before its marks."""
        if any(hint.overflow for hint in hints) and arming.watcher is not None:
            gap_ns = arming.watcher.whole_ns
            with self._lock:
                if self.armed:
                    self.whole_since_ns = self._clock()
            self._report_gap("overflow", gap_ns)
            self._post(self._say_overflow, gap_ns)
        self._dirty.mark(hints)

    def _lose(self, arming: _Arming | None, failure: WatchFailure) -> None:
        """On any thread: this watch cannot be believed any more. Only the first call of each arming counts."""
        with self._lock:
            if arming is None or arming.failure is not None:
                return
            arming.failure = failure
            was_armed, self.armed = self.armed, False
            if was_armed and arming.watcher is not None:
                self.lost_since_ns = arming.watcher.whole_ns
            self.whole_since_ns = None
            mode: Mode = "none" if failure.kind == "missing" else "poll"
            news = was_armed or (mode, failure.message) != (self.mode, self.reason)
            self.mode, self.reason = mode, failure.message
            gap_ns = self.lost_since_ns
        if news:
            self._report_gap("re-arm", self._clock() if gap_ns is None else gap_ns)
            self._dirty.mark_all(self._clock(), f"watch lost: {failure.kind}")
            self._post(self._say_lost, failure, mode)
        self._post(self._wake, arming)

    def _pause_s(self, failure: WatchFailure | None, wait_s: float) -> float:
        """How long until the next attempt: never for what cannot get better, longest for what a person must change."""
        if self._backend == "poll" or (failure is not None and failure.kind == "undecodable"):
            return math.inf
        if isinstance(failure, _Unsuited) or (failure is not None and failure.kind == "limit"):
            return self._longest_wait_s
        return wait_s

    async def _stop(self, arming: _Arming) -> None:
        with self._lock:
            self.armed = False
        if arming.watcher is not None:
            await _in_thread(arming.watcher.stop)

    async def _abandon(self, arming: _Arming | None) -> None:
        if arming is not None:
            arming.abandoned = True  # before stopping: a thread that is still arming looks at it afterwards
            await self._stop(arming)

    def _report_gap(self, kind: GapKind, since_ns: int) -> None:
        if self._on_gap is not None:
            self._on_gap(kind, since_ns)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        """Run ``call`` on the event loop, in order, from any thread."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # the loop has ended: nobody waits any more

    # Everything below runs on the event loop.

    def _cookie_seen(self, name: str) -> None:
        if (event := self._waiting.get(name)) is not None:
            self._late_since = None
            self._seen.add(name)
            event.set()

    def _note_late(self, arming: _Arming | None, began: float) -> None:
        now = anyio.current_time()
        if now - began < DEAF_AFTER_S:
            return
        if self._late_since is None:
            self._late_since = now
        elif began >= self._late_since:
            self._lose(arming, WatchFailure("other", "cookies are not seen any more"))

    def _wake(self, arming: _Arming) -> None:
        arming.lost.set()
        for event in self._waiting.values():
            event.set()

    def _say_lost(self, failure: WatchFailure, mode: Mode) -> None:
        say = self._log.info if isinstance(failure, _Unsuited) else self._log.warning
        event = "watch.polling" if mode == "poll" else "watch.lost"
        say(event, dataset=self.name, kind=failure.kind, reason=failure.message)

    def _say_overflow(self, gap_ns: int) -> None:
        self._log.warning("watch.overflow", dataset=self.name, since_ns=gap_ns)


async def _in_thread(call: Callable[..., None], *arguments: object, abandon_on_cancel: bool = False) -> None:
    # A limiter of its own: stopping must not queue behind forty hash and delivery threads for the default one.
    await anyio.to_thread.run_sync(
        call, *arguments, abandon_on_cancel=abandon_on_cancel, limiter=anyio.CapacityLimiter(1)
    )


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # swept when next armed
