"""Owns how ``nvidia-smi`` is asked and read: where NVML's library is installed, but not the package that calls it.

The program belongs to the driver and is taken from the absolute directories of PATH, else from where drivers install
it. Its CSV writes ``[N/A]`` and the like for what a GPU does not have. Times are seconds.
"""

import csv
import os
import re
import shutil
import time

from reprod.capture.child import TIMEOUT, run_command
from reprod.core.accelerator import Accelerators, Gpu, normalise_bus
from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: Where drivers, container runtimes and WSL put it when PATH is a service's short one.
PLACES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib", "/opt/bin")

_FIELDS = (
    *("index", "uuid", "name", "pci.bus_id", "driver_version", "memory.total", "vbios_version", "compute_cap"),
    *("ecc.mode.current", "mig.mode.current", "enforced.power.limit", "power.default_limit"),
    *("clocks.max.sm", "clocks.max.memory", "clocks.applications.graphics", "clocks.applications.memory"),
    *("persistence_mode", "compute_mode"),
)
#: A program that does not know one field refuses the whole question: how often one is dropped and it is asked again.
_MAX_REFUSALS = 6
_REFUSED = re.compile(r'Field "([a-z_.]+)" is not a valid field')
#: Newer drivers write "CUDA UMD Version".
_CUDA = re.compile(rb"CUDA(?: [A-Z]+)? Version\s*:\s*(\d+\.\d+)")
_MODES = {"Default": "default", "Exclusive_Process": "exclusive process", "Prohibited": "prohibited"}
_MIB = 1 << 20


def find_program() -> str | None:
    """Return where ``nvidia-smi`` is; None if nowhere."""
    path = [entry for entry in os.environ.get("PATH", "").split(":") if os.path.isabs(entry)]
    return shutil.which("nvidia-smi", path=":".join([*path, *PLACES]))


def ask_program(program: str, seconds: float) -> Accelerators:
    """Return what ``nvidia-smi`` says within ``seconds``; raises IncompleteError, with ``TIMEOUT`` when it hangs."""
    deadline = time.monotonic() + seconds
    fields = list(_FIELDS)
    for _ in range(_MAX_REFUSALS):
        text = _run([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], deadline)
        refused = _REFUSED.search(text)
        if refused is None or refused.group(1) not in fields:
            break
        fields.remove(refused.group(1))
    rows = [dict(zip(fields, row, strict=True)) for row in _rows(text) if len(row) == len(fields)]
    if not rows:
        raise IncompleteError(f"nvidia-smi: {plain(' '.join(text.split())[:200]) or 'no answer'}")
    gpus = tuple(_gpu(row) for row in rows)
    missing = [field for field in _FIELDS if field not in fields]
    problems = [f"this nvidia-smi does not know {', '.join(missing)}"] if missing else []
    problems += [f"GPU {gpu.index}: only NVML tells its MIG instances" for gpu in gpus if gpu.mig]
    try:
        match = _CUDA.search(_run([program], deadline).encode())
    except IncompleteError:  # the GPUs are known; this version is one field
        match = None
    return Accelerators(
        gpus=gpus,
        how="nvidia-smi",
        cuda_driver_max=match.group(1).decode("ascii") if match else None,
        problems=tuple(problems),
    )


def _run(command: list[str], deadline: float) -> str:
    left = deadline - time.monotonic()
    outcome = run_command(command, purpose="nvidia-smi", seconds=left) if left > 0 else None
    if outcome is None or not outcome.ended:
        raise IncompleteError(f"{TIMEOUT}nvidia-smi did not answer")
    return outcome.output.decode("utf-8", "backslashreplace")


def _rows(text: str) -> list[list[str]]:
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [row for row in rows if row and row[0].isdecimal()]


def _gpu(row: dict[str, str]) -> Gpu:
    values = {key: value.strip() for key, value in row.items() if not _is_absent(value)}
    memory, limit, default = (
        _number(values.get(key)) for key in ("memory.total", "enforced.power.limit", "power.default_limit")
    )
    return Gpu(
        index=int(values["index"]),
        name=values.get("name"),
        driver=values.get("driver_version"),
        uuid=values.get("uuid"),
        bus=normalise_bus(values.get("pci.bus_id")),
        memory_bytes=None if memory is None else int(memory) * _MIB,
        capability=values.get("compute_cap"),
        vbios=values.get("vbios_version"),
        ecc=_enabled(values.get("ecc.mode.current")),
        mig=_enabled(values.get("mig.mode.current")),
        power_limit_mw=None if limit is None else round(limit * 1000),
        power_default_mw=None if default is None else round(default * 1000),
        sm_clock_max_mhz=_whole(values.get("clocks.max.sm")),
        memory_clock_max_mhz=_whole(values.get("clocks.max.memory")),
        sm_clock_set_mhz=_whole(values.get("clocks.applications.graphics")),
        memory_clock_set_mhz=_whole(values.get("clocks.applications.memory")),
        persistence=_enabled(values.get("persistence_mode")),
        compute_mode=_MODES.get(values.get("compute_mode", "")),
    )


def _is_absent(value: str) -> bool:
    return value.strip().startswith("[") or value.strip() in {"", "N/A"}


def _enabled(value: str | None) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(value or "")


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _whole(value: str | None) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
