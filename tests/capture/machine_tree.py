"""Trees that stand for the /proc and /sys of another machine, and samples of what kernels write there."""

from collections.abc import Iterable, Mapping
from pathlib import Path

FIRST_CGROUP_NAMESPACE = "cgroup:[4026531835]"


def plant(root: Path, files: Mapping[str, str]) -> str:
    """Write files below ``root`` and return it as the collectors take it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def link(root: Path, name: str, target: str) -> None:
    """Make a symbolic link below ``root``."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(target)


def mountinfo(lines: Iterable[tuple[str, str, str, str, str]]) -> str:
    """Return a mountinfo file of (root, point, type, source, super options)."""
    return "".join(
        f"{30 + i} 20 0:{25 + i} {root} {point} rw,relatime shared:{i} - {kind} {source} {options}\n"
        for i, (root, point, kind, source, options) in enumerate(lines)
    )


def topology(groups: Iterable[tuple[int, str, str]]) -> dict[str, str]:
    """Return the topology files of (cpu, its package's CPUs, its core's CPUs)."""
    files = {}
    for cpu, package, core in groups:
        directory = f"sys/devices/system/cpu/cpu{cpu}/topology"
        files[f"{directory}/package_cpus_list"] = f"{package}\n"
        files[f"{directory}/core_cpus_list"] = f"{core}\n"
    return files
