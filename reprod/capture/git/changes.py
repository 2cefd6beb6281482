"""Owns what differs from the commit: which tracked files, which are new, and what is not an ordinary file.

Paths are bytes, relative to the root. Files that were marked as not to be looked at (assume-unchanged, skip-worktree)
are looked at if they exist: a setting hidden so is part of the code that ran. Submodules are not entered here, because
git would then run with their settings.
"""

import os
from dataclasses import dataclass
from typing import Literal

from reprod.capture.git.command import Place, run, run_some

#: Whether a tracked file differs from the commit in the index (staged), in the working tree, or is in conflict.
Where = Literal["staged", "unstaged", "both", "conflict"]

#: New files are listed for at most this long: a directory of data that nobody ignored may hold millions.
UNTRACKED_S = 1.2

_GITLINK = b"160000"


@dataclass(frozen=True, slots=True)
class Entry:
    """A tracked file as the index has it: mode (octal) and object name."""

    mode: bytes
    oid: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """How the working tree differs from the commit.

    ``nested`` are repositories that no submodule names; ``untracked`` may be cut short (``listed_all`` False).
    """

    index: dict[bytes, Entry]
    tracked: dict[bytes, Where]
    untracked: tuple[bytes, ...]
    nested: tuple[bytes, ...]
    listed_all: bool

    def gitlinks(self) -> dict[bytes, bytes]:
        """Return the commit that the index names for each submodule, by its path."""
        return {path: entry.oid for path, entry in self.index.items() if entry.mode == _GITLINK}

    def has_attributes(self) -> bool:
        """Return whether any file gives attributes to others."""
        paths = (*self.index, *self.untracked)
        return any(path == b".gitattributes" or path.endswith(b"/.gitattributes") for path in paths)

    def count(self, *where: Where) -> int:
        """Return how many tracked files changed in one of these ways."""
        return sum(found in where for found in self.tracked.values())


def read_changes(place: Place) -> Changes:
    """Return what differs from the commit, in the private place; raises IncompleteError if git cannot say in time."""
    index, hidden = _read_index(place)
    _show_hidden(place, hidden)
    status = [
        "status",
        "--porcelain=v2",
        "-z",
        "--untracked-files=no",
        "--ignore-submodules=dirty",
        "--no-ahead-behind",
    ]
    tracked: dict[bytes, Where] = {}
    for record in run(place, status).split(b"\0"):
        kind, _, rest = record.partition(b" ")
        if kind == b"1":
            tracked[rest.split(b" ", 7)[7]] = _where(rest[:2])
        elif kind == b"u":
            tracked[rest.split(b" ", 9)[9]] = "conflict"
    listing, complete = run_some(place.within(UNTRACKED_S), ["ls-files", "-o", "--exclude-standard", "-z"])
    names = listing.split(b"\0")[:-1]
    return Changes(
        index=index,
        tracked=tracked,
        untracked=tuple(name for name in names if not name.endswith(b"/")),
        nested=tuple(name.rstrip(b"/") for name in names if name.endswith(b"/")),
        listed_all=complete,
    )


def _read_index(place: Place) -> tuple[dict[bytes, Entry], list[bytes]]:
    """Return the index by path, and the files that git was told not to look at though they are there."""
    index: dict[bytes, Entry] = {}
    hidden: list[bytes] = []
    root = os.fsencode(place.directory)
    for line in run(place, ["ls-files", "-s", "-v", "-z"]).split(b"\0")[:-1]:
        facts, _, path = line.partition(b"\t")
        flag, mode, oid, _ = facts.split(b" ")
        index[path] = Entry(mode, oid)
        if (flag.islower() or flag == b"S") and os.path.lexists(os.path.join(root, path)):
            hidden.append(path)
    return index, hidden


def _show_hidden(place: Place, hidden: list[bytes]) -> None:
    """Let git look at these files again, in the private index."""
    if hidden:
        paths = b"".join(path + b"\0" for path in hidden)
        # One option a call: given both, git heeds one.
        for option in ("--no-assume-unchanged", "--no-skip-worktree"):
            run(place, ["update-index", option, "-z", "--stdin"], stdin=paths)


def _where(letters: bytes) -> Where:
    staged, unstaged = letters[:1] != b".", letters[1:] != b"."
    if staged and unstaged:
        return "both"
    return "staged" if staged else "unstaged"
