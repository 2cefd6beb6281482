"""Which version a run gets: what the disk held when the run *started*, proven, or nothing.

A dataset's history is a list of marks, oldest first: each version is one, each touch (fingerprints changed, content did
not: it may have changed and come back) is one, each step of the clock is one. ``bind`` is pure: marks and a start time
in, a verdict out. All times are wall-clock nanoseconds of the recording host; "before S" means before S - slack and
"after S" after S + slack.

The four verdicts, and why each is sound:

``start``      The newest mark recorded before S was found unchanged by a full walk that began after S; or the next mark
               holds only changes that were hinted, and whose ctimes lie, after S, and the watch had no gap before S.
``ctime``      A full walk that began after S saw a state in which nothing is younger than S (``born_ns``, which never
               falls, covers every entry, every directory that gained or lost a name, and the selection), and the root
               was the same directory since before S. Then that state is what was there at S, whenever it got recorded.
               The walk must have *begun* after S: one that began before S may have passed a file that changed before S.
``ambiguous``  Something happened within the slack of S.
``late``       Everything else: pruned, gap, clock step, never seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Bound = Literal["start", "ctime", "ambiguous", "late"]
Assurance = Literal["walk", "events"]
MarkKind = Literal["version", "touch", "step"]

#: When the run's boot id is ours, both clocks are one clock: what remains is the granularity of time stamps (a tick is
#: 4 to 10 ms) and the time between taking a stamp and acting on it.
LOCAL_SLACK_NS = 20_000_000


@dataclass(frozen=True, slots=True)
class Mark:
    """One moment in a dataset's history at which the index was known to equal what a refresh saw.

    ``seq`` is the version whose content holds from here on. ``walk_ns`` is the start of the full walk that made the
    mark (None: only a part was looked at). ``proved_ns`` is the start of the last full walk that found every
    fingerprint as this mark left it. ``low_ctime_ns`` is the smallest ctime among this mark's own changes (None: none).
    ``gap_from_ns`` is the last moment at which the watch was whole, if it was not whole since. ``root_since_ns`` is
    since when the root is known to be the same mount, device and inode.
    """

    seq: int
    kind: MarkKind
    sealed_ns: int
    born_ns: int
    root_since_ns: int
    complete: bool
    walk_ns: int | None = None
    low_ctime_ns: int | None = None
    first_hint_ns: int | None = None
    proved_ns: int | None = None
    gap_from_ns: int | None = None
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """The verdict. ``seq`` is None unless ``bound`` is ``start`` or ``ctime``; then ``candidates`` are all there is.

    A bound version may still be incomplete: then it has no digest either, and ``incomplete`` says so.
    """

    bound: Bound
    seq: int | None
    assurance: Assurance | None
    reason: str
    candidates: tuple[int, ...] = ()
    incomplete: bool = False


def bind(marks: Sequence[Mark], start_ns: int, slack_ns: int) -> Binding:
    """Return the version that a run started at ``start_ns`` was given by the disk.

    Never guesses: whatever the marks cannot prove is ``ambiguous`` or ``late``, with the versions around S as
    candidates. Soundness over the recorded truth is tested as a model in tests/core/test_binding.py.
    """
    before, after = start_ns - slack_ns, start_ns + slack_ns
    if _inside_clock_step(marks, before, after):
        return _unbound("late", marks, start_ns, "the clock was set around the start of the run")
    at = _newest_before(marks, before)
    verdict = _bind_start(marks, at, after)
    if verdict is None or verdict.incomplete:  # a file that was still moving may have been read since, unchanged
        other = _bind_ctime(marks, at, before, after)
        verdict = other if verdict is None or (other is not None and not other.incomplete) else verdict
    if verdict is not None:
        return verdict
    if _near(marks, before, after):
        return _unbound("ambiguous", marks, start_ns, "the data changed while the run started")
    return _unbound("late", marks, start_ns, _why_late(marks, at, after))


def _newest_before(marks: Sequence[Mark], before: int) -> int:
    """Return the index of the newest mark that was recorded before S, -1 if none. Order is recording order."""
    for i in range(len(marks) - 1, -1, -1):
        if marks[i].sealed_ns < before:
            return i
    return -1


def _bind_start(marks: Sequence[Mark], at: int, after: int) -> Binding | None:
    if at < 0 or marks[at].pruned:
        return None
    mark = marks[at]
    if mark.proved_ns is not None and mark.proved_ns > after:
        return _verdict("start", mark, "walk", "a full walk that began after the start found it unchanged")
    if at + 1 == len(marks):
        return None
    following = marks[at + 1]
    # A gap that a later mark tells of counts too: a loss is only noticed by the walk that finds what was lost.
    whole = all(m.gap_from_ns is None or m.gap_from_ns > after for m in marks[at + 1 :] if m.kind != "step")
    hinted_after = following.first_hint_ns is not None and following.first_hint_ns > after
    young = following.low_ctime_ns is not None and following.low_ctime_ns > after
    if following.kind != "step" and whole and hinted_after and young:
        return _verdict("start", mark, "events", "the next change was seen to happen after the start")
    return None


def _bind_ctime(marks: Sequence[Mark], at: int, before: int, after: int) -> Binding | None:
    """Return the first complete mark that the rule allows, else the first incomplete one."""
    incomplete = None
    for i in range(max(at, 0), len(marks)):
        mark = marks[i]
        if mark.kind == "step" and i != at:  # a step before S is past; one after it means that times cannot be compared
            break
        if mark.born_ns >= before or mark.root_since_ns >= before:
            break  # neither falls again
        if max(mark.walk_ns or 0, mark.proved_ns or 0) > after and not mark.pruned:
            found = _verdict("ctime", mark, "walk", "a full walk that began after the start found nothing younger")
            if mark.complete:
                return found
            incomplete = incomplete or found
    return incomplete


def _verdict(bound: Bound, mark: Mark, assurance: Assurance, reason: str) -> Binding:
    return Binding(bound, mark.seq, assurance, reason, (mark.seq,), incomplete=not mark.complete)


def _unbound(bound: Bound, marks: Sequence[Mark], start_ns: int, reason: str) -> Binding:
    """Return a verdict without a version; the candidates are the versions on either side of S."""
    older = [m.seq for m in marks if m.sealed_ns <= start_ns][-1:]
    newer = [m.seq for m in marks if m.sealed_ns > start_ns and m.seq not in older][:1]
    return Binding(bound, None, None, reason, tuple(older + newer))


def _inside_clock_step(marks: Sequence[Mark], before: int, after: int) -> bool:
    for mark in marks:
        if mark.kind == "step":
            old, new = mark.gap_from_ns or mark.sealed_ns, mark.sealed_ns
            if min(old, new) <= after and before <= max(old, new):
                return True
    return False


def _near(marks: Sequence[Mark], before: int, after: int) -> bool:
    """Whether a change lies within the slack of S: then a finer clock would have been needed."""
    for mark in marks:
        for moment in (mark.sealed_ns, mark.first_hint_ns, mark.low_ctime_ns, mark.born_ns):
            if moment is not None and before <= moment <= after:
                return True
    return False


def _why_late(marks: Sequence[Mark], at: int, after: int) -> str:
    if not marks:
        return "the dataset has not been scanned yet"
    if at < 0:
        return "the dataset was first seen after the run had started, and something in it is younger than the run"
    if marks[at].pruned:
        return "the version of that time was pruned"
    if at + 1 == len(marks):
        return "no walk has confirmed the data since the run started"
    gap = marks[at + 1].gap_from_ns
    if gap is not None and gap <= after:
        return "the data changed while it was not watched without a gap"
    return "the data changed after the start in a way that hides when (an older file was moved in)"
