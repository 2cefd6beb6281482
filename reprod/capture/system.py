"""Owns what the machine is: operating system, kernel, libc, CPU, memory. Sizes in bytes.

Only facts that stay while the machine stays: free memory and load are no part of an environment. No process is
started (``platform.processor`` would).
"""

import os
import platform
import re

from reprod.core.environment import System
from reprod.core.redact import plain


def read_system(pid: int = 0) -> System:
    """Return this machine as process ``pid`` (0: the caller) may use it."""
    import psutil

    name = os.uname()
    return System(
        system=name.sysname,
        release=name.release,
        kernel=name.version,
        machine=name.machine,
        os=_os_name(),
        libc=_libc(),
        cpu_model=_cpu_model(),
        cpu_logical=psutil.cpu_count(logical=True),
        cpu_physical=psutil.cpu_count(logical=False),
        cpu_usable=_usable(pid),
        memory_bytes=psutil.virtual_memory().total,
        swap_bytes=_swap_bytes(),
    )


def _usable(pid: int) -> int | None:
    try:
        return len(os.sched_getaffinity(pid))
    except OSError:
        return None


def _os_name() -> str | None:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    return plain(release.get("PRETTY_NAME") or release.get("NAME") or "") or None


def _libc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        # musl has no such name.
        return None


def _cpu_model() -> str | None:
    try:
        with open("/proc/cpuinfo", "rb") as file:
            text = file.read(1 << 14)
    except OSError:
        return None
    match = re.search(rb"^(?:model name|Model|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).decode("utf-8", "backslashreplace").strip() if match else None


def _swap_bytes() -> int:
    # psutil.swap_memory warns where /proc/vmstat lacks what it wants; the total is one line of meminfo.
    try:
        with open("/proc/meminfo", "rb") as file:
            match = re.search(rb"^SwapTotal:\s*(\d+) kB", file.read(1 << 14), re.MULTILINE)
    except OSError:
        return 0
    return int(match.group(1)) * 1024 if match else 0
