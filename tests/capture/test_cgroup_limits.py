"""Limits of a process: both versions of cgroups in every shape, affinity, and real cgroups where they can be made."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from live_process import WAIT
from machine_tree import FIRST_CGROUP_NAMESPACE, link, mountinfo, plant

from reprod.capture.machine.limits import read_limits, read_placement
from reprod.core.machine import Limits
from reprod.errors import IncompleteError

GIB = 1 << 30
NONE_V1 = "9223372036854771712"
UNIFIED = ("/", "/sys/fs/cgroup", "cgroup2", "cgroup2", "rw,nsdelegate")
PLAIN = {"proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-127\n", "sys/devices/system/cpu/online": "0-7\n"}


def v1(root: str = "/") -> list[tuple[str, str, str, str, str]]:
    """Mount the three controllers as version 1 does."""
    base = "/sys/fs/cgroup"
    return [
        (root, f"{base}/cpu,cpuacct", "cgroup", "cgroup", "rw,cpu,cpuacct"),
        (root, f"{base}/cpuset", "cgroup", "cgroup", "rw,cpuset"),
        (root, f"{base}/memory", "cgroup", "cgroup", "rw,memory"),
    ]


V1_LINES = "11:memory:{0}\n5:cpuset:{0}\n3:cpu,cpuacct:{0}\n1:name=systemd:{0}\n"


@dataclass
class Shape:
    """One machine: the process's cgroup file, the mounts, the files below /sys/fs/cgroup, and what must come out."""

    groups: str
    mounts: list[tuple[str, str, str, str, str]]
    files: dict[str, str]
    expected: Limits


def limits(**fields: object) -> Limits:
    """What a process of eight CPUs with no limit has, but for ``fields``."""
    values: dict[str, object] = {
        "cpu_quota": "max",
        "cpuset_count": "max",
        "affinity_count": 8,
        "cpu_effective": 8.0,
        "memory_max": "max",
        "memory_high": "max",
        "ancestors_visible": True,
    }
    return Limits(**{**values, **fields})  # type: ignore[arg-type]


SHAPES = {
    "none": Shape("", [], {}, limits(cgroup="none")),
    "v2, no limit": Shape(
        "0::/user.slice\n",
        [UNIFIED],
        {"user.slice/memory.max": "max", "user.slice/cpu.max": "max 100000", "cpuset.cpus.effective": "0-7"},
        limits(cgroup="v2", cpuset_count=8),
    ),
    "v2": Shape(
        "0::/job\n",
        [UNIFIED],
        {
            "job/cpu.max": "150000 100000",
            "job/memory.max": str(4 * GIB),
            "job/memory.high": str(3 * GIB),
            "job/cpuset.cpus.effective": "2-5",
        },
        limits(
            cgroup="v2",
            cpu_quota=1.5,
            cpuset_count=4,
            cpu_effective=1.5,
            memory_max=4 * GIB,
            memory_high=3 * GIB,
        ),
    ),
    "v2, tighter parents": Shape(
        "0::/job.slice/step/task\n",
        [UNIFIED],
        {
            "job.slice/cpu.max": "200000 50000",
            "job.slice/step/cpu.max": "max 100000",
            "job.slice/step/task/cpu.max": "600000 100000",
            "job.slice/memory.max": str(2 * GIB),
            "job.slice/step/memory.max": str(6 * GIB),
            "job.slice/step/task/memory.max": "max",
            "job.slice/step/memory.high": str(1 * GIB),
            # The task has no cpuset of its own: the nearest one above holds.
            "job.slice/cpuset.cpus.effective": "0-2",
            "cpuset.cpus.effective": "0-7",
        },
        limits(
            cgroup="v2",
            cpu_quota=4.0,
            cpuset_count=3,
            cpu_effective=3.0,
            memory_max=2 * GIB,
            memory_high=1 * GIB,
        ),
    ),
    "v1": Shape(
        V1_LINES.format("/job"),
        v1(),
        {
            "cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            "cpuset/job/cpuset.effective_cpus": "0,2,4",
            "memory/job/memory.limit_in_bytes": str(5 * GIB),
            "memory/memory.limit_in_bytes": NONE_V1,
        },
        limits(cgroup="v1", cpu_quota=2.5, cpuset_count=3, cpu_effective=2.5, memory_max=5 * GIB),
    ),
    "v1, no limit": Shape(
        V1_LINES.format("/"),
        v1(),
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "cpuset/cpuset.cpus": "0-7",
            "memory/memory.limit_in_bytes": "9223372036854710272",
        },
        limits(cgroup="v1", cpuset_count=8),
    ),
    "v1, tighter parents": Shape(
        V1_LINES.format("/a/b"),
        v1(),
        {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
            "memory/a/memory.limit_in_bytes": str(GIB),
            "memory/a/b/memory.limit_in_bytes": str(8 * GIB),
        },
        limits(cgroup="v1", cpu_quota=0.5, cpu_effective=0.5, memory_max=GIB),
    ),
    # As Docker mounts it: only the container's own directory, and the limit of the pod above is outside of it.
    "v1, in a container": Shape(
        V1_LINES.format("/docker/c1"),
        v1("/docker/c1"),
        {
            "memory/memory.limit_in_bytes": str(8 * GIB),
            "memory/memory.stat": f"cache 0\nhierarchical_memory_limit {3 * GIB}\ntotal_cache 0\n",
        },
        limits(cgroup="v1", memory_max=3 * GIB, ancestors_visible=False),
    ),
    "hybrid": Shape(
        "4:memory:/job\n2:cpu,cpuacct:/job\n0::/job\n",
        [*v1(), ("/", "/sys/fs/cgroup/unified", "cgroup2", "cgroup2", "rw")],
        {
            "cpu,cpuacct/job/cpu.cfs_quota_us": "100000",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            "memory/job/memory.limit_in_bytes": str(GIB),
            "unified/job/cpuset.cpus.effective": "0-1",
        },
        limits(cgroup="hybrid", cpu_quota=1.0, cpuset_count=2, cpu_effective=1.0, memory_max=GIB),
    ),
}


def grow(root: Path, shape: Shape, namespace: str = FIRST_CGROUP_NAMESPACE, who: str = "self") -> str:
    """Make the machine of a shape below ``root``."""
    for _, point, *_ in shape.mounts:
        (root / point.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for line in shape.groups.splitlines():
        path = line.split(":", 2)[2].lstrip("/")
        for mounted, point, *_ in shape.mounts:
            inner = os.path.relpath(f"/{path}", mounted) if mounted.startswith("/") else path
            if not inner.startswith("..") and ".." not in path:
                (root / point.lstrip("/") / inner).mkdir(parents=True, exist_ok=True)
    files = {f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in shape.files.items()}
    status = {name.replace("self", who): text for name, text in PLAIN.items()}
    plant(root, {**status, **files, f"proc/{who}/cgroup": shape.groups, "proc/self/mountinfo": mountinfo(shape.mounts)})
    link(root, "proc/self/ns/cgroup", namespace)
    return str(root)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(tmp_path, name) -> None:
    """Every shape of cgroups gives the right limits, the tightest of the chain (research, test 29)."""
    assert read_limits(root=grow(tmp_path, SHAPES[name])) == SHAPES[name].expected


def test_another_process(tmp_path) -> None:
    """The limits of another process are found in the reader's own mounts."""
    shape = SHAPES["v2, tighter parents"]
    assert read_limits(4242, root=grow(tmp_path, shape, who="4242")) == shape.expected


def test_a_kernel_without_cgroups(tmp_path) -> None:
    """Where the process has no such file, there is no limit but affinity."""
    assert read_limits(root=plant(tmp_path, {**PLAIN, "proc/self/stat": ""})) == limits(cgroup="none")


def test_no_process(tmp_path) -> None:
    """A process that is not there has no limits to tell."""
    with pytest.raises(IncompleteError, match="4242"):
        read_limits(4242, root=plant(tmp_path, PLAIN))


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [
        ("0::/job\n", []),
        ("0::/../job\n", [UNIFIED]),
        ("0::/\n", [("/../..", *UNIFIED[1:])]),
        ("0::/job\n", [("/other", *UNIFIED[1:])]),
        ("0::/gone (deleted)\n", [UNIFIED]),
    ],
)
def test_what_is_not_visible_is_unknown(tmp_path, groups, mounts) -> None:
    """No mount, outside of the namespace, another part of the tree, a removed cgroup: unknown, never unlimited."""
    root = plant(tmp_path, {**PLAIN, "proc/self/cgroup": groups, "proc/self/mountinfo": mountinfo(mounts)})
    for name in ("cgroup", "job"):  # one beside the mount must not be taken for "/../job"
        (tmp_path / "sys/fs" / name).mkdir(parents=True)
    found = read_limits(root=root)
    assert (found.cpu_quota, found.cpuset_count, found.memory_max, found.memory_high) == (None,) * 4
    assert (found.cpu_effective, found.ancestors_visible) == (None, None)
    assert len(found.problems) == 3
    assert "not visible" in found.problems[0]


def test_a_namespace_hides_ancestors(tmp_path) -> None:
    """In a cgroup namespace of its own "/" may have parents with limits, so the record says that it could not look."""
    root = grow(tmp_path, SHAPES["v2"], namespace="cgroup:[4026532999]")
    assert read_limits(root=root).ancestors_visible is False


@pytest.mark.parametrize("text", ["", "garbage", "1 0", "-5 100000", "9" * 5000 + " 1"])
def test_a_limit_that_is_no_number(tmp_path, text) -> None:
    """What is not understood is unknown."""
    shape = SHAPES["v2"]
    root = grow(tmp_path, Shape(shape.groups, shape.mounts, {**shape.files, "job/cpu.max": text}, shape.expected))
    found = read_limits(root=root)
    assert (found.cpu_quota, found.cpu_effective, found.memory_max) == (None, None, 4 * GIB)


@pytest.mark.parametrize("name", ["cpu.max", "cpuset.cpus.effective"])
def test_a_limit_that_cannot_be_read(tmp_path, name) -> None:
    """A file that is there and not readable might limit: unknown, where a missing one would be no limit."""
    shape = SHAPES["v2"]
    files = {file: text for file, text in shape.files.items() if not file.endswith(name)}
    root = grow(tmp_path, Shape(shape.groups, shape.mounts, files, shape.expected))
    (tmp_path / "sys/fs/cgroup/job" / name).mkdir()
    found = read_limits(root=root)
    assert (found.cpu_quota if name == "cpu.max" else found.cpuset_count, found.cpu_effective) == (None, None)


@pytest.mark.parametrize(
    ("quota", "cpuset", "allowed", "effective"),
    [
        ("150000 100000", "0-3", "0-7", 1.5),
        ("600000 100000", "0-3", "0-7", 4.0),
        ("600000 100000", "0-3", "1", 1.0),
    ],
)
def test_effective_is_the_least(tmp_path, quota, cpuset, allowed, effective) -> None:
    """``cpu_effective`` is the least of quota, cpuset and affinity (research, test 29)."""
    files = {"job/cpu.max": quota, "job/cpuset.cpus.effective": cpuset}
    root = grow(tmp_path, Shape("0::/job\n", [UNIFIED], files, limits()))
    (tmp_path / "proc/self/status").write_text(f"Cpus_allowed_list:\t{allowed}\n")
    assert read_limits(root=root).cpu_effective == effective
    assert read_placement(root=root).affinity == allowed
    assert read_placement(root=root).cpuset == cpuset


def test_affinity_that_is_not_told(tmp_path) -> None:
    """Without it the effective number is unknown too, and said so."""
    root = grow(tmp_path, SHAPES["v2"])
    (tmp_path / "proc/self/status").write_text("Name:\tpython\n")
    found = read_limits(root=root)
    assert (found.affinity_count, found.cpu_effective, found.problems) == (None, None, ("affinity: not told",))


def test_this_machine() -> None:
    """Affinity is the kernel's, nothing is a problem, and no limit is above what the machine has or below 0."""
    found = read_limits()
    assert found.affinity_count == len(os.sched_getaffinity(0))
    assert found.cpu_effective is None or 0 < found.cpu_effective <= found.affinity_count
    assert found.memory_max in {None, "max"} or 0 < found.memory_max < psutil.virtual_memory().total * 1024


def test_a_bound_process(start) -> None:
    """A process that is bound to one CPU has one, whatever its parent has."""
    cpu = min(os.sched_getaffinity(0))
    child = start(sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{cpu}]); {WAIT}")
    assert read_limits(child.pid).affinity_count == 1
    assert read_placement(child.pid).affinity == str(cpu)


def _made(parent: Path, files: dict[str, str]) -> Path:
    """Make a cgroup with these files, or skip with what is in the way."""
    directory = parent / f"reprod-test-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made in {parent}: {error.strerror}")
    try:
        for name, text in files.items():
            (directory / name).write_text(text)
    except OSError as error:
        directory.rmdir()
        pytest.skip(f"{name} cannot be set in {parent}: {error.strerror}")
    return directory


@pytest.fixture
def cgroup() -> Iterator[Callable[..., Path]]:
    """Make real cgroups, nested ones too; removed when their processes are gone."""
    made: list[Path] = []

    def make(parent: Path, **files: str) -> Path:
        made.append(_made(parent, {name.replace("__", "."): text for name, text in files.items()}))
        return made[-1]

    yield make
    for directory in reversed(made):
        directory.rmdir()


def _join(directory: Path, pid: int) -> None:
    (directory / "cgroup.procs").write_text(str(pid))


def _leave(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(10)


def test_real_cgroups_of_version_1(cgroup, start) -> None:
    """A quota, a memory limit and a cpuset that the kernel enforces are read, those of a parent included."""
    top = Path("/sys/fs/cgroup")
    if not (top / "cpu/cpu.cfs_quota_us").exists():
        pytest.skip("no cgroups of version 1 are mounted here")
    outer = cgroup(top / "cpu", cpu__cfs_quota_us="70000")
    inner = cgroup(outer, cpu__cfs_quota_us="-1")
    memory = cgroup(top / "memory", memory__limit_in_bytes=str(GIB))
    child = start(sys.executable, "-c", WAIT)
    try:
        _join(inner, child.pid)
        _join(memory, child.pid)
        found = read_limits(child.pid)
        assert (found.cgroup in {"v1", "hybrid"}, found.cpu_quota, found.memory_max) == (True, 0.7, GIB)
        assert found.cpu_effective == 0.7
        assert read_limits().memory_max != GIB
    finally:
        _leave(child)


def test_real_cgroups_of_version_2(cgroup, start) -> None:
    """The same for version 2, where its controllers may be used."""
    top = Path("/sys/fs/cgroup")
    if not (top / "cgroup.controllers").exists():
        pytest.skip("cgroups of version 2 are not what is mounted at /sys/fs/cgroup")
    missing = {"cpu", "memory"} - set((top / "cgroup.subtree_control").read_text().split())
    if missing:
        pytest.skip(f"the controllers {sorted(missing)} are not switched on")
    group = cgroup(top, cpu__max="70000 100000", memory__max=str(GIB), memory__high=str(GIB // 2))
    child = start(sys.executable, "-c", WAIT)
    try:
        _join(group, child.pid)
        found = read_limits(child.pid)
        assert (found.cgroup, found.cpu_quota, found.memory_max, found.memory_high) == ("v2", 0.7, GIB, GIB // 2)
    finally:
        _leave(child)


SAY = "from reprod.capture.machine.limits import read_limits as r; l = r(); print(l.memory_max, l.ancestors_visible)"
INSIDE = "echo $$ > {group}/cgroup.procs && exec unshare --cgroup --mount sh -c '{mount} exec {python} -c \"{say}\"'"
REMOUNT = "umount {top} && mount -t cgroup -o memory none {top} &&"


@pytest.mark.parametrize("mount", ["", REMOUNT], ids=["the host's mounts", "its own mounts"])
def test_a_real_namespace(cgroup, mount) -> None:
    """Inside of a cgroup namespace only the visible part counts; with mounts from outside nothing is visible."""
    top = Path("/sys/fs/cgroup/memory")
    if not (top / "memory.limit_in_bytes").exists() or shutil.which("unshare") is None:
        pytest.skip("no memory cgroup of version 1, or no unshare, here")
    group = cgroup(top, memory__limit_in_bytes=str(GIB))
    script = INSIDE.format(group=group, mount=mount.format(top=top), python=sys.executable, say=SAY)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"no cgroup namespace can be made here: {done.stderr.strip()}")
    assert done.stdout.split() == ([str(GIB), "False"] if mount else ["None", "None"])
