"""Processors: vendors and architectures, levels of instruction sets, topology, what is read once and what each time."""

import os
from pathlib import Path

import cpuinfo_samples as samples
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_tree import plant, topology

from reprod.capture.machine.cpu import read_cpu
from reprod.core.machine import format_cpus, isa_level, parse_cpus
from reprod.errors import IncompleteError

CPU = "sys/devices/system/cpu"


def cpu_of(root: Path, *processors: str, **files: str):
    """Read a machine of these processors; it is online as a whole unless ``files`` say otherwise."""
    return read_cpu(plant(root, {"proc/cpuinfo": samples.machine(*processors), **files}))


def test_this_machine() -> None:
    """Counts agree with psutil's, flags are sorted and the level is one of those that there are."""
    cpu = read_cpu()
    assert cpu.threads == psutil.cpu_count(logical=True)
    assert cpu.cores == psutil.cpu_count(logical=False)
    assert cpu.flags is not None
    assert list(cpu.flags) == sorted(set(cpu.flags))
    assert cpu.isa_level in {*(f"x86-64-v{n}" for n in range(1, 5)), *(f"armv8.{n}-a" for n in range(6)), "armv9.0-a"}


@pytest.mark.parametrize(
    ("processor", "model", "numbers", "stepping", "microcode", "level"),
    [
        (samples.AMD, "AMD EPYC 7702 64-Core Processor", (23, 49), "0", "0x830107c", "x86-64-v3"),
        (samples.INTEL, "Intel(R) Xeon(R) Platinum 8480+", (6, 143), "8", "0x2b000603", "x86-64-v4"),
        (samples.OLD, "Intel(R) Xeon(R) CPU X5650 @ 2.67GHz", (6, 44), "2", "0x1f", "x86-64-v2"),
        (samples.QEMU, "QEMU Virtual CPU version 2.5+", (15, 107), "1", "0x1000065", "x86-64-v1"),
        (samples.SANDBOX, None, (6, 85), None, None, "x86-64-v3"),
        (samples.ALTRA, "Neoverse-N1", (8, 0xD0C), "r3p1", None, "armv8.2-a"),
        (samples.GRAVITON3, "Neoverse-V1", (8, 0xD40), "r1p1", None, "armv8.4-a"),
        (samples.GRACE, "Neoverse-V2", (8, 0xD4F), "r0p0", None, "armv9.0-a"),
        (samples.RASPBERRY, "Cortex-A72", (8, 0xD08), "r0p3", None, "armv8.0-a"),
        (samples.APPLE, "0x61:0x022", (8, 0x022), "r1p1", None, "armv8.2-a"),
    ],
)
def test_kinds(tmp_path, processor, model, numbers, stepping, microcode, level) -> None:
    """Each kind of machine gives its model, its numbers and its level; what it does not tell is None."""
    cpu = cpu_of(tmp_path, processor, processor)
    assert (cpu.model, (cpu.family, cpu.model_number)) == (model, numbers)
    assert (cpu.stepping, cpu.microcode, cpu.isa_level) == (stepping, microcode, level)


def test_vendors(tmp_path) -> None:
    """x86 names its vendor, Arm numbers it; one that is not listed keeps its number."""
    vendors = {
        samples.AMD: "AuthenticAMD",
        samples.ALTRA: "ARM",
        samples.APPLE: "Apple",
        samples.arm("0x7f", "0x001", "fp asimd"): "0x7f",
    }
    for i, (processor, vendor) in enumerate(vendors.items()):
        assert cpu_of(tmp_path / str(i), processor).vendor == vendor


def test_virtual_machines_show_it(tmp_path) -> None:
    """The hypervisor's flag is kept: two machines of one model, one of them virtual, are not the same."""
    assert "hypervisor" in cpu_of(tmp_path, samples.QEMU).flags


def test_mixed_processors(tmp_path) -> None:
    """Of two kinds in one machine both are named, and only the flags and the level that both have."""
    cpu = cpu_of(tmp_path, samples.LITTLE, samples.LITTLE, samples.BIG)
    assert cpu.model == "Cortex-A55 + Cortex-A76"
    assert "aes" not in cpu.flags
    assert cpu.isa_level == "armv8.2-a"


def test_another_architecture(tmp_path) -> None:
    """What is neither x86 nor Arm gives its model and no level; the platform's lines are no processor."""
    cpu = read_cpu(plant(tmp_path, {"proc/cpuinfo": samples.POWER}))
    assert (cpu.model, cpu.flags, cpu.isa_level, cpu.threads) == ("POWER9, altivec supported", None, None, 1)


def test_one_flag_less_is_one_level_less() -> None:
    """A level needs every one of its features and of those below."""
    flags = set(samples._V4.split())
    assert isa_level(flags) == "x86-64-v4"
    assert isa_level(flags - {"avx512vl"}) == "x86-64-v3"
    assert isa_level(flags - {"movbe"}) == "x86-64-v2"
    assert isa_level(flags - {"lahf_lm"}) == "x86-64-v1"
    assert isa_level(flags - {"cmov"}) is None
    assert isa_level(()) is None


def test_topology(tmp_path) -> None:
    """Two sockets of two cores of two threads, CPU 7 offline: sockets, cores and threads are those online."""
    files = topology([(n, "0-3" if n < 4 else "4-6", f"{n},{n + 2}" if n in {0, 1, 4} else str(n)) for n in range(7)])
    cpu = cpu_of(tmp_path, samples.INTEL, **files, **{f"{CPU}/online": "0-6\n"})
    assert (cpu.sockets, cpu.cores, cpu.threads) == (2, 4, 7)


def test_topology_of_older_kernels(tmp_path) -> None:
    """Before Linux 5.3 the files had other names."""
    files = {f"{CPU}/cpu0/topology/core_siblings_list": "0-1", f"{CPU}/cpu0/topology/thread_siblings_list": "0-1"}
    cpu = cpu_of(tmp_path, samples.INTEL, **files, **{f"{CPU}/online": "0-1\n"})
    assert (cpu.sockets, cpu.cores, cpu.threads) == (1, 1, 2)


def test_topology_that_is_not_told(tmp_path) -> None:
    """Without /sys cpuinfo is counted; where neither tells, sockets and cores are None, and never one."""
    counted = cpu_of(tmp_path / "counted", samples.INTEL, samples.INTEL)
    assert (counted.sockets, counted.cores, counted.threads) == (1, 2, 2)
    arm = cpu_of(tmp_path / "arm", samples.ALTRA, samples.ALTRA)
    assert (arm.sockets, arm.cores, arm.threads) == (None, None, 2)
    half = cpu_of(tmp_path / "half", samples.ALTRA, **{f"{CPU}/online": "0-3\n"})
    assert (half.sockets, half.cores, half.threads) == (None, None, 4)


def test_what_changes_is_read_each_time(tmp_path) -> None:
    """Microcode and governor are those of now; the description is read once, and again when a CPU comes or goes."""
    files = {
        f"{CPU}/online": "0-1\n",
        f"{CPU}/cpu0/microcode/version": "0x10\n",
        f"{CPU}/cpufreq/policy0/scaling_governor": "powersave\n",
        f"{CPU}/cpufreq/policy1/scaling_governor": "performance\n",
    }
    first = cpu_of(tmp_path, samples.AMD, **files)
    assert (first.microcode, first.governor) == ("0x10", "performance,powersave")
    (tmp_path / "proc/cpuinfo").write_text(samples.machine(samples.INTEL))
    (tmp_path / CPU / "cpu0/microcode/version").write_text("0x11\n")
    (tmp_path / CPU / "cpufreq/policy0/scaling_governor").write_text("performance\n")
    second = read_cpu(str(tmp_path))
    assert (second.microcode, second.governor) == ("0x11", "performance")
    assert (second.vendor, second.flags) == ("AuthenticAMD", first.flags)
    (tmp_path / CPU / "online").write_text("0\n")
    assert read_cpu(str(tmp_path)).vendor == "GenuineIntel"


@pytest.mark.parametrize("text", [None, "", "nothing of the kind\n"])
def test_no_processor_is_unknown(tmp_path, text) -> None:
    """A machine that describes none is unknown with a reason, not a machine without flags."""
    with pytest.raises(IncompleteError, match="cpuinfo"):
        read_cpu(plant(tmp_path, {} if text is None else {"proc/cpuinfo": text}))


@given(st.frozensets(st.integers(0, 300)))
def test_lists_of_cpus(cpus) -> None:
    """What is written as a kernel's list is read back as the same CPUs."""
    assert parse_cpus(format_cpus(cpus)) == cpus


@pytest.mark.parametrize("text", ["a", "3-1", "1-", "-1", "0-99999999999", "1,x", "0x1", "１"])
def test_what_is_no_list_of_cpus(text) -> None:
    """Damage is None, and a gigantic range costs nothing; digits of other scripts are none of the kernel's."""
    assert parse_cpus(text) is None


def test_lists_as_the_kernel_writes_them() -> None:
    """Blanks and line ends around, runs of two and more, and an empty list."""
    assert parse_cpus(" 0-1,3,8-10\n") == {0, 1, 3, 8, 9, 10}
    assert parse_cpus("\n") == frozenset()
    assert format_cpus(os.sched_getaffinity(0)) != ""
    assert format_cpus([8, 0, 1]) == "0-1,8"
