"""Owns what decides how numbers are computed, beside hardware and versions: libraries, threads, determinism, seeds.

Settings (`Numerics`) are the same in two processes that were set up alike; the state of random number generators
(`RandomState`) is one moment of one process. What was not asked is None: a module that is not loaded is not asked.
Nothing here reads a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reprod.core.accelerator import Library

#: Names that set threads or kernels of BLAS and OpenMP. Fixed lists: a prefix may meet what holds a secret.
_THREADS = """
    OMP_NUM_THREADS OMP_DYNAMIC OMP_MAX_ACTIVE_LEVELS OMP_PLACES OMP_PROC_BIND OMP_SCHEDULE OMP_THREAD_LIMIT
    OMP_WAIT_POLICY GOMP_CPU_AFFINITY KMP_AFFINITY KMP_BLOCKTIME KMP_DETERMINISTIC_REDUCTION
    MKL_NUM_THREADS MKL_DOMAIN_NUM_THREADS MKL_DYNAMIC MKL_THREADING_LAYER MKL_INTERFACE_LAYER MKL_ENABLE_INSTRUCTIONS
    MKL_DEBUG_CPU_TYPE OPENBLAS_NUM_THREADS GOTO_NUM_THREADS OPENBLAS_CORETYPE OPENBLAS_MAIN_FREE
    BLIS_NUM_THREADS BLIS_ARCH_TYPE VECLIB_MAXIMUM_THREADS FLEXIBLAS NUMEXPR_NUM_THREADS NUMEXPR_MAX_THREADS
    NUMBA_NUM_THREADS NUMBA_THREADING_LAYER POLARS_MAX_THREADS RAYON_NUM_THREADS LOKY_MAX_CPU_COUNT
    TF_NUM_INTEROP_THREADS TF_NUM_INTRAOP_THREADS NPY_DISABLE_CPU_FEATURES NPY_ENABLE_CPU_FEATURES
    ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA ONEDNN_DEFAULT_FPMATH_MODE
"""
THREAD_VARIABLES = tuple(_THREADS.split())

#: Names that decide whether the same program gives the same numbers.
_DETERMINISM = """
    PYTHONHASHSEED CUBLAS_WORKSPACE_CONFIG NVIDIA_TF32_OVERRIDE CUDA_LAUNCH_BLOCKING MKL_CBWR
    TORCH_ALLOW_TF32_CUBLAS_OVERRIDE TORCH_BLAS_PREFER_CUBLASLT TORCHINDUCTOR_DETERMINISTIC
    TF_DETERMINISTIC_OPS TF_CUDNN_DETERMINISTIC TF_CUDNN_USE_AUTOTUNE TF_ENABLE_ONEDNN_OPTS
    TF_ENABLE_CUDNN_TENSOR_OP_MATH_FP32 XLA_FLAGS JAX_ENABLE_X64 JAX_DEFAULT_MATMUL_PRECISION JAX_THREEFRY_PARTITIONABLE
    NCCL_ALGO NCCL_PROTO FLASH_ATTENTION_DETERMINISTIC PL_GLOBAL_SEED
"""
DETERMINISM_VARIABLES = tuple(_DETERMINISM.split())


@dataclass(frozen=True, slots=True)
class NumericLibrary:
    """A loaded library that computes or that runs threads for those that do.

    ``name`` is ``OpenBLAS``, ``MKL``, ``libgomp``, ...; ``torch`` stands for the BLAS that is linked into PyTorch, with
    PyTorch's version. ``threads``, ``kernel`` (the CPU type whose routines OpenBLAS chose) and ``build`` are what the
    library itself says, in its own process only.
    """

    kind: Literal["blas", "openmp"]
    name: str
    path: str
    version: str | None = None
    threads: int | None = None
    kernel: str | None = None
    build: str | None = None


@dataclass(frozen=True, slots=True)
class TorchSettings:
    """PyTorch's own switches. ``matmul_precision`` is that of float32: ``highest``, ``high``, ``medium``.

    ``cuda_matmul`` and ``cudnn_conv`` are the newer switches (``none``, ``ieee``, ``tf32``), the two ``allow_tf32`` the
    older; a program that mixed both leaves the older without an answer.
    """

    version: str | None = None
    threads: int | None = None
    interop_threads: int | None = None
    cpu_capability: str | None = None
    default_dtype: str | None = None
    deterministic: bool | None = None
    deterministic_warn_only: bool | None = None
    cudnn_enabled: bool | None = None
    cudnn_deterministic: bool | None = None
    cudnn_benchmark: bool | None = None
    cudnn_allow_tf32: bool | None = None
    cuda_matmul_allow_tf32: bool | None = None
    cudnn_conv: str | None = None
    cuda_matmul: str | None = None
    matmul_precision: str | None = None


@dataclass(frozen=True, slots=True)
class Numerics:
    """Settings of one process.

    ``variables`` are those of the two lists above that are set. ``hash_seed`` is what seeded the hashes of strings, and
    with them the order of sets: ``random``, or the number. ``libraries`` is None where they could not be seen; which
    are loaded depends on what was imported by then; ``gpu_libraries`` likewise. ``torch`` is None where it was not
    loaded or not asked.
    """

    variables: dict[str, str] = field(default_factory=dict)
    hash_seed: str | None = None
    libraries: tuple[NumericLibrary, ...] | None = None
    torch: TorchSettings | None = None
    gpu_libraries: tuple[Library, ...] | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RandomState:
    """The generators' state when it was taken: two runs that seeded alike and drew alike have the same.

    ``torch_seed`` is decimal text, because a seed may have 64 bits and JSON readers keep 53. The others are sha256
    (hex) of the state; how it is written is described in docs/environment.md.
    """

    torch_seed: str | None = None
    numpy_sha256: str | None = None
    python_sha256: str | None = None


def numeric_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the thread and determinism variables that are set, in order of their names; long values are cut."""
    names = sorted({*THREAD_VARIABLES, *DETERMINISM_VARIABLES})
    return {name: environ[name][:4096] for name in names if name in environ}


def hash_seed_of(value: str | None, *, is_ignored: bool = False) -> str | None:
    """Return the hash seed that ``PYTHONHASHSEED`` = ``value`` at the start gives; None: the interpreter refuses it."""
    if is_ignored or value in {None, "", "random"}:
        return "random"
    number = (value or "").strip()
    return str(int(number)) if number.isascii() and number.isdigit() and int(number) < 1 << 32 else None
