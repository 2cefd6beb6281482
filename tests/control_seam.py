"""The daemon's control socket as tests need it: a real unix socket that records every line and answers as told."""

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class ControlSeam:
    """Listens on ``path``; ``answer(message)`` gives the result, or None to close without one."""

    def __init__(self, path: Path, answer: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.path = path
        self.raw = b""
        self.messages: list[dict[str, Any]] = []
        self.peers: list[int] = []
        self._answer = answer or (lambda message: {})
        self._changed = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of all calls of ``method`` so far."""
        with self._changed:
            return self._of(method)

    def wait(self, method: str, count: int = 1, within_s: float = 60.0) -> list[dict[str, Any]]:
        """Return the parameters once ``count`` calls have come; fail after the bound."""
        deadline = time.monotonic() + within_s
        with self._changed:
            while len(self._of(method)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"no {method} within {within_s} s"
                self._changed.wait(left)
            return self._of(method)

    def _of(self, method: str) -> list[dict[str, Any]]:
        """``handover record`` is a handover with a record."""
        name, _, holding = method.partition(" ")
        given = (message["params"] for message in self.messages if message["method"] == name)
        return [params for params in given if not holding or holding in params]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(30)
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                with connection.makefile("rb") as file:
                    line = file.readline()
                if not line:
                    continue
                message = json.loads(line)
                with self._changed:
                    self.raw += line
                    self.messages.append(message)
                    self.peers.append(int.from_bytes(credentials[:4], "little"))
                    self._changed.notify_all()
                result = self._answer(message)
                if result is not None:
                    try:
                        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode() + b"\n")
                    except OSError:
                        pass
