"""The detached child of a training process: it makes the record and sees that it arrives.

Where no daemon answers, the record waits in the user's own state (``reprod.ops.handover_folder``): a daemon of the same
user takes it in, and the next handover over a socket passes it on. A daemon that was there is tried for longer,
because it may restart. Everything here is bounded by an alarm, and nothing is printed. Times are seconds.
"""

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from reprod.capture.ending import capture_end
from reprod.capture.environment import capture_paths
from reprod.capture.handover import request
from reprod.config import places
from reprod.core.described import described
from reprod.core.environment import Record, encode_record
from reprod.core.packages import Python
from reprod.core.plain import plain
from reprod.core.process import ProcessContext
from reprod.core.protocol import MAX_HANDOVER
from reprod.core.repository import BUNDLE_NAME, Git
from reprod.errors import ConfigError
from reprod.ops import handover_folder

#: The child ends after this whatever happens.
CHILD_S = 30
RETRY_S = 0.5
ANSWER_S = 5.0
#: What waits is passed on in turns: a daemon takes so much of one user in an hour.
PASSED_ON = 32

Answer = Literal["taken", "refused"]


def record(given: dict[str, Any]) -> bool:
    """Make the record of the process that ``given`` describes, and hand it over; whether a daemon took it."""
    _begin()
    context = ProcessContext.from_object(given["context"])
    if context is None:
        return False
    python = {name: plain(value) if isinstance(value, str) else value for name, value in given["python"].items()}
    captured = capture_paths(
        context,
        sys_path=given["own_path"],
        python=msgspec.convert(python, described(Python)),
        cwd=given["cwd"],
        script=given["script"],
    )
    return hand_over(given, context, "record", list(shorter(context, captured)))


def finish(given: dict[str, Any]) -> bool:
    """Find out what the process had used by its end, and hand that over; whether a daemon took it."""
    _begin()
    context = ProcessContext.from_object(given["context"])
    if context is None:
        return False
    last = capture_end(context, given["used"])
    parameters = {"context": context.to_object(), "execution": msgspec.to_builtins(last)}
    return hand_over(given, context, "execution", [request("handover", parameters)])


def _begin() -> None:
    signal.alarm(CHILD_S)
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it holds what it looks for: a crash leaves no file of that


def shorter(context: ProcessContext, captured: Record) -> Iterator[bytes]:
    """Yield the longest line of a record that may be sent, and one without files: they go before the record is lost."""
    why = f"too long to be handed over: a line has {MAX_HANDOVER >> 20} MiB"
    line = _line(context, captured)
    while captured.files and len(line) > MAX_HANDOVER:
        largest = max(captured.files, key=lambda name: len(captured.files[name]))
        captured = _without(captured, {largest}, why)
        line = _line(context, captured)
    yield line
    if captured.files:
        yield _line(context, _without(captured, set(captured.files), "refused: so much within an hour is too much"))


def _line(context: ProcessContext, captured: Record) -> bytes:
    value = json.loads(encode_record(captured))
    return request("handover", {"context": context.to_object(), "record": value})


def _without(captured: Record, names: Collection[str], why: str) -> Record:
    """Return a record without some of its files, and saying so."""
    env = captured.environment
    said = "; ".join(f"{name} ({len(captured.files[name])} bytes) was {why}" for name in sorted(names))
    known = env.unknown.get("git_files")
    unknown = {**env.unknown, "git_files": f"{known}; {said}" if known else said}
    git = None if env.git is None else _less(env.git, names, said)
    files = {name: data for name, data in captured.files.items() if name not in names}
    return replace(captured, environment=replace(env, git=git, unknown=unknown), files=files)


def _less(git: Git, names: Collection[str], said: str) -> Git:
    """Return a repository some of whose files are not kept; without its unpushed commits nothing can be had again."""
    return replace(
        git,
        files=tuple(each for each in git.files if each.name not in names),
        submodules=tuple(
            replace(each, files=tuple(name for name in each.files if name not in names)) for each in git.submodules
        ),
        restorable="no" if BUNDLE_NAME in names or git.restorable == "no" else "partial",
        reasons=(*git.reasons, said),
    )


def hand_over(given: dict[str, Any], context: ProcessContext, kind: str, lines: list[bytes]) -> bool:
    """Give the first of ``lines`` that a daemon takes to it; keep the first in a file until one does."""
    state, name = _state(), handover_folder.file_name(context, kind)
    deadline = time.monotonic() + CHILD_S - 2
    kept = False
    while True:
        answer = next(filter(None, (_offer(path, lines) for path in given["sockets"])), None)
        if answer is not None:
            if state is not None:
                if kept:
                    handover_folder.remove(state, [name])
                _pass_on(state, given["sockets"])
            return answer == "taken"
        if not kept and state is not None:
            kept = handover_folder.keep(state, name, _content(lines[0]))
        if not given["found"] or time.monotonic() > deadline:
            return False
        time.sleep(RETRY_S)


def _content(line: bytes) -> bytes:
    """Return what a file holds of a line: the parameters."""
    return msgspec.json.encode(msgspec.json.decode(line, type=described(_Line)).params)


class _Line(msgspec.Struct):
    params: msgspec.Raw


def _state() -> Path | None:
    try:
        return places.state_dir()
    except ConfigError:  # an account without a home
        return None


def _pass_on(state: Path, sockets: list[str]) -> None:
    """Give what waits to the daemon that answers by now; what it refuses waits for one of this user's own."""
    for each in handover_folder.waiting(state)[-PASSED_ON:]:
        parameters = msgspec.Raw(each.content)
        line = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "handover", "params": parameters}) + b"\n"
        answer = next(filter(None, (_deliver(path, line) for path in sockets)), None)
        if answer is None:
            return
        if answer == "taken":
            handover_folder.remove(state, [each.name])


def _offer(path: str, lines: list[bytes]) -> Answer | None:
    """Return how the daemon at ``path`` answered the last line that it was offered; None if none is there."""
    answer: Answer | None = None
    for line in lines:
        answer = _deliver(path, line)
        if answer != "refused":  # a shorter one may be let in where a longer one was not
            break
    return answer


def _deliver(path: str, line: bytes) -> Answer | None:
    """Return whether the daemon took the line; None if none answered. A refused one is not sent again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(path)
        except (OSError, ValueError):
            return None
        try:
            connection.sendall(line)
        except OSError:
            pass  # it refused before it had read all, and has said so
        return _read_answer(connection)


def _read_answer(connection: socket.socket) -> Answer | None:
    data = b""
    try:
        while not data.endswith(b"\n") and (chunk := connection.recv(1 << 16)):
            data += chunk
        answer = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return None
    return "taken" if isinstance(answer, dict) and "result" in answer else "refused"
