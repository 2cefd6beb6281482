"""Stand-ins at the native seam for machines without a GPU: modules named ``pynvml``, and trees of a driver's files."""

from pathlib import Path

INFORMATION = """Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 97
GPU UUID: \t {uuid}
Video BIOS: \t {vbios}
Bus Type: \t PCIe
Bus Location: \t {bus}
Device Minor: \t {minor}
"""
VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build\nGCC version: gcc 12\n"

_ERRORS = """
class NVMLError(Exception):
    def __init__(self, value, text="refused"):
        super().__init__(text)
        self.value = value
"""

MISSING = "raise ImportError('no such package')\n"
NO_LIBRARY = _ERRORS + "def nvmlInit():\n    raise NVMLError(12, 'NVML Shared Library Not Found')\n"
MISMATCH = _ERRORS + "def nvmlInit():\n    raise NVMLError(18, 'RM has detected an NVML/RM version mismatch.')\n"
#: Hangs as a lost GPU does, with a child of its own, whose pid it leaves beside itself.
HANGS = """
import os, subprocess, time
class NVMLError(Exception): pass
def nvmlInit():
    child = subprocess.Popen(["/bin/sleep", "600"])
    with open(os.path.join(os.path.dirname(__file__), "pids"), "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
"""
#: GPU 0: an H100 in MIG mode with two instances, at numbers 0 and 2. GPU 1: one that supports little and refuses its
#: memory. GPU 2: lost.
WORKS = (
    _ERRORS
    + """
from types import SimpleNamespace as Of
def nvmlInit(): pass
def nvmlSystemGetDriverVersion(): return b"550.90.07"
def nvmlSystemGetCudaDriverVersion_v2(): return 12040
def nvmlDeviceGetCount(): return 3
def nvmlDeviceGetHandleByIndex(index):
    if index == 2: raise NVMLError(15, "GPU is lost")
    return index
def answer(first, code=3):
    def call(handle, *rest):
        if handle == 1: raise NVMLError(code, "refused")
        return first(*rest) if callable(first) else first
    return call
def nvmlDeviceGetName(handle):
    return {0: b"NVIDIA H100 80GB HBM3", 1: "NVIDIA T4"}.get(handle) or "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
def nvmlDeviceGetUUID(handle): return f"GPU-000{handle}" if handle in (0, 1) else f"MIG-{handle}"
def nvmlDeviceGetPciInfo(handle): return Of(busId=f"00000000:0A:0{handle}.0")
nvmlDeviceGetMemoryInfo = answer(lambda: Of(total=85520809984), 4)
nvmlDeviceGetCudaComputeCapability = answer((9, 0))
nvmlDeviceGetNumGpuCores = answer(16896)
nvmlDeviceGetVbiosVersion = answer("96.00.89.00.01")
nvmlDeviceGetEccMode = answer([1, 1])
nvmlDeviceGetMigMode = answer([1, 1])
nvmlDeviceGetMaxMigDeviceCount = answer(7)
def nvmlDeviceGetMigDeviceHandleByIndex(handle, number):
    if number not in (0, 2): raise NVMLError(6, "Not Found")
    return f"part{number}"
def nvmlDeviceGetAttributes_v2(part): return Of(multiprocessorCount=16)
def nvmlDeviceGetGpuInstanceId(part): return 7 + int(part[-1])
def nvmlDeviceGetComputeInstanceId(part): return 0
nvmlDeviceGetEnforcedPowerLimit = answer(500000)
nvmlDeviceGetPowerManagementDefaultLimit = answer(700000)
nvmlDeviceGetMaxClockInfo = answer(lambda kind: {1: 1980, 2: 2619}[kind])
nvmlDeviceGetApplicationsClock = answer(lambda kind: {1: 1755, 2: 2619}[kind])
nvmlDeviceGetPersistenceMode = answer(1)
nvmlDeviceGetComputeMode = answer(3)
def nvmlDeviceGetUtilizationRates(handle): return Of(gpu=0)
def nvmlDeviceGetComputeRunningProcesses(handle): return []
"""
)


def write_module(directory: Path, text: str, name: str = "pynvml") -> Path:
    """Write a module into a directory of its own, which is returned for the path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.py").write_text(text)
    return directory


def add_gpu(
    root: Path, minor: int, *, bus: str, uuid: str = "GPU-1", vbios: str = "96.00", device: bool = True
) -> None:
    """Add a GPU to the driver's files below ``root``; without ``device`` as in a container that may not use it."""
    proc = root / "proc/driver/nvidia"
    (proc / "gpus" / bus).mkdir(parents=True)
    (proc / "gpus" / bus / "information").write_text(INFORMATION.format(uuid=uuid, bus=bus, vbios=vbios, minor=minor))
    (proc / "version").write_text(VERSION)
    (root / "dev").mkdir(exist_ok=True)
    if device:
        (root / "dev/nvidiactl").touch()
        (root / "dev" / f"nvidia{minor}").touch()


def write_program(directory: Path, text: str, name: str = "nvidia-smi") -> Path:
    """Write an executable shell script into a directory of its own, which is returned for PATH."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}")
    (directory / name).chmod(0o755)
    return directory
