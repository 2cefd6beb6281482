"""Owns what the installers' records in one directory say: which distributions, and which files are theirs.

A record is a ``*.dist-info`` or ``*.egg-info`` beside the modules. They may be hostile: they are read bounded, and only
a valid name, a valid version, and whether a path is listed come out. Paths are bytes relative to the directory.
"""

import csv
import os
import re
from collections.abc import Iterable

from reprod.capture.bounded import read_bounded, reason
from reprod.core.packages import normalise

#: The largest wheels (torch with its headers) list about 15,000 files in 2 MiB.
LIST_BYTES = 1 << 25
METADATA_BYTES = 1 << 16
#: All lists of one directory. 192 distributions have 3 MiB; a directory with more than this is made to hurt.
SITE_BYTES = 1 << 28
MAX_RECORDS = 20_000
#: A directory that is searched for modules but is no site directory may be a data directory with a million files.
MAX_ENTRIES = 5_000

_LISTS = ("RECORD", "installed-files.txt")

#: Directories of these names hold what installers put there.
SITE_NAMES = frozenset({"site-packages", "dist-packages"})

_NAME = re.compile(rb"^Name:[ \t]*([A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?)[ \t\r]*$", re.MULTILINE)
_VERSION = re.compile(rb"^Version:[ \t]*([A-Za-z0-9][A-Za-z0-9._+!-]{0,127})[ \t\r]*$", re.MULTILINE)


def project_of(record: str) -> str:
    """Return the name in ``name-version.dist-info``; old ``name.egg-info`` has no version."""
    return record.rpartition(".")[0].partition("-")[0]


class Site:
    """The records of ``path``; ``is_installed`` tells a directory for installed modules from one of the user's."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_installed = os.path.basename(path) in SITE_NAMES
        self.problems: list[str] = []
        self._left = SITE_BYTES
        self.records = self._list()

    def _list(self) -> tuple[str, ...]:
        names: list[str] = []
        try:
            with os.scandir(self.path) as entries:
                for number, entry in enumerate(entries):
                    if number >= MAX_ENTRIES and not self.is_installed:
                        return ()
                    if entry.name.endswith((".dist-info", ".egg-info")) and not entry.name.startswith(("~", ".")):
                        names.append(entry.name)
        except OSError:  # a zip file, or a directory that is gone: it has no records
            return ()
        if len(names) > MAX_RECORDS:
            self.problems.append(f"{self.path}: {len(names)} records, only the first {MAX_RECORDS} were read")
        return tuple(sorted(names)[:MAX_RECORDS])

    def raw_list(self, record: str) -> bytes | None:
        """Return the list of files of ``record`` as it is written; None if it has none."""
        for name in _LISTS:
            if self._left <= 0:
                break
            data = self.read(f"{record}/{name}", min(LIST_BYTES, self._left))
            if data is not None:
                self._left -= len(data)
                if self._left <= 0:
                    self.problems.append(f"{self.path}: its lists of files are larger than {SITE_BYTES >> 20} MiB")
                return data
        return None

    def has_list(self, record: str) -> bool:
        """Return whether ``record`` has a list of files, readable or not."""
        return any(os.path.lexists(os.path.join(self.path, record, name)) for name in _LISTS)

    def read(self, relative: str, limit: int) -> bytes | None:
        """Return the first ``limit`` bytes of a file below the directory; None without one, with why as a problem."""
        try:
            return read_bounded(os.path.join(self.path, relative), limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.problems.append(f"{self.path}/{relative}: {reason(error)}")
            return None

    def identity(self, record: str) -> tuple[str, str | None]:
        """Return name and version, from the metadata; where they are not valid, the directory's name and None."""
        data = b""
        for name in (f"{record}/METADATA", f"{record}/PKG-INFO", record):
            found = self.read(name, METADATA_BYTES)
            if found is not None:
                data = found.partition(b"\n\n")[0]
                break
        label, version = _NAME.search(data), _VERSION.search(data)
        if label is None or version is None:
            self.problems.append(f"{self.path}/{record}: its metadata has no valid Name and Version")
            return project_of(record), None
        return label.group(1).decode("ascii"), version.group(1).decode("ascii")

    def top_levels(self, record: str) -> frozenset[str]:
        """Return the modules that a record without a list of files names: of ``top_level.txt``, else its own name."""
        data = self.read(f"{record}/top_level.txt", METADATA_BYTES)
        if data is None:
            return frozenset({normalise(project_of(record)).replace("-", "_")})
        return frozenset(os.fsdecode(line.strip()) for line in data.split(b"\n") if line.strip())


def listed_paths(data: bytes, record: str) -> set[bytes]:
    """Return the paths in a list of files; those of ``installed-files.txt`` are relative to the record itself."""
    lines = data.split(b"\n")
    if b"," not in data:
        base = os.fsencode(record)
        return {os.path.normpath(os.path.join(base, line.rstrip(b"\r"))) for line in lines if line}
    paths = {line.partition(b",")[0] for line in lines}
    if b'\n"' in data or data.startswith(b'"'):
        paths.update(path for line in lines if line.startswith(b'"') for path in _quoted(line))
    return paths


def _quoted(line: bytes) -> Iterable[bytes]:
    try:
        return [os.fsencode(row[0]) for row in csv.reader([os.fsdecode(line)]) if row]
    except csv.Error:
        return []
