"""What can be asked over the control socket: one coroutine a method, and who may call it.

A method takes the daemon, its parameters, who calls, and a function for progress notifications; it returns the result's
object. Parameters come from outside: what is missing, too long or of a wrong type is the caller's error, never the
daemon's. Only ``record`` and ``execution`` of a handover come as the JSON text that they were.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import anyio
from anyio import to_thread

from reprod.capture.process.identity import boot_id
from reprod.core import digest
from reprod.core.binding import Assurance
from reprod.core.entry import named
from reprod.core.manifest import rfc3339
from reprod.core.process import MAX_PATH, MAX_TEXT, ProcessContext
from reprod.core.redact import redact_url
from reprod.core.run import base_names
from reprod.daemon import callers, following, runs
from reprod.daemon.look import look
from reprod.daemon.pruner import prune_all
from reprod.daemon.status import progress, status
from reprod.daemon.version import identity
from reprod.daemon.waiters import Waiter
from reprod.daemon.work import DatasetWork
from reprod.errors import IncompleteError, NotFoundError, UsageError, did_you_mean
from reprod.fs import mounts
from reprod.ops import rehome
from reprod.ops.estimate import estimate
from reprod.ops.handovers import read_end, read_record

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

PROGRESS_S = 0.2
MAX_RUN_ID = 100  # MLflow's have 32 characters, others' servers may have longer ones
SHOWN_PROBLEMS = 100
OUTLOOK_S = 1.0  # arming takes some 20 us a directory: who adds a dataset waits no longer for it

#: Eight megabytes of JSON can be 150 MB of objects: several users' records wait for each other.
_ONE_RECORD = anyio.CapacityLimiter(1)

#: Counting is a moment of listing directories: many who add datasets at once take turns.
_ONE_COUNT = anyio.CapacityLimiter(1)

_VERSIONS_DIFFER = "is the client older or newer than the daemon? restart it"

Notify = Callable[[dict[str, Any]], Awaitable[bool]]
Needs = Literal["any", "read", "change"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int


async def hello(daemon: "Daemon", _params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Who answers, and where it reads its configuration."""
    config = daemon.config
    return {
        **identity(),
        "config": str(config.file) if config.file else None,
        "folder": str(config.folder),
        "state": str(config.state_dir),
    }


async def show_status(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """The status document."""
    name = _text(params, "name")
    if name is not None:
        known = [*daemon.works, *(m.name for m in daemon.config.misconfigured)]
        if name not in known:
            raise _unknown(name, known)
    return await to_thread.run_sync(status, daemon, name)


async def reload(daemon: "Daemon", _params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Read the configuration again; refused as a whole if reprod.toml is wrong."""
    return await daemon.reloads.now()


async def scan(daemon: "Daemon", params: dict[str, Any], _caller: Caller, notify: Notify) -> dict[str, Any]:
    """Walk one dataset or all, with progress."""
    name = _text(params, "name")
    works = [_work(daemon, name)] if name is not None else list(daemon.works.values())
    before = {w.dataset.name: w.report.version.seq if w.report else None for w in works}
    requests: dict[str, Waiter] = {}

    async def walk(work: DatasetWork) -> None:
        requests[work.dataset.name] = await work.walked(
            rehash=bool(params.get("full")), accept_root=bool(params.get("accept_root"))
        )

    async with anyio.create_task_group() as group:
        for work in works:
            group.start_soon(walk, work)
        while len(requests) < len(works):
            with anyio.move_on_after(PROGRESS_S):
                await anyio.sleep_forever() if not works else await anyio.sleep(PROGRESS_S)
            for work in works:
                now = progress(work)
                if now is not None and work.dataset.name not in requests:
                    await notify({"dataset": work.dataset.name, **now})
    for request in requests.values():
        if request.error is not None and len(works) == 1:
            raise request.error
    return {"datasets": [_scanned(w, requests[w.dataset.name], before[w.dataset.name]) for w in works]}


def _scanned(work: DatasetWork, request: Waiter, before: int | None) -> dict[str, Any]:
    name, report = work.dataset.name, request.report
    if report is None:
        error = request.error or IncompleteError(f"{name} was not walked", hint="reprod status")
        return {
            "name": name,
            "error": error.message,
            "exit_code": error.exit_code,
            "hint": error.hint,
            "complete": False,
        }
    version, counts = report.version, report.counts
    changed = version.seq != before
    return {
        "name": name,
        "version": version.seq,
        "digest": digest.text(version.digest) if version.digest else None,
        "complete": version.digest is not None,
        "changed": changed,
        "files": version.files,
        "bytes": version.size,
        "added": version.added if changed else 0,
        "modified": version.modified if changed else 0,
        "removed": version.removed if changed else 0,
        "hashed_files": counts.hashed_files,
        "hashed_bytes": counts.hashed_bytes,
        "seconds": round(report.seconds, 3),
        "problems": [{**named(p), "problem": kind.word} for p, kind in report.problems[:SHOWN_PROBLEMS]],
        "problem_count": version.problems,
    }


async def snapshot(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Walk a dataset now and return its version; with ``run_id``, tag that run so that it is recorded."""
    work = _work(daemon, _name(params))
    run_id = _text(params, "run_id")
    request = await work.walked()
    if request.error is not None:
        raise request.error
    if request.report is None:
        raise IncompleteError(f"{work.dataset.name} was not walked", hint="reprod status")
    if run_id is not None:
        daemon.answering.claim(run_id)
        await daemon.tag(run_id, work.dataset.name)
    version = request.report.version
    assurance: Assurance = "network" if mounts.is_network(request.report.fs_type) else "walk"
    return {
        "name": work.dataset.name,
        "version": version.seq,
        "digest": digest.text(version.digest) if version.digest else None,
        "complete": version.digest is not None,
        "files": version.files,
        "bytes": version.size,
        "assurance": assurance,
        "sealed_at": rfc3339(version.sealed_ns),
        "run_id": run_id,
        "delivery": "waiting" if run_id is not None else None,
    }


async def outlook(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """What is known of a dataset a moment after it was added: how large it seems, and how it is watched."""
    work = _work(daemon, _name(params))
    if work.report is None:
        state = str(daemon.config.state_dir)
        work.expected = await to_thread.run_sync(estimate, work.dataset, state, limiter=_ONE_COUNT)
    with anyio.move_on_after(OUTLOOK_S):
        await work.watched.wait()
    report, expected = work.report, work.expected
    return {
        "name": work.dataset.name,
        "watch": work.watch.mode,
        "watch_reason": work.watch.reason,
        "file_system": report.fs_type if report else expected.fs_type if expected else None,
        "files": report.version.files if report else expected.files if expected else None,
        "whole": report is not None or (expected is not None and expected.whole),
        "bytes": report.version.size if report else None,
        "version": report.version.seq if report else None,
        "digest": digest.text(report.version.digest) if report and report.version.digest else None,
    }


async def announce(daemon: "Daemon", params: dict[str, Any], caller: Caller, _notify: Notify) -> dict[str, Any]:
    """A process says who it is and, perhaps, which run it tagged: look for that run now."""
    context = _own_context(params, caller)
    speaks = context is not None and callers.is_speaker(caller.pid, caller.uid, context)
    # What is too much is not written down; the run is looked for all the same.
    if context is not None and speaks and callers.ANNOUNCEMENTS.take(caller.uid):
        claim = callers.Claim(context, caller.uid, proven=caller.pid == context.pid)
        await to_thread.run_sync(lambda: daemon.records.write(lambda c: callers.note(c, claim)))
        run_id = _text(params, "run_id", MAX_RUN_ID)
        if run_id is not None and params.get("takes_part") is True:
            await daemon.nodes.hear(run_id)
    names = base_names(_text(params, "dataset", MAX_TEXT) or "")
    if any(name in daemon.works for name in names):  # of others a poll takes nothing in
        daemon.trigger.ring()
    return {
        **identity(),
        "known": all(name in daemon.works for name in names),
        "tracking_uri": redact_url(daemon.tracking.uri or ""),  # any local user may ask
        "datasets": sorted(daemon.works),
    }


async def handover(daemon: "Daemon", params: dict[str, Any], caller: Caller, _notify: Notify) -> dict[str, Any]:
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


async def purge(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Delete the history of a dataset that is no longer registered."""
    name = _name(params)
    if name in daemon.works:
        raise UsageError(f"{name} is still registered", hint=f"reprod dataset remove {name} --purge")
    from reprod.ops.history import purge as purge_history

    await to_thread.run_sync(purge_history, daemon.config.state_dir, name, daemon.records)
    return {"purged": name}


async def prune(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Forget old versions of one dataset or of all, or say what would be forgotten."""
    name = _text(params, "name")
    return {"datasets": await prune_all(daemon, name, dry_run=bool(params.get("dry_run")))}


async def intend(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Note that a dataset is to be moved or renamed (neither: no more), before its configuration says so."""
    known = await to_thread.run_sync(
        rehome.intend, daemon.records, _name(params), _text(params, "moving_to"), _text(params, "renaming_to")
    )
    return {"known": known}


def _own_context(params: dict[str, Any], caller: Caller) -> ProcessContext | None:
    """Return the context in a request if it is of this boot and, while that process lives, of the caller's user."""
    context = ProcessContext.from_object(params.get("context"))
    if context is None or context.boot_id != boot_id():
        return None
    return context if caller.uid == 0 or callers.owner(context) in {None, caller.uid} else None


def _text(params: dict[str, Any], key: str, longest: int = MAX_PATH) -> str | None:
    """Return an optional parameter that is text. Raises UsageError for another type or over ``longest`` characters."""
    value = params.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest:
        raise UsageError(f"{key} is a text of at most {longest} characters", hint=_VERSIONS_DIFFER)
    return value


def _name(params: dict[str, Any]) -> str:
    """Return the dataset's name in a request that needs one. Raises UsageError."""
    name = _text(params, "name")
    if name is None:
        raise UsageError("name is missing", hint=_VERSIONS_DIFFER)
    return name


def _work(daemon: "Daemon", name: str) -> DatasetWork:
    if name not in daemon.works:
        raise _unknown(name, daemon.works)
    return daemon.works[name]


def _unknown(name: str, known: Any) -> NotFoundError:
    return NotFoundError(
        f"no dataset named {name!r}", hint=did_you_mean(name, known) or "reprod dataset add NAME PATH adds one"
    )


METHODS: dict[str, tuple[Needs, Callable[["Daemon", dict[str, Any], Caller, Notify], Awaitable[dict[str, Any]]]]] = {
    "hello": ("read", hello),
    "status": ("read", show_status),
    "reload": ("change", reload),
    "scan": ("change", scan),
    "outlook": ("read", outlook),
    "look": ("change", look),
    "snapshot": ("change", snapshot),
    "purge": ("change", purge),
    "prune": ("change", prune),
    "intend": ("change", intend),
    "watch": ("read", following.watch),
    "runs": ("read", runs.runs),
    "retry": ("change", runs.retry),
    "complete": ("read", runs.complete),
    "announce": ("any", announce),
    "handover": ("any", handover),
}
