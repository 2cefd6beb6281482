"""Whether a dataset changed between a run's start and its end: proven, or ``unknown`` with the reason.

Pure: marks (``reprod.core.binding``) and what each has of changes in, a verdict out. Times are wall-clock nanoseconds
of the recording host. In words:

1. The state at the start is the mark that the run is bound to (``held_at``). Every mark after it tells of changes that
   happened after the start.
2. The run ended at an unknown moment of an interval (``Ending``). Marks of which all is younger than its end are left
   out: they were hinted at, and their ctimes lie, after it, and no gap reaches back to it.
3. ``changed``: a path that was there at the start was changed, went or was touched, in a mark that is older than the
   interval.
4. ``none`` and ``appended`` need a full walk that began after the interval, and every mark up to it known and clear.
   The walk compares every fingerprint, so a gap in the watch or a daemon that was down does no harm: what changed and
   came back is a touch.
5. Else ``unknown``. A change of which nobody knows whether it came before or after the end is one reason, a clock
   that was set after the start and may have shown the end twice is another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reprod.core.binding import Mark
from reprod.core.drift import Verdict


@dataclass(frozen=True, slots=True)
class Ending:
    """Between which moments a run ended: it was seen alive (or its start is) at the first, ended at the last."""

    from_ns: int
    until_ns: int


def ending(seen_running_ns: int, seen_ended_ns: int, end_ns: int | None, slack_ns: int) -> Ending:
    """Return when a run ended that was alive at the first moment and not at the second.

    ``end_ns`` is what the run itself says, by a clock that may be off by ``slack_ns``. A run that was resumed keeps the
    end that it had before: what lies before the moment at which it was seen alive again says nothing, and neither does
    what lies after the moment at which it was seen ended.
    """
    if end_ns is not None and seen_running_ns - slack_ns <= end_ns <= seen_ended_ns + slack_ns:
        first, last = max(seen_running_ns, end_ns - slack_ns), min(seen_ended_ns, end_ns + slack_ns)
        if first <= last:
            return Ending(first, last)
    return Ending(min(seen_running_ns, seen_ended_ns), seen_ended_ns)


@dataclass(frozen=True, slots=True)
class Span:
    """Which marks count: those after ``at`` up to ``last``. ``confirmed``: a walk that began after the end is there.

    ``by_events``: that walk saw a later state; what came between was only seen by the watch to be younger than the end.
    """

    at: int
    last: int
    confirmed: bool
    by_events: bool = False


def span(marks: Sequence[Mark], at: int, end: Ending, heard_ns: int | None = None) -> Span:
    """Return the marks that a run's time may reach into.

    :param heard_ns: a moment up to which the watch told of all changes; None where only a walk counts.
    """
    last, confirmed = len(marks) - 1, False
    for i in range(at + 1, len(marks)):  # after it the end may be of another life of the clock, earlier than its start
        if marks[i].kind == "step" and not _is_step_after(marks[i], end.until_ns):
            return Span(at, i, confirmed)
    for i in range(at, len(marks)):
        heard = i + 1 == len(marks) and heard_ns is not None and heard_ns > end.until_ns
        if heard or max(marks[i].walk_ns or 0, marks[i].proved_ns or 0) > end.until_ns:
            last, confirmed = i, True
            break
    walked = last
    while last > at and _is_after(marks[last], end.until_ns):
        last -= 1
    return Span(at, last, confirmed, by_events=last < walked)


def _is_after(mark: Mark, until_ns: int) -> bool:
    """Whether all that a mark tells of happened after a moment (a hint of before a step has a time of after it)."""
    moments = (mark.first_hint_ns, mark.low_ctime_ns)
    hinted = mark.kind != "step" and all(moment is not None and moment > until_ns for moment in moments)
    return hinted and (mark.gap_from_ns is None or mark.gap_from_ns > until_ns)


def _is_step_after(step: Mark, until_ns: int) -> bool:
    """Whether neither clock can have shown a moment when it was set, nor the new one since."""
    return min(step.sealed_ns, step.first_hint_ns or 0, step.gap_from_ns or 0) > until_ns


@dataclass(frozen=True, slots=True)
class Changes:
    """What one mark has, of paths below the directory that the run named.

    ``existing`` counts paths that were there at the start and were changed or touched or went, ``added`` new names.
    ``doubt`` says what cannot be told of this mark; ``stop`` that nothing after it can be compared with the start.
    """

    existing: int = 0
    added: int = 0
    doubt: str | None = None
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict and why. ``walk`` says that a walk from now on may prove more."""

    verdict: Verdict
    reason: str
    walk: bool = False


NOT_WALKED = "the data was not walked since the run ended"


def judge(marks: Sequence[Mark], over: Span, changes: Sequence[Changes], end: Ending) -> Judgement:
    """Return the drift over the marks of a span; ``changes`` has one for each after ``over.at``."""
    sure = added = 0
    doubts: list[str] = []
    for mark, found in zip(marks[over.at + 1 : over.last + 1], changes, strict=True):
        inside = _is_before(mark, end.from_ns)
        if found.existing and inside and not found.stop:
            return Judgement("changed", _said(found.existing))
        if found.doubt is not None:
            doubts.append(found.doubt)
        elif found.existing:
            doubts.append("the data changed around the end of the run")
        sure += inside and found.added
        added += found.added
        if found.stop:
            break
    if not over.confirmed:
        doubts.append(NOT_WALKED)
    if not doubts and added and not sure:
        doubts.append("names were added around the end of the run")
    if not doubts and not marks[over.last].complete and marks[over.last].seq != marks[over.at].seq:
        doubts.append("the version of the end holds unreadable or unstable entries")
    if doubts:
        return Judgement("unknown", doubts[0], walk=doubts == [NOT_WALKED])
    how = "as the watch tells it" if over.by_events else "as a walk that began after the end found it"
    if added:
        return Judgement("appended", f"only new names came; what was there at the start was not touched, {how}")
    return Judgement("none", f"it was at the end what it was at the start, {how}")


def _is_before(mark: Mark, from_ns: int) -> bool:
    """Whether all that a mark tells of happened before a moment."""
    return mark.kind != "step" and (mark.sealed_ns < from_ns or mark.born_ns < from_ns)


def _said(count: int) -> str:
    many = "1 path that was" if count == 1 else f"{count:,} paths that were"
    return f"{many} there at the start changed, went or was touched during the run"
