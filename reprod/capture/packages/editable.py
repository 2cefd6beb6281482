"""Owns where the sources of editable installs are: directories outside the site directory that it only points to.

The distribution's own list of files names what points there: a ``.pth`` file whose lines are directories, or the finder
that setuptools writes, whose literal ``MAPPING`` is parsed and never run. A build back end that points in another way
leaves the project's directory of ``direct_url.json``.
"""

import ast
import json
import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from reprod.capture.packages.records import Site, listed_paths

FILE_BYTES = 1 << 20

_POINTER = re.compile(rb"[^/]+\.pth\Z|__editable__[^/]*_finder\.py\Z")


@dataclass(frozen=True, slots=True)
class Source:
    """A file or directory whose modules are those of the distribution of ``record`` in ``site``.

    ``module`` is the name under which a finder provides it, None where it is searched like any directory.
    """

    site: Site
    record: str
    path: str
    module: str | None = None

    def holds(self, file: str) -> bool:
        """Return whether ``file`` is this source or lies in it; a finder leaves out the suffix of a single module."""
        return file.startswith(f"{self.path}/" if self.module is None else (f"{self.path}/", f"{self.path}."))


def read_sources(site: Site) -> list[Source]:
    """Return the sources of all editable installs that ``site`` records; a broken one is a problem of the site."""
    found = []
    for record in site.records:
        data = site.read(f"{record}/direct_url.json", FILE_BYTES)
        project = _project(data) if data is not None else None
        if project is None:
            continue
        pointed = _pointed(site, record)
        found += pointed or [Source(site, record, project)]
    return found


def _project(data: bytes) -> str | None:
    """Return the project's directory if ``direct_url.json`` says that it is installed as editable."""
    try:
        value = json.loads(data)
        if value["dir_info"]["editable"] is not True:
            return None
        parts = urlsplit(value["url"])
        path = os.path.normpath(unquote(parts.path))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return path if parts.scheme == "file" and path.startswith("/") and path != "/" else None


def _pointed(site: Site, record: str) -> list[Source]:
    names = listed_paths(site.raw_list(record) or b"", record)
    found = []
    for name in sorted(os.fsdecode(name) for name in names if _POINTER.match(name)):
        text = (site.read(name, FILE_BYTES) or b"").decode("utf-8", "surrogateescape")
        if name.endswith(".pth"):
            for line in text.splitlines():
                path = os.path.normpath(os.path.join(site.path, line.strip()))
                if line.strip() and not line.startswith(("#", "import ", "import\t")) and path != site.path:
                    found.append(Source(site, record, path))
        else:
            found += [Source(site, record, path, module) for module, path in _mapping(text).items()]
    return found


def _mapping(text: str) -> dict[str, str]:
    """Return module -> path of the finder's literal ``MAPPING``; a package's path is its directory."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if not any(isinstance(target, ast.Name) and target.id == "MAPPING" for target in targets):
            continue
        try:
            value = ast.literal_eval(node.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            return {}
        items = value.items() if isinstance(value, dict) else ()
        return {k: os.path.normpath(v) for k, v in items if isinstance(k, str) and isinstance(v, str) and v[:1] == "/"}
    return {}
