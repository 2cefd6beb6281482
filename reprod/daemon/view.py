"""The watch of one dataset as a refresh sees it, and made deaf to what is none of its business."""

import os
from collections.abc import Callable
from typing import Any

from anyio import from_thread

from reprod.daemon.dirty import DirtySet, Lease
from reprod.daemon.watcher import WatchService
from reprod.fs.watch import Hint, Watcher
from reprod.fs.watch_choice import watcher_factory
from reprod.ops.refresh import Hints

#: How long to wait for a cookie, which takes 0.1 s; without one nobody knows what is still on its way.
BARRIER_S = 2.0


class WatchView:
    """What a refresh in a worker thread asks of the watch (``ops.refresh.Watch``)."""

    def __init__(self, service: WatchService, lease: Lease, dirty: DirtySet) -> None:
        self._service, self._lease, self._dirty = service, lease, dirty
        self._deaf = False

    def whole_since_ns(self) -> int | None:
        """Since when hints have come without a known loss."""
        return None if self._deaf or not self._service.armed else self._service.whole_since_ns

    def hints(self) -> Hints:
        """What this refresh was told."""
        lease = self._lease
        return Hints(lease.paths, lease.everything, lease.first_hint_ns, lease.closed)

    def settled(self) -> Hints:
        """All that came up to now, once a cookie has proven that nothing older is on its way."""
        if not from_thread.run(self._service.barrier, BARRIER_S):
            self._deaf = True  # then nobody knows what is still on its way
        late = self._dirty.pending()
        firsts = [ns for ns in (self._lease.first_hint_ns, late.first_hint_ns) if ns is not None]
        paths = {**late.paths, **self._lease.paths}
        return Hints(paths, self._lease.everything or late.everything, min(firsts) if firsts else None)


def watch_without(
    state: str,
    backend: str,
    root: bytes,
    cookies: bytes,
    on_hints: Callable[[list[Hint]], None],
    *others: Any,
    only: bytes | None = None,
) -> Watcher:
    """Make a watcher that is deaf to reprod's own state, should it lie inside the dataset."""
    make = watcher_factory(backend)
    inside = os.path.relpath(os.fsencode(state), os.path.realpath(root))
    if inside.startswith(b".."):
        return make(root, cookies, on_hints, *others, only=only)

    def filtered(hints: list[Hint]) -> None:
        kept = [hint for hint in hints if hint.path != inside and not hint.path.startswith(inside + b"/")]
        if kept:
            on_hints(kept)

    return make(root, cookies, filtered, *others, only=only)
