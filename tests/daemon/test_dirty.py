"""The dirty set: coalescing that never loses a hint nor lets its first time grow."""

import asyncio
import threading

import pytest
from drawn import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from reprod.daemon import dirty as dirty_module
from reprod.daemon.dirty import DIRECTORY_LIMIT, TOTAL_LIMIT, DirtySet, Lease
from reprod.fs.watch import Hint


def _fail(dirty: DirtySet, error: BaseException, *meanwhile: Hint) -> None:
    """A lease during which ``meanwhile`` arrives and which then fails."""
    with dirty.lease() as lease:
        assert lease
        dirty.mark(meanwhile)
        raise error


def test_a_lease_takes_all_and_consumes_it() -> None:
    """What was leased and worked on is gone, with the earliest and the latest time told."""
    dirty = DirtySet()
    dirty.mark([Hint(b"a/x", 10), Hint(b"b", 30), Hint(b"a/x", 20)])
    with dirty.lease() as lease:
        assert lease == Lease({b"a/x": 10, b"b": 30}, False, 10, 30)
        assert not dirty.pending()
    assert not dirty.pending()
    assert dirty.newest_ns == 30


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, KeyboardInterrupt])
def test_a_failed_lease_comes_back_with_first_times(error: type[BaseException]) -> None:
    """Whatever ends the work, its hints are there again with the time of their first sighting."""
    dirty = DirtySet()
    dirty.mark([Hint(b"a", 10), Hint(b"b", 11)])
    with pytest.raises(error):
        _fail(dirty, error(), Hint(b"a", 50), Hint(b"c", 51))
    pending = dirty.pending()
    assert dict(pending.paths) == {b"a": 10, b"b": 11, b"c": 51}
    assert (pending.first_hint_ns, pending.newest_hint_ns) == (10, 51)


def test_everything_comes_back_as_everything() -> None:
    """A failed lease of the whole tree is the whole tree again, since when it was."""
    dirty = DirtySet()
    dirty.mark_all(5, "start")
    assert (dirty.pending().everything, dirty.pending().reason) == (True, "start")
    with pytest.raises(ValueError, match="x"):
        _fail(dirty, ValueError("x"), Hint(b"a", 9))
    assert dirty.pending() == Lease({}, True, 5, 9, "start")


def test_on_dirty_fires_once_per_turn_and_outside_the_lock() -> None:
    """The callback comes when the set turns non-empty, may use the set, and comes again after a failed lease."""
    calls: list[Lease] = []
    dirty = DirtySet(lambda: calls.append(dirty.pending()))
    dirty.mark([])
    assert calls == []
    dirty.mark([Hint(b"a", 1)])
    dirty.mark([Hint(b"b", 2)])
    assert len(calls) == 1
    with pytest.raises(OSError, match="io"), dirty.lease():
        raise OSError("io")
    assert len(calls) == 2
    with dirty.lease():
        pass
    dirty.mark_all(3, "timer")
    assert len(calls) == 3


def test_an_empty_lease_that_fails_changes_nothing() -> None:
    """Failing without hints makes no noise."""
    calls: list[int] = []
    dirty = DirtySet(lambda: calls.append(1))
    with pytest.raises(ValueError, match="x"), dirty.lease():
        raise ValueError("x")
    assert (calls, bool(dirty.pending())) == ([], False)


def test_many_names_in_one_directory_become_that_directory() -> None:
    """Beyond the limit the directory stands for its names, since the earliest, and absorbs later ones."""
    dirty = DirtySet()
    dirty.mark(Hint(b"d/e/%d" % n, 1000 + n) for n in range(DIRECTORY_LIMIT))
    assert len(dirty.pending().paths) == DIRECTORY_LIMIT
    dirty.mark([Hint(b"d/e/deep/er", 7), Hint(b"d/f", 8), Hint(b"d/e/last", 9999)])
    assert dict(dirty.pending().paths) == {b"d/e": 7, b"d/f": 8}
    dirty.mark([Hint(b"d/e/after", 3), Hint(b"d/ee", 4)])
    assert dict(dirty.pending().paths) == {b"d/e": 3, b"d/f": 8, b"d/ee": 4}


def test_a_collapsed_directory_inside_another_is_absorbed() -> None:
    """When the directory above collapses too, it alone stands for everything below."""
    dirty = DirtySet()
    dirty.mark(Hint(b"d/e/%d" % n, 5) for n in range(DIRECTORY_LIMIT + 1))
    dirty.mark(Hint(b"d/%d" % n, 6) for n in range(DIRECTORY_LIMIT))
    dirty.mark([Hint(b"d/e/more", 7)])
    assert dict(dirty.pending().paths) == {b"d": 5}


def test_many_names_in_the_root_or_in_all_become_everything() -> None:
    """The set stays bounded whatever a storm brings."""
    flat, wide = DirtySet(), DirtySet()
    flat.mark(Hint(b"%d" % n, 50 - n) for n in range(DIRECTORY_LIMIT + 1))
    assert flat.pending().everything
    assert flat.pending().first_hint_ns == 50 - DIRECTORY_LIMIT
    wide.mark(Hint(b"a%d/b%d/x" % (n % 100, n), n) for n in range(TOTAL_LIMIT))
    assert len(wide.pending().paths) == TOTAL_LIMIT
    wide.mark([Hint(b"one/more", 77)])
    assert wide.pending() == Lease({}, True, 0, 4095, "too many hints")


def test_root_and_overflow_hints_mean_everything() -> None:
    """A hint for the root is for the whole tree, and an overflow says so."""
    dirty = DirtySet()
    dirty.mark([Hint(b"a", 1), Hint(b"", 2, overflow=True)])
    assert dirty.pending() == Lease({}, True, 1, 2, "overflow")


def test_threads_lose_nothing() -> None:
    """Four marking threads and a leasing one whose every second lease fails: each path is seen at last."""
    dirty, done = DirtySet(), set[bytes]()

    def mark(base: int) -> None:
        for n in range(500):
            dirty.mark([Hint(b"t%d/%d" % (base, n % 100), n)])

    threads = [threading.Thread(target=mark, args=(base,)) for base in range(4)]
    for thread in threads:
        thread.start()
    rounds = 0
    while any(thread.is_alive() for thread in threads) or dirty.pending():
        rounds += 1
        try:
            with dirty.lease() as lease:
                if rounds % 2:
                    raise RuntimeError
                done.update(lease.paths)
        except RuntimeError:
            continue
    for thread in threads:
        thread.join()
    assert done == {b"t%d/%d" % (base, n) for base in range(4) for n in range(100)}


@pytest.fixture(autouse=True)
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "model" in request.node.name:
        monkeypatch.setattr(dirty_module, "DIRECTORY_LIMIT", 3)
        monkeypatch.setattr(dirty_module, "TOTAL_LIMIT", 7)


_NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
_PATHS = st.lists(_NAMES, min_size=0, max_size=3).map(b"/".join)
_HINTS = st.lists(st.tuples(_PATHS, st.integers(0, 1000)), min_size=1, max_size=6)


def _first_seen(lease: Lease, path: bytes) -> int | None:
    """When the lease says that ``path`` or something above it was first seen."""
    if lease.everything:
        return lease.first_hint_ns
    above = [path]
    while above[-1]:
        above.append(above[-1].rpartition(b"/")[0])
    return min((lease.paths[each] for each in above if each in lease.paths), default=None)


class _Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.dirty = DirtySet(self._turned)
        self.owed: dict[bytes, int] = {}

    def _turned(self) -> None:
        self.turns += 1

    @rule(hints=_HINTS)
    def mark(self, hints: list[tuple[bytes, int]]) -> None:
        self.dirty.mark(Hint(path, seen) for path, seen in hints)
        self._owe(hints)

    @rule(seen=st.integers(0, 1000))
    def mark_all(self, seen: int) -> None:
        self.dirty.mark_all(seen, "test")
        self._owe([(b"", seen)])

    @rule(meanwhile=_HINTS, fails=st.booleans())
    def lease(self, meanwhile: list[tuple[bytes, int]], fails: bool) -> None:
        try:
            with self.dirty.lease() as lease:
                self._check(lease)
                owed_before, self.owed = self.owed, {}
                self.mark(meanwhile)
                if fails:
                    raise ArithmeticError
        except ArithmeticError:
            self._owe(owed_before.items())

    @invariant()
    def nothing_is_lost(self) -> None:
        self._check(self.dirty.pending())

    def _owe(self, hints: object) -> None:
        for path, seen in hints:  # type: ignore[attr-defined]
            self.owed[path] = min(seen, self.owed.get(path, seen))

    def _check(self, lease: Lease) -> None:
        assert bool(lease) == bool(self.owed)
        for path, seen in self.owed.items():
            first = _first_seen(lease, path)
            assert first is not None, path
            assert first <= seen
        if self.owed:
            assert lease.first_hint_ns == min(self.owed.values())
            assert len(lease.paths) <= dirty_module.TOTAL_LIMIT
            assert self.turns > 0


_Machine.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=25, deadline=None)


def test_model_no_hint_is_lost_and_no_first_time_grows() -> None:
    """Marks and leases that fail or succeed, in any order, against a model that never coalesces."""
    _Machine.TestCase("runTest").runTest()
