"""What the service manager is told: readiness, a status line, life signs.

Owns the ``sd_notify`` protocol in the standard library. Rule: telling is a courtesy. Without a listening manager, or
with a broken or slow one, nothing happens and nothing is raised. Times of the protocol are microseconds, ours are
seconds.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

import anyio

# A manager whose queue is full for this long is not worth stalling the event loop for.
_SEND_BOUND_S = 0.05

#: A line that a person reads in ``systemctl status``; each change is a message on the system's bus.
STATUS_EVERY_S = 2.0

#: A start asks for this much more, again and again; at once, because TimeoutStartSec may be anything.
EXTEND_S, EXTEND_EVERY_S = 30, 5.0

#: Copying and migrating the largest state takes minutes; what hangs must not look like a start for ever.
LONGEST_START_S = 3600.0


def notify(**fields: str | int) -> bool:
    """Send fields such as ``READY=1, STATUS="...", STOPPING=1, WATCHDOG=1, EXTEND_TIMEOUT_USEC=...``; True if they went
    out.

    ``RELOADING=1`` is completed by the ``MONOTONIC_USEC`` that systemd requires with it. Line breaks in values become
    spaces.
    """
    if not fields or not is_listening():
        return False
    address = os.environ["NOTIFY_SOCKET"]
    if fields.get("RELOADING") and "MONOTONIC_USEC" not in fields:
        fields["MONOTONIC_USEC"] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    message = "\n".join(f"{key}={' '.join(str(value).splitlines())}" for key, value in fields.items())
    target = b"\0" + os.fsencode(address[1:]) if address.startswith("@") else os.fsencode(address)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(_SEND_BOUND_S)
            channel.sendto(message.encode("utf-8", "replace"), target)
    except (OSError, ValueError):
        return False
    return True


def is_listening() -> bool:
    """Return whether a manager has said where it listens."""
    return os.environ.get("NOTIFY_SOCKET", "").startswith(("/", "@"))


def watchdog_interval_s() -> float | None:
    """Return how often ``WATCHDOG=1`` is due (half of what the manager allows), None if it does not watch us."""
    allowed, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / 2_000_000


async def keep_alive() -> None:
    """Send life signs while this loop turns. Only the loop: a thread may hang on a dead mount for hours."""
    interval = watchdog_interval_s()
    while interval is not None:
        notify(WATCHDOG=1)
        await anyio.sleep(interval)


async def keep_told(line: Callable[[], str]) -> None:
    """Send what ``line`` returns, when it has changed."""
    told = ""
    while is_listening():
        now = line()
        if now != told and notify(STATUS=now):
            told = now
        await anyio.sleep(STATUS_EVERY_S)


class Startup:
    """A start that may take longer than the manager would wait: inside the block it asks for more time, until ``end``.

    From a thread, because what takes long is a database that is copied, migrated or checked before there is a loop.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if notify(STATUS=self._what, EXTEND_TIMEOUT_USEC=EXTEND_S * 1_000_000):
            threading.Thread(target=self._ask, name="startup", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def end(self, status: str) -> None:
        """Say that the start is over, and what is being done now."""
        self._over.set()
        notify(READY=1, STATUS=status)

    def _ask(self) -> None:
        latest_s = time.monotonic() + LONGEST_START_S
        while not self._over.wait(EXTEND_EVERY_S) and time.monotonic() < latest_s:
            notify(EXTEND_TIMEOUT_USEC=EXTEND_S * 1_000_000)
