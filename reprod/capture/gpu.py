"""Owns which GPUs the machine has, first cut: what NVIDIA's driver says under /proc, without starting anything.

CUDA and NVML are never touched: initialising them in or beside a training process breaks its forks. No driver is an
answer (no GPU to use: an empty tuple); a driver that does not tell its devices is not.
"""

import os
import re

from reprod.capture.bounded import read_bounded, reason
from reprod.core.environment import Gpu
from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: Drivers whose devices are not read here yet: an empty answer beside one of these would be a wrong one.
_OTHER_DRIVERS = {"dev/kfd": "AMD", "dev/dxg": "WSL", "dev/nvhost-gpu": "Jetson", "dev/nvgpu": "Jetson"}
_LIMIT = 1 << 16


def read_gpus(root: str = "/") -> tuple[Gpu, ...]:
    """Return the GPUs of the machine whose file system begins at ``root``, in the order of their bus address.

    Raises IncompleteError when a driver is present but does not say what it drives.
    """
    directory = os.path.join(root, "proc/driver/nvidia/gpus")
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return _none(root)
    except OSError as error:
        raise IncompleteError(f"the NVIDIA driver's list of GPUs is not readable: {reason(error)}") from error
    driver = _driver(root)
    return tuple(_read_gpu(os.path.join(directory, name), index, driver) for index, name in enumerate(names))


def _none(root: str) -> tuple[Gpu, ...]:
    """Return an empty tuple if no driver is present, else raise with what is there."""
    if os.path.exists(os.path.join(root, "proc/driver/nvidia")):
        raise IncompleteError("an NVIDIA driver is present but lists no GPUs under /proc")
    for path, kind in _OTHER_DRIVERS.items():
        if os.path.exists(os.path.join(root, path)):
            raise IncompleteError(f"a GPU driver ({kind}) is present that this version cannot ask")
    try:
        devices = [name for name in os.listdir(os.path.join(root, "dev")) if re.fullmatch(r"nvidia\d+", name)]
    except OSError:
        devices = []
    if devices:
        # So in sandboxes that pass the devices through and keep /proc/driver to themselves.
        raise IncompleteError(f"{len(devices)} NVIDIA devices are present but /proc does not describe them")
    return ()


def _read_gpu(directory: str, index: int, driver: str | None) -> Gpu:
    try:
        text = read_bounded(os.path.join(directory, "information"), _LIMIT).decode("utf-8", "backslashreplace")
    except OSError as error:
        raise IncompleteError(f"{plain(directory)} is not readable: {reason(error)}") from error
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    if "Model" not in fields:
        raise IncompleteError(f"{plain(directory)} does not name its model")
    uuid = fields.get("GPU UUID", "")
    return Gpu(
        index=index,
        name=fields["Model"],
        driver=driver,
        # A GPU that nobody has opened yet shows question marks.
        uuid=uuid if uuid and "?" not in uuid else None,
        bus=fields.get("Bus Location") or None,
    )


def _driver(root: str) -> str | None:
    try:
        data = read_bounded(os.path.join(root, "proc/driver/nvidia/version"), _LIMIT)
    except OSError:
        return None
    match = re.search(rb"Kernel Module(?: for \S+)?\s+(\d+[0-9.]*)", data)
    return match.group(1).decode("ascii") if match else None
