"""System and GPUs."""

import os
import platform

import psutil
import pytest

from reprod.capture.gpu import read_gpus
from reprod.capture.system import read_system
from reprod.core.environment import Gpu
from reprod.errors import IncompleteError

INFORMATION = """Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 97
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.89.00.01
Bus Type: \t PCIe
Bus Location: \t {bus}
"""
VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build\nGCC version: gcc 12\n"


def test_system():
    """The facts agree with other sources, and affinity is what may be used."""
    system = read_system()
    assert system.system == platform.system()
    assert system.memory_bytes == psutil.virtual_memory().total
    assert system.cpu_logical == os.cpu_count()
    assert system.cpu_usable == len(os.sched_getaffinity(0))
    assert system.libc is None or system.libc.split()[1] == platform.libc_ver()[1]


def test_no_driver_is_no_gpu(tmp_path):
    """Where no driver is present the answer is none, which is known."""
    assert read_gpus(str(tmp_path)) == ()


def test_nvidia_driver(tmp_path):
    """Names, bus, uuid and driver version come from the driver's files; unread uuids are left out."""
    proc = tmp_path / "proc/driver/nvidia"
    for bus, uuid in (("0000:00:05.0", "GPU-????????-????"), ("0000:00:04.0", "GPU-1234")):
        (proc / "gpus" / bus).mkdir(parents=True)
        (proc / "gpus" / bus / "information").write_text(INFORMATION.format(uuid=uuid, bus=bus))
    (proc / "version").write_text(VERSION)
    assert read_gpus(str(tmp_path)) == (
        Gpu(0, "NVIDIA H100 80GB HBM3", "550.90.07", "GPU-1234", "0000:00:04.0"),
        Gpu(1, "NVIDIA H100 80GB HBM3", "550.90.07", None, "0000:00:05.0"),
    )
    (proc / "gpus/0000:00:04.0/information").unlink()
    with pytest.raises(IncompleteError):
        read_gpus(str(tmp_path))


@pytest.mark.parametrize("path", ["proc/driver/nvidia/version", "dev/kfd", "dev/nvidia0"])
def test_a_silent_driver_is_unknown(tmp_path, path):
    """A driver or device that does not describe itself is unknown, never a count of 0."""
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    with pytest.raises(IncompleteError):
        read_gpus(str(tmp_path))
