"""What the socket says of runs: ``runs`` lists the outbox, ``retry`` makes one due; ``complete`` is for shells."""

import os
from typing import TYPE_CHECKING, Any, get_args

from anyio import to_thread

from reprod.core.entry import display
from reprod.errors import UsageError
from reprod.ops import runs as verb
from reprod.ops.words import MOST, Kind, words
from reprod.store.outbox import Which

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon
    from reprod.daemon.methods import Caller, Notify

_LONGEST = 500  # characters of a run's id or name
_VERSIONS_DIFFER = "is the client older or newer than the daemon? restart it"


async def runs(daemon: "Daemon", params: dict[str, Any], _caller: "Caller", _notify: "Notify") -> dict[str, Any]:
    """The newest runs of one kind, with what comes next."""
    asked, limit = params.get("which") or "all", params.get("limit", verb.MOST)
    which = next((each for each in get_args(Which) if each == asked), None)
    if which is None:
        raise UsageError("which is all, waiting, incomplete or failed", hint=_VERSIONS_DIFFER)
    if not isinstance(limit, int) or not 0 <= limit <= verb.MOST:
        raise UsageError(f"limit is a number up to {verb.MOST}", hint=_VERSIONS_DIFFER)
    return await to_thread.run_sync(verb.runs, daemon.records, which, limit, daemon.tracking.key)


async def retry(daemon: "Daemon", params: dict[str, Any], _caller: "Caller", _notify: "Notify") -> dict[str, Any]:
    """Try a run again now."""
    run = params.get("run")
    if not isinstance(run, str) or len(run) > _LONGEST:
        raise UsageError("run is a run's id or name", hint=_VERSIONS_DIFFER)
    answer = await to_thread.run_sync(verb.retry, daemon.records, run, daemon.tracking.key)
    if answer["due"]:
        daemon.trigger.ring()
        daemon.courier.resume()
    return answer


async def complete(daemon: "Daemon", params: dict[str, Any], _caller: "Caller", _notify: "Notify") -> dict[str, Any]:
    """What a shell may offer: ``words`` is a list of a word and what it is."""
    asked, name = params.get("kind") or "datasets", params.get("name") or ""
    kind = next((each for each in get_args(Kind) if each == asked), None)
    if kind is None or not isinstance(name, str) or len(name) > _LONGEST:
        raise UsageError(f"kind is {', '.join(get_args(Kind))}; name is a dataset's", hint=_VERSIONS_DIFFER)
    if kind == "datasets":  # also those that were never scanned
        bad = [(each.name, "misconfigured") for each in daemon.config.misconfigured]
        named = sorted([*((name, work.dataset.path) for name, work in daemon.works.items()), *bad])
        return {"words": [[name, display(os.fsencode(about))] for name, about in named[:MOST]]}
    return {"words": await to_thread.run_sync(words, daemon.config.state_dir, kind, name)}
