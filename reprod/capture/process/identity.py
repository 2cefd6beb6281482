"""Owns the identity of live processes: who this one is, and whether another one is still the one it was.

Standard library only: it runs inside training processes. Start ticks are field 22 of ``/proc/PID/stat``.
"""

import os
import sys
import time

from reprod.core.process import ProcessContext

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return the id of this boot of this machine; empty, as that of no context is, where the kernel does not say it."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def host_name() -> str:
    """Return this machine's name."""
    return os.uname().nodename


def current_context() -> ProcessContext:
    """Return who the calling process is; raises OSError where /proc is not mounted."""
    pid = os.getpid()
    ticks = start_ticks(pid)
    if ticks is None:
        raise OSError(f"/proc/{pid}/stat is not readable")
    return ProcessContext(1, host_name(), boot_id(), pid, ticks, os.path.abspath(sys.prefix), _pid_namespace())


def _pid_namespace() -> int | None:
    """Return which pids the calling process's is one of: every container has namespaces of its own."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # a sandbox that has none
        return None


def start_ticks(pid: int) -> int | None:
    """Return when process ``pid`` started, in clock ticks since boot; None if there is no such live process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read(4096)
    except OSError:
        return None
    # The second field is the command's name, which may itself hold blanks and brackets.
    fields = line[line.rfind(b")") + 1 :].split()
    if len(fields) < 20 or fields[0] in {b"Z", b"X", b"x"}:
        return None
    return int(fields[19])


def is_alive(context: ProcessContext) -> bool:
    """Return whether the very process of ``context`` lives here: same boot, same pid, same start; no zombie."""
    return context.boot_id == boot_id() and start_ticks(context.pid) == context.start_ticks


def started_ns(start_ticks: int) -> int:
    """Return a start in clock ticks since boot as nanoseconds since the epoch; both clocks are read at one moment."""
    since_boot_ns = start_ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + since_boot_ns
