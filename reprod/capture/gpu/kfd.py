"""Owns which AMD GPUs a machine has: the topology that the kernel's compute driver (kfd) writes under /sys.

Node 0 and its like are processors; a node with SIMD units is a GPU. A GPU of the host whose device is not in this
container is left out. Memory is bytes, power milliwatts, clocks MHz.
"""

import os
import re

from reprod.capture.bounded import read_bounded, reason
from reprod.core.accelerator import Gpu
from reprod.core.redact import plain
from reprod.errors import IncompleteError

NODES = "sys/class/kfd/kfd/topology/nodes"
_LIMIT = 1 << 16
#: Heap types of HSA (hsakmttypes.h) that lie on the GPU's own memory: public and private frame buffer.
_LOCAL_HEAPS = {1, 2}


def read_kfd(root: str = "/") -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """Return the AMD GPUs in the order of their nodes, and what could not be read of them; both empty where none is.

    Raises IncompleteError when the driver is present but its topology is not readable.
    """
    if not os.path.exists(os.path.join(root, "dev/kfd")):
        return (), ()
    try:
        names = sorted(os.listdir(os.path.join(root, NODES)), key=lambda name: (len(name), name))
    except OSError as error:
        raise IncompleteError(f"an AMD GPU driver is present, but not its list of GPUs: {reason(error)}") from error
    driver = _read(root, "sys/module/amdgpu/version")
    gpus: list[Gpu] = []
    problems: list[str] = []
    for name in names:
        node = f"{NODES}/{name}"
        try:
            properties = _properties(root, f"{node}/properties")
        except PermissionError:
            # So the kernel answers for a device that this container may not use.
            continue
        except OSError as error:
            problems.append(f"AMD node {plain(name)}: {reason(error)}")
            continue
        if properties.get("simd_count") and _is_here(root, properties):
            gpus.append(_read_gpu(root, node, properties, len(gpus), driver))
    return tuple(gpus), tuple(problems)


def _is_here(root: str, properties: dict[str, int]) -> bool:
    minor = properties.get("drm_render_minor")
    return not minor or os.path.exists(os.path.join(root, f"dev/dri/renderD{minor}"))


def _read_gpu(root: str, node: str, properties: dict[str, int], index: int, driver: str | None) -> Gpu:
    device = f"sys/class/drm/renderD{properties.get('drm_render_minor', 0)}/device"
    per_unit = properties.get("simd_per_cu")
    unique = properties.get("unique_id")
    clock = properties.get("max_engine_clk_fcompute")
    return Gpu(
        index=index,
        name=_read(root, f"{device}/product_name") or _read(root, f"{node}/name"),
        driver=driver,
        uuid=f"GPU-{unique:016x}" if unique else None,
        bus=_bus(properties),
        vendor="AMD",
        memory_bytes=_memory(root, node),
        capability=_target(properties.get("gfx_target_version")),
        multiprocessors=properties["simd_count"] // per_unit if per_unit else None,
        vbios=_read(root, f"{device}/vbios_version"),
        power_limit_mw=_power(root, device, "power1_cap"),
        power_default_mw=_power(root, device, "power1_cap_default"),
        sm_clock_max_mhz=clock or None,
    )


def _bus(properties: dict[str, int]) -> str | None:
    """Return the PCI address: ``location_id`` holds bus, device and function in 8, 5 and 3 bits."""
    location = properties.get("location_id")
    if location is None:
        return None
    bus, device, function = location >> 8 & 0xFF, location >> 3 & 0x1F, location & 7
    return f"{properties.get('domain', 0):04x}:{bus:02x}:{device:02x}.{function}"


def _target(version: int | None) -> str | None:
    """Return the compiler's name of the architecture: 90010 is gfx90a, 110501 is gfx1151."""
    if not version:
        return None
    major, minor, step = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{step:x}"


def _memory(root: str, node: str) -> int | None:
    """Return the bytes of the banks that are the GPU's own; None where none is told."""
    try:
        banks = os.listdir(os.path.join(root, node, "mem_banks"))
    except OSError:
        return None
    total = 0
    for bank in banks:
        try:
            properties = _properties(root, f"{node}/mem_banks/{bank}/properties")
        except OSError:
            return None
        if properties.get("heap_type") in _LOCAL_HEAPS:
            total += properties.get("size_in_bytes", 0)
    return total or None


def _power(root: str, device: str, file: str) -> int | None:
    """Return a limit in milliwatts; hwmon writes microwatts."""
    try:
        monitors = sorted(os.listdir(os.path.join(root, device, "hwmon")))
    except OSError:
        return None
    values = (_read(root, f"{device}/hwmon/{name}/{file}") for name in monitors)
    return next((int(value) // 1000 for value in values if value and value.isdecimal()), None)


def _properties(root: str, path: str) -> dict[str, int]:
    text = read_bounded(os.path.join(root, path), _LIMIT)
    return {key.decode(): int(value) for key, value in re.findall(rb"^([a-z0-9_]+) (\d{1,20})$", text, re.MULTILINE)}


def _read(root: str, path: str) -> str | None:
    try:
        return plain(read_bounded(os.path.join(root, path), _LIMIT).decode("utf-8", "backslashreplace").strip()) or None
    except OSError:
        return None
