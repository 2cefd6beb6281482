"""What a GET or HEAD gets, over the control socket and over TCP: ``/healthz``, ``/v1/status``, ``/metrics``.

Rules: nothing here changes anything; a page in a browser, which names its origin or another host, gets nothing; one
request a connection. ``/healthz`` answers 200 whenever the event loop answers at all, because its reader asks "shall I
restart it?", and no restart brings a tracking server, a mount or space on a disk back: those stand in its body, as
words of ``DEGRADED``.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio import to_thread

import reprod
from reprod.core.redact import redact_text
from reprod.daemon.metrics import CONTENT_TYPE, metrics
from reprod.daemon.requests import Head
from reprod.daemon.status import status
from reprod.errors import DaemonUnavailableError, ReprodError, StateError

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

PATHS = ("/healthz", "/metrics", "/v1/status")
JSON = "application/json"

#: What ``/healthz`` calls degraded: the tracking server does not answer, the registry cannot be written, a dataset is
#: not whole (``unavailable``, ``failed``, ``misconfigured`` or ``incomplete``), ``listen`` cannot be had.
DEGRADED = ("tracking", "registry", "datasets", "listen")
_NOT_WHOLE = {"unavailable", "failed", "incomplete"}

_LOCALHOST = re.compile(rb"localhost(:\d{1,5})?\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Door:
    """Where a request came in: the Hosts that it ``answers_to``; ``permit`` raises for one who may not read a page."""

    answers_to: Callable[[bytes], bool]
    permit: Callable[[str], None]


def is_localhost(host: bytes) -> bool:
    """Return whether a Host header is that of a program on this machine; browsers cannot omit theirs."""
    return _LOCALHOST.match(host) is not None


async def respond(daemon: "Daemon", head: Head, door: Door) -> bytes:
    """Return the whole answer to a request; what nobody expected is a bug in the log and a 500."""
    try:
        whole = await _answer(daemon, head, door)
    except StateError as error:
        whole = _refuse("403 Forbidden", error)
    except ReprodError as error:
        whole = _refuse("503 Service Unavailable", error)
    except Exception as unexpected:  # noqa: BLE001 - one request must not end the daemon
        whole = _refuse("500 Internal Server Error", daemon.bug(unexpected))
    return whole[: whole.index(b"\r\n\r\n") + 4] if head.method == b"HEAD" else whole


async def _answer(daemon: "Daemon", head: Head, door: Door) -> bytes:
    if head.method not in {b"GET", b"HEAD"}:
        return _json("405 Method Not Allowed", {"error": "this is read only"}, "Allow: GET, HEAD")
    if b"origin" in head.headers or not door.answers_to(head.headers.get(b"host", b"localhost")):
        return _json("403 Forbidden", {"error": "only for localhost, and for no web page"})
    if head.path == b"/healthz":
        door.permit("health")
        return _json("200 OK", health(daemon))
    if head.path == b"/v1/status":
        door.permit("status")
        return _json("200 OK", await to_thread.run_sync(status, daemon, None))
    if head.path == b"/metrics":
        door.permit("metrics")
        return response("200 OK", (await to_thread.run_sync(metrics, daemon)).encode(), CONTENT_TYPE)
    return _json("404 Not Found", {"error": f"only {', '.join(PATHS)} are here"})


def health(daemon: "Daemon") -> dict[str, Any]:
    """Return that the loop answers, and what a person should look at; from memory alone."""
    not_whole = daemon.config.misconfigured or any(work.state in _NOT_WHOLE for work in daemon.works.values())
    found = {
        "tracking": daemon.tracking.state == "unreachable",
        "registry": daemon.stuck is not None,
        "datasets": bool(not_whole),
        "listen": daemon.listener.error is not None,
    }
    return {"ok": True, "version": reprod.__version__, "degraded": [word for word in DEGRADED if found[word]]}


def response(code: str, content: bytes, kind: str, *more: str) -> bytes:
    """Return an HTTP answer; ``more`` are further header lines."""
    lines = (f"HTTP/1.1 {code}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", "Connection: close")
    # No browser may take it for anything else than what it is, or keep it.
    safe = ("X-Content-Type-Options: nosniff", "Cache-Control: no-store")
    return "\r\n".join((*lines, *safe, *more, "", "")).encode() + content


def too_many(what: str) -> bytes:
    """Return the answer to one who comes when nobody can be served."""
    return _refuse("503 Service Unavailable", DaemonUnavailableError(what, hint="wait a moment"))


def _json(code: str, body: dict[str, Any], *more: str) -> bytes:
    return response(code, json.dumps(body).encode() + b"\n", JSON, *more)


def _refuse(code: str, error: ReprodError) -> bytes:
    return _json(code, {"error": redact_text(error.message), "hint": redact_text(error.hint)})
