"""Owns which distributions the loaded modules and mapped libraries of a process are of.

In the process itself, or from what it took of itself (`reprod.capture.imports.loaded`), all that was loaded is known.
Of another process only mapped extension modules can be seen, a lower bound. pandas with scikit-learn takes 10 ms,
with PyTorch 25 ms.
"""

import re
from collections.abc import Iterable, Sequence

from reprod.capture.imports.loaded import Loaded, loaded_modules
from reprod.capture.imports.mapped import MappedFiles, mapped_files
from reprod.capture.packages.installed_files import find_owners
from reprod.capture.packages.records import SITE_NAMES
from reprod.core.imports import Imports
from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: A program of more own files than that is listed in part; the number stays right.
MAX_LOCAL_FILES = 1000

_EXTENSION = re.compile(r"\.(?:cpython-3|abi3|pypy3)[^/]*\.so\Z")
#: What ``.pth`` files load at every start of the interpreter, used or not.
_HOOK = re.compile(r"/(?:__editable__[^/]*|_editable_impl_[^/]*|_distutils_hack/[^/]*|_virtualenv)\.py\Z")


def read_imports(loaded: Loaded | None = None, mapped: MappedFiles | None = None) -> Imports:
    """Return what was used by the process that took ``loaded``; None: the calling one, as it is now.

    ``mapped`` are the files that the same process has mapped: they tell libraries that are no modules (a BLAS, CUDA's).
    Without them the result is not complete and says so, unless it is this process, which reads its own.
    """
    problems: list[str] = []
    if loaded is None and mapped is None:
        try:
            mapped = mapped_files()
        except IncompleteError as error:
            problems.append(error.message)
    elif mapped is None:
        problems.append("the mapped files of the process were not seen")
    loaded = loaded_modules() if loaded is None else loaded
    modules = [file for file in loaded.files if not _HOOK.search(file)]
    library, rest = _split(modules, loaded.library)
    files = set(rest)
    files.update(_installed(mapped.paths if mapped else ()))
    found = find_owners(files, loaded.search_path)
    own = [file for file in (*found.editable, *found.others) if file in rest]
    return Imports(
        how="in-process",
        complete=mapped is not None,
        distributions=found.distributions,
        local_count=len(own),
        local_files=_cut(own),
        standard_library=len(library),
        unresolved=found.strays,
        problems=(*problems, *found.problems, *_replaced(mapped)),
    )


def read_mapped_imports(pid: int, site_dirs: Sequence[str], *, proc: str = "/proc") -> Imports:
    """Return the distributions and own modules of which another process has mapped files: a lower bound.

    ``site_dirs`` are its site directories. Raises IncompleteError where its mapped files are not readable.
    """
    mapped = mapped_files(pid, proc)
    extensions = [path for path in mapped.paths if _EXTENSION.search(path)]
    installed = [path for path in mapped.paths if ".so" in path and _site_part(path)]
    library, own = _split([path for path in extensions if not _site_part(path)], _foreign_library(extensions))
    found = find_owners({*installed, *own}, site_dirs)
    local = [file for file in (*found.editable, *found.others) if file in own]
    return Imports(
        how="maps",
        complete=False,
        distributions=found.distributions,
        local_count=len(local),
        local_files=_cut(local),
        standard_library=len(library),
        unresolved=found.strays,
        problems=(*found.problems, *_replaced(mapped)),
    )


def _foreign_library(extensions: Iterable[str]) -> tuple[str, ...]:
    """Return the standard library of another process, which its compiled modules lie in."""
    return tuple({path.partition("/lib-dynload/")[0] for path in extensions if "/lib-dynload/" in path})


def _split(files: Iterable[str], library: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the files of the standard library, and the others."""
    prefixes = tuple(f"{path}/" for path in library)
    inside, outside = [], set()
    for file in files:
        if file.startswith(prefixes) and not _site_part(file):
            inside.append(file)
        else:
            outside.add(file)
    return inside, outside


def _installed(paths: Iterable[str]) -> set[str]:
    """Return the mapped files that lie in site directories: libraries of the system are no dependency of this kind."""
    return {path for path in paths if ".so" in path and _site_part(path)}


def _site_part(path: str) -> bool:
    return any(f"/{name}/" in path for name in SITE_NAMES)


def _cut(files: Sequence[str]) -> tuple[str, ...]:
    return tuple(plain(file) for file in sorted(files)[:MAX_LOCAL_FILES])


def _replaced(mapped: MappedFiles | None) -> list[str]:
    """Return which installed files are not those that run any more: an upgrade under a running process."""
    deleted = sorted(path for path in (mapped.deleted if mapped else ()) if _site_part(path))
    return [plain(f"{path} was replaced or removed since it was loaded") for path in deleted[:MAX_LOCAL_FILES]]
