"""What the daemon itself sees of a path: asked before a dataset is added there, while somebody can still be told.

Only its own process can say: it has its user's permissions, and a sandbox may show it other file systems.
"""

import os
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from reprod.errors import UsageError
from reprod.ops.doctor_access import first_closed

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon
    from reprod.daemon.methods import Caller, Notify

#: A mount whose server is gone answers never; a person waits for this.
LOOK_S = 2.0

#: One thread may hang in a dead mount; nobody else's question waits for it.
_FEW = anyio.CapacityLimiter(4)


async def look(_daemon: "Daemon", params: dict[str, Any], _caller: "Caller", _notify: "Notify") -> dict[str, Any]:
    """Say whether ``path`` can be reached and listed, and at which folder it ends if not; ``closed`` is null if so."""
    path = params.get("path")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise UsageError("path is an absolute path", hint="is the client older or newer than the daemon? restart it")
    answer: dict[str, Any] = {"path": path, "uid": os.geteuid(), "closed": None, "answered": False}
    with anyio.move_on_after(LOOK_S):
        answer["closed"] = await to_thread.run_sync(_look, path, limiter=_FEW, abandon_on_cancel=True)
        answer["answered"] = True
    return answer


def _look(path: str) -> dict[str, Any] | None:
    closed = first_closed(path, itself=True)
    return None if closed is None else closed.document()
