"""Owns which distributions a list of site directories holds, read from the installers' own records.

Every record on disk is listed: ``*.dist-info``, ``*.egg-info``, ``*.egg-link`` and ``~x``, as a package or as broken.
Only values of the form that they must have are taken out of a file, so that nothing else in a hostile directory can
come out. The first record on the path counts, as for an import; others of the same project are ``shadowed``. 193
packages take about 18 ms with the digests of their RECORDs (32,000 files), and 6 ms when those are remembered.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from reprod.capture.bounded import read_bounded, reason
from reprod.capture.packages.direct_url import NO_SOURCE, Source, read_source
from reprod.capture.packages.record_digest import read_record_digest
from reprod.core.packages import BrokenRecord, Package, PackageSet, normalise
from reprod.core.rebuild import origin_of
from reprod.core.redact import plain

__all__ = ["PackageSet", "read_packages"]

#: Name and Version come first; a long description follows and is not read to its end.
HEADER_BYTES = 1 << 12
METADATA_BYTES = 1 << 16
WHEEL_BYTES = 1 << 14
#: The largest real environments have a few thousand; a directory with more is made to hurt.
MAX_RECORDS = 20_000
MAX_PROBLEMS = 200
#: A wheel for several platforms at once names each; the largest known have a dozen.
MAX_TAGS = 64

#: Records of setuptools' develop mode point to the source directory from a file of one line.
_RECORD = re.compile(r"~.|.*\.(?:dist-info|egg-info|egg-link)\Z", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?\Z")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,127}\Z")
_HEADERS = {b"name": _NAME, b"version": _VERSION}
_INSTALLER = re.compile(rb"[A-Za-z][A-Za-z0-9._-]{0,31}\Z")
_TAG = re.compile(rb"^Tag:[ \t]*([A-Za-z0-9_.]{1,64}-[A-Za-z0-9_.]{1,64}-[A-Za-z0-9_.]{1,128})[ \t\r]*$", re.MULTILINE)
#: They note whether the user asked for the package; where another one installed it, the missing note says nothing.
_NOTING_REQUESTS = frozenset({"pip", "uv"})

_T = TypeVar("_T")


def read_packages(site_dirs: Sequence[str]) -> PackageSet:
    """Return the distributions recorded in ``site_dirs``, the first directory first; a missing directory is empty.

    A directory that is named twice, or by two names, is read once.
    """
    found: dict[str, list[Package]] = {}
    broken: list[BrokenRecord] = []
    problems: list[str] = []
    seen: set[tuple[int, int]] = set()
    for site_dir in dict.fromkeys(os.path.abspath(path) for path in site_dirs):
        for record in _read_site(site_dir, seen, problems):
            if isinstance(record, BrokenRecord):
                broken.append(record)
                continue
            others = found.setdefault(normalise(record.name), [])
            if others and others[0].location == record.location and others[0].version != record.version:
                versions = f"{others[0].version} and {record.version}"
                problems.append(f"{site_dir}: {record.name} has two records, {versions}")
            others.append(replace(record, shadowed=True) if others else record)
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
    return PackageSet(
        tuple(package for key in sorted(found) for package in found[key]),
        tuple(broken),
        tuple(plain(problem) for problem in problems),
    )


def _read_site(site_dir: str, seen: set[tuple[int, int]], problems: list[str]) -> Iterator[Package | BrokenRecord]:
    try:
        site_fd = os.open(site_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        # A zip file on the path is imported from, but holds no record that is read here.
        problems.append(f"{site_dir}: {reason(error)}")
        return
    try:
        status = os.fstat(site_fd)
        # lib64 is often a link to lib, and both are on the path.
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        yield from _read_records(site_fd, site_dir, problems)
    except OSError as error:
        problems.append(f"{site_dir}: {reason(error)}")
    finally:
        os.close(site_fd)


def _read_records(site_fd: int, site_dir: str, problems: list[str]) -> Iterator[Package | BrokenRecord]:
    wanted = "EGG-INFO" if site_dir.endswith(".egg") else None
    names = sorted(name for name in os.listdir(site_fd) if _RECORD.match(name) or name == wanted)
    if len(names) > MAX_RECORDS:
        problems.append(f"{site_dir}: {len(names)} records, only the first {MAX_RECORDS} were read")
    location = plain(site_dir)
    for name in names[:MAX_RECORDS]:
        if name.startswith("~"):
            yield BrokenRecord(plain(name), location, "left over from an interrupted uninstall", leftover=True)
            continue
        try:
            yield _read_record(site_fd, name, location, problems)
        except OSError as error:
            said = reason(error)
            if isinstance(error, FileNotFoundError) and isinstance(error.filename, str) and error.filename != name:
                said = f"it has no {error.filename}"
            yield BrokenRecord(plain(name), location, plain(said))
        except ValueError as error:
            yield BrokenRecord(plain(name), location, str(error))


def _read_record(site_fd: int, record: str, location: str, problems: list[str]) -> Package:
    """Return the package of one record; raises ValueError and OSError with the reason why there is none."""
    if record.endswith(".egg-link"):
        return _read_link(site_fd, record, location)
    try:
        record_fd = os.open(record, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=site_fd)
    except NotADirectoryError:
        if not record.endswith(".egg-info"):
            raise
        # Old distutils wrote the metadata into one file of that name.
        return _described(*_headers(record, site_fd), location, record)
    try:
        if not record.endswith(".dist-info"):
            return _described(*_headers("PKG-INFO", record_fd), location, record)
        return _read_details(record_fd, record, location, problems)
    finally:
        os.close(record_fd)


def _read_details(record_fd: int, record: str, location: str, problems: list[str]) -> Package:
    """Return the package of a dist-info, with what its installer noted; what of that is not readable is a problem."""
    name, version = _headers("METADATA", record_fd)
    installer = _installer(record_fd)

    def note(file: str, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else error
            problems.append(f"{location}/{record}/{file}: {why}")
            return None

    return _described(
        name,
        version,
        location,
        record,
        source=note("direct_url.json", lambda: read_source(record_fd)) or NO_SOURCE,
        installer=installer,
        requested=_exists("REQUESTED", record_fd) if installer in _NOTING_REQUESTS else None,
        digest=note("RECORD", lambda: read_record_digest(record_fd, record)),
        tags=note("WHEEL", lambda: _tags(record_fd)) or (),
    )


def _described(
    name: str,
    version: str,
    location: str,
    record: str,
    *,
    source: Source = NO_SOURCE,
    installer: str | None = None,
    requested: bool | None = None,
    digest: str | None = None,
    tags: tuple[str, ...] = (),
) -> Package:
    origin = origin_of(
        installer=installer, location=location, direct_url=source.url, editable=source.editable, vcs=source.vcs
    )
    return Package(
        name=name,
        version=version,
        location=location,
        direct_url=source.url,
        commit=source.commit,
        editable=source.editable,
        vcs=source.vcs,
        subdirectory=source.subdirectory,
        archive_sha256=source.archive_sha256,
        installer=installer,
        requested=requested,
        origin=origin,
        record=plain(record),
        record_sha256=digest,
        tags=tags,
    )


def _read_link(site_fd: int, record: str, location: str) -> Package:
    """Return the package whose source directory an ``.egg-link`` names: its metadata lies there."""
    first = read_bounded(record, METADATA_BYTES, dir_fd=site_fd).partition(b"\n")[0].strip()
    if not first or b"\0" in first:
        raise ValueError("it names no directory")
    directory = os.path.normpath(os.path.join(location, os.fsdecode(first)))
    stem = record.removesuffix(".egg-link")
    for metadata in dict.fromkeys((stem, stem.replace("-", "_"))):
        try:
            metadata_fd = os.open(f"{directory}/{metadata}.egg-info", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            name, version = _headers("PKG-INFO", metadata_fd)
        finally:
            os.close(metadata_fd)
        return _described(name, version, location, record, source=Source("file://" + plain(directory), editable=True))
    raise ValueError("its source directory has no metadata")


def _headers(file: str, dir_fd: int) -> tuple[str, str]:
    """Return Name and Version of a metadata file; raises OSError and ValueError."""
    data = read_bounded(file, HEADER_BYTES, dir_fd=dir_fd)
    values = _parse_headers(data)
    if len(values) < len(_HEADERS) and len(data) == HEADER_BYTES:
        values = _parse_headers(read_bounded(file, METADATA_BYTES, dir_fd=dir_fd))
    return _header(values, b"name"), _header(values, b"version")


def _parse_headers(data: bytes) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    for line in data.split(b"\n"):
        if not line.strip() or len(values) == len(_HEADERS):
            break
        key, _, value = line.partition(b":")
        if key.lower() in _HEADERS:
            values.setdefault(key.lower(), value.strip())
    return values


def _header(values: dict[bytes, bytes], key: bytes) -> str:
    title = key.decode().capitalize()
    if not values.get(key):
        raise ValueError(f"its metadata has no {title}")
    value = values[key].decode("ascii", "replace")
    if not _HEADERS[key].match(value):
        raise ValueError(f"its metadata has no valid {title}")
    return value


def _installer(record_fd: int) -> str | None:
    try:
        value = read_bounded("INSTALLER", 64, dir_fd=record_fd).strip()
    except OSError:
        return None
    return value.decode("ascii").lower() if _INSTALLER.match(value) else None


def _tags(record_fd: int) -> tuple[str, ...]:
    found = _TAG.findall(read_bounded("WHEEL", WHEEL_BYTES, dir_fd=record_fd))
    return tuple(sorted({tag.decode("ascii") for tag in found})[:MAX_TAGS])


def _exists(file: str, dir_fd: int) -> bool | None:
    try:
        os.stat(file, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return True
