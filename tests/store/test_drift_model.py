"""The drift rule against the truth: the random timelines of the binding model, and runs of every length on them.

The world is that of ``test_binding_model``: real store, late and lost events, kills, restarts, clocks that are set. It
is extended by a log of what really happened to which name, touches included. Each run is bound as the daemon binds it.
"""

import itertools
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import test_binding_model
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from test_binding_model import LAG, SLACK, TICK, World, refreshes, restarts, steps, troubles, waits

from reprod.core.binding import bind
from reprod.core.snapshot import BoundDataset
from reprod.ops.drift import Lifetime, dataset_drift
from reprod.store import meta, timeline
from reprod.store.connection import open_database

TALLY: Counter[str] = Counter()
FULL = (True, [], False)

#: More names than bindings need: a run that only gets new ones must be possible for long.
NAMES = tuple(b"abcdefgh"[i : i + 1] for i in range(8))


def changes(*hows: str) -> st.SearchStrategy[tuple[str, object]]:
    """Return changes of these kinds."""
    fates = st.sampled_from(["told", "told", "told", "told", "lost"])
    change = st.tuples(st.sampled_from(hows), st.sampled_from(NAMES), st.integers(1, 3), st.integers(0, LAG), fates)
    return st.tuples(st.just("change"), change)


changed = changes("write", "touch", "create", "create", "create", "move in", "replace", "delete")
calm = [changed, changed, changed, waits, refreshes, refreshes, troubles, restarts]
growing = [changes("create", "move in"), waits, waits, st.tuples(st.just("refresh"), st.just(FULL))]
timelines = st.one_of(
    st.lists(st.one_of(*calm), min_size=4, max_size=16),
    st.lists(st.one_of(*growing), min_size=4, max_size=16),
    st.lists(st.one_of(*calm, steps), min_size=4, max_size=16),
)


@dataclass
class LoggedWorld(World):
    """Knows when which name was changed or touched, or came and went."""

    log: list[tuple[int, bytes]] = field(default_factory=list)

    def change(self, how: str, name: bytes, content: int, delay: int, fate: str) -> None:
        known = len(self.history)
        super().change(how, name, content, delay, fate)
        if len(self.history) > known:
            self.log.append((self.now, name))

    def drift(self, start: float, end: float) -> str:
        """Return the verdict that is true of a run."""
        there = self.truth(start)
        names = {name for when, name in self.log if start < when <= end}
        return "changed" if names & there.keys() else "appended" if names else "none"


def test_a_verdict_is_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens, ``none``, ``appended`` and ``changed`` are what the data did, or the verdict is ``unknown``."""
    monkeypatch.setattr(test_binding_model, "NAMES", NAMES)
    numbers = itertools.count()

    @seed(int(os.environ.get("REPROD_SEED", "20261123")))
    @settings(
        max_examples=int(os.environ.get("REPROD_MODEL", "120")),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(timelines, st.integers(0, 6))
    def check(happenings: list[tuple[str, object]], shift: int) -> None:
        path = tmp_path / f"{next(numbers)}.sqlite"
        world = LoggedWorld(open_database(path, "dataset"))
        try:
            world.pass_time(20)
            for what, value in [("refresh", FULL), ("wait", 9), *happenings, ("wait", 9), ("refresh", FULL)]:
                if what == "refresh":
                    full, between, killed = value  # type: ignore[misc]
                    world.refresh(full=full, phases=between, killed=killed, root_since=2)
                else:
                    world.happen(what, value)
            judge(world, shift)
        finally:
            world.db.close()
            path.unlink()

    check()
    print(dict(TALLY))
    assert min(TALLY[verdict] for verdict in ("none", "appended", "changed", "unknown")) > 30


def judge(world: LoggedWorld, shift: int) -> None:
    """Take some starts, and for each some ends, and compare the verdicts with the truth."""
    marks, known = world.db.read(timeline.marks), world.db.read(meta.read)
    moments = {when + near / 2 for when, _ in world.log for near in (-9, 1, 9)}
    moments |= {half / 2 for half in range(2 * 1001 + shift, 2 * world.now, 29)}
    for start in sorted(moments):
        shown, noticed = int(world.shown(start) * TICK), int(world.noticed(start) * TICK)
        found = bind(marks, shown, SLACK, noticed_ns=noticed, unclear_ns=known.unclear_ns)
        if found.seq is None or (found.assurance == "events" and world.silently_lost_at):
            continue
        bound = BoundDataset("d", "/", found.bound, found.assurance, found.seq, "dt1:0", 1, 1, 1, "", (), 0.0)
        for end in sorted(moments):
            if start < end < world.now - 5:
                check_one(world, bound, start, end)


def check_one(world: LoggedWorld, bound: BoundDataset, start: float, end: float) -> None:
    shown = int(world.shown(start) * TICK)
    seen = int(world.noticed(end) * TICK)
    life = Lifetime(shown, int(world.shown(end) * TICK), shown, seen, SLACK)
    drift = dataset_drift(world.db, bound, life).drift
    TALLY[drift.verdict] += 1
    truth = world.drift(start, end)
    if drift.verdict == "unknown" or drift.verdict == truth:
        return
    if "watch" in drift.reason and any(lost <= end for lost in world.silently_lost_at):
        TALLY["misled by a lost event"] += 1
        return
    raise AssertionError((start, end, truth, drift, world.history, world.log, world.db.read(timeline.marks)))
