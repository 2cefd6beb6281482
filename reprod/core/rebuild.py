"""Owns how an environment is built again: ``requirements.txt``, and whether what is known is enough for it.

A line is written only if installing it brings back what was there; nothing is guessed that would change what is
installed. What cannot be restored stands in comment lines, with its reason, and is a reason against ``rebuildable``.
What was recorded comes from directories that others control: only text of a strict form becomes a requirement, since
installers expand ``${NAME}``, join lines and take options.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reprod.core.packages import Conda, Origin, Package, PackageSet, Python, comment, conda_losses, normalise
from reprod.core.redact import MASK

Verdict = Literal["yes", "partial", "no"]

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
#: PEP 440 in all its spellings: one line with another version makes an installer refuse the whole file.
_VERSION = re.compile(
    r"""(?xi) v? (?:\d+!)? \d+(?:\.\d+)*
    (?:[-_.]?(?:alpha|a|beta|b|preview|pre|c|rc)[-_.]?\d*)?
    (?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?
    (?:[-_.]?dev[-_.]?\d*)?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))? \Z"""
)
#: An address that no installer reads as more than one: no blank, quote, ``;``, ``$``, ``*``, brace or backslash, and a
#: host that git cannot take for an option.
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?:git@)?[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]*/[A-Za-z0-9._~:/?@!&()+,=%-]*\Z")
_SUBDIRECTORY = re.compile(r"(?!\.\.(?:/|\Z))[A-Za-z0-9._-]+(?:/(?!\.\.(?:/|\Z))[A-Za-z0-9._-]+)*\Z")
_VCS_SCHEMES = {"git": {"https", "http", "ssh"}, "hg": {"https", "http", "ssh"}}
#: What setuptools_scm and its like append to a version that is built from a work tree.
_WORK_TREE = re.compile(r"(?:.*\.)?(?:g[0-9a-f]{7,40}|d20\d{6}|dirty|unknown)(?:\..*)?\Z")
_ACCELERATOR = re.compile(r"(?:cu\d{2,3}|cpu|xpu|rocm\d+(?:\.\d+)*)\Z")
_PYTORCH = frozenset({"torch", "torchaudio", "torchvision", "torchtext", "torchdata", "torchrec", "fbgemm-gpu"})


@dataclass(frozen=True, slots=True)
class Step:
    """How one package is installed again.

    ``line`` is its requirement, None if there is none; ``note`` says what else to know; ``loss`` why it, or the very
    copy that was there, does not come back by that line alone.
    """

    line: str | None
    note: str | None = None
    loss: str | None = None


@dataclass(frozen=True, slots=True)
class Rebuildable:
    """Whether an environment can be built again elsewhere, and each reason against it."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()


def origin_of(
    *, installer: str | None, location: str, direct_url: str | None, editable: bool, vcs: str | None
) -> Origin | None:
    """Return where a package came from; None where its record leaves that open."""
    if editable:
        return "editable"
    if installer == "conda" or (direct_url is not None and _is_conda_build(direct_url)):
        return "conda"
    # Debian keeps what its package manager installed apart; others only say so in the record.
    if installer in {"debian", "rpm"} or (installer is None and location.endswith("/lib/python3/dist-packages")):
        return "system"
    if vcs is not None:
        return "vcs"
    if direct_url is None:
        return None if installer is None else "index"
    archive = re.search(r"\.(?:whl|zip|tar|tgz|tar\.[a-z0-9]+)\Z", direct_url.partition("#")[0].partition("?")[0])
    return "directory" if direct_url.startswith("file:") and not archive else "archive"


def step(package: Package) -> Step:
    """Return how ``package`` is installed again, by where it came from."""
    name, version = package.name, package.version
    if package.shadowed:
        return Step(None, note=f"{name} {version} in {package.location}: another {name} comes first on the path")
    match package.origin or _derived(package):
        case "editable":
            return Step(None, loss=f"{name} {version}: editable, its code is in {package.direct_url or 'a directory'}")
        case "directory":
            return Step(None, loss=f"{name} {version}: installed from the local directory {package.direct_url}")
        case "system":
            return Step(None, loss=f"{name} {version}: installed by the operating system in {package.location}")
        case "conda":
            return _pinned(package, note=f"{name} {version}: installed by conda, see conda_packages.txt")
        case "vcs":
            return _from_repository(package)
        case "archive":
            return _from_archive(package)
        case _:
            return _from_index(package)


def requirements_text(found: PackageSet, *, header: Sequence[str] = ()) -> str:
    """Return ``requirements.txt``: comment lines that begin with ``header``, then one requirement a line, by name.

    A local version stays, and no index is added to the file: that would change what the other lines install.
    """
    steps = [step(package) for package in sorted(found.packages, key=_by_name)]
    notes = [text for each in steps if (text := each.note) is not None]
    losses = [text for each in steps if (text := each.loss) is not None]
    losses += [f"{broken.record} in {broken.location}: {broken.reason}" for broken in found.broken]
    return "\n".join(
        [
            *(comment(text) for text in header),
            "# To install: pip install --no-deps -r requirements.txt, or: uv pip sync requirements.txt",
            *(comment(text) for text in notes),
            *(comment(f"not restored by this file alone: {text}") for text in losses),
            *(comment(f"not readable: {text}") for text in found.problems),
            *(each.line for each in steps if each.line is not None),
        ]
    ) + ("\n")


def judge(
    found: PackageSet | None,
    conda: Conda | None = None,
    *,
    python: Python | None = None,
    code: Rebuildable | None = None,
) -> Rebuildable:
    """Return whether the environment can be built again from what is known of it; ``code`` is the repository's part.

    ``yes`` needs every part: what came from an index is taken to be there still, and nothing else is in the way. ``no``
    is an environment of which no package can be had again, or none is known.
    """
    if found is None:
        return Rebuildable("no", ("the packages are unknown", *(code.reasons if code else ())))
    counted = [package for package in found.packages if not package.shadowed]
    reasons = [loss for package in counted if (loss := step(package).loss) is not None]
    nothing = bool(counted) and all(step(package).line is None for package in counted)
    reasons += [
        f"{package.name}: {len(package.edited)} installed files were edited" for package in counted if package.edited
    ]
    reasons += _doubles(found)
    reasons += [f"{each.record} in {each.location}: {each.reason}" for each in found.broken if not each.leftover]
    reasons += found.problems
    if python is None:
        reasons.append("the version of Python is unknown")
    if conda is not None:
        reasons += conda_losses(conda)
    elif any((package.origin or _derived(package)) == "conda" for package in counted):
        reasons.append("packages were installed by conda, whose own records are unknown")
    if code is not None:
        reasons += code.reasons
    whole = not reasons and (code is None or code.verdict == "yes")
    return Rebuildable("no" if nothing else "yes" if whole else "partial", tuple(reasons))


def _pinned(package: Package, *, note: str | None = None, loss: str | None = None) -> Step:
    if not (_NAME.match(package.name) and _VERSION.match(package.version)):
        return Step(None, loss=f"{package.name} {package.version}: no installer of today accepts this as a version")
    return Step(f"{package.name}=={package.version}", note, loss)


def _from_index(package: Package) -> Step:
    found = _VERSION.match(package.version)
    local = found.group("local") if found else None
    if local is None:
        return _pinned(package)
    what = f"{package.name} {package.version}"
    if _WORK_TREE.match(local.lower()):
        return Step(None, loss=f"{what}: built from a work tree, and its version is on no index")
    if normalise(package.name) in _PYTORCH and _ACCELERATOR.match(local):
        return _pinned(package, loss=f"{what}: needs the index that PyTorch keeps for {local}")
    return _pinned(package, loss=f"{what}: a local version, which needs the index or folder that it came from")


def _from_repository(package: Package) -> Step:
    what = f"{package.name} {package.version}"
    url = (package.direct_url or "").partition("#")[0]
    found = _URL.match(url)
    if package.commit is None:
        return Step(None, loss=f"{what}: installed from {url}, but its commit is not recorded")
    if found is None or found["scheme"] not in _VCS_SCHEMES.get(package.vcs or "git", set()) or not _named(package):
        return Step(None, loss=f"{what}: {_unfetchable(url)}, commit {package.commit}")
    end = f"#subdirectory={package.subdirectory}" if package.subdirectory else ""
    return Step(f"{package.name} @ {package.vcs or 'git'}+{url}@{package.commit}{end}")


def _from_archive(package: Package) -> Step:
    what = f"{package.name} {package.version}"
    url = (package.direct_url or "").partition("#")[0]
    found = _URL.match(url)
    if found is None or found["scheme"] not in {"https", "http"} or not _named(package):
        checksum = f", sha256 {package.archive_sha256}" if package.archive_sha256 else ""
        return Step(None, loss=f"{what}: {_unfetchable(url)}{checksum}")
    parts = [f"sha256={package.archive_sha256}"] if package.archive_sha256 else []
    parts += [f"subdirectory={package.subdirectory}"] if package.subdirectory else []
    note = None if package.archive_sha256 else f"{what}: its installer recorded no checksum of {url}"
    return Step(f"{package.name} @ {url}" + (f"#{'&'.join(parts)}" if parts else ""), note)


def _named(package: Package) -> bool:
    sub = package.subdirectory
    return bool(_NAME.match(package.name)) and (sub is None or bool(_SUBDIRECTORY.match(sub)))


def _unfetchable(url: str) -> str:
    if url.startswith("file:"):
        return f"installed from {url}, which is on this machine only"
    if MASK in url:
        return f"installed from {url}, whose address held a secret that is not recorded"
    return f"installed from {url}, which is no address that can be fetched safely"


def _is_conda_build(url: str) -> bool:
    """Return whether ``url`` is the directory in which conda's own build machines build: it exists nowhere else."""
    return re.match(r"file:///(?:[^?#]*/)?(?:croot|feedstock_root|conda-bld|80754af9)/", url) is not None


def _derived(package: Package) -> Origin | None:
    return origin_of(
        installer=package.installer,
        location=package.location,
        direct_url=package.direct_url,
        editable=package.editable,
        vcs=package.vcs or ("git" if package.commit else None),
    )


def _doubles(found: PackageSet) -> list[str]:
    """Return the projects with two versions in one directory: what their files are, no record can say."""
    first = {(normalise(each.name), each.location): each for each in found.packages if not each.shadowed}
    return [
        f"{each.name}: both {one.version} and {each.version} are recorded in {each.location}"
        for each in found.packages
        if each.shadowed
        and (one := first.get((normalise(each.name), each.location))) is not None
        and one.version != each.version
    ]


def _by_name(package: Package) -> tuple[str, str]:
    return (normalise(package.name), package.version)
