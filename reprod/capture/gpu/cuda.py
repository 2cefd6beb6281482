"""Owns where the CUDA versions of an environment are read: its packages, and the toolkit's own files.

``nvidia-smi`` and ``nvcc`` are not run: the first tells only what the driver supports, the second would be a program
that the process's PATH chose. Packages give names and versions; of PyTorch also ``torch/version.py`` says what it was
built for. What a process has really loaded is a fact of that process (``reprod.capture.gpu.loaded_libraries``).
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from reprod.capture.bounded import read_bounded
from reprod.core.accelerator import Cuda, Library, agree
from reprod.core.redact import plain

_LIMIT = 1 << 16

#: Distributions by what they bring, in PEP 503 spelling without the suffix -cu12; below, conda's names.
_DISTRIBUTIONS = {
    "nvidia-cuda-runtime": "cudart",
    "nvidia-cuda-nvrtc": "nvrtc",
    "nvidia-nvjitlink": "nvjitlink",
    **{f"nvidia-{name}": name for name in ("cublas", "cudnn", "nccl", "cufft", "curand", "cusolver", "cusparse")},
    "nvidia-cusparselt": "cusparselt",
}
_CONDA = {
    **dict.fromkeys(("cudatoolkit", "cuda-cudart", "pytorch-cuda", "cuda-version"), "cudart"),
    **dict.fromkeys(("cudnn", "libcudnn"), "cudnn"),
    "libcublas": "cublas",
    "nccl": "nccl",
}
_SUFFIX = re.compile(r"-cu\d{2}\Z")
#: ``cu121`` and ``cu118`` are 12.1 and 11.8, ``cuda12`` and ``cu13`` a major version alone, ``cu92`` is 9.2.
_LOCAL = re.compile(r"(?:^|[.+_-])cu(?:da)?(9\d|\d{3}|1\d)(?=\D|\Z)")
_TORCH_VERSION = re.compile(r"^(cuda|hip)(?:\s*:[^=\n]*)?\s*=\s*'(\d[0-9.]*)", re.MULTILINE)

#: Where a toolkit lies if no variable says so.
_TOOLKIT = "usr/local/cuda"
_CUDA_H = re.compile(rb"^#define\s+CUDA_VERSION\s+(\d{4,6})\s*$", re.MULTILINE)


class Installed(Protocol):
    """What is needed of a package: its name and version, and the site directory that it lies in."""

    @property
    def name(self) -> str:
        """The name as its metadata spells it."""

    @property
    def version(self) -> str:
        """The version with its local part."""

    @property
    def location(self) -> str | None:
        """The site directory."""


def read_cuda(
    packages: Iterable[Installed],
    *,
    driver_max: str | None = None,
    conda: Iterable[tuple[str, str]] = (),
    variables: Mapping[str, str] | None = None,
    root: str = "/",
) -> Cuda:
    """Return the CUDA versions of an environment with ``packages`` and conda's ``(name, version)`` pairs.

    ``driver_max`` is `Accelerators.cuda_driver_max`; ``variables`` are those of the process, of which ``CUDA_HOME``,
    ``CUDA_PATH`` and ``PATH`` say where its toolkit is.
    """
    installed = list(packages)
    evidence = [*_bundled(installed), *_conda(conda), *built_for(installed, "cuda")]
    problems: list[str] = []
    toolkit, toolkit_path = _read_toolkit(variables or {}, root)
    runtime = [item for item in evidence if item.name == "cudart" and _decides(item)]
    return Cuda(
        driver_max=driver_max,
        runtime=_settle("runtime", runtime or [item for item in evidence if item.name == "cudart"], problems),
        toolkit=toolkit,
        toolkit_path=toolkit_path,
        cudnn=_settle("cuDNN", [item for item in evidence if item.name == "cudnn"], problems),
        nccl=_settle("NCCL", [item for item in evidence if item.name == "nccl"], problems),
        cublas=_settle("cuBLAS", [item for item in evidence if item.name == "cublas"], problems),
        libraries=tuple(sorted(evidence, key=lambda item: (item.name, item.source))),
        problems=tuple(problems),
    )


def built_for(packages: Iterable[Installed], kind: str) -> list[Library]:
    """Return what packages were built for, by local versions (``+cu121``, ``+rocm6.1``) and ``torch/version.py``.

    ``kind`` is ``cuda`` or ``hip``.
    """
    found = []
    for package in packages:
        version = None
        if package.name.lower() == "torch" and package.location:
            version = _torch_version(package.location, kind)
        version = version or _local_version(package.version.partition("+")[2], kind)
        if version is not None:
            name = "cudart" if kind == "cuda" else kind
            found.append(Library(name, version, "build", f"{package.name} {package.version}"))
    return found


def _bundled(packages: Iterable[Installed]) -> list[Library]:
    found = []
    for package in packages:
        name = _SUFFIX.sub("", re.sub(r"[-_.]+", "-", package.name).lower())
        if name in _DISTRIBUTIONS:
            source = f"{package.name} {package.version}"
            found.append(Library(_DISTRIBUTIONS[name], package.version, "distribution", source))
    return found


def _conda(packages: Iterable[tuple[str, str]]) -> list[Library]:
    return [
        Library(_CONDA[name], version, "distribution", f"{name} {version} (conda)")
        for name, version in packages
        if name in _CONDA
    ]


def _local_version(local: str, kind: str) -> str | None:
    if kind == "hip":
        match = re.search(r"(?:^|[._-])rocm(\d+(?:\.\d+)*)", local)
        return match.group(1) if match else None
    match = _LOCAL.search(local)
    if match is None:
        return None
    digits = match.group(1)
    return f"{digits[:-1]}.{digits[-1]}" if len(digits) == 3 or digits.startswith("9") else digits


def _torch_version(location: str, kind: str) -> str | None:
    try:
        text = read_bounded(os.path.join(location, "torch", "version.py"), _LIMIT).decode("utf-8", "replace")
    except OSError:
        return None
    return next((match.group(2) for match in _TORCH_VERSION.finditer(text) if match.group(1) == kind), None)


def _decides(item: Library) -> bool:
    """Return whether evidence for the runtime counts: what an extension was built with need not be what runs."""
    return item.origin == "distribution" or item.source.lower().startswith(("torch ", "jaxlib "))


def _settle(what: str, evidence: list[Library], problems: list[str]) -> str | None:
    versions = [item.version for item in evidence if item.version is not None]
    settled = agree(versions)
    if versions and settled is None:
        problems.append(f"{what}: {', '.join(f'{item.version} ({item.source})' for item in evidence)} disagree")
    return settled


def _read_toolkit(variables: Mapping[str, str], root: str) -> tuple[str | None, str | None]:
    """Return version and place of the toolkit for compiling: the one that a build in this process would take."""
    places = [variables[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.path.isabs(variables.get(name, ""))]
    for directory in variables.get("PATH", "").split(":"):
        if os.path.isabs(directory) and os.path.exists(os.path.join(root, f"{directory}/nvcc".lstrip("/"))):
            places.append(os.path.dirname(os.path.normpath(directory)))
            break
    for place in [*places, f"/{_TOOLKIT}"]:
        version = _toolkit_version(os.path.join(root, place.lstrip("/")))
        if version is not None:
            return version, plain(place)
    return None, None


def _toolkit_version(directory: str) -> str | None:
    """Return what the toolkit's own files say: version.json, version.txt before CUDA 11.1, else cuda.h (12.4)."""
    data = _read(directory, "version.json")
    if data is not None:
        try:
            version = json.loads(data)["cuda"]["version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            version = None
        if isinstance(version, str) and re.fullmatch(r"[0-9.]{1,32}", version):
            return version
    match = re.match(rb"CUDA Version (\d[0-9.]{0,31})\s*\Z", _read(directory, "version.txt") or b"")
    if match:
        return match.group(1).decode("ascii")
    for path in ("include/cuda.h", "targets/x86_64-linux/include/cuda.h", "targets/sbsa-linux/include/cuda.h"):
        match = _CUDA_H.search(_read(directory, path) or b"")
        if match:
            number = int(match.group(1))
            return f"{number // 1000}.{number % 1000 // 10}"
    return None


def _read(directory: str, path: str) -> bytes | None:
    try:
        return read_bounded(os.path.join(directory, path), 1 << 20)
    except OSError:
        return None
