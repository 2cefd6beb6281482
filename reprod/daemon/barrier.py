"""The cookie barrier of one watch: a proof that all hints of what happened before a call have come.

A cookie is an empty file that is written where the same watcher looks; hints come in the order of the kernel's queue,
so once the cookie is seen, everything older was handed over. Owns the folder of the cookies. All but ``prepare`` runs
on the event loop; times are its clock's seconds.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import aiofiles
import anyio
import anyio.to_thread

from reprod.fs.watch import WatchFailure, why

# A cookie takes 100 ms. One that is late may be a busy machine; only a second one in a row, waited for at least this
# long, is a watch that has gone deaf without saying so.
DEAF_AFTER_S = 0.5


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for a cookie, until it is seen or cannot be any more."""

    woken: anyio.Event
    seen: bool = False


class Barrier:
    """Lays cookies in ``folder``, which is its own, and waits for them. Concurrent waits do not disturb each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: dict[str, _Waiter] = {}
        self._late_since: float | None = None

    def prepare(self) -> None:
        """Make the folder and sweep what a killed daemon left there. Blocks. Raises ``WatchFailure``."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in self.folder.iterdir():
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise WatchFailure("other", f"cannot prepare {self.folder}: {error.strerror or error}") from error

    async def passed(self, timeout_s: float) -> bool:
        """Lay a cookie; whether it was seen within the time. False also if ``release`` came first.

        Raises ``WatchFailure`` if the watch cannot be believed any more (its folder is gone, or it went deaf), OSError
        if no cookie can be written, which says nothing about the watch.
        """
        began = anyio.current_time()
        name, waiter = secrets.token_hex(8), _Waiter(anyio.Event())
        path = self.folder / name
        self._waiting[name] = waiter
        try:
            with anyio.move_on_after(timeout_s):
                async with aiofiles.open(path, "xb"):
                    pass
                await waiter.woken.wait()
        except FileNotFoundError as error:  # the folder was removed, and the watch on it with it
            raise WatchFailure("other", f"cannot write a cookie: {why(error)}") from error
        finally:
            del self._waiting[name]
            with anyio.CancelScope(shield=True):  # a limiter of its own: not behind forty threads that hash
                await anyio.to_thread.run_sync(_unlink, path, limiter=anyio.CapacityLimiter(1))
        if not waiter.woken.is_set():
            self._note_late(began)
        return waiter.seen

    def see(self, name: str) -> None:
        """The watcher told of a file in the folder."""
        if (waiter := self._waiting.get(name)) is not None:
            self._late_since = None
            waiter.seen = True
            waiter.woken.set()

    def release(self) -> None:
        """Let go all who wait: the watch was lost."""
        for waiter in self._waiting.values():
            waiter.woken.set()

    def forget_late(self) -> None:
        """Count from the start: the watch is another one now."""
        self._late_since = None

    def _note_late(self, began: float) -> None:
        now = anyio.current_time()
        if now - began < DEAF_AFTER_S:
            return
        if self._late_since is None:
            self._late_since = now
        elif began >= self._late_since:
            raise WatchFailure("other", "cookies are not seen any more")


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # swept when next armed
