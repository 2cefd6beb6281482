"""Hints of what changed below one root, through watchfiles: a source that is known to lose events silently.

Owns one watcher thread and its notify instance for one dataset. Rules:

* A hint says "look there", never what happened; whoever consumes it ``lstat``s, and a directory means its whole
  subtree.
* The cookie directory is watched by the same instance, so both share one queue: hints of what happened before a cookie
  was written are handed over before that cookie is.
* What cannot be relied on any more is a ``WatchFailure``, told once; arming again is the caller's business
  (daemon/watcher.py).
* Callbacks run on the watcher's thread, must not block, and are never called after ``stop`` has returned.

Times are wall-clock nanoseconds. Known to be silent in watchfiles 1.3 (measured, research/watching.md): queue overflow,
files made in a directory before it was watched, the watch limit reached at run time. Truth therefore comes from walks,
never from here.
"""

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

FailureKind = Literal["undecodable", "limit", "missing", "other"]

# How often the watcher looks, and how long it gathers a burst. Idle CPU per instance measured: 0.12 % at 50 ms, 0.3 %
# at 20 ms, 0.5 % at 10 ms; seals are a second apart, so nobody gains from seeing a write in 40 ms instead of 100.
STEP_MS = 50
DEBOUNCE_MS = 200

# A batch gathers for at most DEBOUNCE_MS; this many looks reach back to before it began, also if the process was
# stopped in between.
_LOOKS_KEPT = DEBOUNCE_MS // STEP_MS + 4

# Every how many looks the root is compared with what was armed: a rename of its parent, an unmount and a retargeted
# symlink make no event, and after its own deletion or rename the watch is deaf.
_ROOT_CHECK_EVERY = 1000 // STEP_MS

# stop() waits for at most one look and one callback; the bound is for a callback that hangs.
_JOIN_BOUND_S = 5.0

_ADDED = 1  # watchfiles.Change.added
_DEFAULT_QUEUE = 16_384  # the kernel's own default of max_queued_events


@dataclass(frozen=True, slots=True)
class Hint:
    """Something changed at ``path`` (relative to the root; ``b""`` is the whole tree), and we saw it at ``seen_ns``.

    ``overflow``: so much changed at once that events were probably dropped.
    """

    path: bytes
    seen_ns: int
    overflow: bool = False


class WatchFailure(Exception):  # noqa: N818 - it is a state of the watch that callers branch on, not an error shown to people
    """Raised by ``start``, or handed to ``on_failure``: nothing is seen any more, and why."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Watcher(Protocol):
    """A source of hints for one root. ``backend`` names it; one instance is armed once."""

    backend: str

    @property
    def whole_ns(self) -> int:
        """A moment up to which every event was handed over, as far as can be known; also after a failure."""
        ...

    def start(self) -> None:
        """Arm; returns when events are being collected. Blocks (23 us per directory). Raises ``WatchFailure``."""
        ...

    def stop(self) -> None:
        """End within 300 ms and leave no thread. May be called repeatedly, and without ``start``."""
        ...


class WatcherFactory(Protocol):
    """How a watcher is made; ``watchfiles_watcher`` is the real one."""

    def __call__(
        self,
        root: bytes,
        cookies: bytes,
        on_hints: Callable[[list[Hint]], None],
        on_cookie: Callable[[str], None],
        on_failure: Callable[[WatchFailure], None],
        *,
        only: bytes | None = None,
    ) -> Watcher:
        """Return a watcher that is not yet armed; see ``watchfiles_watcher``."""
        ...


def watchfiles_watcher(
    root: bytes,
    cookies: bytes,
    on_hints: Callable[[list[Hint]], None],
    on_cookie: Callable[[str], None],
    on_failure: Callable[[WatchFailure], None],
    *,
    only: bytes | None = None,
) -> Watcher:
    """Return an unarmed watcher of the tree at ``root`` and of the flat directory ``cookies``, both of which must
    exist.

    ``only`` is for a dataset that is one file: ``root`` is then its directory, which is watched flat, and only hints
    for that name are given. ``on_cookie`` gets the name of each file that appears in ``cookies``.
    """
    return _WatchfilesWatcher(root, cookies, on_hints, on_cookie, on_failure, only)


class _Pulse:
    """What watchfiles takes for its stop event: asked every STEP_MS, it keeps time and sees the root go away."""

    def __init__(self, root: bytes, identity: tuple[int, int]) -> None:
        self.stopped = False
        self.looks: deque[int] = deque([time.time_ns()], maxlen=_LOOKS_KEPT)
        self.root_seen_ns = self.looks[0]  # when the root was last known to be the one that is watched
        self._root = root
        self._identity = identity
        self._countdown = _ROOT_CHECK_EVERY

    def is_set(self) -> bool:
        self.looks.append(time.time_ns())
        self._countdown -= 1
        if self._countdown <= 0 and not self.stopped:
            self._countdown = _ROOT_CHECK_EVERY
            now_ns = self.looks[-1]
            if _identity(self._root) != self._identity:
                raise WatchFailure("missing", f"{_shown(self._root)} is not the directory that was watched any more")
            self.root_seen_ns = now_ns
        return self.stopped


class _WatchfilesWatcher:
    backend = "watchfiles"

    def __init__(
        self,
        root: bytes,
        cookies: bytes,
        on_hints: Callable[[list[Hint]], None],
        on_cookie: Callable[[str], None],
        on_failure: Callable[[WatchFailure], None],
        only: bytes | None,
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
        return min(self._pulse.looks[0], self._pulse.root_seen_ns) if self._pulse else 0

    def start(self) -> None:
        try:
            pulse = _Pulse(self._root, _identity(self._root))
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
        if self._pulse is not None:
            self._pulse.stopped = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_BOUND_S)

    def _run(self, notify: "RustNotify", pulse: _Pulse, translate: "_Translation") -> None:
        try:
            # Without a time-out (0): watchfiles drops events that arrive while one fires (5 of 40,000 measured).
            while not isinstance(batch := notify.watch(DEBOUNCE_MS, STEP_MS, 0, pulse), str):
                self._hand_over(batch, pulse, translate)
        except BaseException as error:  # noqa: BLE001 - thread boundary; a Rust panic is not even an Exception
            self._tell(as_failure(error), pulse)
        finally:
            notify.close()

    def _hand_over(self, batch: set[tuple[int, str]], pulse: _Pulse, translate: "_Translation") -> None:
        seen_ns = time.time_ns()
        hints, cookies = translate.batch(batch, seen_ns)
        if pulse.stopped:
            return
        if hints:
            self._on_hints(hints)
        for name in cookies:  # after the hints: whoever sees the cookie may rely on them
            self._on_cookie(name)

    def _tell(self, failure: WatchFailure, pulse: _Pulse) -> None:
        if pulse.stopped:
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

    def batch(self, batch: set[tuple[int, str]], seen_ns: int) -> tuple[list[Hint], list[str]]:
        """Return the hints and the names of the cookies that appeared."""
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
        if len(batch) > self._many:
            return [Hint(b"", seen_ns, overflow=True)], cookies
        return [Hint(path, seen_ns) for path in paths], cookies

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
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, UnicodeError) or "Unable to decode path" in text:
        return WatchFailure("undecodable", f"watchfiles cannot watch names that are not UTF-8: {text}")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return WatchFailure("missing", text)
    if number == errno.ENOSPC or "watch limit" in text:
        return WatchFailure("limit", _limit_message("max_user_watches", 1_048_576))
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return WatchFailure("limit", _limit_message("max_user_instances", 1_024))
    return WatchFailure("other", f"{type(error).__name__}: {text}")


def max_queued_events() -> int:
    """Return how many events the kernel holds for one inotify instance before it drops them."""
    return _inotify_setting("max_queued_events") or _DEFAULT_QUEUE


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


def _identity(path: bytes) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise WatchFailure("missing", f"{_shown(path)} does not exist") from error
    return status.st_dev, status.st_ino


def _limit_message(setting: str, suggested: int) -> str:
    now = _inotify_setting(setting)
    also = " or too many open files" if setting == "max_user_instances" else ""
    larger = max(suggested, 2 * (now or 0))
    return f"inotify limit reached (fs.inotify.{setting} = {now}{also}): sysctl -w fs.inotify.{setting}={larger}"


def _inotify_setting(name: str) -> int | None:
    try:
        return int(Path(f"/proc/sys/fs/inotify/{name}").read_text("ascii"))
    except (OSError, ValueError):
        return None


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
