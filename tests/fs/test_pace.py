"""Limits and the number of readers, by a clock that the test turns."""

from reprod.fs.pace import BURST_S, FILE_COST, WINDOW_S, Pace, Readers


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_limit_is_kept_over_time() -> None:
    """Ten times the burst is charged in pieces: it takes as long as the limit says."""
    clock = Clock()
    pace, began = Pace(1000, clock), clock.now
    for _ in range(200):
        clock.now += pace.wait_s()
        assert pace.wait_s() < 1e-9
        pace.charge(50)
    assert clock.now - began > 200 * 50 / 1000 - BURST_S - 2 * 50 / 1000


def test_idle_time_is_not_saved_up() -> None:
    """After a pause no more than the burst is free."""
    clock = Clock()
    pace = Pace(1000, clock)
    clock.now += 3600
    pace.charge(1000)
    assert abs(pace.wait_s() - (1 - BURST_S)) < 1e-9


def test_no_limit_never_waits() -> None:
    """Zero is none."""
    pace = Pace(0)
    pace.charge(1e12)
    assert pace.wait_s() == 0


def run(readers: Readers, clock: Clock, rate_at: list[float], windows: int = 12) -> list[int]:
    """Read for some windows; ``rate_at[n - 1]`` is the throughput of n readers. Returns what was allowed in each."""
    allowed = []
    for _ in range(windows):
        allowed.append(readers.allowed)
        clock.now += WINDOW_S
        readers.note(0, int(rate_at[readers.allowed - 1] * WINDOW_S), busy=True)
    return allowed


def test_a_disk_that_seeks_keeps_one_reader() -> None:
    """Two readers bring less than one: back to one, for good."""
    clock = Clock()
    readers = Readers(8, slow=True, clock=clock)
    assert run(readers, clock, [160e6, 60e6, 50e6])[-8:] == [1] * 8


def test_a_network_that_waits_gets_more_readers() -> None:
    """Each reader brings its share up to five: five, or the one more that it took to see that."""
    clock = Clock()
    readers = Readers(8, slow=True, clock=clock)
    rates = [20e6, 40e6, 60e6, 80e6, 100e6, 101e6, 101e6, 101e6]
    assert run(readers, clock, rates)[-4:] == [5] * 4


def test_a_quick_disk_gets_all_at_once() -> None:
    """Nothing is tried out where nothing seeks."""
    assert Readers(8, slow=False).allowed == 8


def test_a_caller_that_has_nothing_to_read_proves_nothing() -> None:
    """While the walk is what takes time, the rate says nothing about the disk."""
    clock = Clock()
    readers = Readers(8, slow=True, clock=clock)
    for _ in range(10):
        clock.now += WINDOW_S
        readers.note(1, FILE_COST, busy=False)
    assert readers.allowed == 1
