"""Owns how a program of ours is asked in a child process: bounded in time, and killed with its whole group.

For what may hang, crash or spoil the process that asks: a driver's library, a measurement. Input and output are files
in memory, so that neither side ever waits for the other. The child is ``python -I -S`` with this process's path
appended, so that no ``.pth`` file and no module of the working directory runs in it. Times are seconds.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reprod.capture.detached import is_possible
from reprod.errors import IncompleteError

#: A driver that hangs in the kernel makes its caller unkillable: more than this is not waited for a killed child.
REAP_S = 0.5
#: How the message of an IncompleteError begins when a child was, or still is, waited for in vain.
TIMEOUT = "timeout: "
#: What a child may answer; more is cut.
MAX_ANSWER = 1 << 20

_BOOT = (
    "import json,sys;i=json.load(sys.stdin);sys.path+=[p for p in i['path'] if p not in sys.path];"
    "import importlib;importlib.import_module(i['module']).main(i)"
)

# Children that were killed and did not end. While one of a kind is left, no other is started: a hung driver would
# otherwise collect one unkillable process per question.
_stuck: list[tuple[str, "subprocess.Popen[bytes]"]] = []


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a child wrote until it ended, or until it was killed (``ended`` is False)."""

    output: bytes
    ended: bool


def run_module(module: str, given: Mapping[str, object], *, purpose: str, seconds: float) -> Outcome:
    """Run ``main`` of one of our modules in a child; ``given`` is JSON and reaches it with ``path`` and ``module``.

    Raises IncompleteError if this is no Python that can be started, or as `run_command` does.
    """
    if not is_possible():
        raise IncompleteError(f"{purpose}: {sys.executable or 'this program'} is no Python that can be started again")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = [root, *(entry for entry in sys.path if isinstance(entry, str) and os.path.isabs(entry))]
    data = json.dumps({**given, "path": path, "module": module}).encode()
    return run_command([sys.executable, "-I", "-S", "-c", _BOOT], data, purpose=purpose, seconds=seconds)


def run_command(command: Sequence[str], given: bytes = b"", *, purpose: str, seconds: float) -> Outcome:
    """Run ``command`` with ``given`` as its input for at most ``seconds`` and return what it wrote.

    Its exit status does not count: a library's own crash at the end does not spoil an answer, and another part of this
    process may reap the child. Raises IncompleteError if it cannot be started or an earlier one of the same ``purpose``
    still hangs.
    """
    _check_stuck(purpose)
    with (
        os.fdopen(os.memfd_create("reprod-given", os.MFD_CLOEXEC), "w+b") as source,
        os.fdopen(os.memfd_create("reprod-answer", os.MFD_CLOEXEC), "w+b") as answer,
    ):
        source.write(given)
        source.seek(0)
        try:
            child = subprocess.Popen(
                command, stdin=source, stdout=answer, stderr=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise IncompleteError(f"{purpose}: {command[0]} cannot be started: {error.strerror}") from error
        ended = False
        try:
            child.wait(seconds)
            ended = True
        except subprocess.TimeoutExpired:
            pass
        finally:
            if not ended:
                _kill(child, purpose)
        answer.seek(0)
        return Outcome(answer.read(MAX_ANSWER), ended)


def _kill(child: "subprocess.Popen[bytes]", purpose: str) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        child.wait(REAP_S)
    except subprocess.TimeoutExpired:
        _stuck.append((purpose, child))


def _check_stuck(purpose: str) -> None:
    _stuck[:] = [(kind, child) for kind, child in _stuck if child.poll() is None]
    for kind, child in _stuck:
        if kind == purpose:
            raise IncompleteError(f"{TIMEOUT}{purpose}: process {child.pid}, asked earlier, still hangs")
