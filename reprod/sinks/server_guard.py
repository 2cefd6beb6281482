"""Ties a server's life to its owner's: ``python -m reprod.sinks.server_guard -- COMMAND...``, standard library only.

The guard leads a process group of its own, in which the command and all it starts run. It holds one end of a pipe (its
stdin); when the other end closes, because the owner said so or was killed in any way, the whole group gets TERM and, a
moment later, KILL, the guard included. The same when the command ends by itself or the guard gets a TERM.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

#: uvicorn ends in 0.6 s when nothing is under way (measured); the whole stop must stay under 1.5 s.
GRACE_S = 0.8

#: How late an ending of the command is noticed; the end of stdin is noticed at once.
LOOK_EVERY_MS = 250


#: prctl(2): PR_CAP_AMBIENT and PR_CAP_AMBIENT_CLEAR_ALL.
_AMBIENT, _CLEAR_ALL = 47, 4


def main(arguments: list[str]) -> int:
    """Run the command until it or stdin ends, then end the group. Returns only for a wrong call."""
    if len(arguments) < 2 or arguments[0] != "--":
        sys.stderr.write("usage: python -m reprod.sinks.server_guard -- COMMAND...\n")
        return 2
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # ending a group that also holds our caller would end the caller
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    renounce()
    command = subprocess.Popen(arguments[1:], stdin=subprocess.DEVNULL)

    def stop(signum: int, frame: FrameType | None) -> None:
        end_group(command)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    poller = select.poll()
    poller.register(0, select.POLLIN)
    while command.poll() is None:
        if poller.poll(LOOK_EVERY_MS) and not os.read(0, 4096):
            break
    if command.returncode is not None:
        sys.stderr.write(f"the server ended with exit code {command.returncode}\n")
        sys.stderr.flush()
    end_group(command)
    return 1


def renounce() -> None:
    """Let the command have no right to read everybody's data, which the daemon may have: it answers any local user."""
    try:
        ctypes.CDLL(None).prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    except (OSError, AttributeError):  # no such library or call here, so no such right either
        pass


def end_group(command: subprocess.Popen[bytes]) -> None:
    """Send TERM to the group, wait for the command at most `GRACE_S`, then KILL the group, which ends this process."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while command.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
