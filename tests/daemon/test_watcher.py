"""The watch service: a real watch for what it sees, a scripted watcher only for when it re-arms."""

import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from reprod.daemon import barrier
from reprod.daemon.dirty import DirtySet
from reprod.daemon.watcher import WatchService
from reprod.fs import mounts
from reprod.fs.watch import Hint, WatchFailure
from reprod.fs.watch_choice import watcher_factory


class Notes:
    """Log, gaps and marks of one service in the order in which they came."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.order: list[str] = []
        self.gaps: list[tuple[str, int]] = []
        self.dirty = DirtySet(lambda: self.order.append("dirty"))

    def info(self, event: str, **keys: object) -> None:
        self.events.append((event, keys))

    warning = info

    def gap(self, kind: str, since_ns: int) -> None:
        self.order.append(f"gap {kind}")
        self.gaps.append((kind, since_ns))

    def names(self) -> list[str]:
        return [event for event, _ in self.events]

    def done(self) -> dict[bytes, int]:
        """Take what is dirty, as a refresh that succeeds."""
        with self.dirty.lease() as lease:
            return {b"": lease.first_hint_ns or 0} if lease.everything else dict(lease.paths)


class FakeWatcher:
    """Arms, fails and reports as its script says; each element is a failure of start(), or None for success."""

    backend = "inotify"

    def __init__(self, script: list[WatchFailure | None], *, cookies: bool = True) -> None:
        self.script = script
        self.cookies_are_seen = cookies
        self.starts: list[float] = []
        self.stops = 0
        self.whole_ns = 41

    def __call__(
        self, root: bytes, cookies: bytes, on_hints: Any, on_cookie: Any, on_failure: Any, *, only: Any = None
    ) -> Any:
        self.on_hints, self.on_failure, self.only = on_hints, on_failure, only
        return self

    def start(self) -> None:
        self.starts.append(time.monotonic())
        outcome = self.script.pop(0) if self.script else None
        if outcome is not None:
            raise outcome

    def stop(self) -> None:
        self.stops += 1


@asynccontextmanager
async def running(service: WatchService) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        await group.start(service.run)
        try:
            yield
        finally:
            group.cancel_scope.cancel()


async def until(condition: Callable[[], object], bound_s: float = 60) -> None:
    with anyio.fail_after(bound_s):
        while not condition():
            await anyio.sleep(0.005)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def notes() -> Notes:
    return Notes()


def make(root: Path, notes: Notes, backend: str = "auto", **keys: Any) -> WatchService:
    cookies = root.parent / "state/cookies/data"
    keys = {"make_watcher": watcher_factory(backend), **keys}
    return WatchService(
        "data", os.fsencode(root), cookies, notes.dirty, log=notes, backend=backend, on_gap=notes.gap, **keys
    )


async def test_arming_marks_everything_and_tells_the_gap_first(root: Path, notes: Notes) -> None:
    """After the first arming all is dirty, the time since the start is a gap, and hints come from then on."""
    before = time.time_ns()
    service = make(root, notes)
    assert (service.mode, service.armed) == ("none", False)
    async with running(service):
        assert (service.mode, service.reason, service.armed) == ("inotify", None, True)
        assert notes.order == ["gap re-arm", "dirty"]
        assert before <= notes.gaps[0][1] <= service.whole_since_ns <= time.time_ns()
        assert service.lost_since_ns is None
        assert list(notes.done()) == [b""]
        (root / "x").touch()
        await until(lambda: b"x" in notes.dirty.pending().paths)
        event, keys = notes.events[0]
        assert (event, keys["dataset"], keys["backend"]) == ("watch.armed", "data", "inotify")
    assert service.armed is False


async def test_barrier_proves_that_earlier_hints_are_in(root: Path, notes: Notes) -> None:
    """Ten times three concurrent barriers: what was written before is dirty when they return; no cookie is left."""
    service = make(root, notes)
    async with running(service):
        for n in range(10):
            notes.done()
            (root / f"{n}").write_bytes(b"x")
            results: list[bool] = []

            async def one(results: list[bool] = results) -> None:
                results.append(await service.barrier(60))

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(one)
            assert results == [True, True, True]
            assert b"%d" % n in notes.dirty.pending().paths
        assert os.listdir(root.parent / "state/cookies/data") == []
        assert sorted(os.listdir(root)) == [str(n) for n in range(10)]
    assert await service.barrier(1) is False


async def test_single_file_dataset(root: Path, notes: Notes) -> None:
    """Siblings of a dataset that is one file make no hints."""
    one = root / "one.csv"
    one.touch()
    service = make(one, notes)
    async with running(service):
        notes.done()
        (root / "two.csv").touch()
        one.touch()
        assert await service.barrier(60)
        assert list(notes.done()) == [b"one.csv"]


async def test_leftover_cookies_are_swept(root: Path, notes: Notes) -> None:
    """What a killed daemon left in the cookie directory is removed when arming."""
    cookies = root.parent / "state/cookies/data"
    cookies.mkdir(parents=True)
    (cookies / "old").touch()
    async with running(make(root, notes)):
        assert os.listdir(cookies) == []


async def test_undecodable_name_means_polling_for_good(root: Path, notes: Notes) -> None:
    """A name that is not UTF-8 moves the dataset to polling, with the reason, the gap and everything dirty."""
    service = make(root, notes, first_wait_s=0.01, backend="watchfiles")
    async with running(service):
        notes.done()
        notes.order.clear()
        with open(os.fsencode(root) + b"/\xff", "wb"):
            pass
        await until(lambda: service.mode == "poll" and "watch.polling" in notes.names())
        assert "UTF-8" in (service.reason or "")
        assert (service.armed, service.whole_since_ns) == (False, None)
        assert notes.order == ["gap re-arm", "dirty"]
        assert service.lost_since_ns == notes.gaps[-1][1] <= time.time_ns()
        assert await service.barrier(1) is False
        await anyio.sleep(0.1)
        assert notes.names().count("watch.armed") == 1


async def test_root_that_vanishes_and_returns(root: Path, notes: Notes) -> None:
    """A removed root is told and dirty; when it is back it is watched again, all of it, with the gap since the loss."""
    service = make(root, notes, first_wait_s=0.05)
    async with running(service):
        notes.done()
        shutil.rmtree(root)
        await until(lambda: "watch.lost" in notes.names())  # told last
        assert (service.mode, service.armed) == ("none", False)
        assert notes.done()
        lost_ns = service.lost_since_ns
        assert lost_ns is not None
        root.mkdir()
        (root / "x").touch()
        await until(lambda: service.armed)
        assert list(notes.done()) == [b""]
        assert notes.gaps[-1] == ("re-arm", lost_ns)
        (root / "y").touch()
        await until(lambda: b"y" in notes.dirty.pending().paths)
    assert "watch.lost" in notes.names()


async def test_missing_root_at_start_says_started(root: Path, notes: Notes) -> None:
    """A root that is not there does not hold up the daemon, and is watched when it appears."""
    root.rmdir()
    service = make(root, notes, first_wait_s=0.02)
    async with running(service):
        assert (service.mode, service.armed) == ("none", False)
        assert "does not exist" in (service.reason or "")
        root.mkdir()
        await until(lambda: service.armed)


async def test_waits_double_up_to_the_longest(root: Path, notes: Notes) -> None:
    """Attempts to arm are further and further apart, up to the bound; the same failure is told once."""
    failures: list[WatchFailure | None] = [WatchFailure("other", "no") for _ in range(5)]
    fake = FakeWatcher(failures)
    service = make(root, notes, make_watcher=fake, first_wait_s=0.05, longest_wait_s=0.2)
    chosen = pauses_of(service)
    async with running(service):
        assert (service.mode, service.reason) == ("poll", "no")
        await until(lambda: service.armed)
    waits = [later - earlier for earlier, later in zip(fake.starts, fake.starts[1:], strict=False)]
    assert chosen == [0.05, 0.1, 0.2, 0.2, 0.2]
    assert [wait >= least for wait, least in zip(waits, chosen, strict=True)] == [True] * 5
    assert notes.names() == ["watch.polling", "watch.armed"]
    assert [kind for kind, _ in notes.gaps] == ["re-arm", "re-arm"]


def pauses_of(service: WatchService, factor: float = 1) -> list[float]:
    """Record the pauses that the service chooses, in seconds; ``factor`` of each is taken."""
    chosen: list[float] = []
    choose = service._pause_s

    def note(failure: WatchFailure | None, wait_s: float) -> float:
        chosen.append(choose(failure, wait_s))
        return chosen[-1] * factor

    service._pause_s = note  # type: ignore[method-assign]
    return chosen


async def test_a_watch_that_breaks_at_once_does_not_reset_the_wait(
    root: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arming successfully is not success: only a watch that held starts over at the first wait."""
    clock, passed = anyio.current_time, [0.0]
    monkeypatch.setattr(anyio, "current_time", lambda: clock() + passed[0])
    fake = FakeWatcher([])
    service = make(root, notes, make_watcher=fake, first_wait_s=1, longest_wait_s=300)
    chosen = pauses_of(service, 0)
    async with running(service):
        for expected in range(2, 6):
            if expected == 5:
                passed[0] = 300.0
            fake.on_failure(WatchFailure("other", "again"))
            await until(lambda n=expected: len(fake.starts) == n and service.armed)
        assert chosen == [1, 2, 4, 1]
        assert fake.stops == 4
    assert notes.gaps[1:] == [("re-arm", 41)] * 8


async def test_limit_is_polled_and_tried_again_at_the_longest_wait(root: Path, notes: Notes) -> None:
    """An inotify limit names its sysctl, is polled, and is tried again only after the longest wait."""
    fake = FakeWatcher([WatchFailure("limit", "sysctl -w fs.inotify.max_user_watches=1")])
    service = make(root, notes, make_watcher=fake, first_wait_s=0.01, longest_wait_s=0.2)
    async with running(service):
        assert service.mode == "poll"
        assert "sysctl" in (service.reason or "")
        await until(lambda: service.armed)
        assert service.mode == "inotify"
    assert fake.starts[1] - fake.starts[0] >= 0.2


@pytest.mark.parametrize("why", ["configured", "network"])
async def test_polled_from_the_start(root: Path, notes: Notes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configured poll, or a network file system, never arms, says why, and leaves everything dirty once."""
    fake = FakeWatcher([])
    if why == "network":
        monkeypatch.setattr(mounts, "mount_of", lambda _fd: mounts.Mount(1, 0, "nfs4", "server:/x", b"/", b"/mnt"))
    service = make(root, notes, make_watcher=fake, backend="poll" if why == "configured" else "auto")
    async with running(service):
        assert service.mode == "poll"
        assert why.removesuffix("work") in (service.reason or "") or "nfs4" in (service.reason or "")
        assert list(notes.done()) == [b""]
        assert notes.names() == ["watch.polling"]
        assert fake.starts == []


async def test_overflow_is_a_gap_told_before_its_marks(root: Path, notes: Notes) -> None:
    """An overflow leaves the watch armed, but since now only, and the gap begins where the watcher was last whole."""
    fake = FakeWatcher([])
    service = make(root, notes, make_watcher=fake)
    async with running(service):
        notes.done()
        notes.order.clear()
        since = service.whole_since_ns
        await anyio.to_thread.run_sync(fake.on_hints, [Hint(b"", time.time_ns(), overflow=True)])
        assert notes.order == ["gap overflow", "dirty"]
        assert notes.gaps[-1] == ("overflow", 41)
        assert service.armed
        assert service.whole_since_ns is not None
        assert since is not None
        assert service.whole_since_ns > since
        await until(lambda: "watch.overflow" in notes.names())


async def test_deaf_watch_is_armed_again(root: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One unseen cookie is only a False; a second one in a row means that the watch went deaf, and it is armed anew."""
    monkeypatch.setattr(barrier, "DEAF_AFTER_S", 0.05)
    fake = FakeWatcher([])
    service = make(root, notes, make_watcher=fake, first_wait_s=0.01)
    async with running(service):
        assert await service.barrier(0.06) is False
        assert service.armed
        assert await service.barrier(0.06) is False
        await until(lambda: len(fake.starts) == 2 and service.armed)
        assert "watch.polling" in notes.names()


async def test_removed_cookie_directory_is_made_again(root: Path, notes: Notes) -> None:
    """Someone who removes the cookies only costs one False: the watch is armed again with a new directory."""
    service = make(root, notes, first_wait_s=0.02)
    async with running(service):
        shutil.rmtree(root.parent / "state")
        assert await service.barrier(1) is False
        await until(lambda: notes.names().count("watch.armed") == 2)
        assert await service.barrier(60) is True


async def test_a_watcher_that_misses_the_loss_of_its_cookies_is_replaced(root: Path, notes: Notes) -> None:
    """A cookie that finds no folder tells that the watch on it is gone, also where the watcher did not say so."""
    fake = FakeWatcher([])
    service = make(root, notes, make_watcher=fake, first_wait_s=0.01)
    async with running(service):
        shutil.rmtree(root.parent / "state")
        assert await service.barrier(1) is False
        await until(lambda: len(fake.starts) == 2 and service.armed)
    assert any("cannot write a cookie" in str(keys.get("reason")) for _, keys in notes.events)


async def test_cookie_that_cannot_be_written_is_only_a_false(root: Path, notes: Notes) -> None:
    """A state directory that takes no file (full, read-only) costs the proof, not the watch."""
    service = make(root, notes)
    async with running(service):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(barrier.secrets, "token_hex", lambda _n: "x" * 300)  # ENAMETOOLONG, also for root
            assert await service.barrier(1) is False
        assert service.armed
        assert "watch.no_cookie" in notes.names()
        assert await service.barrier(60) is True


async def test_loss_releases_waiting_barriers(root: Path, notes: Notes) -> None:
    """A barrier does not sit out its time when the watch is lost under it."""
    fake = FakeWatcher([])
    service = make(root, notes, make_watcher=fake)
    async with running(service), anyio.create_task_group() as group:
        results: list[bool] = []

        async def wait() -> None:
            results.append(await service.barrier(100))

        group.start_soon(wait)
        await until(lambda: os.listdir(root.parent / "state/cookies/data"))
        await anyio.to_thread.run_sync(fake.on_failure, WatchFailure("other", "x"))
        await until(lambda: results == [False])


async def test_cancellation_stops_the_thread_at_once(root: Path, notes: Notes) -> None:
    """Cancelling ends the watcher's thread, also while every default worker thread is busy."""
    service = make(root, notes)
    hold = threading.Event()
    try:
        async with anyio.create_task_group() as busy:
            async with running(service):
                for _ in range(45):
                    busy.start_soon(anyio.to_thread.run_sync, hold.wait, 90)
                await anyio.sleep(0.05)
                assert any(thread.name == "reprod-watch" for thread in threading.enumerate())
                began = time.monotonic()
            assert time.monotonic() - began < 60
            assert not any(thread.name == "reprod-watch" for thread in threading.enumerate())
            hold.set()
    finally:
        hold.set()


async def test_cancellation_while_arming(root: Path, notes: Notes) -> None:
    """A daemon that ends while arming does not wait for it, and what is armed late is stopped at once."""
    release, armed = threading.Event(), threading.Event()

    class Slow(FakeWatcher):
        def start(self) -> None:
            armed.set()
            release.wait(90)

    fake = Slow([])
    service = make(root, notes, make_watcher=fake)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(service.run)
            await until(armed.is_set)
            began = time.monotonic()
            group.cancel_scope.cancel()
        assert time.monotonic() - began < 60
        assert fake.stops == 0
    finally:
        release.set()
    await until(lambda: fake.stops == 1)
    assert service.armed is False
