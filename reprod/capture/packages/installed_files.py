"""Owns which installed distribution a file belongs to: what the installer's own list of files says, exactly.

A module's name does not tell its distribution (``google`` is of several, ``sklearn`` of scikit-learn); ``RECORD`` does.
Only the lists that are needed are read: first those whose distribution has the name of a module, the others only for
files that are left. A file outside counts to the editable install in whose sources it lies.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reprod.capture.packages.editable import Source, read_sources
from reprod.capture.packages.records import SITE_NAMES, Site, listed_paths, project_of
from reprod.core.imports import Evidence, UsedDistribution
from reprod.core.packages import normalise
from reprod.core.redact import plain

MAX_PROBLEMS = 50


@dataclass(frozen=True, slots=True)
class Ownership:
    """Distributions in order of their names, and the files (absolute paths) that are not plainly installed ones.

    ``editable`` lie in the sources of an editable install, ``others`` belong to none. ``strays`` are the top-level
    names of modules that lie among installed ones and are nobody's.
    """

    distributions: tuple[UsedDistribution, ...]
    editable: tuple[str, ...]
    others: tuple[str, ...]
    strays: tuple[str, ...]
    problems: tuple[str, ...]


def find_owners(files: Iterable[str], search_path: Sequence[str]) -> Ownership:
    """Return which distributions ``files`` (absolute paths) belong to; modules are searched in ``search_path``."""
    search = _Search(search_path)
    outside, left = [], []
    for path, wanted in search.by_directory(sorted(set(files))).items():
        if path is None:
            outside += list(wanted.values())
            continue
        site = search.site(path)
        left += [(site, relative, file) for relative, file in search.count_listed(site, wanted).items()]
    commands = [file for _, _, file in left if os.path.basename(os.path.dirname(file)) == "bin"]
    found = search.count_commands(commands)
    left = [(site, relative, file) for site, relative, file in left if file not in found]
    editable, rest = search.count_editable(outside, left)
    others, strays = search.count_named(rest)
    return Ownership(
        search.distributions(),
        tuple(editable),
        tuple(file for file in outside if file not in editable) + tuple(others),
        tuple(sorted(strays)),
        search.all_problems(),
    )


class _Search:
    """One search: each directory is listed once, each record's name and version read once if it owns anything."""

    def __init__(self, search_path: Sequence[str]) -> None:
        self._roots: dict[str, str] = {}
        for path in search_path:
            self._roots.setdefault(path, path)
            # What the kernel says of mapped files is the real path; lib64 is often a link to lib.
            self._roots.setdefault(os.path.realpath(path), path)
        self._root_of: dict[str, str | None] = {"/": None}
        self._sites: dict[str, Site] = {}
        self._counts: dict[tuple[Site, str], dict[Evidence, int]] = {}
        self._problems: dict[str, None] = {}

    def site(self, path: str) -> Site:
        """Return the records of ``path``."""
        if path not in self._sites:
            self._sites[path] = Site(path)
        return self._sites[path]

    def by_directory(self, files: Sequence[str]) -> dict[str | None, dict[str, str]]:
        """Return the files by the innermost searched directory that they lie in, and by their path in it."""
        found: dict[str | None, dict[str, str]] = {}
        for file in files:
            root = self._root(os.path.dirname(file))
            place = None if root is None else self._roots[root]
            found.setdefault(place, {})[file if root is None else file[len(root) + 1 :]] = file
        return found

    def _root(self, directory: str) -> str | None:
        pending = []
        while directory not in self._root_of:
            pending.append(directory)
            # A directory of that name is one wherever it is: it may have left the search path since.
            if directory in self._roots or os.path.basename(directory) in SITE_NAMES:
                self._roots.setdefault(directory, directory)
                self._root_of[directory] = directory
            else:
                directory = os.path.dirname(directory)
        root = self._root_of[directory]
        self._root_of.update(dict.fromkeys(pending, root))
        return root

    def count_listed(self, site: Site, wanted: dict[str, str]) -> dict[str, str]:
        """Count the files (by relative path) that a list names; return those that none does."""
        remaining = {os.fsencode(relative): file for relative, file in wanted.items()}
        tops = {normalise(top) for top in {relative.partition("/")[0].partition(".")[0] for relative in wanted}}
        near = [record for record in site.records if normalise(project_of(record)) in tops]
        for records in (near, sorted(set(site.records).difference(near))):
            claims: dict[bytes, list[str]] = {}
            # A path outside the directory begins with "..", as many do: then the whole path is looked for.
            words = {path if path.startswith(b"..") else path.partition(b"/")[0] for path in remaining}
            for record in records if remaining else ():
                data = site.raw_list(record)
                if data is not None and any(word in data for word in words):
                    for path in remaining.keys() & listed_paths(data, record):
                        claims.setdefault(path, []).append(record)
            for path, claimants in claims.items():
                self._claim(site, path, claimants)
                del remaining[path]
        return {os.fsdecode(relative): file for relative, file in remaining.items()}

    def _claim(self, site: Site, path: bytes, claimants: Sequence[str]) -> None:
        for record in claimants:
            self._count(site, record, "record")
        if len(claimants) > 1:
            names = " and ".join(record.rpartition(".")[0] for record in claimants)
            self._problems[f"{site.path}: {names} list the same files of {os.fsdecode(path).partition('/')[0]}"] = None

    def count_commands(self, files: Sequence[str]) -> set[str]:
        """Count installed commands, which lists name by a path that leads out of their directory; return these."""
        found: set[str] = set()
        for path in self._installed() if files else ():
            wanted = {os.path.relpath(file, path): file for file in files}
            found.update(set(files).difference(self.count_listed(self.site(path), wanted).values()))
        return found

    def count_editable(
        self, outside: Sequence[str], left: Sequence[tuple[Site, str, str]]
    ) -> tuple[list[str], list[tuple[Site, str, str]]]:
        """Count the files that lie in sources of editable installs; return them, and those of ``left`` that do not."""
        candidates = [*outside, *(file for site, _, file in left if not site.is_installed)]
        sources = self._sources() if candidates else []
        found = []
        for file in candidates:
            source = next((source for source in sources if source.holds(file)), None)
            if source is not None:
                self._count(source.site, source.record, "editable")
                found.append(file)
        done = set(found)
        return found, [item for item in left if item[2] not in done]

    def _sources(self) -> list[Source]:
        """Return the sources of all editable installs, the innermost first."""
        found = [source for path in self._installed() for source in read_sources(self.site(path))]
        return sorted(found, key=lambda source: len(source.path), reverse=True)

    def _installed(self) -> list[str]:
        paths = dict.fromkeys(path for path in self._roots.values() if os.path.basename(path) in SITE_NAMES)
        return list(dict.fromkeys([*paths, *(path for path, site in self._sites.items() if site.records)]))

    def count_named(self, left: Sequence[tuple[Site, str, str]]) -> tuple[list[str], set[str]]:
        """Count files whose top-level name one record without a list has; return the files elsewhere, and strays."""
        named: dict[Site, dict[str, str]] = {}
        others: list[str] = []
        strays: set[str] = set()
        for site, relative, file in left:
            if site not in named:
                named[site] = _listless(site)
            top = relative.partition("/")[0].partition(".")[0]
            record = named[site].get(top)
            if record is not None:
                self._count(site, record, "top-level")
            elif site.is_installed:
                strays.add(plain(top))
            else:
                others.append(file)
        return others, strays

    def _count(self, site: Site, record: str, by: Evidence) -> None:
        counts = self._counts.setdefault((site, record), {})
        counts[by] = counts.get(by, 0) + 1

    def distributions(self) -> tuple[UsedDistribution, ...]:
        """Return what was counted, one for each record."""
        found = []
        for (site, record), counts in self._counts.items():
            name, version = site.identity(record)
            by = min(counts)  # "editable" before "record": an installed command does not make its sources installed
            found.append(UsedDistribution(plain(name), version, plain(site.path), by, sum(counts.values())))
        return tuple(sorted(found, key=lambda used: (normalise(used.name), used.version or "", used.location)))

    def all_problems(self) -> tuple[str, ...]:
        """Return what could not be read or told, cut at ``MAX_PROBLEMS``."""
        problems = [*self._problems, *(problem for site in self._sites.values() for problem in site.problems)]
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
        return tuple(plain(problem) for problem in problems)


def _listless(site: Site) -> dict[str, str]:
    """Return top-level module -> record for records without a list of files; what several name is nobody's."""
    found: dict[str, list[str]] = {}
    for record in site.records:
        if not site.has_list(record):
            for name in site.top_levels(record):
                found.setdefault(name, []).append(record)
    return {name: records[0] for name, records in found.items() if len(records) == 1}
