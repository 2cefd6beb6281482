"""The control socket: JSON-RPC 2.0, one object a line, on a unix socket; who may do what by SO_PEERCRED.

Any local user may announce a run and hand over the environment of a process of their own; reading is for the daemon's
user, root and the group ``reprod``; changing for root and the daemon's user. Whatever somebody sends costs their own
connection at most, which is closed after a line that is no request: what follows may be the body of a browser's POST.
HTTP is answered by ``daemon.http``, to those who may read. A line is at most 64 KiB long, that of a
handover 8 MiB; of 64 connections half are for the daemon's user and root; one that idles is closed after a minute.
"""

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from reprod.config.places import is_system_account
from reprod.core.protocol import MAX_HANDOVER, MAX_LINE
from reprod.core.redact import redact_text
from reprod.daemon.callers import RECORDS, is_own, too_much
from reprod.daemon.http import Door, is_localhost, respond
from reprod.daemon.listen import serve
from reprod.daemon.methods import METHODS, Caller, Needs
from reprod.daemon.requests import Request, is_http, parse, read_head
from reprod.daemon.version import METHOD_NOT_FOUND, UnknownMethodError, identity
from reprod.errors import AlreadyRunningError, DaemonUnavailableError, ReprodError, StateError, UsageError

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

MAX_CLIENTS = 64
KEPT_CLIENTS = 32  # for root and the daemon's user: nobody else may take the last ones
IDLE_S = 60.0
SEND_S = 10.0  # a reader that takes nothing for so long holds its connection for nothing
RATE, RATE_WINDOW_S = 300, 10.0  # calls of another user; a sweep that starts 100 runs at once makes 200

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
            with anyio.CancelScope(shield=True):  # a stop in between would leave the file
                listener = await anyio.create_unix_listener(path, mode=0o666 if is_system_account() else 0o600)
            own = os.lstat(path).st_ino
        except OSError as error:
            raise StateError(
                f"cannot listen on {path}: {error.strerror}", hint="set REPROD_SOCKET to a path that can be written"
            ) from error
        async with listener, anyio.create_task_group() as group:
            task_status.started()
            try:
                await serve(listener, self._serve, group)
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
                head = await read_head(lines, line) if is_http(line) else None
            if head is not None:
                page = await respond(self._daemon, head, Door(is_localhost, partial(self._permit, caller)))
                with anyio.fail_after(SEND_S):
                    await stream.send(page)
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

        async def notify(values: dict[str, Any]) -> bool:
            nonlocal listens
            try:
                if listens:
                    await _send(stream, {"method": "progress", "params": values})
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError):
                listens = False  # the work goes on: others may wait for it too
            return listens

        try:
            answer: dict[str, Any] = {"result": await self._call(request.method, request.params, caller, notify)}
        except ReprodError as error:
            answer = {"error": _refusal(error)}
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            answer = {"error": _bad_request(error)}
        except Exception as unexpected:  # noqa: BLE001 - one request, perhaps another user's, must not end the daemon
            answer = {"error": _refusal(self._daemon.bug(unexpected))}
        if not listens:  # half a line may have been sent: nothing can follow it
            raise anyio.ClosedResourceError
        await _send(stream, {"id": request.id, **answer})

    async def _call(
        self, method: str, params: dict[str, Any], caller: Caller, notify: Callable[[dict[str, Any]], Awaitable[bool]]
    ) -> dict[str, Any]:
        if method not in METHODS:
            raise UnknownMethodError(method)
        needs, call = METHODS[method]
        self._require(caller, method, needs)
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

    def _permit(self, caller: Caller, what: str) -> None:
        """Let somebody have a page of HTTP: that the daemon is well is for everybody. Raises StateError."""
        if what != "health":
            self._limit(caller.uid)
            self._require(caller, what, "read")

    def _require(self, caller: Caller, method: str, needs: Needs) -> None:
        if is_own(caller.uid) or needs == "any" or (needs == "read" and _in_group(caller)):
            return
        self._daemon.log.warning("control.refused", method=method, uid=caller.uid)
        if needs == "read":
            cure = "its user, root and, of a system's daemon, the group reprod may: sudo usermod -aG reprod USER"
            raise StateError(f"this daemon does not answer uid {caller.uid} ({method})", hint=cure)
        raise StateError(
            f"this daemon lets uid {caller.uid} change nothing ({method})", hint="its user and root may: sudo"
        )


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


async def _receive(lines: BufferedByteReceiveStream, stream: SocketStream, uid: int) -> bytes:
    """Return the next line. One that is longer than what its user may still hand over is not even received."""
    longest = MAX_HANDOVER if is_own(uid) else min(MAX_HANDOVER, max(MAX_LINE, RECORDS.left(uid)))
    try:
        line = await lines.receive_until(b"\n", longest + 1)  # what counts is the line without its end
        if len(line) <= MAX_LINE or (len(line) <= longest and RECORDS.take(uid, len(line))):
            return line
        raise anyio.DelimiterNotFound(longest)  # it came in one piece with its end, or after others of that user's
    except anyio.DelimiterNotFound:
        if longest < MAX_HANDOVER:
            await _send(stream, {"id": None, "error": _refusal(too_much(uid))})
        raise


async def _send(stream: SocketStream, message: dict[str, Any]) -> None:
    with anyio.fail_after(SEND_S):
        await stream.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def _refusal(error: ReprodError) -> dict[str, Any]:
    message, data = redact_text(error.message), {"exit_code": error.exit_code, "hint": redact_text(error.hint)}
    if isinstance(error, UnknownMethodError):
        return {"code": METHOD_NOT_FOUND, "message": message, "data": {**data, **identity()}}
    return {"code": -32000, "message": message, "data": data}


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
