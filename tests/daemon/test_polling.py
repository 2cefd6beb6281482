"""The waits between polls: a light load on the server, spread over the daemons that share it."""

import random
from collections import Counter

import pytest

from reprod.daemon.polling import LONGEST_S, Interval


def drawing(*numbers: float) -> Interval:
    """Return an interval that draws these numbers, the last one for ever."""
    left = list(numbers)
    return Interval(draw=lambda: left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.parametrize(
    ("base_s", "took_s", "daemons", "expected_s"),
    [
        (10, 0.05, 1, 10),  # the default, on a server that answers at once: as configured
        (10, 0.5, 1, 50),  # 1 % of the time
        (0.2, 0.05, 1, 0.2),  # who asks for a short interval asks for a larger share
        (0.2, 0.2, 1, 0.4),
        (60, 0.5, 1, 60),
        (10, 0.05, 20, 10),  # 20 daemons of 50 ms: a tenth of a core
        (10, 0.05, 150, 30),  # the notes' example: 150 daemons, 100,000 runs, one core
        (10, 0.05, 1000, 200),
        (10, 30, 1000, LONGEST_S),
        (900, 0.05, 1, 900),  # a person may poll more seldom than the longest stretch
    ],
)
def test_the_interval_follows_what_a_poll_costs(base_s: float, took_s: float, daemons: int, expected_s: float) -> None:
    """The interval is the configured one, or as long as 1 % of one daemon's and a quarter core of all asks for."""
    interval = drawing(1.0)
    interval.answered(base_s, took_s, daemons)

    assert interval.interval_s(base_s, daemons) == pytest.approx(expected_s)


def test_one_slow_poll_does_not_make_a_daemon_deaf() -> None:
    """A single poll of 10 s among fast ones stretches the wait for a few polls only."""
    interval = drawing(1.0)
    for _ in range(5):
        interval.answered(10, 0.02)
    slow_s = interval.answered(10, 10.0)
    waits = [interval.answered(10, 0.02) for _ in range(20)]

    assert slow_s <= 210
    assert waits[-1] == 10


def test_a_wait_is_never_longer_than_the_interval_nor_much_shorter() -> None:
    """A tag is noticed within one interval; only the first wait may be anything below it."""
    chance = random.Random(7)
    interval = Interval(draw=chance.random)
    first_s = interval.answered(10, 0.01)
    waits = [interval.answered(10, 0.01) for _ in range(1000)]

    assert 0 <= first_s <= 10
    assert 7.5 <= min(waits) < 8 < 9.5 < max(waits) <= 10


def test_a_server_that_does_not_answer_is_asked_ever_more_seldom() -> None:
    """Waits double up to five minutes, are drawn at random, and fall back at the first answer."""
    interval = drawing(1.0)
    waits = [interval.failed(10) for _ in range(8)]

    assert waits == [20, 40, 80, 160, 300, 300, 300, 300]
    assert drawing(0.0).failed(10) == 10
    assert interval.answered(10, 0.01) == 10
    assert interval.failed(10) == 20


def test_daemons_that_wake_together_do_not_stay_together() -> None:
    """20 daemons that poll in one second spread over the interval at once, and again after an outage."""
    chance = random.Random(11)
    daemons = [Interval(draw=chance.random) for _ in range(20)]
    for outage in (False, True):
        polls: Counter[int] = Counter()
        for daemon in daemons:
            if outage:
                daemon.failed(10)
            at_s = daemon.answered(10, 0.02, 20)  # all of them are answered at second 0
            while at_s < 600:
                polls[int(at_s)] += 1
                at_s += daemon.answered(10, 0.02, 20)
        # 1,370 polls in 600 s: 2.3 a second on average, and never all of them in one.
        assert 1200 <= sum(polls.values()) <= 1600
        assert max(polls.values()) <= 9
