"""What of one dataset has to be looked at again: the connector between its watcher and its refresh.

Owns a coalescing set of hints. Rules: a hint leaves only through a lease whose work succeeded, otherwise it comes back
with the earliest time at which it may have happened (a run's binding depends on it, so it never grows); a hint may be
widened to a directory above it or to everything, never narrowed. Loss is allowed by design (the next walk finds it),
but never here. Thread-safe; holds its lock for memory operations only. Times are wall-clock nanoseconds; a path is
relative to the root and stands for its whole subtree.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from reprod.fs.watch import Hint

# Listing a directory costs about as much as looking at a hundred of its names one by one.
DIRECTORY_LIMIT = 128

# Above this a full walk (4 to 7 us a file) is near the price of the single looks, and the set would only grow under a
# storm.
TOTAL_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Lease:
    """Hints taken together: path -> when it changed at the earliest.

    With ``everything`` the whole tree is meant and ``paths`` is empty. ``closed``: files that were open for writing and
    are not any more; only a hurry, so it may be incomplete.
    """

    paths: Mapping[bytes, int] = field(default_factory=dict)
    everything: bool = False
    first_hint_ns: int | None = None
    newest_hint_ns: int | None = None
    reason: str | None = None  # why everything: the first reason given
    closed: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return self.everything or bool(self.paths)


class DirtySet:
    """The hints of one dataset. ``on_dirty`` is called, outside the lock, by whichever thread makes the set non-empty.

    That includes a failed lease that gives its hints back: pausing before the next attempt is the consumer's part.
    """

    def __init__(self, on_dirty: Callable[[], None] | None = None) -> None:
        self._on_dirty = on_dirty
        self._lock = threading.Lock()
        self._newest_ever: int | None = None
        self._newest: int | None = None
        self._clear()

    @property
    def newest_ns(self) -> int | None:
        """When the newest hint of all was seen, also of those leased or done; None before the first."""
        return self._newest_ever

    def mark(self, hints: Iterable[Hint]) -> None:
        """Add hints; one for ``b""`` (the root) means everything."""
        with self._lock:
            was_empty = self._empty()
            for hint in hints:
                self._note_seen(hint.seen_ns)
                if hint.closed and len(self._closed) < TOTAL_LIMIT:
                    self._closed.add(hint.path)
                self._add(hint.path, hint.seen_ns - hint.lag_ns, "overflow" if hint.overflow else "root changed")
            turned = was_empty and not self._empty()
        self._tell(turned)

    def mark_all(self, seen_ns: int, reason: str) -> None:
        """Make everything dirty, first seen at ``seen_ns``."""
        with self._lock:
            turned = self._empty()
            self._note_seen(seen_ns)
            self._add(b"", seen_ns, reason)
        self._tell(turned)

    def pending(self) -> Lease:
        """Return what is in the set now (not what is leased), without taking it."""
        with self._lock:
            return self._view()

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Take all hints out for the time of a ``with`` block; if it raises or is cancelled, they come back."""
        with self._lock:
            taken = self._view()
            self._clear()
        try:
            yield taken
        except BaseException:
            self._give_back(taken)
            raise

    def _give_back(self, taken: Lease) -> None:
        if not taken:
            return
        with self._lock:
            turned = self._empty()
            if taken.everything and taken.first_hint_ns is not None:
                self._add(b"", taken.first_hint_ns, taken.reason)
            for path, first_ns in taken.paths.items():
                self._add(path, first_ns, taken.reason)
            self._newest = _latest(self._newest, taken.newest_hint_ns)
            self._closed |= taken.closed
        self._tell(turned)

    def _tell(self, turned: bool) -> None:
        if turned and self._on_dirty is not None:
            self._on_dirty()

    # Everything below runs under the lock.

    def _clear(self) -> None:
        self._paths: dict[bytes, int] = {}
        self._names: Counter[bytes] = Counter()  # directory -> how many of our paths are directly in it
        self._collapsed: set[bytes] = set()  # paths of ours that absorb what comes below them
        self._everything = False
        self._first: int | None = None
        self._newest = None
        self._closed: set[bytes] = set()
        self._reason: str | None = None

    def _empty(self) -> bool:
        return not self._everything and not self._paths

    def _view(self) -> Lease:
        paths, closed = dict(self._paths), frozenset(self._closed)
        return Lease(paths, self._everything, self._first, self._newest, self._reason, closed)

    def _note_seen(self, seen_ns: int) -> None:
        self._newest = _latest(self._newest, seen_ns)
        self._newest_ever = _latest(self._newest_ever, seen_ns)

    def _add(self, path: bytes, first_ns: int, reason: str | None) -> None:
        self._first = first_ns if self._first is None else min(self._first, first_ns)
        if path == b"":
            self._take_everything(reason)
        if self._everything:
            return
        self._put(self._absorber(path) or path, first_ns)
        if len(self._paths) > TOTAL_LIMIT:
            self._take_everything("too many hints")

    def _put(self, path: bytes, first_ns: int) -> None:
        known = self._paths.get(path)
        if known is not None:
            self._paths[path] = min(known, first_ns)
            return
        self._paths[path] = first_ns
        directory = _parent(path)
        self._names[directory] += 1
        if self._names[directory] > DIRECTORY_LIMIT:
            self._collapse(directory)

    def _collapse(self, directory: bytes) -> None:
        if directory == b"":
            self._take_everything("too many hints")
            return
        below = [path for path in self._paths if path.startswith(directory + b"/")]
        first = min(self._paths[path] for path in below)
        for path in below:
            del self._paths[path]
            self._names[_parent(path)] -= 1
        self._collapsed.difference_update(below)
        self._collapsed.add(directory)
        self._put(directory, first)

    def _absorber(self, path: bytes) -> bytes | None:
        if not self._collapsed:
            return None
        while path:
            if path in self._collapsed:
                return path
            path = _parent(path)
        return None

    def _take_everything(self, reason: str | None) -> None:
        if not self._everything:
            self._everything, self._reason = True, reason
            self._paths, self._names, self._collapsed = {}, Counter(), set()


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _latest(known: int | None, seen_ns: int | None) -> int | None:
    if known is None or seen_ns is None:
        return seen_ns if known is None else known
    return max(known, seen_ns)
