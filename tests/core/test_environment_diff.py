"""Comparing environments: each kind of difference has its class, and what is missing is never equal."""
# ruff: noqa: E501 - a table is easier to read than its rows on three lines each

from dataclasses import replace
from typing import Any

import pytest

from reprod.core.accelerator import Accelerators, Cuda, Gpu
from reprod.core.environment import NO_PROCESS, Environment, Record
from reprod.core.environment_diff import ORDER, compare
from reprod.core.execution import Execution, Subject
from reprod.core.hosting import Cloud
from reprod.core.imports import Imports, UsedDistribution
from reprod.core.machine import Cpu, Limits, Memory, System
from reprod.core.numerics import NumericLibrary, Numerics, RandomState, TorchSettings
from reprod.core.packages import BrokenRecord, Package, PackageSet, Python
from reprod.core.repository import Git, Withheld

FLAGS = ("avx", "avx2", "avx512f", "fma", "sse2")


def package(name: str, version: str = "1.0", **fields: Any) -> Package:
    return Package(name, version, "/venv/s", record_sha256=f"{name}-{version}", **fields)


def used(*names: str) -> Imports:
    return Imports("in-process", True, tuple(UsedDistribution(name, "1.0", "/venv/s", "record", 1) for name in names))


BASE = Environment(
    python=Python("3.11.7", "/venv", "/usr", "CPython"),
    packages=PackageSet((package("numpy"), package("ruff"), package("torch", "2.5.1+cu121"))),
    system=System("Linux", "6.1", "#1", "x86_64", "Debian", libc="glibc", libc_version="2.36"),
    cpu=Cpu("Xeon", "Intel", 6, 85, "7", 1, 4, 8, FLAGS, "x86-64-v4"),
    memory=Memory(1 << 34, 0),
    limits=Limits("v2", "max", 8, 8, 8.0),
    accelerators=Accelerators(
        (Gpu(0, "A100", "550.54", "GPU-1", capability="8.0", multiprocessors=108),), "NVML", "12.4"
    ),
    cuda=Cuda("12.4", "12.1", cudnn="9.1.0"),
    git=Git("a" * 40, "main", False, "/src", tree="t" * 40),
    variables={"OMP_DYNAMIC": "0", "PYTHONPATH": "/x"},
)
SEEN = Execution(
    Subject("process", "h", "b", "in-process"),
    1,
    numerics=Numerics(hash_seed="0", libraries=(NumericLibrary("blas", "OpenBLAS", "/o", "0.3.27", 8),)),
    random_state=RandomState("1234"),
    imports=used("numpy", "torch"),
    cloud=Cloud("aws", "p4d.24xlarge"),
)


def record(execution: Execution = SEEN, **sections: Any) -> Record:
    return Record(execution, replace(BASE, **sections))


def installed(*packages: Package, broken: tuple[BrokenRecord, ...] = ()) -> dict[str, PackageSet]:
    return {"packages": PackageSet(tuple(packages), broken)}


NUMPY, RUFF, TORCH = (BASE.packages or PackageSet()).packages
CPU, GPU, GIT = BASE.cpu, (BASE.accelerators or Accelerators()).gpus[0], BASE.git
assert CPU is not None
assert GIT is not None

#: What is changed on the right, the verdict, and a fact that the difference names.
ROWS: list[tuple[str, dict[str, Any], str, str]] = [
    ("spelling of a version", installed(replace(NUMPY, version="1.0.0"), RUFF, TORCH), "equivalent", "packages.numpy"),
    ("installer", installed(replace(NUMPY, installer="uv"), RUFF, TORCH), "equivalent", "packages.numpy.installer"),
    ("prefix", {"python": Python("3.11.7", "/other", "/usr", "CPython")}, "equivalent", "python.prefix"),
    ("memory", {"memory": Memory(1 << 33, 0)}, "equivalent", "memory.total_bytes"),
    ("the same tree on another branch", {"git": replace(GIT, commit="c" * 40)}, "equivalent", "git.commit"),
    ("GPU of the same model", {"accelerators": Accelerators((replace(GPU, uuid="GPU-2"),))}, "equivalent", "gpus.0.uuid"),
    ("a tool that nobody imports", installed(NUMPY, package("ruff", "2.0"), TORCH), "benign", "packages.ruff"),
    ("a tool that is not there", installed(NUMPY, TORCH), "benign", "packages.ruff"),
    ("a patch of the kernel", {"system": replace(BASE.system, release="6.2")}, "benign", "system.release"),
    ("a patch of the driver", {"accelerators": Accelerators((replace(GPU, driver="550.90"),))}, "benign", "gpus.0.driver"),
    ("a patch of Python", {"python": Python("3.11.9", "/venv", "/usr", "CPython")}, "benign", "python.version"),
    ("another CPU with equal flags", {"cpu": replace(CPU, model="Xeon 2")}, "benign", "cpu.model"),
    ("CPU flags", {"cpu": replace(CPU, flags=FLAGS[:2])}, "numeric", "cpu.flags"),
    ("libc", {"system": replace(BASE.system, libc_version="2.39")}, "numeric", "system.libc_version"),
    ("threads that follow the CPUs", {"limits": Limits("v2", "max", 4, 4, 4.0)}, "numeric", "limits.cpu_effective"),
    ("GPU model", {"accelerators": Accelerators((replace(GPU, name="A30"),))}, "numeric", "gpus.0"),
    ("driver", {"accelerators": Accelerators((replace(GPU, driver="535.1"),))}, "numeric", "gpus.0.driver"),
    ("cuDNN", {"cuda": Cuda("12.4", "12.1", cudnn="9.3.0")}, "numeric", "cuda.cudnn"),
    ("a thread setting", {"variables": {**BASE.variables, "OMP_DYNAMIC": "1"}}, "numeric", "variables.OMP_DYNAMIC"),
    ("another tree", {"git": replace(GIT, tree="u" * 40)}, "semantic", "git.tree"),
    ("a used package", installed(package("numpy", "2.0"), RUFF, TORCH), "semantic", "packages.numpy"),
    ("a used package that is not there", installed(RUFF, TORCH), "semantic", "packages.numpy"),
    (
        "other content under one version",
        installed(replace(NUMPY, record_sha256="other"), RUFF, TORCH),
        "semantic",
        "packages.numpy.record_sha256",
    ),
    ("a local version", installed(NUMPY, RUFF, package("torch", "2.5.1+cpu")), "semantic", "packages.torch"),
    ("Python", {"python": Python("3.12.1", "/venv", "/usr", "CPython")}, "semantic", "python.version"),
    ("GPU architecture", {"accelerators": Accelerators((replace(GPU, capability="9.0"),))}, "semantic", "gpus.0.capability"),
    ("no GPU", {"accelerators": Accelerators()}, "semantic", "gpus.0"),
    ("what code is fed", {"variables": {**BASE.variables, "PYTHONPATH": "/y"}}, "semantic", "variables.PYTHONPATH"),
    ("a seed", {"variables": {**BASE.variables, "PYTHONHASHSEED": "7"}}, "semantic", "variables.PYTHONHASHSEED"),
    ("no packages", {"packages": None}, "unknown", "packages"),
    ("no digest of a used package", installed(replace(NUMPY, record_sha256=None), RUFF, TORCH), "unknown", "packages.numpy"),
    ("no flags", {"cpu": replace(CPU, flags=None)}, "unknown", "cpu.flags"),
    ("no repository", {"git": None}, "unknown", "git"),
    ("a file withheld", {"git": replace(GIT, withheld=(Withheld(".env", 1, "secret"),))}, "unknown", "git.withheld"),
    ("a broken record", installed(NUMPY, RUFF, TORCH, broken=(BrokenRecord("x", "/s", "why"),)), "unknown", "broken.x"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "verdict", "fact"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_each_kind_of_difference(change, verdict, fact):
    """Acceptance test 34: the verdict is that of the one difference, both ways round, and the difference names it."""
    left, right = record(), record(**change)
    for one, other in ((left, right), (right, left)):
        found = compare(one, other)
        assert found.verdict == verdict, found.differences
        assert found.differences[0].fact.startswith(fact)
        assert found.differences[0].grade == verdict


def test_identical():
    """An environment is identical to itself, whoever saw it and when."""
    assert compare(record(), record()) == compare(record(), record(replace(SEEN, taken_ns=2)))
    assert compare(record(), record()).verdict == "identical"
    assert compare(record(), record()).differences == ()


@pytest.mark.parametrize(
    ("execution", "verdict"),
    [
        (replace(SEEN, random_state=RandomState("99")), "semantic"),
        (replace(SEEN, random_state=RandomState("1234", "a", "b")), "equivalent"),
        (replace(SEEN, numerics=Numerics(hash_seed="random", libraries=SEEN.numerics.libraries)), "semantic"),
        (replace(SEEN, numerics=replace(SEEN.numerics, torch=TorchSettings(deterministic=True))), "unknown"),
        (replace(SEEN, numerics=replace(SEEN.numerics, libraries=())), "unknown"),
        (
            replace(SEEN, numerics=replace(SEEN.numerics, libraries=(NumericLibrary("blas", "OpenBLAS", "/o", "0.3.30", 8),))),
            "numeric",
        ),
        (replace(SEEN, random_state=None), "unknown"),
        (replace(SEEN, cloud=Cloud("aws", "p4de.24xlarge")), "benign"),
    ],
)  # fmt: skip
def test_settings_of_the_process_count_too(execution, verdict):
    """Equal environments with other seeds, libraries or switches are not identical."""
    assert compare(record(), record(execution)).verdict == verdict


def test_what_was_not_asked_is_assumed_used():
    """Without a complete list of imports on both sides a package that differs may have mattered."""
    unasked = replace(SEEN, imports=replace(used(), complete=False))
    found = compare(record(unasked), record(unasked, **installed(NUMPY, package("ruff", "2.0"), TORCH)))
    assert found.verdict == "semantic"
    assert "not known" in (found.differences[0].why or "")


def test_threads_that_are_set_do_not_follow_the_cpus():
    """With OMP_NUM_THREADS equal on both sides more cores are harmless."""
    pinned = {"variables": {"OMP_NUM_THREADS": "4"}}
    found = compare(record(**pinned), record(**pinned, limits=Limits("v2", "max", 4, 4, 4.0)))
    assert found.verdict == "benign"


def test_what_nobody_has_is_no_difference_and_what_nobody_knows_is():
    """A section that two interpreters cannot have is passed over; one that was unreadable twice is unknown."""
    bare = {"git": None, "memory": Memory(1, 0)}
    none = record(git=None, unknown={"git": NO_PROCESS}), record(**bare, unknown={"git": NO_PROCESS})
    assert compare(*none).verdict == "equivalent"
    lost = (
        record(git=None, unknown={"git": "git is not installed"}),
        record(**bare, unknown={"git": "git is not installed"}),
    )
    found = compare(*lost)
    assert found.verdict == "unknown"
    assert found.differences[0].why == "git is not installed"


def test_the_gravest_comes_first_and_decides():
    """Acceptance test 35: a flag that is gone is named, and a harmless difference beside it changes nothing."""
    moved = replace(SEEN, cloud=Cloud("aws", "p4de.24xlarge"))
    right = record(moved, cpu=replace(CPU, flags=("avx", "avx2", "fma", "sse2")))
    found = compare(record(), right)
    assert found.verdict == "numeric"
    assert found.differences[0].fact == "cpu.flags"
    assert "-avx512f" in (found.differences[0].why or "")
    grades = [ORDER.index(each.grade) for each in found.differences]
    assert grades == sorted(grades, reverse=True)
