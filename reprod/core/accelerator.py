"""Owns what a machine's accelerators are, and the three CUDA versions that are never mixed.

What the *driver* supports, what the *runtime* in the environment is, and which *toolkit* lies on the machine differ on
most machines; each has a field of its own. What a driver does not tell is None. Memory is bytes, power milliwatts,
clocks MHz. Nothing here reads a file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: 32-bit arithmetic units per multiprocessor by compute capability, as in the helper_cuda.h of NVIDIA's CUDA samples.
#: NVML tells the number of units, and that of multiprocessors only for MIG instances.
_UNITS = {
    **dict.fromkeys(("3.0", "3.2", "3.5", "3.7"), 192),
    **dict.fromkeys(("5.0", "5.2", "5.3", "6.1", "6.2", "8.6", "8.7", "8.9", "9.0"), 128),
    **dict.fromkeys(("10.0", "10.1", "10.3", "11.0", "12.0", "12.1"), 128),
    **dict.fromkeys(("6.0", "7.0", "7.2", "7.5", "8.0"), 64),
}

_BUS = re.compile(r"(?:([0-9A-Fa-f]{4,8}):)?([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-7])\Z")


@dataclass(frozen=True, slots=True)
class MigInstance:
    """One part of a GPU in MIG mode; a process sees it as a device of its own. Memory in bytes."""

    uuid: str | None = None
    name: str | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None
    memory_bytes: int | None = None
    multiprocessors: int | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that a driver reports.

    ``index`` is the driver's own order, by bus address, not CUDA's. ``driver`` is the version of the kernel's driver,
    ``bus`` the PCI address as sysfs writes it, ``capability`` ``9.0`` (NVIDIA) or ``gfx90a`` (AMD), ``multiprocessors``
    the SMs or compute units. ``power_limit_mw`` is the limit in force, ``*_max_mhz`` what the GPU can do and
    ``*_set_mhz`` the application clocks that somebody set.
    """

    index: int
    name: str | None
    driver: str | None = None
    uuid: str | None = None
    bus: str | None = None
    vendor: str = "NVIDIA"
    memory_bytes: int | None = None
    capability: str | None = None
    multiprocessors: int | None = None
    vbios: str | None = None
    ecc: bool | None = None
    mig: bool | None = None
    mig_instances: tuple[MigInstance, ...] = ()
    power_limit_mw: int | None = None
    power_default_mw: int | None = None
    sm_clock_max_mhz: int | None = None
    memory_clock_max_mhz: int | None = None
    sm_clock_set_mhz: int | None = None
    memory_clock_set_mhz: int | None = None
    persistence: bool | None = None
    compute_mode: str | None = None


@dataclass(frozen=True, slots=True)
class Accelerators:
    """The GPUs of a machine. None is an answer: ``gpus`` is empty and ``how`` says ``no driver``.

    ``how`` is what told it (``NVML``, ``nvidia-smi``, ``/proc/driver/nvidia``, ``kfd``, joined by ``, ``);
    ``cuda_driver_max`` the newest CUDA that the driver supports (``12.4``); ``others`` are accelerators that are here
    and are not described; ``problems`` says which fields are None for want of what.
    """

    gpus: tuple[Gpu, ...] = ()
    how: str = "no driver"
    cuda_driver_max: str | None = None
    others: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Library:
    """One piece of evidence for the version of a GPU library.

    ``origin`` says which kind: ``distribution`` (``source`` is ``name version`` of the package), ``build`` (what a
    package was built for: its local version or its own version file) or ``loaded`` (``source`` is the mapped file, and
    ``version`` as much as the file's name tells: ``9`` or ``9.1.0``; None where it tells none).
    """

    name: str
    version: str | None
    origin: str
    source: str


@dataclass(frozen=True, slots=True)
class Cuda:
    """The CUDA versions of an environment; all None where there is no CUDA, which is no error.

    ``driver_max`` is what the driver supports, ``runtime`` what the installed packages bring or were built for,
    ``toolkit`` what ``toolkit_path`` holds for compiling. ``cudnn``, ``nccl`` and ``cublas`` are those of the packages.
    A value on which the evidence in ``libraries`` disagrees is None, and ``problems`` says so.
    """

    driver_max: str | None = None
    runtime: str | None = None
    toolkit: str | None = None
    toolkit_path: str | None = None
    cudnn: str | None = None
    nccl: str | None = None
    cublas: str | None = None
    libraries: tuple[Library, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rocm:
    """AMD's stack likewise: the kernel's ``driver``, the HIP ``runtime`` of the packages, the installed ``toolkit``."""

    driver: str | None = None
    runtime: str | None = None
    toolkit: str | None = None
    toolkit_path: str | None = None
    libraries: tuple[Library, ...] = ()
    problems: tuple[str, ...] = ()


def count_multiprocessors(units: int | None, capability: str | None) -> int | None:
    """Return the multiprocessors of a GPU with so many arithmetic ``units``; None where the ratio is not known."""
    each = _UNITS.get(capability or "")
    return units // each if units and each and units % each == 0 else None


def normalise_bus(address: str | None) -> str | None:
    """Return a PCI address as sysfs writes it: ``00000000:0A:00.0`` becomes ``0000:0a:00.0``; None if it is none."""
    match = _BUS.match(address or "")
    if match is None:
        return None
    domain, bus, device, function = match.groups(default="0")
    return f"{int(domain, 16):04x}:{bus.lower()}:{device.lower()}.{function}"


def agree(versions: Sequence[str]) -> str | None:
    """Return the most exact of ``versions`` if each other one is its beginning (``12``, ``12.1``, ``12.1.105``)."""
    longest = max(versions, key=lambda version: version.count("."), default=None)
    if longest is None or any(not f"{longest}.".startswith(f"{version}.") for version in versions):
        return None
    return longest


def visible_indices(gpus: Sequence[Gpu], variables: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return the ``index`` of each NVIDIA GPU that CUDA shows to a process with ``variables``, in CUDA's order.

    None where there is none, and where numbers are used and CUDA's order is not that of the bus: it sorts different
    models by speed.
    """
    mine = [gpu for gpu in gpus if gpu.vendor == "NVIDIA"]
    if not mine:
        return None
    value = variables.get("CUDA_VISIBLE_DEVICES")
    by_bus = variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({gpu.name for gpu in mine}) < 2
    if value is None:
        return tuple(gpu.index for gpu in mine)
    found: list[int] = []
    for item in (part.strip() for part in value.split(",")):
        if item.isdecimal() and not by_bus:
            return None
        chosen = _select(mine, item)
        # CUDA ignores the rest of the list from the first name that is no device on.
        if chosen is None or chosen in found:
            break
        found.append(chosen)
    return tuple(found)


def _select(gpus: Sequence[Gpu], item: str) -> int | None:
    """Return the GPU that one name of CUDA_VISIBLE_DEVICES means: a number, or a UUID that may be shortened."""
    if item.isdecimal():
        return gpus[int(item)].index if int(item) < len(gpus) else None
    if item.startswith("MIG-"):
        matching = [gpu for gpu in gpus if any(part.uuid == item for part in gpu.mig_instances)]
    elif item.startswith("GPU-"):
        matching = [gpu for gpu in gpus if gpu.uuid is not None and gpu.uuid.startswith(item)]
    else:
        matching = []
    return matching[0].index if len(matching) == 1 else None
