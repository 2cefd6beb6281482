"""The control socket: JSON-RPC 2.0, one object a line, on a unix socket; who may do what by SO_PEERCRED.

Any local user may announce a run and hand over the environment of a process of their own; reading is for the daemon's
user, root and the group ``reprod``; changing for root and the daemon's user. Whatever somebody sends costs their own
connection at most, which is closed after a line that is no request: what follows may be the body of a browser's POST.
HTTP gets ``/healthz`` and ``/v1/status``, by GET and from this machine only. A line is at most 64 KiB long, that of a
handover 8 MiB; of 64 connections half are for the daemon's user and root; one that idles is closed after a minute.
"""

import errno
import grp
import json
import os
import pwd
import socket
import stat
import struct
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from reprod.config.places import is_system_account
from reprod.daemon.callers import RECORDS, is_own, too_much
from reprod.daemon.methods import METHODS, Caller
from reprod.daemon.requests import MAX_HANDOVER, MAX_LINE, Request, is_http, is_local, parse, read_headers, response
from reprod.errors import AlreadyRunningError, DaemonUnavailableError, ReprodError, StateError, UsageError

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

MAX_CLIENTS = 64
KEPT_CLIENTS = 32  # for root and the daemon's user: nobody else may take the last ones
IDLE_S = 60.0
SEND_S = 10.0  # a reader that takes nothing for so long holds its connection for nothing
RATE, RATE_WINDOW_S = 300, 10.0  # calls of another user; a sweep that starts 100 runs at once makes 200

#: No connection can be taken now; those that wait stay in the backlog.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
EXHAUSTED_WAIT_S = 0.1

_UCRED = struct.Struct("3i")


class Control:
    """Serves the socket. Only behind the lock of the state directory: it replaces a socket that nobody listens on."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._clients = anyio.CapacityLimiter(MAX_CLIENTS)
        self._calls: dict[int, deque[float]] = defaultdict(deque)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; "started" when connections are accepted."""
        path = self._daemon.config.socket
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_way(path)
            # A system daemon answers every local user, and decides by call; a user's own only that user.
            listener = await anyio.create_unix_listener(path, mode=0o666 if is_system_account() else 0o600)
            own = os.lstat(path).st_ino
        except OSError as error:
            raise StateError(
                f"cannot listen on {path}: {error.strerror}", hint="set REPROD_SOCKET to a path that can be written"
            ) from error
        async with listener, anyio.create_task_group() as group:
            task_status.started()
            try:
                while True:
                    try:
                        await listener.serve(self._serve, group)
                    except anyio.BrokenResourceError as error:
                        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _EXHAUSTED:
                            raise
                        await anyio.sleep(EXHAUSTED_WAIT_S)
            finally:
                if _inode(path) == own:
                    path.unlink(missing_ok=True)

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            try:
                caller = _caller(stream)
                if self._clients.available_tokens <= (0 if is_own(caller.uid) else KEPT_CLIENTS):
                    full = DaemonUnavailableError("the daemon has too many connections open", hint="wait a moment")
                    await _send(stream, {"id": None, "error": _refusal(full)})
                    return
                async with self._clients:
                    await self._talk(stream, caller)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, TimeoutError):
                return
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the client went away

    async def _talk(self, stream: SocketStream, caller: Caller) -> None:
        """Answer line by line until one is no request."""
        lines = BufferedByteReceiveStream(stream)
        while True:
            with anyio.fail_after(IDLE_S):
                line = await _receive(lines, stream, caller.uid)
                headers = await read_headers(lines, line) if is_http(line) else None
            if headers is not None:
                answer = await self._http(line, headers, caller)
                with anyio.fail_after(SEND_S):
                    await stream.send(answer)
                return
            try:
                self._limit(caller.uid)  # before the line is read: reading is what costs
                request = parse(line)
            except StateError as error:
                await _send(stream, {"id": None, "error": _refusal(error)})
                return
            except (ValueError, RecursionError) as error:
                await _send(stream, {"id": None, "error": _bad_request(error)})
                return
            del line  # it may be megabytes, and a scan may take hours
            await self._answer(request, caller, stream)

    async def _answer(self, request: Request, caller: Caller, stream: SocketStream) -> None:
        listens = True

        async def notify(values: dict[str, Any]) -> None:
            nonlocal listens
            try:
                if listens:
                    await _send(stream, {"method": "progress", "params": values})
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError):
                listens = False  # the work goes on: others may wait for it too

        try:
            answer: dict[str, Any] = {"result": await self._call(request.method, request.params, caller, notify)}
        except ReprodError as error:
            answer = {"error": _refusal(error)}
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            answer = {"error": _bad_request(error)}
        except Exception as unexpected:  # noqa: BLE001 - one request, perhaps another user's, must not end the daemon
            answer = {"error": _refusal(self._daemon.bug(unexpected))}
        await _send(stream, {"id": request.id, **answer})

    async def _call(
        self, method: str, params: dict[str, Any], caller: Caller, notify: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> dict[str, Any]:
        if method not in METHODS:
            raise UsageError(
                f"the daemon knows no method {method[:80]!r}", hint="it is older than the client: restart it"
            )
        needs, call = METHODS[method]
        if not self._may(caller, needs):
            self._daemon.log.warning("control.refused", method=method, uid=caller.uid)
            raise StateError(f"uid {caller.uid} may not {method} on this daemon", hint="ask its user, or use sudo")
        return await call(self._daemon, params, caller, notify)

    def _limit(self, uid: int) -> None:
        if is_own(uid):
            return
        calls, now = self._calls[uid], time.monotonic()
        while calls and calls[0] < now - RATE_WINDOW_S:
            calls.popleft()
        if len(calls) >= RATE:
            raise StateError(f"over {RATE} calls in {RATE_WINDOW_S:.0f} s by uid {uid}", hint="wait a moment")
        calls.append(now)

    @staticmethod
    def _may(caller: Caller, needs: str) -> bool:
        if is_own(caller.uid) or needs == "any":
            return True
        return needs == "read" and _in_group(caller)

    async def _http(self, line: bytes, headers: dict[bytes, bytes], caller: Caller) -> bytes:
        method, path, *_ = [*line.split(b" "), b""]
        if method != b"GET":
            return response("405 Method Not Allowed", {"error": "this is read only"}, "Allow: GET")
        if not is_local(headers):
            return response("403 Forbidden", {"error": "only for localhost, and for no web page"})
        if path == b"/healthz":
            return response("200 OK", {"ok": True})
        if path != b"/v1/status":
            return response("404 Not Found", {"error": "only /healthz and /v1/status are here"})
        try:
            self._limit(caller.uid)
            return response("200 OK", await self._call("status", {}, caller, _silent))
        except StateError as error:
            return response("403 Forbidden", {"error": error.message, "hint": error.hint})
        except ReprodError as error:
            return response("503 Service Unavailable", {"error": error.message, "hint": error.hint})


def _make_way(path: Path) -> None:
    """Remove a socket that a dead daemon left. Raises StateError, AlreadyRunningError for anything else that is there.

    The lock is on the state directory, so a daemon with another one may listen at this path.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise StateError(f"{path} is there and is no socket", hint="move it away, or set REPROD_SOCKET")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # its backlog is full, so it listens
            pass
    raise AlreadyRunningError(f"another daemon listens at {path}", hint="reprod status shows it; stop it first")


def _inode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None


async def _silent(_: dict[str, Any]) -> None:
    """Progress that nobody wants."""


async def _receive(lines: BufferedByteReceiveStream, stream: SocketStream, uid: int) -> bytes:
    """Return the next line. One that is longer than what its user may still hand over is not even received."""
    longest = MAX_HANDOVER if is_own(uid) else min(MAX_HANDOVER, max(MAX_LINE, RECORDS.left(uid)))
    try:
        line = await lines.receive_until(b"\n", longest)
        if len(line) <= MAX_LINE or RECORDS.take(uid, len(line)):
            return line
        raise anyio.DelimiterNotFound(MAX_LINE)  # others of that user's came in between
    except anyio.DelimiterNotFound:
        if longest < MAX_HANDOVER:
            await _send(stream, {"id": None, "error": _refusal(too_much(uid))})
        raise


async def _send(stream: SocketStream, message: dict[str, Any]) -> None:
    with anyio.fail_after(SEND_S):
        await stream.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def _refusal(error: ReprodError) -> dict[str, Any]:
    return {"code": -32000, "message": error.message, "data": {"exit_code": error.exit_code, "hint": error.hint}}


def _bad_request(error: Exception) -> dict[str, Any]:
    bad = UsageError(f"bad request: {error}", hint="is the client older or newer than the daemon? restart it")
    return {**_refusal(bad), "code": -32600}


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
