"""Owns how much of the machine a process may use: cgroups of both versions, and its CPU affinity.

A limit is the least of the process's own cgroup and of every ancestor whose directory can be read from here. The paths
in ``/proc/PID/cgroup`` are relative to the *reader's* cgroup namespace, so the reader's own mounts are what they are
looked up in. Affinity is that of the process's first thread. Measured: 0.2 ms.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from reprod.capture.bounded import read_bounded
from reprod.capture.machine.kernel import process_directory, read_cpus, read_value, why
from reprod.capture.machine.mountinfo import Mount, is_below, read_mounts
from reprod.core.machine import Limits, Placement, effective_cpus, format_cpus, parse_cpus
from reprod.errors import IncompleteError

#: Version 1 writes "no limit" as the largest page-aligned number, which differs by page size; nobody has 4 EiB.
_NO_LIMIT = 1 << 62

#: The inode of the first cgroup namespace (PROC_CGROUP_INIT_INO); in any other, "/" may have ancestors.
_FIRST_NAMESPACE = "cgroup:[4026531835]"

_CGROUP_BYTES = 1 << 16
_NUMBER = re.compile(r"[0-9]{1,20}")

Bound = float | Literal["max"]


@dataclass(frozen=True, slots=True)
class _Chain:
    """Where one controller's limits of the process are: its cgroup's directory and those above, innermost first."""

    version: int
    directories: tuple[str, ...]
    whole: bool

    def read(self, name: str) -> Iterator[str]:
        """Yield the contents of the file ``name`` in each directory that has one, empty if it cannot be read.

        What is missing does not limit, what is not readable might: nothing is no number, so the limit is unknown.
        """
        for directory in self.directories:
            try:
                yield read_bounded(os.path.join(directory, name), _CGROUP_BYTES).decode("utf-8", "replace").strip()
            except FileNotFoundError:
                continue
            except OSError:
                yield ""


def read_limits(pid: int | None = None, *, root: str = "/") -> Limits:
    """Return what process ``pid`` (None: the caller) may use; raises IncompleteError if there is no such process."""
    problems: list[str] = []
    kind, chains = _find_chains(pid, root, problems)
    affinity = _affinity(pid, root)
    if affinity is None:
        problems.append("affinity: not told")
    cpuset = _cpuset(chains)
    limits = Limits(
        cgroup=kind,
        cpu_quota=_least(chains, "cpu", _cpu_quotas),
        cpuset_count=cpuset if cpuset is None or cpuset == "max" else len(cpuset),
        affinity_count=None if affinity is None else len(affinity),
        memory_max=_whole(_least(chains, "memory", _memory_bounds)),
        memory_high=_whole(_least(chains, "memory", _memory_throttles)),
        ancestors_visible=None if None in chains.values() else all(chain.whole for chain in chains.values() if chain),
        problems=tuple(problems),
    )
    return replace(limits, cpu_effective=effective_cpus(limits))


def read_placement(pid: int | None = None, *, root: str = "/") -> Placement:
    """Return which CPUs process ``pid`` may run on; raises IncompleteError if there is no such process."""
    cpuset = _cpuset(_find_chains(pid, root, [])[1])
    affinity = _affinity(pid, root)
    return Placement(
        affinity=None if affinity is None else format_cpus(affinity),
        cpuset=None if cpuset is None or cpuset == "max" else format_cpus(cpuset),
    )


def _find_chains(pid: int | None, root: str, problems: list[str]) -> tuple[str | None, dict[str, _Chain | None]]:
    """Return which cgroups there are, and for each controller its chain; None where it has one that is not visible.

    A controller that is missing does not limit.
    """
    directory = process_directory(root, pid)
    try:
        lines = read_bounded(os.path.join(directory, "cgroup"), _CGROUP_BYTES).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        if not os.path.isdir(directory):
            raise IncompleteError(f"there is no process {pid or 'at all'} to be seen under /proc") from None
        return "none", {}  # a kernel without cgroups
    except OSError as error:
        problems.append(f"cgroup: {why(error)}")
        return None, dict.fromkeys(("cpu", "cpuset", "memory"))
    groups = _parse_groups(lines)
    try:
        mounts = read_mounts(os.path.join(root, "proc/self/mountinfo"))
    except OSError as error:
        problems.append(f"mounts: {why(error)}")
        mounts = []
    first = _in_first_namespace(root)
    chains: dict[str, _Chain | None] = {}
    for controller in ("cpu", "cpuset", "memory"):
        # Version 1 has a controller or version 2 has it, never both.
        version, path = (1, groups[controller]) if controller in groups else (2, groups.get(""))
        if path is None:
            continue
        chains[controller] = _chain(version, controller, path, mounts, root, first)
        if chains[controller] is None:
            problems.append(f"{controller}: its cgroup is not visible from here")
    return _kind(groups), chains


def _parse_groups(text: str) -> dict[str, str]:
    """Return the path of each controller of version 1 by its name, and that of version 2 as ``""``."""
    groups: dict[str, str] = {}
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if number.isdecimal() and colon:
            groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _kind(groups: dict[str, str]) -> str:
    first, second = any(name and not name.startswith("name=") for name in groups), "" in groups
    return "hybrid" if first and second else "v1" if first else "v2" if second else "none"


def _chain(version: int, controller: str, path: str, mounts: list[Mount], root: str, first: bool) -> _Chain | None:
    """Return the directories from the cgroup ``path`` up to where its hierarchy is mounted; None if none is."""
    for mount in mounts:
        if version == 2:
            matches = mount.fs_type == "cgroup2"
        else:
            matches = mount.fs_type == "cgroup" and controller in mount.super_options
        # A mount of part of the hierarchy shows only what is below that part; "/.." is outside of the namespace.
        if not matches or "/.." in (mount.root + path) or not is_below(path, mount.root):
            continue
        top = os.path.join(root, mount.point.lstrip("/"))
        inner = path[len(mount.root) :].strip("/")
        directories = [top]
        for part in inner.split("/") if inner else ():
            directories.insert(0, os.path.join(directories[0], part))
        if os.path.isdir(directories[0]):
            return _Chain(version, tuple(directories), first and mount.root == "/")
    return None


def _in_first_namespace(root: str) -> bool:
    try:
        return os.readlink(os.path.join(root, "proc/self/ns/cgroup")) == _FIRST_NAMESPACE
    except OSError:  # a kernel that has no such namespaces
        return True


def _least(
    chains: dict[str, _Chain | None], controller: str, bounds: Callable[[_Chain], Iterator[Bound | None]]
) -> Bound | None:
    """Return the least bound of a chain, ``"max"`` if it has none, None if it or one of them is not known."""
    if controller not in chains:
        return "max"
    chain = chains[controller]
    if chain is None:
        return None
    found = list(bounds(chain))
    if None in found:
        return None
    return min((bound for bound in found if isinstance(bound, int | float)), default="max")


def _cpu_quotas(chain: _Chain) -> Iterator[Bound | None]:
    if chain.version == 2:
        return (_quota(*value.partition(" ")[::2]) for value in chain.read("cpu.max"))
    pairs = zip(chain.read("cpu.cfs_quota_us"), chain.read("cpu.cfs_period_us"), strict=False)
    return (_quota(quota, period) for quota, period in pairs)


def _quota(quota: str, period: str) -> Bound | None:
    """Return a quota of microseconds in a period as cores."""
    if quota in {"max", "-1"}:
        return "max"
    if not (_NUMBER.fullmatch(quota) and _NUMBER.fullmatch(period) and int(period)):
        return None
    return round(int(quota) / int(period), 4)


def _memory_bounds(chain: _Chain) -> Iterator[Bound | None]:
    if chain.version == 2:
        yield from map(_bytes, chain.read("memory.max"))
        return
    yield from map(_bytes, chain.read("memory.limit_in_bytes"))
    # The kernel's own minimum over all ancestors, those outside of a container included.
    for statistics in chain.read("memory.stat"):
        for line in statistics.split("\n"):
            name, _, value = line.partition(" ")
            if name == "hierarchical_memory_limit":
                yield _bytes(value)
        return


def _memory_throttles(chain: _Chain) -> Iterator[Bound | None]:
    # Version 1 has no such thing: its soft limit only decides who is reclaimed from first.
    return map(_bytes, chain.read("memory.high")) if chain.version == 2 else iter(())


def _bytes(text: str) -> Bound | None:
    if text == "max":
        return "max"
    if not _NUMBER.fullmatch(text):
        return None
    return "max" if int(text) >= _NO_LIMIT else int(text)


def _whole(bound: Bound | None) -> int | Literal["max"] | None:
    return int(bound) if isinstance(bound, int | float) else bound


def _cpuset(chains: dict[str, _Chain | None]) -> frozenset[int] | Literal["max"] | None:
    """Return the CPUs that the nearest cgroup with a cpuset allows: what it may really use, ancestors included."""
    if "cpuset" not in chains:
        return "max"
    chain = chains["cpuset"]
    if chain is None:
        return None
    effective = "cpuset.cpus.effective" if chain.version == 2 else "cpuset.effective_cpus"
    allowed = [parse_cpus(text) for text in chain.read(effective)]
    if not allowed:
        # Before effective lists (Linux 3.17) a child's list was always within its parent's.
        allowed = [parse_cpus(text) for text in chain.read("cpuset.cpus") if text]
    if not allowed:
        return "max"
    return frozenset.intersection(*(cpus for cpus in allowed if cpus)) if all(allowed) else None


def _affinity(pid: int | None, root: str) -> frozenset[int] | None:
    """Return the CPUs that are online and that the process's first thread may run on."""
    status = read_value(os.path.join(process_directory(root, pid), "status"))
    online = read_cpus(os.path.join(root, "sys/devices/system/cpu/online"))
    for line in (status or "").split("\n"):
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            allowed = parse_cpus(value)
            # A thread that nobody has bound is allowed all CPUs that the board could ever have.
            return allowed & online if allowed and online else allowed or None
    return None
