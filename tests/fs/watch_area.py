"""Where watchers are tested: a root, a cookie directory, and a record of all that was told."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from reprod.fs.watch import Hint, Watcher, WatchFailure
from reprod.fs.watch_choice import watcher_factory


class Recorder:
    """Collects what a watcher tells, in order."""

    def __init__(self) -> None:
        self.told: list[Hint | str | WatchFailure] = []
        self._changed = threading.Condition()

    def hints(self, hints: list[Hint]) -> None:
        self._add(hints)

    def cookie(self, name: str) -> None:
        self._add([name])

    def failure(self, failure: WatchFailure) -> None:
        self._add([failure])

    def _add(self, items: list) -> None:
        with self._changed:
            self.told += items
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool], bound_s: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, bound_s), self.told[-20:]

    def paths(self) -> set[bytes]:
        return {item.path for item in self.told if isinstance(item, Hint)}

    def failures(self) -> list[WatchFailure]:
        return [item for item in self.told if isinstance(item, WatchFailure)]

    def take(self) -> list[Hint | str | WatchFailure]:
        """Return all that was told up to now, and forget it."""
        with self._changed:
            told, self.told = self.told, []
        return told

    def wait_paths(self, *paths: bytes) -> None:
        self.wait(lambda: set(paths) <= self.paths())

    def wait_failure(self) -> WatchFailure:
        self.wait(lambda: bool(self.failures()))
        return self.failures()[0]


def native_threads() -> list[str]:
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            continue
    return [name for name in names if "notify" in name]


def inotify_watches() -> int:
    """How many directories this process watches."""
    count = 0
    for descriptor in os.listdir("/proc/self/fdinfo"):
        try:
            count += Path(f"/proc/self/fdinfo/{descriptor}").read_text().count("inotify wd:")
        except OSError:
            continue
    return count


def wait_for_no_native_thread() -> None:
    """The native thread ends by itself, a moment after its instance was closed."""
    deadline = time.monotonic() + 60
    while native_threads():
        assert time.monotonic() < deadline, native_threads()
        threading.Event().wait(0.01)


class Area:
    """A root, a cookie directory, and the watchers armed on them; stops them all at the end."""

    def __init__(self, base: Path, backend: str) -> None:
        self.backend = backend
        self.root = base / "root"
        self.cookies = base / "cookies"
        self.root.mkdir()
        self.cookies.mkdir()
        self.told = Recorder()
        self.watchers: list[Watcher] = []
        self._cookies_laid = 0

    def make(self, root: bytes | None = None, *, only: bytes | None = None) -> Watcher:
        told = self.told
        root = os.fsencode(self.root) if root is None else root
        factory = watcher_factory(self.backend)
        made = factory(root, os.fsencode(self.cookies), told.hints, told.cookie, told.failure, only=only)
        self.watchers.append(made)
        return made

    def start(self, root: bytes | None = None, *, only: bytes | None = None) -> Watcher:
        made = self.make(root, only=only)
        made.start()
        return made

    def quiesce(self) -> None:
        """Wait until all that happened before was told."""
        self._cookies_laid += 1
        name = f"quiet-{self._cookies_laid}"
        (self.cookies / name).touch()
        self.told.wait(lambda: name in self.told.told)
