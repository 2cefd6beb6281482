"""Owns what is kept of what processes say of themselves: the first record stands, its end is added to it.

It comes over the socket, or from the files that processes of this daemon's own user left while no daemon answered.
Times are Unix nanoseconds.
"""

import os
import time
from dataclasses import replace

import msgspec

from reprod.capture.process.command import FROM_OUTSIDE
from reprod.core.described import described
from reprod.core.environment import Environment, Record, clean, decode_record, encode
from reprod.core.execution import Execution, Subject, with_end
from reprod.core.plain import plain
from reprod.core.process import ProcessContext
from reprod.core.redact import Redactor, redact_text
from reprod.core.run import PendingRun
from reprod.core.snapshot import Snapshot
from reprod.errors import DamagedError
from reprod.ops import handover_folder
from reprod.store import outbox, snapshots
from reprod.store.connection import Database

_NOTHING = b"null"


class _File(msgspec.Struct):
    """What a file of the hand-over folder holds: one of ``record`` and ``execution``."""

    context: dict[str, str | int]
    record: msgspec.Raw = msgspec.Raw(_NOTHING)
    execution: msgspec.Raw = msgspec.Raw(_NOTHING)


def keep_record(db: snapshots.Connection, key: str, uid: int, given: Record, digest: str) -> tuple[str, bool]:
    """Keep the environment of a process unless it has one, for the first stands; return what stands, and if it is new.

    ``key`` is the process's (`ProcessContext.key`), and it is user ``uid``'s as far as the caller could tell.
    """
    known = snapshots.handover(db, key)
    if known is not None and known.digest is not None:
        _note_another(db, key, known, given.execution.subject)
        return known.digest, False
    now_ns = time.time_ns()
    execution = replace(given.execution, taken_ns=min(given.execution.taken_ns, now_ns))  # none is from the future
    if known is not None and known.execution is not None:  # its end came first
        execution = with_end(execution, decode_execution(known.execution))
    snapshots.keep_environment(db, digest, encode(given.environment), now_ns, given.files)
    snapshots.hand_over(db, key, uid, digest, execution.taken_ns, msgspec.json.encode(execution))
    return digest, True


def _note_another(db: snapshots.Connection, key: str, known: snapshots.Handover, other: Subject) -> None:
    """Note that a command ran a second environment, of which too it was said that it can have started a run.

    ``reprod run`` tells of each: from then on nobody knows which one a run of that command had. What a process says of
    itself stands.
    """
    if known.execution is None or other.how != FROM_OUTSIDE:
        return
    execution = decode_execution(known.execution)
    one, another = execution.subject.prefix, other.prefix
    if execution.subject.how == FROM_OUTSIDE and one != another and "interpreter" not in execution.unknown:
        why = f"the command ran {one} and {another}: which of them started the run is not known"
        told = replace(execution, unknown={**execution.unknown, "interpreter": plain(why)})
        snapshots.keep_execution(db, key, known.uid, msgspec.json.encode(told), time.time_ns())


def keep_end(db: snapshots.Connection, context: ProcessContext, uid: int, last: Execution) -> None:
    """Add to a process's record what it found at its end; its runs that have all but that are told once more."""
    key, now_ns = context.key, time.time_ns()
    known = snapshots.handover(db, key)
    first = decode_execution(known.execution) if known is not None and known.execution is not None else None
    merged = with_end(first, last) if first is not None else replace(last, taken_ns=min(last.taken_ns, now_ns))
    if merged == first:
        return
    snapshots.keep_execution(db, key, uid, msgspec.json.encode(merged), now_ns)
    for row in outbox.done_of(db, str(context.start_ticks)):
        if _context_of(row.run) == context:
            outbox.reopen(db, row.id)


def last_word(db: snapshots.Connection, delivery: outbox.Delivery, snapshot: Snapshot) -> Execution | None:
    """Return the execution of a run's process as it is known by now; that of its snapshot may be older."""
    context = _context_of(delivery.run)
    known = snapshots.handover(db, context.key) if context is not None else None
    if snapshot.execution is None or known is None or known.execution is None:
        return snapshot.execution
    if snapshot.execution.subject.kind != "process":
        return snapshot.execution
    return with_end(snapshot.execution, decode_execution(known.execution))


def take_in(records: Database) -> int:
    """Keep what waits in the hand-over folder beside the registry, and empty it; return how many files there were.

    :raises StateError: the registry cannot be written; then the files stay.
    """
    state = records.path.parent
    found = handover_folder.waiting(state)
    for each in found:
        try:
            _take(records, each.content)
        except (DamagedError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # of another version, or damaged: it will never be understood
        handover_folder.remove(state, [each.name])
    return len(found)


def _take(records: Database, content: bytes) -> None:
    file = msgspec.json.decode(content, type=described(_File))
    context = ProcessContext.from_object(file.context)
    if context is None:
        return
    key, uid = context.key, os.geteuid()
    given, digest = read_record(record) if (record := bytes(file.record)) != _NOTHING else (None, "")
    last = read_end(execution) if (execution := bytes(file.execution)) != _NOTHING else None

    def keep(db: snapshots.Connection) -> None:
        known = snapshots.handover(db, key)
        if known is not None and known.uid != uid:  # it was seen to be another user's
            return
        if given is not None:
            keep_record(db, key, uid, given, digest)
        if last is not None:
            keep_end(db, context, uid, last)

    records.write(keep)


def read_record(text: bytes) -> tuple[Record, str]:
    """Return a record that is handed over, and its environment's digest; raise DamagedError if it is none.

    It comes from who may be another version, or anybody: it is redacted once more, and its times are looked at.
    """
    record = clean(decode_record(text), Redactor())
    _require_time(record.execution)
    return record, record.environment.digest()


def read_end(text: bytes) -> Execution:
    """Return what a process is said to have used by its end, as `read_record` returns a record."""
    return clean(Record(decode_execution(text), Environment()), Redactor()).execution


def decode_execution(data: bytes) -> Execution:
    """Return what is stored of a process; raise DamagedError if it is none."""
    try:
        found = msgspec.json.decode(data, type=described(Execution))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"this is not what a process says of itself: {redact_text(str(error))}"  # a decoder quotes values
        raise DamagedError(message, hint="it was written by another version of reprod, or damaged") from error
    _require_time(found)
    return found


def _require_time(found: Execution) -> None:
    if not 0 <= found.taken_ns < 1 << 63:
        raise DamagedError("taken_ns is no time in nanoseconds", hint="is this machine's clock set?")


def _context_of(run: bytes) -> ProcessContext | None:
    return ProcessContext.parse(msgspec.json.decode(run, type=described(PendingRun)).context or "")
