"""Which source of hints (``reprod.fs.watch``) serves a configured backend; only the one that is taken is imported."""

import sys

from reprod.fs.watch import WatcherFactory


def watcher_factory(backend: str) -> WatcherFactory:
    """Return what makes watchers for a configured ``backend``: ``auto`` is inotify where there is one."""
    if backend == "inotify" or (backend == "auto" and sys.platform == "linux"):
        from reprod.fs.watch_inotify import InotifyWatcher

        return InotifyWatcher
    from reprod.fs.watch_files import WatchfilesWatcher

    return WatchfilesWatcher
