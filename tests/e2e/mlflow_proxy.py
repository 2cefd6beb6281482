"""A proxy between the daemon and the real MLflow server: counts requests, holds them, goes away, and cuts at one.

It works on whole HTTP requests, so "before request k" and "after the answer to request k" are exact.
"""

import http.client
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

When = Literal["before", "after"]

# What polling asks: it happens at any time and belongs to no delivery.
POLLS = ("/experiments/search", "/runs/search", "/experiments/get-by-name", "/experiments/create")


class Proxy:
    """Listens on a port of its own. ``requests`` are those of deliveries, as ``METHOD path``, in order."""

    def __init__(self, upstream: str) -> None:
        self.requests: list[str] = []
        self.held = 0  # requests that were taken while hanging
        self._hosts: set[bytes] = set()  # runs in which hosts tell of themselves: they belong to no delivery either
        self._upstream = urlsplit(upstream)
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._cut: tuple[int, When, Callable[[], None]] | None = None
        self.was_cut = threading.Event()
        self._open: set[socket.socket] = set()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Accept connections, at the same address as before."""
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def go_away(self) -> None:
        """Refuse connections, and end those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def hang(self) -> None:
        """Take requests and never answer them."""
        self._flowing.clear()

    def flow(self) -> None:
        """Answer again; requests that were held are dropped, as by a server that was restarted."""
        self._flowing.set()

    def cut_at(self, number: int, when: When, action: Callable[[], None]) -> None:
        """Count from here on, and do ``action`` around request ``number`` (from 0), which is never answered."""
        with self._lock:
            self.requests.clear()
            self.was_cut.clear()
            self._cut = (number, when, action)

    # Called by the handlers, in threads.

    def admit(self, method: str, path: str, body: bytes) -> tuple[bool, Callable[[], None] | None]:
        """Return whether to forward the request, and what to do instead of relaying its answer."""
        if not self._flowing.is_set():
            self.held += 1
            self._flowing.wait(120)
            return False, None
        if any(poll in path for poll in POLLS) or self._is_of_a_host(path, body):
            return True, None
        with self._lock:
            number = len(self.requests)
            self.requests.append(f"{method} {path}")
            if self._cut is None or self._cut[0] != number:
                return True, None
            (_, when, action), self._cut = self._cut, None
        if when == "before":
            self._do(action)
            return False, None
        return True, lambda: self._do(action)

    def _is_of_a_host(self, path: str, body: bytes) -> bool:
        return b'"host ' in body or any(run in body or run in path.encode() for run in self._hosts)

    def learn(self, body: bytes, answer: bytes) -> None:
        """Take note of the run that a host made for itself."""
        if b'"host ' in body and (found := re.search(rb'"run_id"\s*:\s*"([0-9a-f]{32})"', answer)):
            self._hosts.add(found[1])

    def _do(self, action: Callable[[], None]) -> None:
        action()
        self.was_cut.set()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[Any], bytes]:
        connection = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def note(self, connection: socket.socket, *, is_open: bool) -> None:
        with self._lock:
            (self._open.add if is_open else self._open.discard)(connection)


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Proxy

    def setup(self) -> None:
        super().setup()
        self.owner.note(self.connection, is_open=True)

    def finish(self) -> None:
        self.owner.note(self.connection, is_open=False)
        super().finish()

    def _relay(self) -> None:
        body = self._body()
        forwarded, instead = self.owner.admit(self.command, self.path, body)
        self.close_connection = not forwarded or instead is not None
        if not forwarded:
            return
        dropped = {"host", "connection", "transfer-encoding", "content-length"}
        headers = {key: value for key, value in self.headers.items() if key.lower() not in dropped}
        status, answered, content = self.owner.forward(self.command, self.path, headers, body)
        self.owner.learn(body, content)
        if instead is not None:
            instead()
            return
        self.send_response_only(status)
        for key, value in answered:
            if key.lower() not in dropped:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _relay  # noqa: N815 - the names that http.server looks for

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_: Any) -> None:
        """Quiet."""
