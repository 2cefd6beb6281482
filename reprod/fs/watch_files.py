"""Hints through watchfiles, where there is no inotify or it is asked for: a source that loses events silently.

Owns one watcher thread and its notify instance for one dataset (rules: ``reprod.fs.watch``). Known to be silent in
watchfiles 1.3 (measured): queue overflow, files made in a directory before it was watched, the watch limit reached at
run time. After a batch so large that events may have been dropped all is armed anew: a directory that was made among
them is not watched. It arms under the interpreter lock, 1.4 s for a million files in 1,000 directories, and takes no
name that is not UTF-8.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reprod.fs.watch import (
    JOIN_BOUND_S,
    ROOT_CHECK_S,
    FailureKind,
    Hint,
    WatchFailure,
    as_limit,
    check_root,
    identity_of,
    limit_reached,
    max_queued_events,
    why,
)

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

# How often the watcher looks, and how long it gathers a burst. Idle CPU per instance measured: 0.12 % at 50 ms, 0.3 %
# at 20 ms, 0.5 % at 10 ms; seals are a second apart, so nobody gains from seeing a write in 40 ms instead of 100.
STEP_MS = 50
DEBOUNCE_MS = 200

# A batch gathers for at most DEBOUNCE_MS; this many looks reach back to before it began, also if the process was
# stopped in between.
_LOOKS_KEPT = DEBOUNCE_MS // STEP_MS + 4

_ROOT_CHECK_EVERY = int(1000 * ROOT_CHECK_S) // STEP_MS

# After what may be an overflow all is armed anew, but not more often than this: it holds the interpreter lock.
_REBUILD_S = 1.0

#: Batches that follow each other so closely may be of one queue that overflowed.
STORM_S = 4 * DEBOUNCE_MS / 1000

_ADDED = 1  # watchfiles.Change.added


class _Pulse:
    """What watchfiles takes for its stop event: asked every STEP_MS, it keeps time and sees the root go away."""

    def __init__(self, root: bytes, identity: tuple[int, int], only: bytes | None) -> None:
        self.stopping = threading.Event()
        self.looks: deque[int] = deque([time.time_ns()], maxlen=_LOOKS_KEPT)
        self.root_seen_ns = self.looks[0]  # when the root was last known to be the one that is watched
        self._root = root
        self._identity = identity
        self._only = only
        self._countdown = _ROOT_CHECK_EVERY

    def is_set(self) -> bool:
        self.looks.append(time.time_ns())
        self._countdown -= 1
        if self._countdown <= 0 and not self.stopping.is_set():
            self._countdown = _ROOT_CHECK_EVERY
            now_ns = self.looks[-1]
            check_root(self._root, self._identity, self._only)
            self.root_seen_ns = now_ns
        return self.stopping.is_set()


class WatchfilesWatcher:
    """A watcher (``reprod.fs.watch``) that asks watchfiles."""

    backend: Literal["inotify", "watchfiles"] = "watchfiles"

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
        self._root = root
        self._cookies = cookies
        self._on_hints = on_hints
        self._on_cookie = on_cookie
        self._on_failure = on_failure
        self._only = only
        self._pulse: _Pulse | None = None
        self._thread: threading.Thread | None = None

    @property
    def whole_ns(self) -> int:
        """The oldest look that a batch may reach back to."""
        return min(self._pulse.looks[0], self._pulse.root_seen_ns) if self._pulse else 0

    def start(self) -> None:
        """Arm, on the calling thread; see ``Watcher``."""
        try:
            pulse = _Pulse(self._root, identity_of(self._root), self._only)
            translate = _Translation(self._root, self._cookies, self._only)
            notify = _arm(translate, recursive=self._only is None)
            thread = threading.Thread(
                target=self._run, args=(notify, pulse, translate), name="reprod-watch", daemon=False
            )
            self._pulse = pulse
            thread.start()
            self._thread = thread
        except Exception as error:  # watchfiles raises half a dozen types
            raise as_failure(error) from error

    def stop(self) -> None:
        """End the thread; see ``Watcher``."""
        if self._pulse is not None:
            self._pulse.stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_BOUND_S)

    def _run(self, notify: "RustNotify", pulse: _Pulse, translate: "_Translation") -> None:
        try:
            # Without a time-out (0): watchfiles drops events that arrive while one fires (5 of 40,000 measured).
            while not isinstance(batch := notify.watch(DEBOUNCE_MS, STEP_MS, 0, pulse), str):
                if translate.is_storm(len(batch), time.monotonic()):
                    notify = self._rebuilt(notify, pulse, translate)
                self._hand_over(batch, pulse, translate)
        except BaseException as error:  # noqa: BLE001 - thread boundary; a Rust panic is not even an Exception
            self._tell(as_failure(error), pulse)
        finally:
            notify.close()

    def _rebuilt(self, notify: "RustNotify", pulse: _Pulse, translate: "_Translation") -> "RustNotify":
        """Let the storm pass and arm anew; what changes from here on is seen."""
        if pulse.stopping.wait(_REBUILD_S):
            return notify
        fresh = _arm(translate, recursive=self._only is None)
        notify.close()
        return fresh

    def _hand_over(self, batch: set[tuple[int, str]], pulse: _Pulse, translate: "_Translation") -> None:
        seen_ns = time.time_ns()
        hints, cookies = translate.batch(batch, seen_ns, max(0, seen_ns - pulse.looks[0]))
        if pulse.stopping.is_set():
            return
        if hints:
            self._on_hints(hints)
        for name in cookies:  # after the hints: whoever sees the cookie may rely on them
            self._on_cookie(name)

    def _tell(self, failure: WatchFailure, pulse: _Pulse) -> None:
        if pulse.stopping.is_set():
            return
        try:
            self._on_failure(failure)
        except Exception:  # noqa: BLE001 - thread boundary: nobody is left to tell
            return


class _Translation:
    """From watchfiles' absolute text paths to hints and cookies of one root.

    notify follows symlinks to directories and reports a directory that it meets twice under one of the names only
    (measured), so each event's parent directory is resolved: what happened in ``root/b`` is a hint for ``b`` though it
    came as ``root/link-to-b``.
    """

    def __init__(self, root: bytes, cookies: bytes, only: bytes | None) -> None:
        self.root = os.path.realpath(root)
        self.cookies = os.path.realpath(cookies)
        self._below = self.root.rstrip(b"/") + b"/"
        self._only = only
        self._many = max_queued_events() // 4
        self._storm, self._storm_s = 0, float("-inf")  # events of a storm so far, and when the last of them came

    def is_storm(self, events: int, now_s: float) -> bool:
        """Take in how many events came now; whether some may have been dropped before them.

        On a busy machine a queue that overflowed is read in several batches, one after the other.
        """
        self._storm = events + (self._storm if now_s - self._storm_s < STORM_S else 0)
        self._storm_s = now_s
        return self._storm > self._many

    def batch(self, batch: set[tuple[int, str]], seen_ns: int, lag_ns: int) -> tuple[list[Hint], list[str]]:
        """Return the hints and the names of the cookies that appeared."""
        if self._storm > self._many:  # everything is told, so whoever waits for a cookie may go on
            present = [os.fsdecode(name) for name in os.listdir(self.cookies)]
            return [Hint(b"", seen_ns, lag_ns, overflow=True)], present
        real: dict[bytes, bytes] = {}
        paths: set[bytes] = set()
        cookies: list[str] = []
        for change, text in batch:
            path = self._resolved(text.encode(), real)
            directory, _, name = path.rpartition(b"/")
            if directory == self.cookies:
                if change == _ADDED:
                    cookies.append(os.fsdecode(name))
            elif path == self.root:
                if self._only is None:
                    paths.add(b"")
            elif path.startswith(self._below) and self._only in (None, path[len(self._below) :]):
                paths.add(path[len(self._below) :])
        return [Hint(path, seen_ns, lag_ns) for path in paths], cookies

    def _resolved(self, path: bytes, real: dict[bytes, bytes]) -> bytes:
        if path == self.root:
            return path
        directory, _, name = path.rpartition(b"/")
        resolved = real.get(directory)
        if resolved is None:
            resolved = os.path.realpath(directory or b"/")
            if resolved != self.cookies and not (resolved.rstrip(b"/") + b"/").startswith(self._below):
                resolved = directory  # a link that leads outside: the hint is for where it hangs
            real[directory] = resolved
        return resolved.rstrip(b"/") + b"/" + name


def as_failure(error: BaseException) -> WatchFailure:
    """Return what an exception of watchfiles or the operating system means for the watch."""
    if isinstance(error, WatchFailure):
        return error
    text = why(error)
    if isinstance(error, UnicodeError) or "Unable to decode path" in text:
        return WatchFailure("undecodable", f"watchfiles cannot watch names that are not UTF-8: {text}")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return WatchFailure("missing", text)
    if "watch limit" in text:
        return limit_reached("max_user_watches")
    if "Too many open files" in text:
        return limit_reached("max_user_instances")
    limit = as_limit(error.errno) if isinstance(error, OSError) else None
    return limit or WatchFailure("other", f"{type(error).__name__}: {text}")


def _arm(translation: _Translation, *, recursive: bool) -> "RustNotify":
    from watchfiles._rust_notify import RustNotify  # 33 ms to import, and `watch()` cannot say when it is armed

    # Decoded strictly: Rust would refuse a surrogate with a less clear message, and a C locale must not decide.
    paths = [translation.root.decode("utf-8"), translation.cookies.decode("utf-8")]
    kinds: tuple[FailureKind, ...] = ("missing", "other")
    for path, kind in zip(paths, kinds, strict=True):
        if not Path(path).is_dir():
            raise WatchFailure(kind, f"{path} is not a directory")
    # Positional and complete, so that no WATCHFILES_* variable has a say: debug, force_polling (its poller compares
    # whole seconds), poll_delay_ms, recursive, ignore_permission_denied (it would hide every error, the watch limit's
    # too).
    return RustNotify(paths, False, False, 300, recursive, False)
