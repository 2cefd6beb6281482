"""Owns which dependencies a process really used, in contrast to those that were merely installed.

Three ways to know, never mixed: ``in-process`` is what the interpreter had loaded at that moment; ``maps`` is what
another process has mapped, extension modules only; ``static`` is what a source file says it imports. Only the first
can be complete, and it too says nothing of what is imported later. Nothing here reads a file.
"""

from dataclasses import dataclass
from typing import Literal

How = Literal["in-process", "maps", "static"]

#: ``record``: the installer's list of files names the file. ``editable``: the file lies in the source directory of an
#: editable install. ``top-level``: there is no list of files, the distribution only names the module.
Evidence = Literal["record", "editable", "top-level"]


@dataclass(frozen=True, slots=True)
class UsedDistribution:
    """A distribution of which ``files`` (a number) were loaded; ``static``: were named by an import.

    ``version`` is None where its metadata could not be read. ``location`` is the directory that holds its metadata.
    """

    name: str
    version: str | None
    location: str
    by: Evidence
    files: int


@dataclass(frozen=True, slots=True)
class Imports:
    """What was used. ``complete`` is False where more may have been used than is listed.

    ``local_files`` are the user's own source files, those of editable installs included; the list is cut at 1000,
    ``local_count`` is how many there are. ``standard_library`` is how many modules of it. ``unresolved`` are modules
    that belong to no distribution although they lie among installed ones, or, with ``static``, that are found nowhere.
    """

    how: How
    complete: bool
    distributions: tuple[UsedDistribution, ...] = ()
    local_count: int = 0
    local_files: tuple[str, ...] = ()
    standard_library: int = 0
    unresolved: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
