"""When a run lived, told from what was seen of it: a resumed run keeps its old end, a killed process leaves none."""

from reprod.core.drift import GONE
from reprod.core.run import PendingRun
from reprod.daemon.lifetime import Seen, is_news, lifetime
from reprod.store.drifts import Said

MS = 1_000_000


def run(status: str, end_ms: int | None) -> PendingRun:
    return PendingRun("r", "1", "", status, 1000, end_ms, "d")


def said(ended: str | None, end_ms: int | None, again_ns: int = 0) -> Said:
    return Said(1, ended, end_ms, 1500 * MS, 2100 * MS, "none", 2200 * MS, again_ns, 2200 * MS)


def test_a_run_that_ended_says_when() -> None:
    """Nothing else is known of a run that was never seen RUNNING: it lived from its start to its end."""
    seen = Seen()
    seen.end("FINISHED")
    life = lifetime(run("FINISHED", 2000), "FINISHED", seen, None, 7)
    assert (life.start_ns, life.running_ns, life.end_ns) == (1000 * MS, 1000 * MS, 2000 * MS)
    assert (life.ended_ns, life.slack_ns) == (seen.ended_ns, 7)


def test_the_end_before_a_run_was_resumed_is_not_its_end() -> None:
    """Seen RUNNING with an end, in this life of the daemon or before: that end says nothing later, another one does."""
    seen = Seen()
    seen.run_on(run("RUNNING", 2000), 2500 * MS)
    seen.end("KILLED")
    assert lifetime(run("KILLED", 2000), "KILLED", seen, None, 0).end_ns is None
    assert lifetime(run("KILLED", 2000), "KILLED", seen, None, 0).running_ns == 2500 * MS
    assert lifetime(run("KILLED", 3000), "KILLED", seen, None, 0).end_ns == 3000 * MS
    fresh = Seen()
    fresh.end("KILLED")
    assert lifetime(run("KILLED", 2000), "KILLED", fresh, said(None, 2000), 0).end_ns is None
    assert lifetime(run("KILLED", 3000), "KILLED", fresh, said(None, 2000), 0).end_ns == 3000 * MS


def test_the_same_end_judged_again_lies_where_it_lay() -> None:
    """A later judgement of an end that is known is not over a longer time."""
    seen = Seen()
    seen.end("FINISHED")
    life = lifetime(run("FINISHED", 2000), "FINISHED", seen, said("FINISHED", 2000), 0)
    assert (life.running_ns, life.end_ns, life.ended_ns) == (1500 * MS, 2000 * MS, 2100 * MS)


def test_a_process_that_is_gone_ended_when_that_was_seen() -> None:
    """It told nobody; a status that comes later has an end of its own."""
    seen = Seen()
    seen.run_on(run("RUNNING", None), 1900 * MS)
    seen.gone_ns = 2000 * MS
    seen.end(GONE)
    life = lifetime(run("RUNNING", None), GONE, seen, None, 0)
    assert (life.running_ns, life.end_ns, life.ended_ns) == (1900 * MS, None, 2000 * MS)
    seen.end("KILLED")
    later = lifetime(run("KILLED", 3000), "KILLED", seen, said(GONE, None), 0)
    assert later.end_ns == 3000 * MS
    assert later.ended_ns > 3000 * MS


def test_what_is_judged_again() -> None:
    """Another status, another end, or a time that has come; nothing else."""
    known = said("FINISHED", 2000)
    assert not is_news(known, "FINISHED", run("FINISHED", 2000))
    assert is_news(known, "FINISHED", run("FINISHED", 3000))
    assert is_news(known, GONE, run("RUNNING", 2000))
    assert is_news(said("FINISHED", 2000, again_ns=1), "FINISHED", run("FINISHED", 2000))
    assert not is_news(said(GONE, None), GONE, run("RUNNING", 2000))
