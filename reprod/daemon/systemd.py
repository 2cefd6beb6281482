"""What the service manager is told: readiness, a status line, life signs.

Owns the ``sd_notify`` protocol in the standard library. Rule: telling is a courtesy. Without a listening manager, or
with a broken or slow one, nothing happens and nothing is raised. Times of the protocol are microseconds, ours are
seconds.
"""

import os
import socket
import time

# A manager whose queue is full for this long is not worth stalling the event loop for.
_SEND_BOUND_S = 0.05


def notify(**fields: str | int) -> bool:
    """Send fields such as ``READY=1, STATUS="...", STOPPING=1, WATCHDOG=1, EXTEND_TIMEOUT_USEC=...``; True if they went
    out.

    ``RELOADING=1`` is completed by the ``MONOTONIC_USEC`` that systemd requires with it. Line breaks in values become
    spaces.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not fields or not address.startswith(("/", "@")):
        return False
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


def watchdog_interval_s() -> float | None:
    """Return how often ``WATCHDOG=1`` is due (half of what the manager allows), None if it does not watch us."""
    allowed, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / 2_000_000
