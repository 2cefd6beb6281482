"""Hints straight from inotify: sees what watchfiles cannot, and says when it lost something.

Owns one thread and one instance for one dataset (rules: ``reprod.fs.watch``), so that a storm in one dataset drops no
event of another. Beyond watchfiles it sees a queue that overflowed, limits, unmounts and mounts inside the tree, files
that were closed after a write through a mapped page, and names of any bytes; it arms without the interpreter lock.

The kernel queues an event before the system call that makes it returns: when a read finds the queue empty, all that
happened before it was handed over. That moment, and not the time of reading, bounds when something happened, also if
this process was stopped in between.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Literal

from reprod.fs import mounts
from reprod.fs.watch import (
    JOIN_BOUND_S,
    ROOT_CHECK_S,
    Hint,
    WatchFailure,
    as_limit,
    check_root,
    identity_of,
    why,
)
from reprod.fs.watch_events import EventSource

#: Nothing to read is noted this often, so that a hint says within so much when its change happened. A look costs an
#: idle machine 0.25 ms: 0.05 % of a core, and 0.1 at twice the rate.
BEAT_S = 0.5
#: After a batch the next one gathers, or a writer that never pauses would wake the thread for each event.
_GATHER_S = 0.01
#: An overflow means that directories may be unwatched: all is watched anew, but not more often than this.
_REBUILD_S = 1.0


class InotifyWatcher:
    """A watcher (``reprod.fs.watch``) that reads an inotify instance."""

    backend: Literal["inotify", "watchfiles"] = "inotify"

    def __init__(
        self,
        root: bytes,
        cookies: bytes,
        on_hints: Callable[[list[Hint]], None],
        on_cookie: Callable[[str], None],
        on_failure: Callable[[WatchFailure], None],
        *,
        only: bytes | None = None,
    ) -> None:
        self._empty_ns = 0  # just before the last read that found the queue empty
        self._root_seen_ns = 0  # when the root was last known to be the one that is watched
        self._root = root
        self._cookies = cookies
        self._on_hints = on_hints
        self._on_cookie = on_cookie
        self._on_failure = on_failure
        self._only = only
        self._identity = (0, 0)
        self._source: EventSource | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._alarm = -1

    @property
    def whole_ns(self) -> int:
        """When there was nothing more to read and the root was known to be the right one."""
        return min(self._empty_ns, self._root_seen_ns)

    def start(self) -> None:
        """Arm, on the calling thread; see ``Watcher``."""
        self._identity = identity_of(self._root)
        self._source = self._armed()
        self._empty_ns = self._root_seen_ns = time.time_ns()
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="reprod-watch", daemon=False)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; see ``Watcher``."""
        self._stopping.set()
        thread, alarm = self._thread, self._alarm
        if thread is None or alarm < 0 or thread is threading.current_thread():
            return
        os.eventfd_write(alarm, 1)
        thread.join(JOIN_BOUND_S)
        if not thread.is_alive():
            self._alarm = -1
            os.close(alarm)

    def _armed(self) -> EventSource:
        try:
            return EventSource(self._root, self._identity, self._cookies, self._only)
        except OSError as error:
            raise as_limit(error.errno) or WatchFailure("other", f"cannot watch: {why(error)}") from error

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with open("/proc/self/mountinfo", "rb", 0) as mountinfo:
                self._serve(mountinfo.fileno())
        except BaseException as error:  # noqa: BLE001 - thread boundary: a callback's exception too ends this watch
            self._tell(
                error
                if isinstance(error, WatchFailure)
                else WatchFailure("other", f"{type(error).__name__}: {why(error)}")
            )
        finally:
            if self._source is not None:
                self._source.close()

    def _serve(self, mountinfo: int) -> None:
        mounted = _mounts_below(self._root)
        next_check = time.monotonic() + ROOT_CHECK_S
        while self._source is not None:
            ready = self._wait(BEAT_S, self._source.fd, mountinfo)
            if mountinfo in ready:
                before, mounted = mounted, _mounts_below(self._root)
                self._check_root()
                self._take_mounts(self._source, before ^ mounted)
            elif time.monotonic() >= next_check:
                self._check_root()
                next_check = time.monotonic() + ROOT_CHECK_S
            if not self._drain(self._source):
                self._rebuild()
            if self._stopping.is_set():
                return
            if self._source.fd in ready:
                self._wait(_GATHER_S)

    def _wait(self, seconds: float, source: int | None = None, mountinfo: int | None = None) -> set[int]:
        """Wait for events, a change of the mounts, or the end; return the descriptors that are ready."""
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        if source is not None:
            poll.register(source, select.POLLIN)
        if mountinfo is not None:
            poll.register(mountinfo, select.POLLPRI)
        return {fd for fd, _ in poll.poll(1000 * seconds)}

    def _drain(self, source: EventSource) -> bool:
        """Hand over all that is queued; False if the queue had overflowed."""
        while not self._stopping.is_set():
            before_ns = time.time_ns()
            events = source.read()
            if not events:
                self._empty_ns = before_ns
                return True
            whole = source.take(events)
            self._hand_over(source)
            if not whole:
                return False
        return True

    def _hand_over(self, source: EventSource, *, overflow: bool = False) -> None:
        paths, closed, cookies = source.taken()
        if self._stopping.is_set():
            return
        now_ns = time.time_ns()
        lag_ns = max(0, now_ns - self._empty_ns)
        if overflow:
            self._on_hints([Hint(b"", now_ns, lag_ns, overflow=True)])
        elif paths:
            self._on_hints([Hint(path, now_ns, lag_ns, closed=path in closed) for path in paths])
        for name in cookies:  # after the hints: whoever sees the cookie may rely on them
            self._on_cookie(os.fsdecode(name))

    def _rebuild(self) -> None:
        """Watch everything anew after an overflow, then say so: what changes from here on is seen."""
        self._wait(_REBUILD_S)
        if self._stopping.is_set() or self._source is None:
            return
        source = self._armed()
        self._source.close()
        self._source = source
        self._hand_over(source, overflow=True)

    def _check_root(self) -> None:
        now_ns = time.time_ns()
        check_root(self._root, self._identity, self._only)
        self._root_seen_ns = now_ns

    def _take_mounts(self, source: EventSource, changed: Iterable[tuple[int, bytes]]) -> None:
        """Something was mounted inside the tree, or unmounted: another directory shows up there."""
        for _, path in changed:
            source.look_again(path)
        self._hand_over(source)

    def _tell(self, failure: WatchFailure) -> None:
        if self._stopping.is_set():
            return
        try:
            self._on_failure(failure)
        except Exception:  # noqa: BLE001 - thread boundary: nobody is left to tell
            return


def _mounts_below(root: bytes) -> frozenset[tuple[int, bytes]]:
    """Return id and path, relative to the root, of every mount below it."""
    top = os.path.realpath(root).rstrip(b"/") + b"/"
    below = [mount for mount in mounts.mounts() if mount.mount_point.startswith(top)]
    return frozenset((mount.mount_id, mount.mount_point[len(top) :]) for mount in below)
