"""Owns where the versions of AMD's stack are read: the kernel's driver, the packages, and the installed toolkit.

No program of it is run. Which GPUs there are is ``capture.kfd``'s.
"""

import os
import re
from collections.abc import Iterable, Mapping

from reprod.capture.bounded import read_bounded
from reprod.capture.gpu.cuda import Installed, built_for
from reprod.core.accelerator import Rocm, agree
from reprod.core.redact import plain

_LIMIT = 1 << 12
#: Where ROCm lies if no variable says so.
_TOOLKIT = "/opt/rocm"


def read_rocm(packages: Iterable[Installed], *, variables: Mapping[str, str] | None = None, root: str = "/") -> Rocm:
    """Return the ROCm versions of an environment with ``packages``; all None where there is no ROCm.

    ``variables`` are those of the process, of which ``ROCM_PATH`` and ``ROCM_HOME`` say where its toolkit is.
    """
    evidence = built_for(packages, "hip")
    versions = [item.version for item in evidence if item.version is not None]
    runtime = agree(versions)
    problems: tuple[str, ...] = ()
    if versions and runtime is None:
        problems = (f"runtime: {', '.join(f'{item.version} ({item.source})' for item in evidence)} disagree",)
    places = [(variables or {}).get(name, "") for name in ("ROCM_PATH", "ROCM_HOME")]
    toolkit = path = None
    for place in [*(place for place in places if os.path.isabs(place)), _TOOLKIT]:
        toolkit = _read_version(os.path.join(root, place.lstrip("/"), ".info", "version"))
        if toolkit is not None:
            path = plain(place)
            break
    return Rocm(
        driver=_read_version(os.path.join(root, "sys/module/amdgpu/version")),
        runtime=runtime,
        toolkit=toolkit,
        toolkit_path=path,
        libraries=tuple(evidence),
        problems=problems,
    )


def _read_version(path: str) -> str | None:
    try:
        text = read_bounded(path, _LIMIT).decode("ascii", "replace").strip()
    except OSError:
        return None
    return text if re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,63}", text) else None
