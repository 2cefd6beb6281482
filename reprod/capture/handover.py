"""Owns how a training process tells the daemon who it is, and how its record arrives even if it ends at once.

The process itself only connects, writes one line and starts a child, all in under 50 ms; the detached child reads
packages and git and sends the record. It runs ``python -I -S`` with the parent's path appended, so that neither a
``.pth`` file nor a module of the user's directory runs in it. Nothing here raises into the training process.
Standard library only, except in the child.
"""

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

#: Law 11 allows 50 ms in all: 20 to find a daemon, about 10 to start the child, 20 for its answer.
CONNECT_S = 0.020
ANSWER_S = 0.020
#: The child ends after this whatever happens; it retries while the daemon restarts.
CHILD_S = 30
CHILD_RETRY_S = 0.5
MAX_ANSWER = 1 << 20
METHOD_NOT_FOUND = -32601

_CHILD = (
    "import json,sys;i=json.load(sys.stdin);sys.path+=[p for p in i['sys_path'] if p not in sys.path];"
    "from reprod.capture.handover import record;record(i)"
)
# A shell puts the child into the background and ends, so that init reaps it: a zombie of ours would turn up in the
# user's own os.wait(). The redirection is explicit because a background command otherwise reads /dev/null.
_DETACH = 'exec 3<&0; "$@" <&3 3<&- &'

# The pid that started its child already: a forked worker is another process and starts its own.
_recorded_by: int | None = None
# Kept so that no ResourceWarning is raised where there is no shell and the child is a direct one.
_children: list["subprocess.Popen[bytes]"] = []


def ask(
    run_id: str | None = None,
    dataset: str | None = None,
    tracking_uri: str | None = None,
    *,
    identify: bool = True,
    answer_s: float = ANSWER_S,
) -> dict[str, Any] | None:
    """Tell the daemon who this process is and which run it tags; start the recording child once per process.

    Returns None if no daemon was reached, its result if the answer came within ``answer_s``, else an empty mapping; of
    one so old that it does not know the question, what it says of itself and ``unknown``. ``identify=False`` only wakes
    the daemon: the run is another process's. Never raises.
    """
    try:
        found = _connect()
        if found is None:
            return None
        path, connection = found
        try:
            context = _context() if identify else None
            parameters = {"context": context, "run_id": run_id, "dataset": dataset, "tracking_uri": tracking_uri}
            sent = connection is not None and _send(connection, _request("announce", parameters))
            if context is not None:
                _record_once(path, context)
            return (_receive(connection, answer_s) if connection is not None and sent else None) or {}
        finally:
            if connection is not None:
                connection.close()
    except Exception:  # noqa: BLE001 - law 11: nothing of reprod may reach a training process
        return None


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


def _request(method: str, parameters: dict[str, Any]) -> bytes:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _send(connection: socket.socket, line: bytes) -> bool:
    try:
        connection.settimeout(CONNECT_S)
        connection.sendall(line)
    except OSError:
        return False
    return True


def _receive(connection: socket.socket, within_s: float) -> dict[str, Any] | None:
    """Return the result of one answer line, or None if it does not come in time or is no result."""
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
    return result if isinstance(result, dict) else None


def _context() -> dict[str, Any]:
    from reprod.capture.process import current_context

    return current_context().to_object()


def _record_once(path: str, context: dict[str, Any]) -> None:
    global _recorded_by
    if _recorded_by == os.getpid() or not _is_python(sys.executable):
        return
    _recorded_by = os.getpid()
    _start_child(_identity(path, context))


def _is_python(executable: str | None) -> bool:
    """Return whether starting ``executable`` starts a Python: in a frozen application it starts the application."""
    if not executable or getattr(sys, "frozen", False):
        return False
    return os.path.basename(executable).startswith(("python", "pypy"))


def _identity(path: str, context: dict[str, Any]) -> dict[str, Any]:
    import platform

    try:
        cwd = os.getcwd()
    except OSError:
        cwd = "/"
    package = os.path.abspath(__file__)
    root = os.path.dirname(os.path.dirname(os.path.dirname(package)))
    paths = [os.path.join(cwd, entry) for entry in sys.path if isinstance(entry, str)]
    return {
        "socket": os.path.abspath(path),
        "context": context,
        "sys_path": [root, *paths],
        "own_path": paths,
        "cwd": cwd,
        "script": getattr(sys.modules.get("__main__"), "__file__", None),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "prefix": sys.prefix,
            "base_prefix": sys.base_prefix,
        },
    }


def _start_child(identity: dict[str, Any]) -> None:
    # A file in memory instead of a pipe: a long path would fill a pipe, and writing to it would block.
    fd = os.memfd_create("reprod-identity", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w+b") as file:
        file.write(json.dumps(identity).encode())
        file.flush()
        file.seek(0)
        command = [sys.executable, "-I", "-S", "-c", _CHILD]
        try:
            child = _spawn(["/bin/sh", "-c", _DETACH, "reprod", *command], file.fileno())
        except FileNotFoundError:
            child = _spawn(command, file.fileno())
            _children.append(child)
            return
    try:
        child.wait(CONNECT_S)
    except subprocess.TimeoutExpired:
        _children.append(child)


def _spawn(command: list[str], stdin: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def record(identity: dict[str, Any]) -> bool:
    """Build the environment that ``identity`` describes and hand it to the daemon: what the child does.

    Returns whether the daemon took it. Bounded by ``CHILD_S`` seconds through an alarm.
    """
    import signal

    signal.alarm(CHILD_S)
    deadline = time.monotonic() + CHILD_S
    os.nice(10)

    from reprod.capture.environment import capture_paths
    from reprod.core.environment import Python, encode
    from reprod.core.process import ProcessContext
    from reprod.core.redact import plain

    context = ProcessContext.from_object(identity["context"])
    if context is None:
        return False
    python = {name: value and plain(value) for name, value in identity["python"].items()}
    environment = capture_paths(
        context,
        sys_path=identity["own_path"],
        python=Python(**python),
        cwd=identity["cwd"],
        script=identity["script"],
    )
    line = _request("handover", {"context": context.to_object(), "environment": json.loads(encode(environment))})
    while not _deliver(identity["socket"], line):
        if time.monotonic() + CHILD_RETRY_S > deadline:
            return False
        time.sleep(CHILD_RETRY_S)
    return True


def _deliver(path: str, line: bytes) -> bool:
    """Return whether the daemon answered, be it with a refusal: a refused record is not sent again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(5.0)
            connection.connect(path)
            connection.sendall(line)
            return bool(connection.recv(1))
        except OSError:
            return False
