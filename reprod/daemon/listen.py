"""Read-only HTTP over TCP, where ``[daemon] listen`` says so; nothing else is ever spoken here.

Over TCP nobody knows who asks: whoever can reach the address may read, so all that is bounded is how much. On a
loopback address a request has to name it, ``localhost`` or the configured host (a page in a browser that had its own
name lead here names that); on another address, which an administrator chose, the names under which it is reached are
not known, and the Host is not looked at. An address that cannot be had is a wrong configuration: said, and tried again.
"""

import errno
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal

import anyio
from anyio.abc import Listener, SocketStream, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream

from reprod.daemon.http import Door, respond, too_many
from reprod.daemon.requests import MAX_HEADER, is_http, read_head
from reprod.errors import DaemonUnavailableError

if TYPE_CHECKING:
    from reprod.daemon.app import Daemon

MAX_CLIENTS = 16  # a scraper or two, a person, and some that hang
HEAD_S, SEND_S = 5.0, 10.0
RATE, RATE_WINDOW_S = 100, 10.0  # pages of all clients together: each costs some milliseconds
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0

#: Anything else is a connection that was gone before it was taken, or a lack of descriptors or memory for it.
_BROKEN = {errno.EBADF, errno.ENOTSOCK}
ACCEPT_AGAIN_S = 0.1

_LOOPBACK = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])\Z", re.IGNORECASE)
_PORT = re.compile(rb":\d{1,5}\Z")


class TcpDoor:
    """Listens where the configuration says, from one reload to the next; ``error`` says why it cannot."""

    hint = "correct listen under [daemon] and reload, or end what has the port; it is tried again"

    def __init__(self, daemon: "Daemon") -> None:
        self.error: str | None = None
        self.listens = False
        self._daemon = daemon
        self._bell = anyio.Event()
        self._clients = anyio.CapacityLimiter(MAX_CLIENTS)
        self._asked: deque[float] = deque()

    def reconsider(self) -> None:
        """The configuration was read again."""
        self._bell.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            wanted = self._daemon.config.daemon
            async with anyio.create_task_group() as group:
                if wanted.address is not None:
                    group.start_soon(self._listen, wanted.listen, *wanted.address, name=f"listen {wanted.listen}")
                while self._daemon.config.daemon == wanted:
                    self._bell = anyio.Event()
                    await self._bell.wait()
                self.error, self.listens = None, False  # before the first wait: who asks hears of the new address
                group.cancel_scope.cancel()
            self.error, self.listens = None, False

    def document(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        state: Literal["off", "listening", "failed", "starting"] = "starting"
        if not self._daemon.config.daemon.listen:
            state = "off"
        elif self.listens or self.error:
            state = "listening" if self.listens else "failed"
        return {"address": self._daemon.config.daemon.listen or None, "state": state, "error": self.error}

    async def _listen(self, shown: str, host: str, port: int) -> None:
        """Listen until cancelled; while that cannot be, try again."""
        wait_s = FIRST_RETRY_S
        while True:
            try:
                listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
            except (OSError, UnicodeError) as error:
                self._fail(shown, error)
                await anyio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_RETRY_S)
                continue
            self.error, self.listens = None, True
            self._daemon.log.info("listen.started", address=shown)
            if not is_loopback(host):
                self._daemon.log.warning(
                    "listen.open", address=shown, hint="who can reach it may read names and paths of all datasets"
                )
            door = Door(partial(may_be_sent, host), self._permit)
            async with listener, anyio.create_task_group() as group:
                for each in listener.listeners:  # a name may have several addresses
                    group.start_soon(serve, each, partial(self._serve, door), group)

    def _fail(self, shown: str, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        message = f"cannot listen on {shown}: {reason}"
        if self.error != message:
            self._daemon.log.error("listen.failed", error=message, hint=self.hint)
        self.error = message

    async def _serve(self, door: Door, stream: SocketStream) -> None:
        """Answer one request, and that was it."""
        async with stream:
            try:
                if self._clients.available_tokens <= 0:
                    with anyio.fail_after(SEND_S):
                        await stream.send(too_many(f"over {MAX_CLIENTS} connections over TCP"))
                    return
                async with self._clients:
                    lines = BufferedByteReceiveStream(stream)
                    with anyio.fail_after(HEAD_S):
                        line = await lines.receive_until(b"\n", MAX_HEADER)
                        if not is_http(line):
                            return
                        head = await read_head(lines, line)
                    page = await respond(self._daemon, head, door)
                    with anyio.fail_after(SEND_S):
                        await stream.send(page)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, TimeoutError):
                return
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the client went away

    def _permit(self, what: str) -> None:
        """Let anybody read, so often. Raises DaemonUnavailableError."""
        if what == "health":
            return
        now = time.monotonic()
        while self._asked and self._asked[0] < now - RATE_WINDOW_S:
            self._asked.popleft()
        if len(self._asked) >= RATE:
            message = f"over {RATE} requests in {RATE_WINDOW_S:.0f} s over TCP"
            raise DaemonUnavailableError(message, hint="wait a moment")
        self._asked.append(now)


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach a configured host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def may_be_sent(host: str, sent: bytes) -> bool:
    """Return whether ``sent`` may be the Host of a request to the configured ``host``."""
    name = _PORT.sub(b"", sent)
    known = _LOOPBACK.match(name) is not None or name.strip(b"[]").lower() == host.lower().encode()
    return known or not is_loopback(host)


async def serve(
    listener: Listener[SocketStream], handle: Callable[[SocketStream], Awaitable[None]], group: TaskGroup
) -> None:
    """Take connections until cancelled; while that cannot be they stay in the backlog."""
    while True:
        try:
            await listener.serve(handle, group)
        except (anyio.BrokenResourceError, OSError) as error:  # a unix listener's has the other as its cause
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError) or cause.errno in _BROKEN:
                raise
            await anyio.sleep(ACCEPT_AGAIN_S)
