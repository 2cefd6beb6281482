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
               (Where a dataset is content with events, all that the watch told of until after S does for the walk.)
``ambiguous``  Something happened within the slack of S.
``late``       Everything else: pruned, gap, clock step, never seen.

A clock that is set divides the history into lives: in each of them time goes on, between two of them no times can be
compared. A start that lies in one life, and in no other, is judged by the marks of that life.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Bound = Literal["start", "ctime", "ambiguous", "late"]
#: The weakest first: on a network file system attributes may be stale, and a watch may have lost an event.
Assurance = Literal["network", "events", "walk"]
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
    since when the root is known to be the same mount, device and inode. A ``step`` begins a life of the clock: it was
    seen at ``sealed_ns``, when the old clock would have shown ``gap_from_ns``, and the new one may show its time since
    ``first_hint_ns``.
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


def bind(
    marks: Sequence[Mark],
    start_ns: int,
    slack_ns: int,
    *,
    noticed_ns: int | None = None,
    heard_ns: int | None = None,
    unclear_ns: int | None = None,
) -> Binding:
    """Return the version that a run started at ``start_ns`` was given by the disk.

    Never guesses: whatever the marks cannot prove is ``ambiguous`` or ``late``, with the versions around S as
    candidates. Soundness over the recorded truth is tested as a model in tests/store/test_binding_model.py.

    :param noticed_ns: when the run was first seen: a start after that was taken from another clock than ours.
    :param heard_ns: a moment up to which the watch, whole since the newest mark, told of no change that is not in it.
    :param unclear_ns: the latest time that a clock showed which was set before the first mark.
    """
    before, after = start_ns - slack_ns, start_ns + slack_ns
    if noticed_ns is not None and noticed_ns < before:
        return _unbound("late", marks, start_ns, "the start of the run lies in the future of this host's clock")
    life = _life(marks, before, after)
    if life is None or (unclear_ns is not None and before <= unclear_ns):
        return _unbound("late", marks, start_ns, "the clock was set around the start of the run")
    at = _newest_before(marks, life, before)
    verdict = _bind_start(marks, at, after, heard_ns)
    if verdict is None or verdict.incomplete:  # a file that was still moving may have been read since, unchanged
        other = _bind_ctime(marks, at, before, after, heard_ns)
        verdict = other if verdict is None or (other is not None and not other.incomplete) else verdict
    if verdict is not None:
        return verdict
    if _near(marks, before, after):
        return _unbound("ambiguous", marks, start_ns, "the data changed while the run started")
    return _unbound("late", marks, start_ns, _why_late(marks, at, after))


def held_at(marks: Sequence[Mark], start_ns: int, slack_ns: int, seq: int) -> int | None:
    """Return which mark is what the disk held when a run started that is bound to version ``seq``.

    That is the newest of which all changes are older than the start; None if it is none of that version (any more).
    """
    before = start_ns - slack_ns
    life = _life(marks, before, start_ns + slack_ns)
    if life is None:
        return None
    at = _newest_before(marks, life, before)
    for i in range(at + 1, len(marks)):
        mark = marks[i]
        if mark.kind == "step" or mark.born_ns >= before or mark.root_since_ns >= before:
            break
        at = i
    return at if at >= 0 and marks[at].seq == seq else None


def _life(marks: Sequence[Mark], before: int, after: int) -> range | None:
    """Return which marks are of the life of the clock that S lies in.

    None if S may be of another one too, or lies where one life ended, or another began, while nobody looked.
    """
    steps = [i for i, mark in enumerate(marks) if mark.kind == "step"]
    found = None
    for first, end in zip([0, *steps], [*steps, len(marks)], strict=True):
        began, ended = (marks[i] if i < len(marks) and marks[i].kind == "step" else None for i in (first, end))
        may_be = (began is None or _began_ns(began) <= after) and (ended is None or before <= _ended_ns(ended))
        surely = (began is None or began.sealed_ns < before) and (
            ended is None or after < _ended_ns(ended) - (ended.sealed_ns - _began_ns(ended))
        )
        if may_be and (found is not None or not surely):
            return None
        if may_be:
            found = range(first, end)
    return found


def _began_ns(step: Mark) -> int:
    """Return the earliest time that the clock can have shown after a step."""
    return step.sealed_ns if step.first_hint_ns is None else step.first_hint_ns


def _ended_ns(step: Mark) -> int:
    """Return the latest time that the clock can have shown before a step."""
    return step.sealed_ns if step.gap_from_ns is None else step.gap_from_ns


def _newest_before(marks: Sequence[Mark], life: range, before: int) -> int:
    """Return the index of the newest mark of a life that was recorded before S, -1 if none."""
    return next((i for i in reversed(life) if marks[i].sealed_ns < before), -1)


def _bind_start(marks: Sequence[Mark], at: int, after: int, heard_ns: int | None) -> Binding | None:
    if at < 0 or marks[at].pruned:
        return None
    mark = marks[at]
    if mark.proved_ns is not None and mark.proved_ns > after:
        return _verdict("start", mark, "walk", "a full walk that began after the start found it unchanged")
    if at + 1 == len(marks):
        heard = heard_ns is not None and heard_ns > after
        return _verdict("start", mark, "events", "nothing was seen to change until after the start") if heard else None
    following = marks[at + 1]
    # A gap that a later mark tells of counts too: a loss is only noticed by the walk that finds what was lost.
    whole = all(m.gap_from_ns is None or m.gap_from_ns > after for m in marks[at + 1 :] if m.kind != "step")
    hinted_after = following.first_hint_ns is not None and following.first_hint_ns > after
    young = following.low_ctime_ns is not None and following.low_ctime_ns > after
    if following.kind != "step" and whole and hinted_after and young:
        return _verdict("start", mark, "events", "the next change was seen to happen after the start")
    return None


def _bind_ctime(marks: Sequence[Mark], at: int, before: int, after: int, heard_ns: int | None) -> Binding | None:
    """Return the first complete mark that the rule allows, else the first incomplete one."""
    incomplete = None
    for i in range(max(at, 0), len(marks)):
        mark = marks[i]
        if mark.kind == "step" and i != at:  # a step before S is past; one after it means that times cannot be compared
            break
        if mark.born_ns >= before or mark.root_since_ns >= before:
            break  # neither falls again
        walked = max(mark.walk_ns or 0, mark.proved_ns or 0) > after
        heard = i + 1 == len(marks) and heard_ns is not None and heard_ns > after
        if (walked or heard) and not mark.pruned:
            how: Assurance = "walk" if walked else "events"
            said = "a full walk that began after the start found" if walked else "the watch told after the start of"
            found = _verdict("ctime", mark, how, f"{said} nothing younger")
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
