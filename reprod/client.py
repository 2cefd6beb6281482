"""The synchronous client of the control socket: JSON-RPC 2.0, one object a line, standard library only.

Rule: every wait has a bound, and whatever the other side does ends in an error of reprod.errors. Times are seconds;
``timeout_s`` bounds the silence between two lines of the daemon, so a long answer with progress may take hours. Cheap
to import: ``reprod status`` and training scripts pay for it.
"""

import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from reprod.config import places
from reprod.core import protocol
from reprod.errors import (
    DaemonUnavailableError,
    ReprodError,
    StateError,
    UsageError,
    from_code,
)

if TYPE_CHECKING:
    from reprod.config.values import Config

START_HINT = "start it: reprod daemon"

# A restarting daemon refuses for a moment; measured gap with systemd's RestartSec is longer, so one second is for
# stop-and-start by hand and for a full backlog.
RETRY_S = 1.0
_RETRY_PAUSE_S = 0.05

# An answer may list every problem of a large dataset.
MAX_ANSWER_BYTES = 256 * 1024 * 1024

_METHOD_NOT_FOUND, _BAD_REQUEST = -32601, -32600

Progress = Callable[[dict[str, Any]], None]


class Client:
    """One connection to a daemon, opened on the first call; a context manager.

    After an error the connection is closed: half an answer must never be taken for the next one.
    """

    def __init__(self, path: Path | None = None, timeout_s: float = 2.0) -> None:
        self._candidates = [path] if path is not None else places.socket_candidates(places.state_dir())
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._rest = bytearray()
        self._last_id = 0
        self._understood = protocol.OLDEST <= protocol.FIRST
        self._said: dict[str, Any] = {}  # in answer to hello
        self.path: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, retry_s: float = RETRY_S) -> None:
        """Connect to the first candidate that accepts. Raises DaemonUnavailableError, StateError (no permission)."""
        if self._socket is None:
            self._socket, self.path = _connect_first(self._candidates, self._timeout_s, retry_s)

    def close(self) -> None:
        """End the connection; a later call opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._rest.clear()

    def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: Progress | None = None,
        patient: bool = False,
    ) -> dict[str, Any]:
        """Return the daemon's result for ``method``.

        ``on_progress`` gets the params of each progress notification. With ``patient``, silence is no error as long
        as the daemon answers ``hello`` on a second connection (one file may take longer than any time-out).
        Raises DaemonUnavailableError (refused, gone, silent, not reprod), VersionsDifferError, or what the daemon
        answers.
        """
        if not self._understood and method != "hello":
            self._ask_protocol(timeout_s)
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params or {}}
        line = json.dumps(request).encode()
        longest = protocol.longest(method)
        if len(line) > longest:
            raise UsageError(f"the request is {len(line)} bytes long", hint=f"the daemon takes at most {longest}")
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            self.open()
            self._send(line + b"\n", wait_s)
            return self._answer(method, wait_s, on_progress, patient)
        except BaseException:
            self.close()
            raise

    def _ask_protocol(self, timeout_s: float | None) -> None:
        """Have the daemon say what it speaks. Raises VersionsDifferError, DaemonUnavailableError."""
        try:
            self.call("hello", timeout_s=timeout_s)
        except StateError:  # whom it does not tell this, it tells little else
            self._understood = True

    def _send(self, line: bytes, wait_s: float) -> None:
        assert self._socket is not None  # noqa: S101 - call() opened it
        self._socket.settimeout(wait_s)
        try:
            self._socket.sendall(line)
        except TimeoutError:
            raise self._silent(wait_s) from None
        except BrokenPipeError:
            pass  # it closed the connection, and may have said why: that is read next
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error

    def _answer(self, method: str, wait_s: float, on_progress: Progress | None, patient: bool) -> dict[str, Any]:
        while True:
            try:
                line = self._line(wait_s)
            except TimeoutError:
                if patient and self._alive():
                    continue
                raise self._silent(wait_s) from None
            except OSError as error:
                raise self._gone(error.strerror or str(error)) from error
            message = self._decode(line)
            if "id" not in message:
                if on_progress is not None and message.get("method") == "progress":
                    params = message.get("params")
                    on_progress(params if isinstance(params, dict) else {})
            elif message["id"] in (self._last_id, None):  # null: the daemon could not even read the id
                return self._result(method, message)

    def _line(self, wait_s: float) -> bytes:
        """Return the next line. Raises TimeoutError, OSError, DaemonUnavailableError (closed, too long)."""
        assert self._socket is not None  # noqa: S101 - call() opened it
        self._socket.settimeout(wait_s)
        searched = 0
        while True:
            end = self._rest.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._rest[:end])
                del self._rest[: end + 1]
                return line
            searched = len(self._rest)
            if searched > MAX_ANSWER_BYTES:
                raise self._strange(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            chunk = self._socket.recv(65536)
            if not chunk:
                raise self._gone("it closed the connection before it had answered")
            self._rest += chunk

    def _decode(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise self._strange("a line that is not JSON") from None
        if not isinstance(message, dict):
            raise self._strange("a line that is not an object")
        return message

    def _result(self, method: str, message: dict[str, Any]) -> dict[str, Any]:
        error = message.get("error")
        if isinstance(error, dict):
            raise self._refusal(method, error)
        result = message.get("result")
        if not isinstance(result, dict):
            raise self._strange(f"no result for {method}")
        if method == "hello":
            self._said = result
            if protocol.is_too_old(result):
                raise protocol.too_old(result, _own_version())
            self._understood = True
        return result

    def _refusal(self, method: str, error: dict[str, Any]) -> ReprodError:
        """Return the error that an answer is; where it may come of two versions, say which ones these are."""
        data = error.get("data")
        fields = data if isinstance(data, dict) else {}
        code, told = error.get("code"), str(error.get("message") or "the daemon refused without a reason")
        if code not in {_METHOD_NOT_FOUND, _BAD_REQUEST}:
            exit_code = fields.get("exit_code")
            return from_code(exit_code if isinstance(exit_code, int) else 70, told, str(fields.get("hint") or ""))
        hello, own = fields if "version" in fields else self._hello(method), _own_version()
        if code == _METHOD_NOT_FOUND:
            return protocol.differ(hello, f"does not know {method!r}", own)
        if protocol.is_other(hello, own):
            return protocol.differ(hello, f"says {told!r}", own)
        return UsageError(told, hint=str(fields.get("hint") or ""))

    def _hello(self, refused: str) -> dict[str, Any]:
        """Return what the daemon says of itself, on a connection of its own; nothing if it does not."""
        if self._said or refused == "hello":
            return self._said
        try:
            with Client(self.path, self._timeout_s) as other:
                return other.call("hello")
        except ReprodError:
            return {}

    def _alive(self) -> bool:
        try:
            with Client(self.path, self._timeout_s) as other:
                other.call("hello")
        except ReprodError:
            return False
        return True

    def _silent(self, wait_s: float) -> ReprodError:
        return DaemonUnavailableError(
            f"the daemon at {self.path} does not answer (waited {wait_s:g} s)",
            hint="it hangs or the machine is overloaded; its log says more",
        )

    def _gone(self, reason: str) -> ReprodError:
        return DaemonUnavailableError(f"the daemon at {self.path} went away: {reason}", hint=START_HINT)

    def _strange(self, what: str) -> ReprodError:
        return DaemonUnavailableError(
            f"what listens at {self.path} sent {what}", hint="it is not a reprod daemon, or one of another version"
        )


def connect(config: "Config | None" = None, *, timeout_s: float = 2.0, retry_s: float = RETRY_S) -> Client:
    """Return an open connection to the daemon of ``config`` (default: the one of this account's places).

    A refused connection is tried again for ``retry_s``. Raises DaemonUnavailableError, StateError (no permission).
    """
    client = Client(None, timeout_s)
    if config is not None:
        client._candidates = list(dict.fromkeys([config.socket, *places.socket_candidates(config.state_dir)]))
    client.open(retry_s)
    return client


def _connect_first(candidates: Sequence[Path], timeout_s: float, retry_s: float) -> tuple[socket.socket, Path]:
    give_up = time.monotonic() + retry_s
    while True:
        refused = denied = None
        for path in candidates:
            places.checked_socket(path)
            attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            attempt.settimeout(timeout_s)
            try:
                attempt.connect(str(path))
                return attempt, path
            except (FileNotFoundError, NotADirectoryError):
                attempt.close()
            except PermissionError:
                attempt.close()
                denied = path
            except OSError:  # refused, reset, a full backlog (EAGAIN), not a socket
                attempt.close()
                refused = path
            except BaseException:
                attempt.close()
                raise
        if refused is None or time.monotonic() >= give_up:
            break
        time.sleep(_RETRY_PAUSE_S)
    if denied is not None:
        raise StateError(
            f"permission denied on the daemon's socket {denied}",
            hint="a user's daemon answers that user alone; the system's daemon answers members of the group reprod",
        )
    where = f"{refused} refuses" if refused is not None else f"nothing listens at {_listed(candidates)}"
    raise DaemonUnavailableError(f"no daemon answers: {where}", hint=START_HINT)


def _listed(candidates: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in candidates)


def _own_version() -> str:
    """Return the version of this program; the package that says it lies above this module, but was imported before."""
    return str(sys.modules["reprod"].__version__)
