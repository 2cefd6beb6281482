"""Owns what NVIDIA's management library (NVML) is asked: the program of a child, not for a process that trains.

It writes one JSON object: ``found`` (the fields of `Accelerators`), or ``missing`` (``package`` or ``library``), or
``error`` (NVML's own words). A value that NVML does not give for a GPU is null, and if it was refused rather than not
supported, a problem. CUDA is not touched. Power is milliwatts, memory bytes, clocks MHz.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from reprod.core.accelerator import count_multiprocessors, normalise_bus

#: NVML's codes (nvml.h): not supported here, no permission, nothing there, no library, no such function.
_NOT_SUPPORTED, _NO_PERMISSION, _NOT_FOUND, _NO_LIBRARY, _NO_FUNCTION = 3, 4, 6, 12, 13
#: nvmlClockType_t: streaming multiprocessors, memory.
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}


def main(given: dict[str, Any]) -> None:
    """Write the answer to standard output and end at once: shutting NVML down may hang and gains nothing."""
    signal.alarm(int(given["seconds"]) + 1)  # should the parent be gone before it can kill this one
    sys.stdout.write(json.dumps(read()))
    sys.stdout.flush()
    os._exit(0)


def read() -> dict[str, Any]:
    """Return what NVML says of this machine, in the form that the module describes."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return {"missing": "package"}
    except Exception as error:  # noqa: BLE001 - whatever the path holds under that name
        return {"error": f"pynvml cannot be imported: {type(error).__name__}"}
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        return {"missing": "library"} if _code(error) == _NO_LIBRARY else {"error": str(error)}
    asked = _Asked(pynvml)
    version = asked("CUDA version", "nvmlSystemGetCudaDriverVersion_v2")
    driver = _text(asked("driver version", "nvmlSystemGetDriverVersion"))
    gpus = [gpu for index in range(count) if (gpu := _read_gpu(asked, index, driver)) is not None]
    return {
        "found": {
            "gpus": gpus,
            "how": "NVML",
            "cuda_driver_max": f"{version // 1000}.{version % 1000 // 10}" if version else None,
            "problems": asked.problems,
        }
    }


class _Asked:
    """Calls NVML's functions by name: what is not supported is None, what is refused None and a problem."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.problems: list[str] = []
        self.prefix = ""

    def __call__(self, what: str, function: str, *arguments: object) -> Any:
        call: Callable[..., Any] | None = getattr(self.library, function, None)
        if call is None:  # an older nvidia-ml-py
            return None
        try:
            return call(*arguments)
        except self.library.NVMLError as error:
            if _code(error) not in {_NOT_SUPPORTED, _NOT_FOUND, _NO_FUNCTION}:
                self.problems.append(f"{self.prefix}{what}: {error}")
            return None
        except (UnicodeDecodeError, TypeError, AttributeError) as error:
            self.problems.append(f"{self.prefix}{what}: {type(error).__name__}")
            return None


def _read_gpu(asked: _Asked, index: int, driver: str | None) -> dict[str, Any] | None:
    """Return the fields of one GPU; None for one that this process may not use; only its index for one that is lost."""
    asked.prefix = f"GPU {index}: "
    try:
        handle = asked.library.nvmlDeviceGetHandleByIndex(index)
    except asked.library.NVMLError as error:
        asked.problems.append(f"GPU {index} does not answer: {error}")
        return None if _code(error) == _NO_PERMISSION else {"index": index, "name": None, "driver": driver}
    capability = asked("compute capability", "nvmlDeviceGetCudaComputeCapability", handle)
    capability = f"{capability[0]}.{capability[1]}" if capability else None
    mig = asked("MIG mode", "nvmlDeviceGetMigMode", handle)
    pci = asked("bus address", "nvmlDeviceGetPciInfo", handle)
    memory = asked("memory", "nvmlDeviceGetMemoryInfo", handle)
    ecc = asked("ECC mode", "nvmlDeviceGetEccMode", handle)
    cores = asked("cores", "nvmlDeviceGetNumGpuCores", handle)
    return {
        "index": index,
        "name": _text(asked("name", "nvmlDeviceGetName", handle)),
        "driver": driver,
        "uuid": _text(asked("UUID", "nvmlDeviceGetUUID", handle)),
        "bus": normalise_bus(_text(pci.busId)) if pci else None,
        "memory_bytes": memory.total if memory else None,
        "capability": capability,
        "multiprocessors": count_multiprocessors(cores, capability),
        "vbios": _text(asked("VBIOS version", "nvmlDeviceGetVbiosVersion", handle)),
        "ecc": bool(ecc[0]) if ecc else None,
        "mig": bool(mig[0]) if mig else None,
        "mig_instances": _read_instances(asked, handle) if mig and mig[0] else [],
        "power_limit_mw": asked("power limit", "nvmlDeviceGetEnforcedPowerLimit", handle),
        "power_default_mw": asked("default power limit", "nvmlDeviceGetPowerManagementDefaultLimit", handle),
        "sm_clock_max_mhz": asked("SM clock", "nvmlDeviceGetMaxClockInfo", handle, _CLOCK_SM),
        "memory_clock_max_mhz": asked("memory clock", "nvmlDeviceGetMaxClockInfo", handle, _CLOCK_MEMORY),
        "sm_clock_set_mhz": asked("set SM clock", "nvmlDeviceGetApplicationsClock", handle, _CLOCK_SM),
        "memory_clock_set_mhz": asked("set memory clock", "nvmlDeviceGetApplicationsClock", handle, _CLOCK_MEMORY),
        "persistence": _flag(asked("persistence mode", "nvmlDeviceGetPersistenceMode", handle)),
        "compute_mode": _COMPUTE_MODES.get(asked("compute mode", "nvmlDeviceGetComputeMode", handle)),
    }


def _read_instances(asked: _Asked, handle: object) -> list[dict[str, Any]]:
    """Return the MIG instances of a GPU; their numbers have gaps."""
    found = []
    for number in range(asked("MIG instances", "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        part = asked(f"MIG instance {number}", "nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
        if part is None:
            continue
        attributes = asked("MIG attributes", "nvmlDeviceGetAttributes_v2", part)
        memory = asked("MIG memory", "nvmlDeviceGetMemoryInfo", part)
        found.append(
            {
                "uuid": _text(asked("MIG UUID", "nvmlDeviceGetUUID", part)),
                "name": _text(asked("MIG name", "nvmlDeviceGetName", part)),
                "gpu_instance": asked("GPU instance", "nvmlDeviceGetGpuInstanceId", part),
                "compute_instance": asked("compute instance", "nvmlDeviceGetComputeInstanceId", part),
                "memory_bytes": memory.total if memory else None,
                "multiprocessors": attributes.multiprocessorCount if attributes else None,
            }
        )
    return found


def _code(error: Exception) -> int | None:
    return getattr(error, "value", None)


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _text(value: str | bytes | None) -> str | None:
    """Return text; bindings before version 11.510 gave bytes."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value or None
