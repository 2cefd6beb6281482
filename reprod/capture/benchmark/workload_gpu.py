"""Owns the work that a hardware benchmark times on a GPU: the program of a child process, never of one that trains.

Through PyTorch if it can be imported here, and only on a machine whose GPUs are idle, which NVML has to say: training
comes first. Each result is a line of JSON, as in ``reprod.capture.benchmark.workload``. Rates are per second.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

from reprod.capture.benchmark.workload import be_unimportant, repeat, tell

_ROWS = 4096
_COPIED = 256 << 20
#: What the matrices, the copy and PyTorch's own buffers need at most.
_ROOM = 2 << 30
#: A GPU that is busier than this many percent, or has a process that computes on it, is left alone.
_IDLE_PERCENT = 5


def main(given: dict[str, Any]) -> None:
    """Measure the first GPU that this process may use, or write once for all why not."""
    be_unimportant(int(given["seconds"]) + 1)
    tell("gpu", _measure)
    os._exit(0)


def _measure() -> dict[str, Any]:
    _check_idle()
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise ValueError("torch cannot be imported") from error
    if not torch.cuda.is_available():
        raise ValueError("torch finds no GPU that it can use")
    if torch.cuda.mem_get_info()[0] < _ROOM:
        raise ValueError("the GPU has less than 2 GiB of free memory")
    where = f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}"
    for kind in ("float32", "float16"):
        tell(f"gpu_matrix_{kind}", _multiply(torch, kind, where))
    tell("gpu_copy", _copy(torch, where))
    return {"done": True}


def _check_idle() -> None:
    """Raise ValueError unless every GPU is known to be idle."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError as error:
        raise ValueError("whether the GPUs are idle is not known: nvidia-ml-py cannot be imported") from error
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            if pynvml.nvmlDeviceGetComputeRunningProcesses(handle) or busy > _IDLE_PERCENT:
                raise ValueError(f"GPU {index} is in use")
    except pynvml.NVMLError as error:
        raise ValueError(f"whether the GPUs are idle is not known: {error}") from error


def _multiply(torch: Any, kind: str, where: str) -> Callable[[], dict[str, Any]]:
    def measure() -> dict[str, Any]:
        left = torch.rand((_ROWS, _ROWS), device="cuda", dtype=getattr(torch, kind))

        def work() -> None:
            torch.matmul(left, left)
            torch.cuda.synchronize()

        work_done = f"product of two {_ROWS} x {_ROWS} matrices of {kind} on {where}"
        return {"unit": "FLOP/s", "rates": repeat(work, 2 * _ROWS**3, 0.2), "work": work_done}

    return measure


def _copy(torch: Any, where: str) -> Callable[[], dict[str, Any]]:
    def measure() -> dict[str, Any]:
        source = torch.zeros(_COPIED, device="cuda", dtype=torch.uint8)
        target = torch.empty_like(source)

        def work() -> None:
            target.copy_(source)
            torch.cuda.synchronize()

        rates = repeat(work, _COPIED, 0.2)
        return {"unit": "B/s", "rates": rates, "work": f"copy of 256 MiB within {where}, counted once"}

    return measure
