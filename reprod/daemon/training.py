"""What a training process, or a child of it, may say on the control socket: that it is there, and with what it runs.

Any local user may, of processes of their own: who it is says the kernel (`reprod.daemon.callers`), and what is too much
in an hour is not taken. Only ``record`` and ``execution`` of a handover come as the JSON text that they were.
"""

from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from reprod.capture.process.identity import boot_id
from reprod.core.process import MAX_TEXT, ProcessContext
from reprod.core.redact import redact_url
from reprod.core.run import base_names
from reprod.daemon import callers
from reprod.daemon.parameters import text_of
from reprod.daemon.version import identity
from reprod.errors import UsageError
from reprod.ops.handovers import read_end, read_record

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon
    from reprod.daemon.methods import Caller, Notify

MAX_RUN_ID = 100  # MLflow's have 32 characters, others' servers may have longer ones

#: Eight megabytes of JSON can be 150 MB of objects: several users' records wait for each other.
_ONE_RECORD = anyio.CapacityLimiter(1)


async def announce(daemon: "Daemon", params: dict[str, Any], caller: "Caller", _notify: "Notify") -> dict[str, Any]:
    """A process says who it is and, perhaps, which run it tagged: look for that run now."""
    context = _own_context(params, caller)
    speaks = context is not None and callers.is_speaker(caller.pid, caller.uid, context)
    # What is too much is not written down; the run is looked for all the same.
    if context is not None and speaks and callers.ANNOUNCEMENTS.take(caller.uid):
        claim = callers.Claim(context, caller.uid, proven=caller.pid == context.pid)
        await to_thread.run_sync(lambda: daemon.records.write(lambda c: callers.note(c, claim)))
        run_id = text_of(params, "run_id", MAX_RUN_ID)
        if run_id is not None and params.get("takes_part") is True:
            await daemon.nodes.hear(run_id)
    names = base_names(text_of(params, "dataset", MAX_TEXT) or "")
    if any(name in daemon.works for name in names):  # of others a poll takes nothing in
        daemon.trigger.ring()
    return {
        **identity(),
        "known": all(name in daemon.works for name in names),
        "tracking_uri": redact_url(daemon.tracking.uri or ""),  # any local user may ask
        "datasets": sorted(daemon.works),
    }


async def handover(daemon: "Daemon", params: dict[str, Any], caller: "Caller", _notify: "Notify") -> dict[str, Any]:
    """A child of a training process hands over that process's record, of which the first stands, or its end."""
    context = _own_context(params, caller)
    if context is None:
        raise UsageError("a handover needs the context of a process of this boot", hint="is this another container?")
    callers.charge(caller.uid)
    claim = callers.Claim(context, caller.uid, proven=callers.owner(context) == caller.uid)
    if params["record"] == b"null":
        last = await to_thread.run_sync(read_end, params["execution"], limiter=_ONE_RECORD)
        await to_thread.run_sync(lambda: daemon.records.write(lambda c: callers.keep_end(c, claim, last)))
        return {"digest": None}
    given, key = await to_thread.run_sync(read_record, params["record"], limiter=_ONE_RECORD)
    kept, new = await to_thread.run_sync(
        lambda: daemon.records.write(lambda c: callers.keep_record(c, claim, given, key))
    )
    if new:
        daemon.log.info("environment.handed_over", digest=kept[:12], pid=context.pid, uid=caller.uid)
    return {"digest": kept}


def _own_context(params: dict[str, Any], caller: "Caller") -> ProcessContext | None:
    """Return the context in a request if it is of this boot and, while that process lives, of the caller's user."""
    context = ProcessContext.from_object(params.get("context"))
    if context is None or context.boot_id != boot_id():
        return None
    return context if caller.uid == 0 or callers.owner(context) in {None, caller.uid} else None
