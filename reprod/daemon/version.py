"""Who this daemon is to a client of another version, and how such a client's person restarts it.

``restart`` is a command only where the service manager has started this very process; by hand it is None, because a
daemon that somebody started in a terminal, a container or a batch job is started again as only they know.
"""

import functools
import os
import re
from typing import Any

import reprod
from reprod.core.protocol import PROTOCOL
from reprod.errors import UsageError

#: JSON-RPC's own code: every client knows it.
METHOD_NOT_FOUND = -32601

_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,250}\.service\Z")


class UnknownMethodError(UsageError):
    """Raised when a client asks for what this version does not have."""

    def __init__(self, method: str) -> None:
        restart = restart_command(os.getpid())
        super().__init__(
            f"this daemon is reprod {reprod.__version__} and knows no method {method[:80]!r}",
            hint=f"it is older than the client: restart it{f': {restart}' if restart else ''}",
        )


def identity() -> dict[str, Any]:
    """Return what a client needs to tell whether the two understand each other, and what to do if not."""
    pid = os.getpid()
    return {"protocol": PROTOCOL, "version": reprod.__version__, "pid": pid, "restart": restart_command(pid)}


@functools.cache
def restart_command(pid: int) -> str | None:
    """Return how the service manager restarts process ``pid``, which is this one; None if it did not start it."""
    if not _is_service(pid):
        return None
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            return _command(file.read(1 << 16))
    except OSError:
        return None


def _is_service(pid: int) -> bool:
    """Whether the manager started this very process: a terminal's shell inherits what it sets for that terminal."""
    started = os.environ.get("SYSTEMD_EXEC_PID", "")  # since systemd 248
    if started:
        return started == str(pid)
    return bool(os.environ.get("INVOCATION_ID") and os.environ.get("NOTIFY_SOCKET"))


def _command(cgroups: str) -> str | None:
    """Return the command for the unit in which a process is, as ``/proc/PID/cgroup`` names it."""
    for line in cgroups.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        parts = path.split("/")
        managers = [part for part in parts if part.startswith("user@")]  # of users; no daemon, whatever runs below it
        units = [part for part in parts if _UNIT.match(part) and part not in managers]
        if controllers in {"", "name=systemd"} and units:
            return f"systemctl {'--user ' if managers else ''}restart {units[-1].removesuffix('.service')}"
    return None
