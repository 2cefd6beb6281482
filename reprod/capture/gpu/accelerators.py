"""Owns which accelerators a machine has, and whom it is asked: NVML in a child, else ``nvidia-smi``, else /proc.

CUDA is never initialised and NVML never loaded here: either in a process that trains breaks its forks. A child is
started only where a driver is present. A driver that hangs is a ``timeout`` within ``LIMIT_S`` seconds and nothing
else is asked then, because its files in /proc hang likewise. No driver is an answer (no GPU); a driver that does not
tell what it drives is not.
"""

import os
import re
import time
from dataclasses import dataclass, replace

from reprod.capture.bounded import read_bounded, reason
from reprod.capture.child import REAP_S, TIMEOUT, run_module
from reprod.capture.gpu.kfd import read_kfd
from reprod.capture.gpu.nvidia_smi import ask_program, find_program
from reprod.core.accelerator import Accelerators, Gpu, normalise_bus
from reprod.core.described import described
from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: All children together, the wait for a killed one included.
LIMIT_S = 5.0
_LIMIT_BYTES = 1 << 16

#: Drivers of GPUs that this version cannot ask, by a path that only they make.
_OTHER_GPUS = {
    "dev/dxg": "a GPU of Windows (WSL)",
    "dev/nvhost-gpu": "a GPU of a Jetson board",
    "dev/nvgpu": "a GPU of a Jetson board",
}
#: Accelerators that are no GPUs, by device and, where it is told, driver.
_OTHERS = (
    (re.compile(r"neuron\d+\Z"), "an AWS Neuron accelerator"),
    (re.compile(r"hl\d+\Z"), "an Intel Gaudi accelerator"),
    (re.compile(r"accel\d+\Z"), "a Google TPU"),
)
_ACCEL_DRIVERS = {"habanalabs": "an Intel Gaudi accelerator", "qaic": "a Qualcomm accelerator"}
#: An Intel GPU elsewhere is a card; here it is part of the processor, and no training counts on it.
_INTEL_BUILT_IN = "0000:00:02.0"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the child of ``capture.nvml`` writes."""

    found: Accelerators | None = None
    missing: str | None = None
    error: str | None = None


def read_accelerators(root: str = "/", *, seconds: float = LIMIT_S) -> Accelerators:
    """Return the accelerators of the machine whose file system begins at ``root``, within ``seconds``.

    Raises IncompleteError when a driver is present but does not say what it drives: ``timeout: ...`` when it hangs.
    """
    present = has_nvidia(root)
    nvidia = _read_nvidia(root, seconds) if present else Accelerators()
    amd, amd_problems = read_kfd(root)
    gpus = nvidia.gpus + amd
    others = _find_others(root)
    unknown = [f"{kind} (/{path})" for path, kind in _OTHER_GPUS.items() if os.path.exists(os.path.join(root, path))]
    if not gpus and (unknown or others):
        raise IncompleteError(f"{', '.join([*unknown, *others])} is present, which this version cannot ask")
    asked = [*([nvidia.how] if present else []), *(["kfd"] if amd else [])]
    return Accelerators(
        gpus=gpus,
        how=", ".join(asked) or "no driver",
        cuda_driver_max=nvidia.cuda_driver_max,
        others=others,
        problems=tuple(plain(problem) for problem in (*nvidia.problems, *amd_problems)),
    )


def has_nvidia(root: str = "/") -> bool:
    """Return whether an NVIDIA driver, or a device of one, is present: only then is a child worth its start."""
    paths = ("dev/nvidiactl", "proc/driver/nvidia", "usr/lib/wsl/lib/libnvidia-ml.so.1")
    return any(os.path.exists(os.path.join(root, path)) for path in paths) or bool(_devices(root))


def _read_nvidia(root: str, seconds: float) -> Accelerators:
    deadline = time.monotonic() + seconds - REAP_S
    try:
        answer = _ask_nvml(seconds - REAP_S)
    except IncompleteError as error:
        if error.message.startswith(TIMEOUT):
            raise
        answer = _Answer(missing="package")
    if answer.found is not None:
        return answer.found
    why = {"package": "nvidia-ml-py is not installed", "library": "libnvidia-ml.so.1 is not installed"}
    problem = answer.error or why.get(answer.missing or "", "NVML gave no answer")
    program = find_program() if answer.missing == "package" else None
    if program is not None:
        try:
            return ask_program(program, deadline - time.monotonic())
        except IncompleteError as error:
            if error.message.startswith(TIMEOUT):
                raise
            problem = error.message
    return _read_proc(root, f"only /proc was read: {problem}")


def _ask_nvml(seconds: float) -> _Answer:
    import msgspec

    outcome = run_module("reprod.capture.gpu.nvml", {"seconds": seconds}, purpose="NVML", seconds=seconds)
    if not outcome.ended:
        raise IncompleteError(
            f"{TIMEOUT}NVML did not answer within {seconds:g} s",
            hint="nvidia-smi probably hangs too: dmesg says why (Xid), and often only a reboot helps",
        )
    try:
        return msgspec.json.decode(outcome.output, type=described(_Answer))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Answer(error="NVML's process ended without an answer")


def _devices(root: str) -> set[int]:
    """Return the numbers of the NVIDIA devices that are here to be opened."""
    try:
        names = os.listdir(os.path.join(root, "dev"))
    except OSError:
        return set()
    return {int(match.group(1)) for name in names if (match := re.fullmatch(r"nvidia(\d{1,4})", name))}


def _read_proc(root: str, problem: str) -> Accelerators:
    """Return what the driver says under /proc: names and addresses of the GPUs, little more."""
    directory = os.path.join(root, "proc/driver/nvidia/gpus")
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise IncompleteError(f"NVIDIA devices are present but /proc does not describe them; {problem}") from error
    driver = _driver_version(root)
    listed = [_read_information(os.path.join(directory, name), driver) for name in names]
    devices = _devices(root)
    # In a container /proc lists every GPU of the host; only those with a device can be used in it.
    usable = [gpu for minor, gpu in listed if not devices or minor is None or minor in devices]
    if not usable or (not devices and not os.path.exists(os.path.join(root, "dev/nvidiactl"))):
        raise IncompleteError(
            f"the NVIDIA driver lists {len(listed)} GPUs, but there are no devices here to use them; {problem}"
        )
    gpus = tuple(replace(gpu, index=index) for index, gpu in enumerate(usable))
    return Accelerators(gpus=gpus, how="/proc/driver/nvidia", problems=(problem,))


def _read_information(directory: str, driver: str | None) -> tuple[int | None, Gpu]:
    """Return the device number and the GPU of one directory of the driver's."""
    try:
        text = read_bounded(os.path.join(directory, "information"), _LIMIT_BYTES).decode("utf-8", "backslashreplace")
    except OSError as error:
        raise IncompleteError(f"{plain(directory)} is not readable: {reason(error)}") from error
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): plain(value.strip()) for key, _, value in pairs}
    if not fields.get("Model"):
        raise IncompleteError(f"{plain(directory)} does not name its model")
    minor = fields.get("Device Minor", "")
    gpu = Gpu(
        index=0,
        name=fields["Model"],
        driver=driver,
        uuid=_told(fields.get("GPU UUID")),
        bus=normalise_bus(fields.get("Bus Location")),
        vbios=_told(fields.get("Video BIOS")),
    )
    return int(minor) if minor.isdecimal() else None, gpu


def _told(value: str | None) -> str | None:
    """Return the value unless it is question marks: so the driver writes what it has not yet asked the GPU for."""
    return value if value and "?" not in value else None


def _driver_version(root: str) -> str | None:
    try:
        data = read_bounded(os.path.join(root, "proc/driver/nvidia/version"), _LIMIT_BYTES)
    except OSError:
        return None
    match = re.search(rb"Kernel Module(?: for \S+)?\s+(\d+[0-9.]*)", data)
    return match.group(1).decode("ascii") if match else None


def _find_others(root: str) -> tuple[str, ...]:
    """Return the accelerators for training that have a driver here and that nothing above describes."""
    found = []
    for name in _names(root, "dev"):
        found += [f"{kind} (/dev/{name})" for pattern, kind in _OTHERS if pattern.match(name)]
    for name in _names(root, "sys/class/accel"):
        link = os.path.join(root, "sys/class/accel", name, "device/driver")
        kind = _ACCEL_DRIVERS.get(os.path.basename(os.path.realpath(link)))
        found += [f"{kind} (/dev/accel/{name})"] if kind else []
    for name in _names(root, "sys/class/drm"):
        device = os.path.realpath(os.path.join(root, "sys/class/drm", name, "device"))
        if name.startswith("renderD") and os.path.basename(device) != _INTEL_BUILT_IN and _is_intel(device):
            found.append(f"an Intel GPU ({os.path.basename(device)})")
    return tuple(found)


def _is_intel(device: str) -> bool:
    try:
        return read_bounded(os.path.join(device, "vendor"), 64).strip() == b"0x8086"
    except OSError:
        return False


def _names(root: str, directory: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(root, directory)))
    except OSError:
        return []
