"""Owns what is installed: an interpreter, the distributions of its site directories, the packages of a conda prefix.

What installers recorded, not what the files are now: ``record_sha256`` is equal for two installs of the same archive
by any installer at any prefix, and says nothing about later edits (``edited`` does, where they were looked for). Each
record on disk is listed once, as a package or as broken. None is always "not known". Sizes are bytes, hashes lower-case
hex. Text was made fit for UTF-8 and addresses were freed of credentials where they were read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: Where a distribution came from, as far as its record tells. ``index`` is any index or folder of archives: installers
#: do not record which one. ``system`` is the operating system's own package manager.
Origin = Literal["index", "vcs", "archive", "directory", "editable", "conda", "system"]


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter. ``version`` has three parts, ``build`` is its build number or branch with the date.

    ``gil`` is whether the process runs with the global lock now, ``free_threaded`` whether it could run without. Of an
    interpreter that was only read from files, what its process alone knows (``executable``, ``build``, ``compiler``,
    ``cache_tag``, ``gil``) is None.
    """

    version: str
    prefix: str
    base_prefix: str
    implementation: str | None = None
    executable: str | None = None
    build: str | None = None
    compiler: str | None = None
    cache_tag: str | None = None
    soabi: str | None = None
    gil: bool | None = None
    free_threaded: bool | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """One installed distribution.

    ``location`` is its site directory, ``record`` the name of its record in there. ``direct_url`` is where it came from
    if not from an index, with ``vcs``, ``commit``, ``subdirectory`` and ``archive_sha256`` as far as they apply.
    ``requested`` is whether a user asked for it, in contrast to a dependency. ``tags`` are those of its wheel.
    ``shadowed``: another record of the same project comes first on the path. ``edited`` are the files, relative to
    ``location``, that are not as they were installed; None where nobody looked.
    """

    name: str
    version: str
    location: str
    direct_url: str | None = None
    commit: str | None = None
    editable: bool = False
    vcs: str | None = None
    subdirectory: str | None = None
    archive_sha256: str | None = None
    installer: str | None = None
    requested: bool | None = None
    origin: Origin | None = None
    record: str | None = None
    record_sha256: str | None = None
    tags: tuple[str, ...] = ()
    shadowed: bool = False
    edited: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """A record on disk that names no distribution. ``leftover``: of an uninstall; no import can find what it was of."""

    record: str
    location: str
    reason: str
    leftover: bool = False


@dataclass(frozen=True, slots=True)
class PackageSet:
    """All records of a list of site directories: packages by normalised name, the first on the path before the others.

    ``problems`` are what was not readable although the package is known, and directories that could not be listed.
    """

    packages: tuple[Package, ...] = ()
    broken: tuple[BrokenRecord, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CondaPackage:
    """One package that conda linked into a prefix. ``fn`` is the name of its archive, ``subdir`` its platform."""

    name: str
    version: str
    build: str
    channel: str | None = None
    url: str | None = None
    md5: str | None = None
    sha256: str | None = None
    fn: str | None = None
    subdir: str | None = None


@dataclass(frozen=True, slots=True)
class Conda:
    """A conda prefix. ``name`` is that of the environment, if it has one; a package follows what it depends on."""

    prefix: str
    name: str | None
    packages: tuple[CondaPackage, ...]
    problems: tuple[str, ...] = ()


#: What conda's own reader accepts as one line, and what none of its expansions (``~``, ``$NAME``) can change.
_CONDA_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.:_-]*/[A-Za-z0-9._!+%/@=-]*\.(?:conda|tar\.bz2)\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MD5 = re.compile(r"[0-9a-f]{32}\Z")


def normalise(name: str) -> str:
    """Return the one spelling of a project's name (PEP 503): lower case, runs of ``-_.`` as one ``-``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def comment(text: str) -> str:
    """Return ``text`` as one comment line, whatever it holds: no line break and no continuation comes out of it."""
    return "# " + re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", text).rstrip("\\ ")


def explicit_line(package: CondaPackage) -> str | None:
    """Return the line of an @EXPLICIT file that installs this very build; None if its record names no usable address.

    Both hashes are conda's own forms; the weaker one only where the stronger is not known.
    """
    if package.url is None or not _CONDA_URL.match(package.url):
        return None
    if package.sha256 is not None and _SHA256.match(package.sha256):
        return f"{package.url}#sha256:{package.sha256}"
    if package.md5 is not None and _MD5.match(package.md5):
        return f"{package.url}#{package.md5}"
    return package.url


def explicit_text(conda: Conda, *, header: Sequence[str] = ()) -> str:
    """Return ``conda_packages.txt``: what ``conda create --file`` takes, with ``header`` and all losses as comments."""
    platforms = sorted(
        {package.subdir for package in conda.packages if package.subdir not in {None, "noarch"}} - {None}
    )
    lines = [
        *(comment(line) for line in header),
        "# To create an environment: conda create --name NAME --file conda_packages.txt",
        *(comment(f"platform: {platform}") for platform in platforms),
        *(comment(f"not in this file: {loss}") for loss in conda_losses(conda)),
        "@EXPLICIT",
        *(line for package in conda.packages if (line := explicit_line(package)) is not None),
    ]
    return "\n".join(lines) + "\n"


def conda_losses(conda: Conda) -> tuple[str, ...]:
    """Return what of a conda prefix an @EXPLICIT file cannot bring back, each with its reason."""
    missing = tuple(
        f"conda package {package.name} {package.version} {package.build}: "
        + ("no address is recorded" if package.url is None else f"{package.url} cannot be fetched from elsewhere")
        for package in conda.packages
        if explicit_line(package) is None
    )
    return (*missing, *conda.problems)
