"""Owns how a training process tells the daemon who it is, and how its record arrives even if it ends at once.

The process itself only connects, writes one line and starts a child, all in under 50 ms. The detached child
(``reprod.integrations.recorder``) reads packages and git and hands the record over, or leaves it in the user's own
state where no daemon answers. At the process's end, or where the user says so, another child hands over what was used
by then. Nothing here raises into the training process. Standard library only.
"""

import atexit
import json
import os
import socket
import sys
import time
from typing import Any

#: Law 11 allows 50 ms in all: 20 to find a daemon, about 10 to start the child, 20 for its answer.
CONNECT_S = 0.020
ANSWER_S = 0.020
MAX_ANSWER = 1 << 20
METHOD_NOT_FOUND = -32601

# The pid that started its child already: a forked worker is another process and starts its own.
_recorded_by: int | None = None
# The script that it ran then: Python forgets that of __main__ before the exit functions run.
_script: str | None = None
# The pid that a daemon answered, and where: it knows then whose process that is.
_answered: tuple[int, str] | None = None


def ask(
    run_id: str | None = None,
    dataset: str | None = None,
    tracking_uri: str | None = None,
    *,
    identify: bool = True,
    takes_part: bool = False,
    answer_s: float = ANSWER_S,
) -> dict[str, Any] | None:
    """Tell the daemon who this process is and which run it tags; start the recording child once per process.

    Returns None if no daemon was reached, its result if the answer came within ``answer_s``, else an empty mapping; of
    one so old that it does not know the question, what it says of itself and ``unknown``. ``identify=False`` only wakes
    the daemon: the run is another process's. ``takes_part``: this process is of a run that another one started, perhaps
    on another host. Never raises.
    """
    try:
        context = _context() if identify else None
        parameters = {
            "context": context,
            "run_id": run_id,
            "dataset": dataset,
            "tracking_uri": tracking_uri,
            "takes_part": takes_part,
        }
        found = _connect()
        if found is None:
            if context is not None:
                _record_once(None, context)
            return None
        path, connection = found
        try:
            sent = connection is not None and _send(connection, request("announce", parameters))
            if context is not None:
                _record_once(path, context)
            return _answer(path, connection if sent else None, answer_s) or {}
        finally:
            if connection is not None:
                connection.close()
    except Exception:  # noqa: BLE001 - law 11: nothing of reprod may reach a training process
        return None


def tell_used(*, at_end: bool = False) -> bool:
    """Have what this process has used by now handed over, after its record; True if that is under way. Never raises.

    ``at_end``: this process ends now, so its children are nobody's concern.
    """
    try:
        if _recorded_by != os.getpid():
            return False
        path = _answered[1] if _answered is not None and _answered[0] == os.getpid() else None
        context = _context()
        if path is None:  # a daemon may have come up since, and has to see this process while it lives
            found = _connect()
            if found is not None:
                path, connection = found
                if connection is not None:
                    with connection:
                        if _send(connection, request("announce", {"context": context})):
                            _answer(path, connection, ANSWER_S)
        from reprod.capture.detached import start
        from reprod.capture.used import used_by_now

        return start("finish", _where(path, context) | {"used": used_by_now(_script)}, at_end=at_end)
    except Exception:  # noqa: BLE001 - law 11: nothing of reprod may reach a training process
        return False


def sockets() -> list[str]:
    """Return where a daemon may listen, in order.

    A set $REPROD_SOCKET or $REPROD_STATE_DIR leaves one: whoever names a state means that daemon and no other.
    """
    environ = os.environ
    if environ.get("REPROD_SOCKET"):
        return [environ["REPROD_SOCKET"]]
    if environ.get("REPROD_STATE_DIR"):
        return [f"{environ['REPROD_STATE_DIR']}/control.sock"]
    state = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    runtime = environ.get("XDG_RUNTIME_DIR")
    return [
        *([f"{runtime}/reprod/control.sock"] if runtime else []),
        f"{state}/reprod/control.sock",
        "/run/reprod/control.sock",
        "/var/lib/reprod/control.sock",  # a daemon of root's where nobody made /run/reprod, as in a container
    ]


def request(method: str, parameters: dict[str, Any]) -> bytes:
    """Return the line that asks for ``method``."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _connect() -> tuple[str, socket.socket | None] | None:
    """Return the first socket that exists and answers; without a connection if its daemon is too busy to accept."""
    deadline = time.monotonic() + CONNECT_S
    for path in sockets():
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            connection.connect(path)
        except (TimeoutError, BlockingIOError):
            connection.close()
            return path, None
        except (OSError, ValueError):
            connection.close()
            continue
        return path, connection
    return None


def _send(connection: socket.socket, line: bytes) -> bool:
    try:
        connection.settimeout(CONNECT_S)
        connection.sendall(line)
    except OSError:
        return False
    return True


def _answer(path: str, connection: socket.socket | None, within_s: float) -> dict[str, Any] | None:
    """Return the result of one answer line, or None if it does not come in time or is no result."""
    global _answered
    if connection is None:
        return None
    deadline = time.monotonic() + within_s
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < MAX_ANSWER:
            connection.settimeout(max(0.0005, deadline - time.monotonic()))
            chunk = connection.recv(1 << 16)
            if not chunk or time.monotonic() > deadline:
                return None
            data += chunk
        answer = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return None
    result, error = (answer.get("result"), answer.get("error")) if isinstance(answer, dict) else (None, None)
    if isinstance(error, dict) and error.get("code") == METHOD_NOT_FOUND:
        said = error.get("data")
        return {**(said if isinstance(said, dict) else {}), "unknown": True}
    if not isinstance(result, dict):
        return None
    _answered = (os.getpid(), path)
    return result


def _context() -> dict[str, Any]:
    from reprod.capture.process.identity import current_context

    return current_context().to_object()


def _record_once(path: str | None, context: dict[str, Any]) -> None:
    """Start the child that records this process, and see to it that its end is told."""
    global _recorded_by, _script
    from reprod.capture.detached import is_possible, start

    if _recorded_by == os.getpid() or not is_possible():
        return
    _recorded_by = os.getpid()
    identity = _identity()
    _script = identity["script"] and os.path.join(identity["cwd"], identity["script"])
    start("record", _where(path, context) | identity)
    atexit.register(_tell_at_end)


def _tell_at_end() -> None:
    global _recorded_by
    tell_used(at_end=True)  # in a forked worker, which has inherited this, it does nothing
    _recorded_by = None  # once, though a worker that announced itself registered it again


def _where(path: str | None, context: dict[str, Any]) -> dict[str, Any]:
    """Return who the record is of, and where a daemon was found or may be."""
    return {"context": context, "found": path is not None, "sockets": [os.path.abspath(path)] if path else sockets()}


def _identity() -> dict[str, Any]:
    from dataclasses import asdict

    from reprod.capture.process.interpreter import describe_self

    try:
        cwd = os.getcwd()
    except OSError:
        cwd = "/"
    return {
        "own_path": [os.path.join(cwd, entry) for entry in sys.path if isinstance(entry, str)],
        "cwd": cwd,
        "script": getattr(sys.modules.get("__main__"), "__file__", None),
        "python": asdict(describe_self()),
    }
