"""Owns how numeric settings are read: variables, the BLAS and OpenMP libraries that are mapped, PyTorch's switches.

In the process itself, and only of what is loaded already: nothing is imported, and nothing that starts CUDA is called.
A library's own getters are called if ``ctypes`` is loaded too (numpy loads it), through a handle that cannot load
anything. From outside, file names and the text files beside them say what they can. About 3 ms.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from reprod.capture.gpu.loaded_libraries import loaded_gpu_libraries
from reprod.capture.imports.mapped import MappedFiles, mapped_files
from reprod.capture.numerics.blas import identify, interrogate
from reprod.core.numerics import Numerics, TorchSettings, hash_seed_of, numeric_variables
from reprod.core.plain import plain
from reprod.errors import IncompleteError

ENVIRON_BYTES = 1 << 21

_SHORT = re.compile(r"[\w.+:-]{1,64}\Z")


def read_numerics(mapped: MappedFiles | None = None, *, proc: str = "/proc") -> Numerics:
    """Return the settings of the calling process as they are now; ``mapped`` are its mapped files, if read already."""
    problems: list[str] = []
    libraries = of_gpus = None
    try:
        mapped = mapped_files(proc=proc) if mapped is None else mapped
        libraries = tuple(interrogate(library) for library in identify(mapped))
        of_gpus = loaded_gpu_libraries(mapped)
    except IncompleteError as error:
        problems.append(error.message)
    return Numerics(
        variables=_plain(numeric_variables(os.environ)),
        hash_seed=_own_hash_seed(proc, problems),
        libraries=libraries,
        torch=read_torch(),
        gpu_libraries=of_gpus,
        problems=tuple(map(plain, problems)),
    )


def read_process_numerics(
    pid: int,
    environ: Mapping[str, str],
    *,
    started: Mapping[str, str] | None = None,
    is_isolated: bool = False,
    proc: str = "/proc",
) -> Numerics:
    """Return what files tell of another process; ``environ`` is the one that it started with, empty if not readable.

    ``started`` is that one, if ``environ`` is what became of it. ``is_isolated``: its interpreter was told to ignore
    ``PYTHON*`` variables (``-E``, ``-I``). Raises IncompleteError where its mapped files are not readable.
    """
    mapped = mapped_files(pid, proc)
    problems = ("threads in use and PyTorch's switches: only the process itself could tell",)
    # The memory of a start environment may be reused for a process title; then nothing is left of it.
    first = environ if started is None else started
    seed = hash_seed_of(first.get("PYTHONHASHSEED"), is_ignored=is_isolated) if first else None
    return Numerics(
        variables=_plain(numeric_variables(environ)),
        hash_seed=seed,
        libraries=tuple(identify(mapped)),
        gpu_libraries=loaded_gpu_libraries(mapped),
        problems=problems,
    )


def read_torch() -> TorchSettings | None:
    """Return PyTorch's switches if it is loaded; what it does not answer is None. Starts neither CUDA nor an import."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    own = _Namespace(torch)
    cudnn, cuda = sys.modules.get("torch.backends.cudnn"), sys.modules.get("torch.backends.cuda")
    matmul = _get(cuda, "matmul")
    return TorchSettings(
        version=_text(own.value("__version__")),
        threads=_number(own.call("get_num_threads")),
        interop_threads=_number(own.call("get_num_interop_threads")),
        cpu_capability=_text(_Namespace(sys.modules.get("torch.backends.cpu")).call("get_cpu_capability")),
        default_dtype=_text(own.call("get_default_dtype")),
        deterministic=_switch(own.call("are_deterministic_algorithms_enabled")),
        deterministic_warn_only=_switch(own.call("is_deterministic_algorithms_warn_only_enabled")),
        cudnn_enabled=_switch(_get(cudnn, "enabled")),
        cudnn_deterministic=_switch(_get(cudnn, "deterministic")),
        cudnn_benchmark=_switch(_get(cudnn, "benchmark")),
        cudnn_allow_tf32=_switch(_get(cudnn, "allow_tf32")),
        cuda_matmul_allow_tf32=_switch(_get(matmul, "allow_tf32")),
        cudnn_conv=_text(_get(_get(cudnn, "conv"), "fp32_precision")),
        cuda_matmul=_text(_get(matmul, "fp32_precision")),
        matmul_precision=_text(own.call("get_float32_matmul_precision")),
    )


def _own_hash_seed(proc: str, problems: list[str]) -> str | None:
    """Return what seeded the hashes: the variable as it was at the start, since a later change has no effect."""
    if sys.flags.ignore_environment:
        return "random"
    if not sys.flags.hash_randomization:
        return "0"
    try:
        with open(f"{proc}/self/environ", "rb") as file:
            parts = file.read(ENVIRON_BYTES).split(b"\0")
    except OSError as error:
        problems.append(f"hash seed: the environment of the start is not readable: {error.strerror or error}")
        return None
    value = next((os.fsdecode(part[15:]) for part in parts if part.startswith(b"PYTHONHASHSEED=")), None)
    if value is None and os.environ.get("PYTHONHASHSEED", "random") not in {"", "random"}:
        # Set too late, or set in time and its memory reused for a process title: these cannot be told apart.
        problems.append("hash seed: PYTHONHASHSEED is set, but not in the environment of the start")
        return None
    return hash_seed_of(value)


class _Namespace:
    """A module's own names, looked up without its ``__getattr__``, which may import."""

    def __init__(self, module: object) -> None:
        try:
            self._names = object.__getattribute__(module, "__dict__")
        except Exception:  # noqa: BLE001 - whatever stands in sys.modules, it must not fail the training
            self._names = {}

    def value(self, name: str) -> Any:
        return self._names.get(name)

    def call(self, name: str) -> Any:
        function: Callable[[], Any] | None = self.value(name)
        try:
            return function() if callable(function) else None
        except Exception:  # noqa: BLE001 - a switch that cannot be read is unknown, whatever the reason
            return None


def _get(holder: object, name: str) -> Any:
    """Return an attribute of one of PyTorch's switch objects, which are properties; None if it does not answer."""
    try:
        return getattr(holder, name, None) if holder is not None else None
    except Exception:  # noqa: BLE001 - the older TF32 switches raise in a program that used the newer ones
        return None


def _switch(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 31 else None


def _text(value: object) -> str | None:
    # torch.__version__ is a str of its own class, a dtype an object that is its name.
    text = None if value is None else str(value)
    return plain(text) if text is not None and _SHORT.match(text) else None


def _plain(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: plain(value) for name, value in variables.items()}
