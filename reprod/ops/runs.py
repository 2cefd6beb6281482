"""The outbox for people: which runs wait, were recorded or failed, why, what comes next, and asking for another try.

Rule: a row is told by what it means for its run (``captured``, ``incomplete``, ``failed``, ``deleted``), or by what it
waits for: ``noticed`` (for a walk), ``waiting`` (for the tracking server). Times are RFC 3339 UTC.
"""

import time
from pathlib import Path
from typing import Any

import msgspec

from reprod.core.described import described
from reprod.core.manifest import rfc3339
from reprod.core.redact import redact_url
from reprod.core.run import SHOWN_ID, PendingRun, dataset_names
from reprod.core.snapshot import Snapshot
from reprod.errors import NotFoundError, UsageError
from reprod.store import drifts, files, outbox
from reprod.store.connection import Database

#: Some 400 bytes each: an answer stays below half a megabyte, which holds the daemon's loop for a few milliseconds.
MOST = 1000


def runs(records: Database, which: outbox.Which, limit: int, server: str | None = None) -> dict[str, Any]:
    """Return the newest ``limit`` runs (at most ``MOST``) and how many there are.

    :param server: the tracking server that rows are delivered to now; None if no daemon runs.
    """
    total, rows = records.read(lambda c: outbox.listed(c, which, max(0, min(limit, MOST))))
    now = time.time_ns()
    drift = records.read(lambda c: drifts.verdicts(c, [row.id for row, _ in rows]))
    told = [_document(row, settled, server, now) | {"drift": drift.get(row.id)} for row, settled in rows]
    return {"which": which, "total": total, "runs": told}


def last_known(state: Path, which: outbox.Which, limit: int) -> dict[str, Any]:
    """Return the same without a daemon, from the registry. Raises StateError, DamagedError."""
    try:
        records = files.open_registry_readonly(state)
    except NotFoundError:
        return {"which": which, "total": 0, "runs": []}
    try:
        return runs(records, which, limit)
    finally:
        records.close()


def retry(records: Database, text: str, server: str) -> dict[str, Any]:
    """Make a run due now, and return what will happen: ``run_id``, ``name``, ``state`` (before), ``due``, ``what``.

    :param text: the run's id, the first characters of that, or its name; ``run:`` may stand before it.
    :raises NotFoundError: nothing is known of such a run. :raises UsageError: it is several.
    """
    run = text.removeprefix("run:")
    rows = records.read(lambda c: outbox.find(c, run)) if run else []
    ids = sorted({row.run_id for row in rows})
    if not ids:
        raise NotFoundError(f"no run {run!r} is known to this daemon", hint="reprod runs lists them")
    if len(ids) > 1:
        raise UsageError(
            f"{run!r} is several runs: {', '.join(ids[:3])}", hint="give more characters of the run id: reprod runs"
        )
    row = next((each for each in rows if each.tracking_uri == server), rows[0])
    state, told = _state(row), _run(row)
    if state == "deleted":
        raise NotFoundError(f"run {row.run_id} was deleted on the tracking server", hint="nothing is owed to it")
    due = state in {"noticed", "waiting", "failed", "incomplete"}
    if due:
        records.write(lambda c: outbox.retry(c, row.id))
    return {
        "run_id": row.run_id,
        "name": told.name if told else None,
        "state": state,
        "due": due,
        "what": _outlook(row, state, server),
    }


def _outlook(row: outbox.Delivery, state: str, server: str) -> str:
    if state == "captured":
        return "it is recorded: there is nothing to try again"
    if row.tracking_uri != server:
        where = f"the tracking server {redact_url(row.tracking_uri)}, which this daemon does not talk to now"
        return f"it is owed to {where}: it is tried when that is configured again"
    if state == "incomplete":
        return "its dataset is walked now, and what the run started on is judged again; only what can be proven is new"
    if state == "noticed" or (state == "failed" and row.snapshot is None):
        return "its dataset is walked now, and what it held when the run started is recorded"
    return "what was recorded is written to the run now"


def _document(row: outbox.Delivery, settled_ns: int | None, server: str | None, now_ns: int) -> dict[str, Any]:
    state, run = _state(row), _run(row)
    open_ = state in {"noticed", "waiting", "incomplete"}
    return {
        "run_id": row.run_id,
        "name": run.name if run else None,
        "experiment_id": run.experiment_id if run else None,
        "datasets": dataset_names(row.recorded),
        "state": state,
        "noticed_at": rfc3339(row.created_ns),
        "settled_at": rfc3339(settled_ns) if settled_ns and state not in {"noticed", "waiting"} else None,
        "attempts": row.attempts,
        "next_try_at": _next_try(row, now_ns) if open_ else None,
        "error": _error(row, state),
        "hint": _hint(row, state, server),
    }


def _state(row: outbox.Delivery) -> str:
    if row.state in {"noticed", "waiting", "failed"}:
        return row.state
    return row.outcome or "captured"


def _next_try(row: outbox.Delivery, now_ns: int) -> str | None:
    """Return when it is tried again, now for what is due; an incomplete row without a time is not."""
    if row.state in {"ending", "done"} and row.next_ns == 0:
        return None
    return rfc3339(row.next_ns if now_ns < row.next_ns <= now_ns + outbox.FARTHEST_NS else now_ns)


def _run(row: outbox.Delivery) -> PendingRun | None:
    try:
        return msgspec.json.decode(row.run, type=described(PendingRun))
    except msgspec.MsgspecError:  # what another version wrote; its id is known all the same
        return None


def _error(row: outbox.Delivery, state: str) -> str | None:
    if state != "incomplete" or row.snapshot is None:
        return row.error if state in {"noticed", "waiting", "failed"} else None
    try:
        return "; ".join(msgspec.json.decode(row.snapshot, type=described(Snapshot)).errors) or None
    except msgspec.MsgspecError:
        return None


def _hint(row: outbox.Delivery, state: str, server: str | None) -> str | None:
    again = f"reprod retry run:{row.run_id[:SHOWN_ID]}"
    if state in {"noticed", "waiting"} and server is not None and row.tracking_uri != server:
        return f"it waits for {redact_url(row.tracking_uri)}; this daemon talks to {redact_url(server) or 'none'}"
    if state == "failed":
        return f"mend that, then: {again}"
    if state == "incomplete" and row.next_ns:
        return f"it is looked at again by itself; at once: {again}"
    if state in {"noticed", "waiting"} and row.error:
        return f"it is tried again by itself; at once: {again}"
    return None
