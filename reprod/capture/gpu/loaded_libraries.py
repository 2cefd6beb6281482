"""Owns which GPU libraries a process has loaded: CUDA's and ROCm's, by the names of its mapped files.

The only proof of which cuDNN or NCCL was in use: installed packages say what could have been. Microseconds.
"""

import os
import re

from reprod.capture.imports.mapped import MappedFiles
from reprod.core.accelerator import Library
from reprod.core.plain import plain

#: A wheel that was repaired has eight hex digits behind the name.
_LOADED = re.compile(
    r"lib(cuda|cudart|cublas|cublasLt|cudnn(?:_[a-z_]+)?|nccl|cufft|curand|cusolver|cusparse|nvrtc"
    r"|amdhip64|hsa-runtime64|rocblas|hipblas|hipblaslt|MIOpen|rccl)(?:-[0-9a-f]{8})?\.so((?:\.\d+)*)\Z"
)


def loaded_gpu_libraries(mapped: MappedFiles) -> tuple[Library, ...]:
    """Return the GPU libraries among a process's mapped files, by path, with as much version as their names tell."""
    found = []
    for path in sorted(mapped.paths):
        match = _LOADED.match(os.path.basename(path))
        if match:
            found.append(Library(match.group(1), match.group(2).lstrip(".") or None, "loaded", plain(path)))
    return tuple(found)
