"""Owns which dependencies a script or notebook names: its imports, followed through the user's own files, by syntax.

Nothing is executed or imported. Names are looked for as the interpreter would (built in, beside the script, standard
library, search path), and the files that are found tell the distributions. It is a lower bound: plug-ins and names
that are computed cannot be seen.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES

from reprod.capture.bounded import read_bounded, reason
from reprod.capture.imports.used import MAX_LOCAL_FILES
from reprod.capture.packages.editable import read_sources
from reprod.capture.packages.installed_files import find_owners
from reprod.capture.packages.records import SITE_NAMES, Site
from reprod.core.import_names import ImportedNames, names_in_notebook, names_in_script
from reprod.core.imports import Imports
from reprod.core.redact import plain
from reprod.errors import DamagedError, IncompleteError

#: A notebook holds its outputs, pictures included.
NOTEBOOK_BYTES = 1 << 27
SCRIPT_BYTES = 1 << 24
#: Own files that are followed; a larger program is cut and says so.
MAX_FOLLOWED = 2000


def scan_imports(path: str, search_path: Sequence[str]) -> Imports:
    """Return what the script or notebook (``.ipynb``) at ``path`` imports, with ``search_path`` as ``sys.path``.

    Raises IncompleteError when the file cannot be read or is no Python notebook.
    """
    path = os.path.abspath(path)
    return _Scan(os.path.dirname(path), search_path).run(path)


class _Scan:
    """One scan: own files that are still to be read, and where each name led."""

    def __init__(self, home: str, search_path: Sequence[str]) -> None:
        self._home = home
        self._path = [entry for entry in dict.fromkeys(map(os.path.abspath, search_path)) if entry != home]
        self._provided = _finder_modules(self._path)
        self._pending: list[str] = []
        self._files: set[str] = set()
        self._library: set[str] = set()
        self._unresolved: set[str] = set()
        self._problems: list[str] = []

    def run(self, path: str) -> Imports:
        try:
            self._follow(path)
        except (OSError, DamagedError) as error:
            why = reason(error) if isinstance(error, OSError) else error.message
            raise IncompleteError(plain(f"{path} was not scanned: {why}")) from error
        followed = 0
        while self._pending and followed < MAX_FOLLOWED:
            file = self._pending.pop()
            followed += 1
            try:
                self._follow(file)
            except (OSError, DamagedError) as error:
                self._problems.append(f"{file}: {reason(error) if isinstance(error, OSError) else error.message}")
        if self._pending:
            self._problems.append(f"more than {MAX_FOLLOWED} own files: {len(self._pending)} were not read")
        found = find_owners({path, *self._files}, [self._home, *self._path])
        own = sorted((*found.editable, *found.others))
        return Imports(
            how="static",
            complete=False,
            distributions=found.distributions,
            local_count=len(own),
            local_files=tuple(plain(file) for file in own[:MAX_LOCAL_FILES]),
            standard_library=len(self._library),
            unresolved=tuple(sorted({*map(plain, self._unresolved), *found.strays})),
            problems=tuple(map(plain, (*self._problems, *found.problems))),
        )

    def _follow(self, file: str) -> None:
        """Look up each name that ``file`` imports; raises OSError and DamagedError when it cannot be read."""
        imported = _read_names(file)
        self._problems += [f"{file}: {problem}" for problem in imported.problems]
        for name in imported.names:
            if name.startswith("."):
                self._take(name, _locate_relative(name, file))
            else:
                self._look_up(name)

    def _look_up(self, name: str) -> None:
        parts = name.split(".")
        top = parts[0]
        if top in sys.builtin_module_names:
            self._library.add(top)
        elif found := _locate(parts, [self._home]):
            self._take(name, found)
        elif top in sys.stdlib_module_names:
            self._library.add(top)
        elif found := _locate(parts, [self._home, *self._path]):
            self._take(name, found)
        elif source := self._provided.get(top):
            self._take(name, _locate([os.path.basename(source), *parts[1:]], [os.path.dirname(source)]))
        else:
            spread = any(os.path.isdir(os.path.join(entry, top)) for entry in self._path)
            # Of a namespace package only the whole name says what is missing.
            self._unresolved.add(name if spread else top)

    def _take(self, name: str, found: Sequence[str]) -> None:
        if not found:
            self._unresolved.add(name)
        for file in found:
            if file not in self._files:
                self._files.add(file)
                if file.endswith(".py") and not any(f"/{site}/" in file for site in SITE_NAMES):
                    self._pending.append(file)


def _locate(parts: Sequence[str], directories: Sequence[str]) -> list[str]:
    """Return the files that importing ``a.b.c`` loads below ``directories``: packages on the way, then the module.

    The last part may be an attribute of the module before it. A directory alone is a namespace package: no file.
    """
    files: list[str] = []
    for part in parts:
        file, directories = _find(part, directories)
        if file is not None:
            files.append(file)
        if not directories:
            break
    return files


def _locate_relative(name: str, file: str) -> list[str]:
    """Return the files that ``from .name import`` in ``file`` loads; ``name`` may be an attribute of the package."""
    rest = name.lstrip(".")
    directory = os.path.dirname(file)
    for _ in range(len(name) - len(rest) - 1):
        directory = os.path.dirname(directory)
    package = os.path.join(directory, "__init__.py")
    found = [package] if os.path.isfile(package) else []
    return found + (_locate(rest.split("."), [directory]) if rest else [])


def _find(name: str, directories: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the file of module ``name``, and where its own modules are; as the interpreter's finders decide."""
    portions = []
    for directory in directories:
        base = os.path.join(directory, name)
        if os.path.isfile(f"{base}/__init__.py"):
            return f"{base}/__init__.py", [base]
        for suffix in (*EXTENSION_SUFFIXES, ".py"):
            if os.path.isfile(base + suffix):
                return base + suffix, []
        if os.path.isdir(base):
            portions.append(base)
    return None, portions


def _read_names(file: str) -> ImportedNames:
    if file.endswith(".ipynb"):
        return names_in_notebook(_text(file, NOTEBOOK_BYTES))
    return names_in_script(_text(file, SCRIPT_BYTES))


def _text(file: str, limit: int) -> str:
    # The user may well keep a link to a script: the real file is read.
    data = read_bounded(os.path.realpath(file), limit)
    if len(data) == limit:
        raise DamagedError(f"it is larger than {limit >> 20} MiB", hint="move data out of the file")
    return data.decode("utf-8-sig", "replace")


def _finder_modules(search_path: Sequence[str]) -> dict[str, str]:
    """Return the modules that editable installs provide by a finder instead of a directory on the path."""
    sites = (Site(entry) for entry in search_path if os.path.basename(entry) in SITE_NAMES)
    sources = (source for site in sites for source in read_sources(site))
    return {source.module: source.path for source in sources if source.module is not None}
