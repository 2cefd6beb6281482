"""What can be asked over the control socket: one coroutine a method, and who may call it.

A method takes the daemon, its parameters, who calls, and a function for progress notifications; it returns the result's
object. Parameters come from outside and are read by `reprod.daemon.parameters`. What a training process may say is in
`reprod.daemon.training`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import anyio
from anyio import to_thread

from reprod.core import digest
from reprod.core.binding import Assurance
from reprod.core.entry import named
from reprod.core.manifest import rfc3339
from reprod.daemon import following, runs, training
from reprod.daemon.look import look
from reprod.daemon.parameters import name_of, text_of, unknown, work_of
from reprod.daemon.pruner import prune_all
from reprod.daemon.status import progress, status
from reprod.daemon.version import identity
from reprod.daemon.waiters import Waiter
from reprod.daemon.work import DatasetWork
from reprod.errors import IncompleteError, UsageError
from reprod.fs import mounts
from reprod.ops import rehome
from reprod.ops.estimate import estimate

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

PROGRESS_S = 0.2
SHOWN_PROBLEMS = 100
OUTLOOK_S = 1.0  # arming takes some 20 us a directory: who adds a dataset waits no longer for it

#: Counting is a moment of listing directories: many who add datasets at once take turns.
_ONE_COUNT = anyio.CapacityLimiter(1)

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
    name = text_of(params, "name")
    if name is not None:
        known = [*daemon.works, *(m.name for m in daemon.config.misconfigured)]
        if name not in known:
            raise unknown(name, known)
    return await to_thread.run_sync(status, daemon, name)


async def reload(daemon: "Daemon", _params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Read the configuration again; refused as a whole if reprod.toml is wrong."""
    return await daemon.reloads.now()


async def scan(daemon: "Daemon", params: dict[str, Any], _caller: Caller, notify: Notify) -> dict[str, Any]:
    """Walk one dataset or all, with progress."""
    name = text_of(params, "name")
    works = [work_of(daemon, name)] if name is not None else list(daemon.works.values())
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
    work = work_of(daemon, name_of(params))
    run_id = text_of(params, "run_id")
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
    work = work_of(daemon, name_of(params))
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


async def purge(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Delete the history of a dataset that is no longer registered."""
    name = name_of(params)
    if name in daemon.works:
        raise UsageError(f"{name} is still registered", hint=f"reprod dataset remove {name} --purge")
    from reprod.ops.history import purge as purge_history

    await to_thread.run_sync(purge_history, daemon.config.state_dir, name, daemon.records)
    return {"purged": name}


async def prune(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Forget old versions of one dataset or of all, or say what would be forgotten."""
    name = text_of(params, "name")
    return {"datasets": await prune_all(daemon, name, dry_run=bool(params.get("dry_run")))}


async def intend(daemon: "Daemon", params: dict[str, Any], _caller: Caller, _notify: Notify) -> dict[str, Any]:
    """Note that a dataset is to be moved or renamed (neither: no more), before its configuration says so."""
    known = await to_thread.run_sync(
        rehome.intend, daemon.records, name_of(params), text_of(params, "moving_to"), text_of(params, "renaming_to")
    )
    return {"known": known}


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
    "announce": ("any", training.announce),
    "handover": ("any", training.handover),
}
