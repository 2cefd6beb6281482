"""Hints of what changed below one root: what every source of them promises, and how it fails.

Owns the protocol; ``watch_inotify`` and ``watch_files`` are the sources, ``watch_choice`` takes one of them. The rules
that all of them keep:

* A hint says "look there", never what happened; whoever consumes it ``lstat``s, and a directory means its whole
  subtree.
* The cookie directory is watched by the same instance, so both share one queue: hints of what happened before a cookie
  was written are handed over before that cookie is.
* What cannot be relied on any more is a ``WatchFailure``, told once; arming again is the caller's business
  (daemon/watcher.py).
* Callbacks run on the watcher's thread, must not block, and are never called after ``stop`` has returned.

Times are wall-clock nanoseconds. No source sees everything (a mapped page, another host, a second path to the same
directory): truth comes from walks, never from here.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

FailureKind = Literal["undecodable", "limit", "missing", "other"]

#: Seconds between two looks at whether the root is still what was armed: a rename of its parent, an unmount and a
#: retargeted symlink make no event, and after its own deletion or rename a watch is deaf.
ROOT_CHECK_S = 1.0

#: stop() waits for at most one look and one callback; the bound is for a callback that hangs.
JOIN_BOUND_S = 5.0

_DEFAULT_QUEUE = 16_384  # the kernel's own default of max_queued_events


@dataclass(frozen=True, slots=True)
class Hint:
    """Something changed at ``path`` (relative to the root; ``b""`` is the whole tree), and we saw it at ``seen_ns``.

    ``lag_ns``: it happened at most so long before. ``overflow``: so much changed at once that events were dropped.
    ``closed``: a file that was open for writing is not any more, or its name is gone, so it is worth a look at once.
    """

    path: bytes
    seen_ns: int
    lag_ns: int = 0
    overflow: bool = False
    closed: bool = False


class WatchFailure(Exception):  # noqa: N818 - it is a state of the watch that callers branch on, not an error shown to people
    """Raised by ``start``, or handed to ``on_failure``: nothing is seen any more, and why."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Watcher(Protocol):
    """A source of hints for one root. ``backend`` names it; one instance is armed once."""

    backend: Literal["inotify", "watchfiles"]

    @property
    def whole_ns(self) -> int:
        """A moment up to which every event was handed over, as far as can be known; also after a failure."""
        ...

    def start(self) -> None:
        """Arm; returns when events are being collected. Blocks (some 20 us a directory). Raises ``WatchFailure``."""
        ...

    def stop(self) -> None:
        """End within 300 ms and leave no thread. May be called repeatedly, and without ``start``."""
        ...


class WatcherFactory(Protocol):
    """How a watcher is made, not yet armed.

    It watches the tree at ``root`` and the flat directory ``cookies``, both of which must exist. ``only`` is for a
    dataset that is one file: ``root`` is then its directory, which is watched flat, and only hints for that name are
    given. ``on_cookie`` gets the name of each file that appears in ``cookies``.
    """

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
        """Return the watcher."""
        ...


def identity_of(root: bytes) -> tuple[int, int]:
    """Return device and inode of the directory at ``root``. Raises ``WatchFailure`` if there is none."""
    try:
        status = os.stat(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WatchFailure("missing", f"{shown(root)} does not exist") from error
    except OSError as error:
        raise WatchFailure("missing", f"{shown(root)} cannot be looked at: {error.strerror}") from error
    return status.st_dev, status.st_ino


def check_root(root: bytes, identity: tuple[int, int], only: bytes | None) -> None:
    """Raise ``WatchFailure`` if the root is not the one that was armed, or the one file has become a directory."""
    if identity_of(root) != identity:
        raise no_longer_watched(root)
    path = os.path.join(root, only or b"")
    if only is not None and os.path.isdir(path):
        raise WatchFailure("missing", f"{shown(path)} is no file any more but a directory")


def no_longer_watched(root: bytes) -> WatchFailure:
    """Return what to tell when the root is another directory than the one that was armed."""
    return WatchFailure("missing", f"{shown(root)} is not the directory that was watched any more")


def as_limit(number: int | None) -> WatchFailure | None:
    """Return the failure that an error number of inotify means if it is one of its limits."""
    if number == errno.ENOSPC:
        return limit_reached("max_user_watches")
    if number in (errno.EMFILE, errno.ENFILE):
        return limit_reached("max_user_instances")
    return None


def limit_reached(setting: Literal["max_user_watches", "max_user_instances"]) -> WatchFailure:
    """Return the failure for a limit of the kernel, with the line that raises it."""
    now = _inotify_setting(setting)
    suggested = 1_048_576 if setting == "max_user_watches" else 1_024
    also = " or too many open files" if setting == "max_user_instances" else ""
    larger = max(suggested, 2 * (now or 0))
    line = f"sysctl -w fs.inotify.{setting}={larger}"
    return WatchFailure("limit", f"inotify limit reached (fs.inotify.{setting} = {now}{also}): {line}")


def max_queued_events() -> int:
    """Return how many events the kernel holds for one inotify instance before it drops them."""
    return _inotify_setting("max_queued_events") or _DEFAULT_QUEUE


def shown(path: bytes) -> str:
    """Return a path as it can be shown."""
    return path.decode("utf-8", "backslashreplace")


def why(error: BaseException) -> str:
    """Return what an exception says; of one that the system named a path in, the path as it can be shown."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    path = error.filename
    return error.strerror if path is None else f"{error.strerror}: {shown(os.fsencode(path))}"


def _inotify_setting(name: str) -> int | None:
    try:
        return int(Path(f"/proc/sys/fs/inotify/{name}").read_text("ascii"))
    except (OSError, ValueError):
        return None
