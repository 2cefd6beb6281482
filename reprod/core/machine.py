"""Owns what a machine is and how much of it a process may use: values only, nothing here reads a file.

`System`, `Cpu` and `Memory` describe the machine and are equal for all its processes. `Limits` is what one process may
use, by number: equal for two jobs of the same size. `Placement` and `Disk` say which CPUs exactly, where the data lay
and how much was free just then: they differ between two equal jobs, so they belong to the execution, never to the
environment. None is not known; ``"max"`` is known to be unlimited, the kernel's own word. Sizes are bytes, CPU amounts
are in cores.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: Kernels are built for 8,192 CPUs at most; a number of more digits is damage.
_CPUS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

# The psABI's levels in the kernel's spelling: pni is SSE3, abm is LZCNT, xsave stands for OSXSAVE, which it implies.
_X86_LEVELS = (
    ("x86-64-v1", "lm cmov cx8 fpu fxsr mmx syscall sse sse2"),
    ("x86-64-v2", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"),
    ("x86-64-v3", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"),
    ("x86-64-v4", "avx512f avx512bw avx512cd avx512dq avx512vl"),
)

# What Arm makes mandatory and a kernel shows, as far as hypervisors do not hide it (pointer authentication they do).
_ARM_LEVELS = (
    ("armv8.0-a", "fp asimd"),
    ("armv8.1-a", "crc32 atomics asimdrdm"),
    ("armv8.2-a", "dcpop"),
    ("armv8.3-a", "jscvt fcma lrcpc"),
    ("armv8.4-a", "asimddp dit uscat ilrcpc flagm"),
    ("armv8.5-a", "sb frint flagm2 bti"),
    ("armv9.0-a", "sve2"),
)


@dataclass(frozen=True, slots=True)
class System:
    """An operating system. ``kernel`` is the build of the release, ``os`` the distribution's name for people.

    ``libc`` is ``glibc`` or ``musl``, the one that the process has loaded; ``libc_tunables`` its ``GLIBC_TUNABLES``,
    which can switch instruction sets off: empty if it has none.
    """

    system: str
    release: str
    kernel: str
    machine: str
    os: str | None = None
    os_id: str | None = None
    os_version: str | None = None
    libc: str | None = None
    libc_version: str | None = None
    libc_tunables: str | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processors of a machine: ``threads`` are the logical CPUs that are online, ``cores`` the physical ones.

    On Arm ``family`` is the architecture, ``model_number`` the part, ``stepping`` reads ``r1p2``. ``flags`` are
    sorted; ``governor`` names all that are in use, sorted and joined by a comma.
    """

    model: str | None = None
    vendor: str | None = None
    family: int | None = None
    model_number: int | None = None
    stepping: str | None = None
    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None
    flags: tuple[str, ...] | None = None
    isa_level: str | None = None
    microcode: str | None = None
    governor: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may use. ``cgroup`` is ``v1``, ``v2``, ``hybrid`` (both are mounted) or ``none``.

    Each bound is the tightest of the process's cgroup and of all its ancestors that can be seen from here;
    ``ancestors_visible`` is false in a container that hides those above its own. ``cpu_effective`` is the least of
    quota, cpuset and affinity, None unless all three are known.
    """

    cgroup: str | None = None
    cpu_quota: float | Literal["max"] | None = None
    cpuset_count: int | Literal["max"] | None = None
    affinity_count: int | None = None
    cpu_effective: float | None = None
    memory_max: int | Literal["max"] | None = None
    memory_high: int | Literal["max"] | None = None
    ancestors_visible: bool | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Which CPUs one process may run on, as the kernel writes lists (``0-3,8``): by affinity and by cpuset."""

    affinity: str | None = None
    cpuset: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """A machine's memory; no swap is 0."""

    total_bytes: int | None = None
    swap_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that ``path`` is on.

    ``source`` is what is mounted, without credentials; ``device`` the kernel's name of the block device, if there is
    one; ``options`` are sorted, only those that can matter and name nobody; ``total_bytes`` is None where it changes by
    itself (ZFS, network); ``rotational`` is None where the kernel does not know. ``free_bytes`` is what an ordinary
    user could still write at that moment.
    """

    path: str
    mount_point: str
    fs_type: str
    source: str
    device: str | None = None
    options: tuple[str, ...] = ()
    total_bytes: int | None = None
    rotational: bool | None = None
    free_bytes: int | None = None


def isa_level(flags: Iterable[str]) -> str | None:
    """Return the highest level whose features, and those of all levels below, are among ``flags``.

    ``x86-64-v1`` to ``v4``, or ``armv8.0-a`` to ``armv9.0-a``; None for what is neither.
    """
    known = frozenset(flags)
    found = None
    for levels in (_X86_LEVELS, _ARM_LEVELS):
        for level, needed in levels:
            if not known.issuperset(needed.split()):
                break
            found = level
    return found


def parse_cpus(text: str) -> frozenset[int] | None:
    """Return the CPUs of a kernel list (``0-3,8``); None if it is not one. An empty list has none."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        run = _CPUS.fullmatch(part)
        if run is None:
            return None
        begin, end = int(run[1]), int(run[2] or run[1])
        if begin > end:
            return None
        found.update(range(begin, end + 1))
    return frozenset(found)


def format_cpus(cpus: Iterable[int]) -> str:
    """Return CPUs as the kernel lists them: ``{0, 1, 2, 8}`` is ``0-2,8``."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def effective_cpus(limits: Limits) -> float | None:
    """Return the least of quota, cpuset and affinity in cores; None if one of them is not known."""
    bounds = (limits.cpu_quota, limits.cpuset_count, limits.affinity_count)
    if None in bounds:
        return None
    return float(min(bound for bound in bounds if isinstance(bound, int | float)))
