"""Owns what an interpreter is and where it keeps packages, for this process and, by reading files, for a prefix.

A prefix is never executed: a ``pyvenv.cfg`` whose ``home`` is hostile runs code even under ``python -I -S``. Of
``.pth`` files only lines that are directories count; lines that begin with ``import`` are code and are ignored.
Reading a prefix takes about 0.5 ms.
"""

import importlib.machinery
import os
import platform
import re
import sys
from dataclasses import dataclass

from reprod.capture.bounded import read_bounded
from reprod.core.packages import Python
from reprod.core.plain import plain
from reprod.errors import IncompleteError

CONFIG_BYTES = 1 << 16
PTH_BYTES = 1 << 16
#: ``_sysconfigdata``: 40 to 90 KB in the builds of Debian, conda, uv and from source.
BUILD_DATA_BYTES = 1 << 20
MAX_PTH_FILES = 1000

_VERSION = re.compile(r"(3\.\d{1,3})\.\d{1,3}(?:[a-z0-9.+]{0,16})\Z")
_LIBRARY = re.compile(r"python(3\.\d{1,3})(t?)\Z")
_SUFFIX = re.compile(r"\.([A-Za-z0-9_-]{1,64})\.(?:so|pyd)\Z")
_BUILD_DATA = re.compile(r"_sysconfigdata_[A-Za-z0-9_-]{0,80}\.py\Z")
_SOABI = re.compile(rb"""["']SOABI["']\s*:\s*["']([A-Za-z0-9_-]{1,64})["']""")
_PATCHLEVEL = re.compile(rb'^#define\s+PY_VERSION\s+"([0-9A-Za-z.+]{1,32})"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Layout:
    """A prefix as its files describe it. ``home`` is the base's directory of executables, None without pyvenv.cfg."""

    python: Python
    home: str | None
    site_dirs: tuple[str, ...]


def describe_self() -> Python:
    """Return the interpreter of the calling process, whole: takes 0.1 ms and imports nothing."""
    number, date = platform.python_build()
    # Python 3.13 is the first that can run without the lock, and the first to have the function.
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)
    return Python(
        version=platform.python_version(),
        prefix=plain(sys.prefix),
        base_prefix=plain(sys.base_prefix),
        implementation=platform.python_implementation(),
        executable=plain(sys.executable or "") or None,
        build=plain(f"{number}, {date}"),
        compiler=plain(platform.python_compiler()) or None,
        cache_tag=sys.implementation.cache_tag,
        soabi=_own_soabi(),
        gil=bool(has_gil()),
        free_threaded="t" in getattr(sys, "abiflags", ""),
    )


def read_layout(prefix: str, *, user_site: str | None = None) -> Layout:
    """Return interpreter version and site directories of ``prefix``; ``user_site`` is a home directory to search too.

    Raises IncompleteError when there is no Python below ``prefix`` or its version cannot be read.
    """
    prefix = os.path.abspath(prefix)
    config = _read_config(prefix)
    home = config.get("home")
    base_prefix = os.path.dirname(home) if home and os.path.isabs(home) else prefix
    version = _config_version(config) or _header_version(prefix) or _header_version(base_prefix)
    minor = _minor(prefix, version)
    if version is None:
        raise IncompleteError(
            f"the exact version of Python {minor} in {prefix} is not recorded in any file",
            hint="let the process hand over its own environment: reprod.tag_dataset or the MLflow context provider",
        )
    dirs = _own_dirs(prefix, minor)
    with_system = config.get("include-system-site-packages", "").lower() == "true"
    if user_site is not None and (not home or with_system):
        dirs.insert(0, os.path.join(user_site, ".local", "lib", f"python{minor}", "site-packages"))
    if base_prefix != prefix and with_system:
        dirs += _own_dirs(base_prefix, minor)
    implementation = config.get("implementation")
    library = _library(base_prefix, minor) or _library(prefix, minor)
    python = Python(
        version=version,
        prefix=plain(prefix),
        base_prefix=plain(base_prefix),
        implementation=implementation if implementation in {"CPython", "PyPy", "GraalVM"} else None,
        soabi=_built_soabi(library) if library else None,
        free_threaded=library.endswith("t") if library else None,
    )
    return Layout(python, home, _with_pth(dirs))


def _own_soabi() -> str | None:
    """Return the tag of extension modules, from the suffix of the import system: sysconfig would import its data."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0] if importlib.machinery.EXTENSION_SUFFIXES else ""
    match = _SUFFIX.match(suffix)
    return match.group(1) if match else None


def _library(prefix: str, minor: str) -> str | None:
    """Return the one directory of the standard library of Python ``minor``: a free-threaded one's name ends in t."""
    found = [
        path
        for name in (f"python{minor}", f"python{minor}t")
        if os.path.isfile(os.path.join(path := os.path.join(prefix, "lib", name), "os.py"))
    ]
    return found[0] if len(found) == 1 else None


def _built_soabi(library: str) -> str | None:
    """Return SOABI as the build configuration has it, if there is exactly one; it is Python, read as text."""
    try:
        paths = [os.path.join(library, name) for name in os.listdir(library) if _BUILD_DATA.match(name)]
        # Debian has the same file under a second name.
        paths = [path for path in paths if not os.path.islink(path)]
        if len(paths) != 1:
            return None
        match = _SOABI.search(read_bounded(paths[0], BUILD_DATA_BYTES))
    except OSError:
        return None
    return match.group(1).decode("ascii") if match else None


def _read_config(prefix: str) -> dict[str, str]:
    try:
        text = read_bounded(os.path.join(prefix, "pyvenv.cfg"), CONFIG_BYTES).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise IncompleteError(f"{prefix}/pyvenv.cfg is not readable: {error}") from error
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _config_version(config: dict[str, str]) -> str | None:
    # venv writes "version"; uv and virtualenv write "version_info", virtualenv as 3.11.7.final.0.
    for key in ("version", "version_info"):
        value = re.sub(r"\.final\.\d+\Z", "", config.get(key, ""))
        if _VERSION.match(value):
            return value
    return None


def _header_version(prefix: str) -> str | None:
    """Return the version that the installation's own header names: conda, pyenv and builds from source have it."""
    include = os.path.join(prefix, "include")
    try:
        names = [name for name in os.listdir(include) if _LIBRARY.match(name)]
    except OSError:
        return None
    if len(names) != 1:
        return None
    try:
        match = _PATCHLEVEL.search(read_bounded(os.path.join(include, names[0], "patchlevel.h"), CONFIG_BYTES))
    except OSError:
        return None
    version = match.group(1).decode("ascii") if match else ""
    return version if _VERSION.match(version) else None


def _minor(prefix: str, version: str | None) -> str:
    """Return ``3.11``: of the version, else of the one library directory; the two may not contradict each other."""
    try:
        names = os.listdir(os.path.join(prefix, "lib"))
    except OSError as error:
        raise IncompleteError(f"no Python in {prefix}: {error.strerror}") from error
    present = {match.group(1) for name in names if (match := _LIBRARY.match(name))}
    match = _VERSION.match(version or "")
    if match and match.group(1) in present:
        return match.group(1)
    if match or len(present) != 1:
        found = ", ".join(sorted(present)) or "none"
        raise IncompleteError(f"which Python is in {prefix} is not clear: lib has {found}, its version says {version}")
    return present.pop()


def _own_dirs(prefix: str, minor: str) -> list[str]:
    """Return where ``prefix`` keeps packages, in the interpreter's order, Debian's directories included."""
    candidates = [
        f"{prefix}/local/lib/python{minor}/dist-packages",
        f"{prefix}/lib/python{minor}/site-packages",
        f"{prefix}/lib64/python{minor}/site-packages",
        f"{prefix}/lib/python{minor}t/site-packages",
        f"{prefix}/lib/python{minor}/dist-packages",
        f"{prefix}/lib/python3/dist-packages",
    ]
    seen: dict[tuple[int, int], str] = {}
    for path in candidates:
        try:
            status = os.stat(path)
        except OSError:
            continue
        # lib64 is often a link to lib: the same directory is searched once.
        seen.setdefault((status.st_dev, status.st_ino), path)
    return list(seen.values())


def _with_pth(site_dirs: list[str]) -> tuple[str, ...]:
    """Return the directories with those that their ``.pth`` files add, in the order in which Python searches them."""
    found: dict[str, None] = {}
    for site_dir in site_dirs:
        found[site_dir] = None
        try:
            names = sorted(name for name in os.listdir(site_dir) if name.endswith(".pth") and not name.startswith("."))
        except OSError:
            continue
        for name in names[:MAX_PTH_FILES]:
            try:
                text = read_bounded(os.path.join(site_dir, name), PTH_BYTES).decode("utf-8", "surrogateescape")
            except OSError:
                continue
            for line in text.splitlines():
                path = os.path.normpath(os.path.join(site_dir, line.strip()))
                if line.strip() and not line.startswith(("#", "import ", "import\t")) and os.path.isdir(path):
                    found.setdefault(path, None)
    return tuple(found)
