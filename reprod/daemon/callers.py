"""Who speaks at the other end of the socket, for which process, and how much of that is taken from one user in an hour.

Rule: the kernel names the process that connected and its user (SO_PEERCRED); whether it is the process of a context is
read from /proc while it lives. Of a process that is not seen here (ended, or in a container) nobody but who announced
it then is believed. Root and the daemon's own user are: they could write the registry itself. Sizes are bytes.
"""

import os
import time
from collections import Counter, deque
from dataclasses import dataclass

from reprod.capture.process.identity import boot_id, start_ticks
from reprod.core.environment import Record
from reprod.core.execution import Execution
from reprod.core.process import ProcessContext
from reprod.errors import StateError
from reprod.ops import handovers
from reprod.store import snapshots

HOUR_S = 3600.0

#: A process every 4 s for an hour; each makes a row of some 130 bytes.
MOST_ANNOUNCED = 1000
#: A record counts as ``LEAST_BYTES``, and a line that is longer than others may be as what it is. A record of 137
#: packages has 21 KB (measured): a thousand of those an hour, or three of the longest, which take 0.1 s each to read.
MOST_BYTES = 32 << 20
LEAST_BYTES = 32 << 10
#: One person may have 65,536 uids (subordinate ones, for containers): all together get what four users get.
EVERYBODY = 4


def is_own(uid: int) -> bool:
    """Return whether a user may do anything here: root, or the daemon's own user."""
    return uid in {0, os.geteuid()}


@dataclass(frozen=True, slots=True)
class Claim:
    """That a process is this user's; ``proven`` where it was seen alive, in the pid namespace that the daemon sees.

    Pids of containers repeat, so what is said of a process there never outranks what was said before.
    """

    context: ProcessContext
    uid: int
    proven: bool


@dataclass(frozen=True, slots=True)
class _Living:
    """A live process: when it started, whose it is, and what it is called in its own pid namespace."""

    start_ticks: int
    uid: int
    own_pid: int


def is_speaker(pid: int, uid: int, context: ProcessContext) -> bool:
    """Return whether the live process ``pid``, which connected as ``uid``, is the one that ``context`` names.

    In a container a process knows itself by another pid; the kernel tells both.
    """
    found = _living(pid)
    return found == _Living(context.start_ticks, uid, context.pid) and context.boot_id == boot_id()


def owner(context: ProcessContext) -> int | None:
    """Return whose process ``context`` is; None if no such process is seen here."""
    found = _living(context.pid)
    if found is None or found.start_ticks != context.start_ticks or context.boot_id != boot_id():
        return None
    return found.uid


def _living(pid: int) -> _Living | None:
    """Return what /proc says of a live process, or None; two processes with the same pid are never mixed."""
    before = start_ticks(pid)
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # the owner of /proc/PID would be root for some of a user's
            lines = file.read(1 << 16).splitlines()
    except OSError:
        return None
    fields = {line.partition(b":")[0]: line.split()[1:] for line in lines}
    uids, pids = fields.get(b"Uid", []), fields.get(b"NSpid", [])
    if before is None or len(uids) < 2 or not pids or start_ticks(pid) != before:
        return None
    return _Living(before, int(uids[1]), int(pids[-1]))


class Allowance:
    """How much each user may have in any hour, and all of them together; nothing limits root and the daemon's user."""

    def __init__(self, each: int, everybody: int) -> None:
        self._each, self._everybody = each, everybody
        self._taken: deque[tuple[float, int, int]] = deque()
        self._sums: Counter[int] = Counter()

    def take(self, uid: int, amount: int = 1) -> bool:
        """Return whether the user may have so much now; then it counts."""
        if is_own(uid):
            return True
        if amount > self.left(uid):
            return False
        self._taken.append((time.monotonic(), uid, amount))
        self._sums[uid] += amount
        return True

    def left(self, uid: int) -> int:
        """Return how much a user may still have now, if it is none of those whom nothing limits."""
        now = time.monotonic()
        while self._taken and self._taken[0][0] < now - HOUR_S:
            _, whose, less = self._taken.popleft()
            self._sums[whose] -= less
            if not self._sums[whose]:
                del self._sums[whose]
        return min(self._each - self._sums[uid], self._everybody - self._sums.total())


#: Of this process's daemon. What is counted is gone with it: nobody but who may do anything can restart it.
ANNOUNCEMENTS = Allowance(MOST_ANNOUNCED, EVERYBODY * MOST_ANNOUNCED)
RECORDS = Allowance(MOST_BYTES, EVERYBODY * MOST_BYTES)


def charge(uid: int) -> None:
    """Count a record, before it is read; a long line has been counted by its length. Raises StateError."""
    if not RECORDS.take(uid, LEAST_BYTES):
        raise too_much(uid)


def too_much(uid: int) -> StateError:
    """Return the refusal of what goes over a user's allowance."""
    return StateError(f"uid {uid} has handed over too much within an hour", hint="wait, or run a daemon of your own")


def note(db: snapshots.Connection, claim: Claim) -> None:
    """Keep that a process announced itself."""
    snapshots.announce(db, claim.context.key, claim.uid, time.time_ns(), outranks=claim.proven)


def allow(db: snapshots.Connection, claim: Claim) -> None:
    """Let a user speak for a process.

    :raises StateError: the process is not known to be the user's.
    """
    pid = claim.context.pid
    if claim.proven:
        note(db, claim)
    known = snapshots.handover(db, claim.context.key)
    if known is None and not is_own(claim.uid):
        message = f"no process {pid} is seen here, and it did not announce itself while it lived"
        raise StateError(message, hint="reprod.tag_dataset and the MLflow context provider do so")
    if known is not None and known.uid != claim.uid:
        raise StateError(f"process {pid} belongs to another user", hint="hand over your own processes only")


def keep_record(db: snapshots.Connection, claim: Claim, given: Record, digest: str) -> tuple[str, bool]:
    """Keep a process's environment if it has none yet; return what stands, and if it is new. Raises StateError."""
    allow(db, claim)
    return handovers.keep_record(db, claim.context.key, claim.uid, given, digest)


def keep_end(db: snapshots.Connection, claim: Claim, last: Execution) -> None:
    """Keep what a process found at its end. Raises StateError."""
    allow(db, claim)
    handovers.keep_end(db, claim.context, claim.uid, last)
