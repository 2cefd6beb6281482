"""The control socket: JSON-RPC 2.0, one object a line, on a unix socket; who may do what by SO_PEERCRED.

Any local user may announce a run and hand over the environment of a process of their own; reading is for the daemon's
user, root and the group ``reprod``; changing for root and the daemon's user. A line that begins with ``GET `` gets
``/healthz`` or ``/v1/status`` over HTTP. Lines are at most 8 MiB (an environment of some 10,000 packages), connections
at most 64, and an idle one is closed after a minute.
"""

import grp
import json
import os
import pwd
import socket
import struct
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from reprod.config.places import is_system_account
from reprod.daemon.methods import METHODS, Caller
from reprod.errors import ReprodError, StateError, UsageError

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

MAX_LINE = 8 << 20
MAX_CLIENTS = 64
IDLE_S = 60.0
RATE, RATE_WINDOW_S = 300, 10.0  # calls of another user; a sweep that starts 100 runs at once makes 200

_UCRED = struct.Struct("3i")

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Control:
    """Serves the socket. Only behind the lock of the state directory: it replaces whatever lies at its path."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._clients = anyio.CapacityLimiter(MAX_CLIENTS)
        self._calls: dict[int, deque[float]] = defaultdict(deque)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; "started" when connections are accepted."""
        path = self._daemon.config.socket
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            # A system daemon answers every local user, and decides by call; a user's own only that user.
            listener = await anyio.create_unix_listener(path, mode=0o666 if is_system_account() else 0o600)
        except OSError as error:
            raise StateError(
                f"cannot listen on {path}: {error.strerror}", hint="set REPROD_SOCKET to a path that can be written"
            ) from error
        async with listener:
            task_status.started()
            try:
                await listener.serve(self._serve)
            finally:
                path.unlink(missing_ok=True)

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            if self._clients.available_tokens < 1:
                return
            async with self._clients:
                caller = _caller(stream)
                lines = BufferedByteReceiveStream(stream)
                try:
                    while True:
                        with anyio.fail_after(IDLE_S):
                            line = await lines.receive_until(b"\n", MAX_LINE)
                        if line.startswith(b"GET "):
                            await stream.send(await self._http(line, caller))
                            return
                        await self._answer(line, caller, stream)
                except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, TimeoutError):
                    return
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return  # the client went away

    async def _answer(self, line: bytes, caller: Caller, stream: SocketStream) -> None:
        request: dict[str, Any] = {}

        async def send(message: dict[str, Any]) -> None:
            await stream.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

        try:
            request = _parse(line)
            result = await self._call(str(request["method"]), request.get("params") or {}, caller, send)
        except ReprodError as error:
            data = {"exit_code": error.exit_code, "hint": error.hint}
            answer: dict[str, Any] = {"error": {"code": -32000, "message": error.message, "data": data}}
        except (LookupError, TypeError, ValueError) as error:
            data = {
                "exit_code": UsageError.exit_code,
                "hint": "is the client older or newer than the daemon? restart it",
            }
            answer = {"error": {"code": -32600, "message": f"bad request: {error}", "data": data}}
        else:
            answer = {"result": result}
        await send({"id": request.get("id"), **answer})

    async def _call(self, method: str, params: dict[str, Any], caller: Caller, send: Send) -> dict[str, Any]:
        if method not in METHODS:
            raise UsageError(f"the daemon knows no method {method!r}", hint="it is older than the client: restart it")
        needs, call = METHODS[method]
        if needs == "any" and caller.uid not in {0, os.geteuid()}:
            self._limit(caller.uid)
        if not self._may(caller, needs):
            self._daemon.log.warning("control.refused", method=method, uid=caller.uid)
            raise StateError(f"uid {caller.uid} may not {method} on this daemon", hint="ask its user, or use sudo")

        async def notify(values: dict[str, Any]) -> None:
            await send({"method": "progress", "params": values})

        return await call(self._daemon, params, caller, notify)

    def _limit(self, uid: int) -> None:
        calls, now = self._calls[uid], time.monotonic()
        while calls and calls[0] < now - RATE_WINDOW_S:
            calls.popleft()
        if len(calls) >= RATE:
            raise StateError(f"over {RATE} calls in {RATE_WINDOW_S:.0f} s by uid {uid}", hint="wait a moment")
        calls.append(now)

    @staticmethod
    def _may(caller: Caller, needs: str) -> bool:
        if caller.uid in {0, os.geteuid()} or needs == "any":
            return True
        return needs == "read" and _in_group(caller)

    async def _http(self, line: bytes, caller: Caller) -> bytes:
        path = line.split(b" ")[1:2]
        if path == [b"/healthz"]:
            return _response("200 OK", {"ok": True})
        if path == [b"/v1/status"] and self._may(caller, "read"):
            return _response("200 OK", await METHODS["status"][1](self._daemon, {}, caller, _silent))
        return _response("404 Not Found", {"error": "only /healthz and /v1/status are here"})


async def _silent(_: dict[str, Any]) -> None:
    """Progress that nobody wants."""


def _parse(line: bytes) -> dict[str, Any]:
    request = json.loads(line)
    if not isinstance(request, dict) or not isinstance(request.get("params") or {}, dict) or "method" not in request:
        raise ValueError("a request is an object with method and params")
    return request


def _caller(stream: SocketStream) -> Caller:
    raw = stream.extra(SocketAttribute.raw_socket)
    pid, uid, gid = _UCRED.unpack(raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Caller(pid, uid, gid)


def _in_group(caller: Caller) -> bool:
    """Whether the caller is in the group ``reprod``."""
    try:
        group = grp.getgrnam("reprod")
        return caller.gid == group.gr_gid or pwd.getpwuid(caller.uid).pw_name in group.gr_mem
    except KeyError:
        return False


def _response(status: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    kind, length = "Content-Type: application/json", f"Content-Length: {len(content)}"
    lines = (f"HTTP/1.1 {status}", kind, length, "Connection: close")
    return "\r\n".join((*lines, "", "")).encode() + content
