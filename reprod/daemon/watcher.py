"""The watch of one dataset: keeps a watcher armed, and says honestly since when it can be believed.

Owns the watcher instance and its re-arming. Rules:

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
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import anyio
import anyio.abc
import anyio.to_thread

from reprod.daemon.barrier import Barrier
from reprod.daemon.dirty import DirtySet
from reprod.daemon.watch_place import Place, UnsuitedError, leads_elsewhere, place_of, require_suited
from reprod.fs.watch import ROOT_CHECK_S, Hint, Watcher, WatcherFactory, WatchFailure

T = TypeVar("T")

Mode = Literal["inotify", "watchfiles", "poll", "none"]
GapKind = Literal["re-arm", "overflow"]

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0


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
    link: Place | None = None  # where a symlink to one file led


class WatchService:
    """Keeps the watch of one dataset at ``root``, a folder or one file, which is looked at again whenever it arms.

    ``cookies_dir`` is its own, and made.

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
        backend: str,
        make_watcher: WatcherFactory,
        on_gap: Callable[[GapKind, int], None],
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
        self._barrier = Barrier(cookies_dir)
        self._dirty = dirty
        self._log = log
        self._backend = backend
        self._make_watcher = make_watcher
        self._on_gap = on_gap
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._lock = threading.Lock()  # the state above changes on the loop and on the watcher's thread
        self._arming: _Arming | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; "started" when the first attempt to arm has ended, however it did."""
        self._loop = asyncio.get_running_loop()
        self.lost_since_ns = time.time_ns()
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

    async def barrier(self, timeout_s: float) -> bool:
        """Whether all hints of what happened before this call are in the dirty set now.

        False when not armed, not proven within ``timeout_s``, or lost on the way. True says nothing about events that
        were dropped silently. Concurrent calls do not disturb each other.
        """
        if not self.armed:
            return False
        arming = self._arming
        try:
            return await self._barrier.passed(timeout_s)
        except WatchFailure as failure:
            self._lose(arming, failure)
        except OSError as error:  # a full disk says nothing about the watch
            self._log.warning("watch.no_cookie", dataset=self.name, reason=str(error))
        return False

    async def _until_lost(self, arming: _Arming) -> None:
        """Wait for the end of this watch; what a symlink to one file leads to is looked at every second."""
        if arming.link is None:
            await arming.lost.wait()
            return
        with anyio.move_on_after(ROOT_CHECK_S):
            await arming.lost.wait()
        if arming.lost.is_set():
            return
        place = await _in_thread(place_of, self._root, abandon_on_cancel=True)
        if place != arming.link:
            self._lose(arming, WatchFailure("missing", "the symlink leads to another file now"))

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
            gap_ns, now_ns = self.lost_since_ns, time.time_ns()
            self.armed, self.mode, self.reason = True, arming.watcher.backend, None
            self.whole_since_ns, self.lost_since_ns = now_ns, None
        self._barrier.forget_late()
        self._on_gap("re-arm", now_ns if gap_ns is None else gap_ns)
        self._dirty.mark_all(now_ns, "watch armed")
        took_ms = round((anyio.current_time() - began) * 1000, 1)
        self._log.info("watch.armed", dataset=self.name, backend=arming.watcher.backend, took_ms=took_ms)
        return arming

    def _arm_in_thread(self, arming: _Arming) -> None:
        require_suited(self._root, self._backend)
        self._barrier.prepare()
        place = place_of(self._root)
        folder, only = place
        watcher = self._make_watcher(
            folder,
            os.fsencode(self._barrier.folder),
            lambda hints: self._take_hints(arming, hints),
            lambda name: self._post(self._barrier.see, name),
            lambda failure: self._lose(arming, failure),
            only=only,
        )
        watcher.start()
        if leads_elsewhere(self._root, place):
            arming.link = place
        with self._lock:
            arming.watcher = watcher
        if arming.abandoned:  # cancelled meanwhile: nobody else will stop it
            watcher.stop()

    def _take_hints(self, arming: _Arming, hints: list[Hint]) -> None:
        """On the watcher's thread: an overflow is a gap, told before its marks."""
        if any(hint.overflow for hint in hints) and arming.watcher is not None:
            gap_ns = arming.watcher.whole_ns
            with self._lock:
                if self.armed:
                    self.whole_since_ns = time.time_ns()
            self._on_gap("overflow", gap_ns)
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
            self._on_gap("re-arm", time.time_ns() if gap_ns is None else gap_ns)
            self._dirty.mark_all(time.time_ns(), f"watch lost: {failure.kind}")
            self._post(self._say_lost, failure, mode)
        self._post(self._wake, arming)

    def _pause_s(self, failure: WatchFailure | None, wait_s: float) -> float:
        """How long until the next attempt: never for what cannot get better, longest for what a person must change."""
        if self._backend == "poll" or (failure is not None and failure.kind == "undecodable"):
            return math.inf
        if isinstance(failure, UnsuitedError) or (failure is not None and failure.kind == "limit"):
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

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        """Run ``call`` on the event loop, in order, from any thread."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # the loop has ended: nobody waits any more

    # Everything below runs on the event loop.

    def _wake(self, arming: _Arming) -> None:
        arming.lost.set()
        self._barrier.release()

    def _say_lost(self, failure: WatchFailure, mode: Mode) -> None:
        say = self._log.info if isinstance(failure, UnsuitedError) else self._log.warning
        event = "watch.polling" if mode == "poll" else "watch.lost"
        say(event, dataset=self.name, kind=failure.kind, reason=failure.message)

    def _say_overflow(self, gap_ns: int) -> None:
        self._log.warning("watch.overflow", dataset=self.name, since_ns=gap_ns)


async def _in_thread(call: Callable[..., T], *arguments: object, abandon_on_cancel: bool = False) -> T:
    # A limiter of its own: stopping must not queue behind forty hash and delivery threads for the default one.
    return await anyio.to_thread.run_sync(
        call, *arguments, abandon_on_cancel=abandon_on_cancel, limiter=anyio.CapacityLimiter(1)
    )
