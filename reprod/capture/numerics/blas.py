"""Owns which linear algebra and thread libraries are among mapped files, and what they say of themselves.

OpenBLAS of a wheel has its version in the file's name (older ones) or in the package's ``__config__.py`` beside it; a
library of the system in its name. In its own process it is asked, by getters that neither start threads nor change
anything; Intel's and LLVM's OpenMP would start up on the question, so they are not asked.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reprod.capture.bounded import read_bounded
from reprod.capture.imports.mapped import MappedFiles
from reprod.core.numerics import NumericLibrary
from reprod.core.plain import plain

CONFIG_BYTES = 1 << 18

_BLAS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"lib(?:scipy_)?openblas", "OpenBLAS"),
        (r"libmkl_(?:rt|core)\.", "MKL"),
        (r"lib(?:aocl-)?blis", "BLIS"),
        (r"lib[st]?atlas\.", "ATLAS"),
        (r"libflexiblas\.", "FlexiBLAS"),
        (r"libnvpl_blas", "NVPL"),
        (r"libarmpl", "ArmPL"),
        (r"libessl", "ESSL"),
        (r"lib(?:c|f)?blas\.so", "BLAS"),
        (r"libtorch_cpu\.so", "torch"),
    )
)
_OPENMP = re.compile(r"lib(?:gomp|iomp5|omp)(?=[-.])")

#: ``libopenblas64_p-r0-0cf96a72.3.23.dev.so``: release 0, the file's hash, and the rest of the version.
_WHEEL = re.compile(r"-r(\d+)-[0-9a-f]{8}\.(\d+\.\d+(?:\.\w+)?)\.so\Z")
#: ``libopenblasp-r0.3.21.so``.
_RELEASE = re.compile(r"-r(\d+\.\d+\.\d+(?:\.\w+)?)\.so\Z")
#: ``libblas.so.3.12.0``, ``libatlas.so.3.10.3``. Other libraries count their interface there, which is no version.
_SONAME = re.compile(r"\.so\.(\d+\.\d+\.\d+)\Z")
_CONFIG = re.compile(rb'"blas":\s*\{[^{}]*?"version":\s*"([0-9A-Za-z.+-]{1,32})"')
_TORCH = re.compile(rb"^__version__ = ['\"]([0-9A-Za-z.+-]{1,64})['\"]", re.MULTILINE)
_BUILD = re.compile(r"OpenBLAS (\d[\w.]*)")


def identify(mapped: MappedFiles) -> list[NumericLibrary]:
    """Return the libraries among ``mapped``, in order of their paths, with what files tell of them."""
    found = []
    for path in sorted(mapped.paths):
        base = os.path.basename(path)
        if ".so" not in base:
            continue
        name = next((name for pattern, name in _BLAS if pattern.match(base)), None)
        if name is not None:
            found.append(NumericLibrary("blas", name, plain(path), _version(path, name)))
        elif match := _OPENMP.match(base):
            found.append(NumericLibrary("openmp", match.group(), plain(path)))
    return found


def interrogate(library: NumericLibrary) -> NumericLibrary:
    """Return ``library`` with what it says itself; unchanged where it cannot be asked. For the calling process only."""
    ctypes = sys.modules.get("ctypes")
    if ctypes is None or library.name not in {"OpenBLAS", "MKL", "BLIS", "libgomp"}:
        return library
    try:
        # RTLD_NOLOAD: a handle on what is loaded, or an error; it cannot bring in another library.
        handle = ctypes.CDLL(library.path, mode=os.RTLD_NOLOAD)
        return _ASK[library.name](library, handle, ctypes)
    except Exception:  # noqa: BLE001 - a library of another build has other functions: what it says stays unknown
        return library


def _version(path: str, name: str) -> str | None:
    base = os.path.basename(path)
    if name == "torch":
        return _stated(os.path.join(os.path.dirname(os.path.dirname(path)), "version.py"), _TORCH)
    if match := _WHEEL.search(base):
        return f"{match.group(1)}.{match.group(2)}"
    if match := _RELEASE.search(base):
        return match.group(1)
    folder = os.path.dirname(path)
    if name == "OpenBLAS" and folder.endswith(".libs"):
        return _stated(os.path.join(folder.removesuffix(".libs"), "__config__.py"), _CONFIG)
    match = _SONAME.search(base) if name in {"BLAS", "ATLAS"} else None
    return match.group(1) if match else None


def _stated(path: str, pattern: re.Pattern[bytes]) -> str | None:
    """Return what a package's own text file says; it is read, never run."""
    try:
        match = pattern.search(read_bounded(path, CONFIG_BYTES))
    except OSError:
        return None
    return match.group(1).decode("ascii") if match else None


def _ask_openblas(library: NumericLibrary, handle: Any, ctypes: Any) -> NumericLibrary:
    # Builds of numpy and scipy prefix and suffix every function, so that several can be loaded together.
    for before in ("scipy_", ""):
        for after in ("", "64_", "_64"):
            if hasattr(handle, f"{before}openblas_get_config{after}"):
                config = _text_of(getattr(handle, f"{before}openblas_get_config{after}"), ctypes)
                kernel = _text_of(getattr(handle, f"{before}openblas_get_corename{after}"), ctypes)
                threads = int(getattr(handle, f"{before}openblas_get_num_threads{after}")())
                version = _BUILD.match(config)
                return replace(
                    library,
                    version=version.group(1) if version else library.version,
                    threads=threads,
                    kernel=kernel,
                    build=config,
                )
    return library


def _ask_mkl(library: NumericLibrary, handle: Any, ctypes: Any) -> NumericLibrary:
    text = ctypes.create_string_buffer(256)
    handle.MKL_Get_Version_String(text, 256)
    build = plain(text.value.decode("utf-8", "replace").strip())
    version = re.search(r"Version (\d[\w.]*)", build)
    threads = int(handle.MKL_Get_Max_Threads())
    return replace(library, version=version.group(1) if version else library.version, threads=threads, build=build)


def _ask_blis(library: NumericLibrary, handle: Any, ctypes: Any) -> NumericLibrary:
    threads = int(handle.bli_thread_get_num_threads())
    version = _text_of(handle.bli_info_get_version_str, ctypes)
    return replace(library, version=version or library.version, threads=threads if threads > 0 else None)


def _ask_gomp(library: NumericLibrary, handle: Any, ctypes: Any) -> NumericLibrary:
    # It only reads the calling thread's setting.
    return replace(library, threads=int(handle.omp_get_max_threads()))


def _text_of(function: Any, ctypes: Any) -> str:
    function.restype = ctypes.c_char_p
    return plain((function() or b"").decode("utf-8", "replace").strip())


_ASK: dict[str, Callable[[NumericLibrary, Any, Any], NumericLibrary]] = {
    "OpenBLAS": _ask_openblas,
    "MKL": _ask_mkl,
    "BLIS": _ask_blis,
    "libgomp": _ask_gomp,
}
