"""Owns what conda linked into a prefix, read from its own records: ``conda-meta/NAME-VERSION-BUILD.json``.

Nothing else in ``conda-meta`` is opened: ``state`` holds the values of variables, ``history`` command lines. A record
is mostly a list of files, which is skipped without being decoded: 150 records of 56 MB take about 40 ms, and 1 ms when
remembered. Packages that pip installed are not conda's; their records are in the site directory.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from reprod.capture.bounded import read_bounded, reason
from reprod.capture.remembered import FileMemory
from reprod.core.described import described
from reprod.core.packages import Conda, CondaPackage
from reprod.core.redact import plain, redact_url

#: The largest records known, of compilers and CUDA, have 10 MB.
RECORD_BYTES = 1 << 26
MAX_RECORDS = 20_000
MAX_PROBLEMS = 50

_TEXT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.!+*~-]{0,127}\Z")
_URL = re.compile(r"[a-z][a-z0-9+.-]{1,30}://[^\x00-\x20\x7f]{1,2048}\Z", re.IGNORECASE)
#: Of a private channel the address holds the token that opens it; conda itself leaves it out of what it shows.
_TOKEN = re.compile(r"/t/[^/]*(?=/|\Z)")
_CHANNEL = re.compile(r"[^\x00-\x20\x7f]{1,512}\Z")
_FILE = re.compile(r"[A-Za-z0-9_.!+*~-]{1,255}\Z")
_HASHES = {"md5": re.compile(r"[0-9a-f]{32}\Z"), "sha256": re.compile(r"[0-9a-f]{64}\Z")}


@dataclass(frozen=True, slots=True)
class _Record:
    """The fields of a record that are decoded; conda writes null or nothing for what it does not know."""

    name: str
    version: str
    build: str
    channel: str | None = None
    url: str | None = None
    md5: str | None = None
    sha256: str | None = None
    fn: str | None = None
    subdir: str | None = None
    depends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Linked:
    package: CondaPackage
    depends: tuple[str, ...]


#: Some ten large environments.
_RECORDS: FileMemory[_Linked] = FileMemory(4096)


def read_conda(prefix: str) -> Conda | None:
    """Return what conda linked into ``prefix``; None if it is no conda prefix. What is not readable is a problem."""
    prefix = os.path.abspath(prefix)
    try:
        meta_fd = os.open(os.path.join(prefix, "conda-meta"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Conda(plain(prefix), None, (), (plain(f"conda-meta: {reason(error)}"),))
    try:
        linked, problems = _read_records(meta_fd)
    finally:
        os.close(meta_fd)
    packages = tuple(_after_dependencies(linked))
    return Conda(plain(prefix), _name(prefix, packages), packages, tuple(problems))


def _read_records(meta_fd: int) -> tuple[list[_Linked], list[str]]:
    names = sorted(name for name in os.listdir(meta_fd) if name.endswith(".json"))
    problems = []
    if len(names) > MAX_RECORDS:
        problems.append(f"conda-meta: {len(names)} records, only the first {MAX_RECORDS} were read")
    linked = []
    for name in names[:MAX_RECORDS]:
        try:
            linked.append(_read_record(meta_fd, name))
        except OSError as error:
            problems.append(plain(f"conda-meta/{name}: {reason(error)}"))
        except ValueError as error:
            problems.append(plain(f"conda-meta/{name}: {error}"))
    count = Counter(each.package.name for each in linked)
    problems += [f"conda-meta: {name} has {times} records" for name, times in sorted(count.items()) if times > 1]
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
    return linked, problems


def _read_record(meta_fd: int, file: str) -> _Linked:
    """Return the package of one record; raises OSError and ValueError with the reason why there is none."""
    import msgspec

    status = os.stat(file, dir_fd=meta_fd, follow_symlinks=False)
    if (known := _RECORDS.recall("", status)) is not None:
        return known
    if status.st_size > RECORD_BYTES:
        raise ValueError(f"{status.st_size} bytes are more than conda writes")
    try:
        record = msgspec.json.decode(read_bounded(file, RECORD_BYTES, dir_fd=meta_fd), type=described(_Record))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is no record of a package") from None
    if not all(_TEXT.match(value) for value in (record.name, record.version, record.build)):
        raise ValueError("it has no valid name, version or build")
    linked = _Linked(_package(record), tuple(text.partition(" ")[0] for text in record.depends))
    _RECORDS.keep("", status, linked)
    return linked


def _package(record: _Record) -> CondaPackage:
    url = record.url if record.url is not None and _URL.match(record.url) else None
    channel = record.channel if record.channel is not None and _CHANNEL.match(record.channel) else None
    return CondaPackage(
        name=record.name,
        version=record.version,
        build=record.build,
        channel=None if channel is None else _without_token(channel),
        url=None if url is None else _without_token(url),
        md5=_checksum("md5", record.md5),
        sha256=_checksum("sha256", record.sha256),
        fn=record.fn if record.fn is not None and _FILE.match(record.fn) else None,
        subdir=record.subdir if record.subdir is not None and _TEXT.match(record.subdir) else None,
    )


def _without_token(url: str) -> str:
    return redact_url(_TOKEN.sub("", url))


def _checksum(algorithm: str, value: str | None) -> str | None:
    return value if value is not None and _HASHES[algorithm].match(value) else None


def _after_dependencies(linked: Iterable[_Linked]) -> list[CondaPackage]:
    """Return the packages so that each follows those it depends on, otherwise by name; a circle is cut by name.

    The order in which they can be linked, and in which conda itself writes an @EXPLICIT file.
    """
    ordered = sorted(linked, key=lambda each: (each.package.name, each.package.version))
    by_name = {each.package.name: each for each in ordered}
    packages: list[CondaPackage] = []
    entered: set[str] = set()
    for each in by_name.values():
        waiting: list[tuple[_Linked, Iterator[str]]] = []
        following: _Linked | None = each if each.package.name not in entered else None
        while waiting or following is not None:
            if following is not None:
                entered.add(following.package.name)
                waiting.append((following, iter(sorted(following.depends))))
            current, needed = waiting[-1]
            following = next((by_name[name] for name in needed if name in by_name and name not in entered), None)
            if following is None:
                packages.append(current.package)
                waiting.pop()
    return packages + [each.package for each in ordered if each is not by_name[each.package.name]]


def _name(prefix: str, packages: tuple[CondaPackage, ...]) -> str | None:
    """Return the environment's name as ``conda activate`` takes it; None for one that only has a path."""
    parent, name = os.path.split(prefix)
    if os.path.basename(parent) == "envs":
        return plain(name)
    return "base" if any(package.name == "conda" for package in packages) else None
