"""List a dataset's directories with the stat of every entry. Nothing is opened but directories.

The walk goes through descriptors (openat, fstatat), so it never leaves the root through a symlink and knows no
PATH_MAX. A directory that cannot be listed completely is said as such: what was known of it must be kept, not deleted.
Order is depth first; within a directory it is the file system's.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from reprod.core.pattern import Selection
from reprod.fs.ladder import Ladder
from reprod.fs.pace import Pace
from reprod.fs.read import Stat, lstat_at, stat_tuple
from reprod.fs.statx import ask_server

__all__ = ["Listing", "Part", "Stat", "join", "lstat_at", "stat_tuple", "walk"]

#: What os.fsencode does, at half its cost: there is one call for each file of a walk.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
#: Entries that are handled at once: a directory of millions costs the memory of its names, and a worker of the pool
#: has a few milliseconds of work.
PART_ENTRIES = 1024

#: Above any name: those have 255 bytes at most.
LAST = b"\xff" * 256


class Part(NamedTuple):
    """A range of a directory's names, ``after < name <= until``, with the stat of every selected entry in it.

    ``vanished`` are those that were listed and not there any more to be stat'ed.
    """

    after: bytes
    until: bytes
    files: dict[bytes, Stat]
    vanished: list[bytes]

    @classmethod
    def of(cls, after: bytes, until: bytes, names: list[bytes], files: dict[bytes, Stat]) -> "Part":
        """Return the part that a range of names and the stats of those that were there make."""
        gone = [name for name in names if name not in files] if len(files) < len(names) else []
        return cls(after, until, files, gone)


@dataclass(slots=True)
class Listing:
    """One directory as it was listed. ``fd`` is valid until the walk goes on, and so are ``parts``.

    ``names`` are the selected regular files, symlinks and special files, in byte order; ``unread`` are regular files
    that need no stat, because the directory is new and all of it is going to be opened anyway. ``directories`` are the
    selected subdirectories. With ``error`` the listing is incomplete: absence from it proves nothing; a stat that fails
    sets it too. ``foreign``: it is on another device than the root, so something was mounted there, and no ctime tells
    when.
    """

    path: bytes
    fd: int
    stat: Stat | None
    names: list[bytes] = field(default_factory=list)
    unread: list[bytes] = field(default_factory=list)
    directories: list[bytes] = field(default_factory=list)
    error: OSError | None = None
    foreign: bool = False
    sync: bool = False

    def ranges(self) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
        """Yield ``(after, until, names)``, all names covered; one empty range for a directory without any."""
        after = b""
        for i in range(0, len(self.names) or 1, PART_ENTRIES):
            some = self.names[i : i + PART_ENTRIES]
            until = some[-1] if i + PART_ENTRIES < len(self.names) else LAST
            yield after, until, some
            after = until

    def parts(self) -> Iterator[Part]:
        """Yield the entries range by range; ends early where a stat fails."""
        for after, until, names in self.ranges():
            try:
                if self.sync:
                    for name in names:
                        ask_server(self.fd, name)
                files = _stat_all(self.fd, names)
            except OSError as error:
                self.error = error
                return
            yield Part.of(after, until, names, files)


def join(directory: bytes, name: bytes) -> bytes:
    """Join a directory's path and a child's name; the root is ``b""``."""
    return directory + b"/" + name if directory else name


def walk(
    root: int,
    selection: Selection,
    *,
    top: bytes = b"",
    skip: frozenset[tuple[int, int]] = frozenset(),
    checkpoint: Callable[[], None] = lambda: None,
    is_new: Callable[[bytes, Stat], bool] = lambda _path, _stat: False,
    pace: Pace | None = None,
    sync: bool = False,
) -> Iterator[Listing]:
    """Yield a Listing for ``top`` and every selected directory below it.

    :param root: open descriptor of the dataset's root.
    :param skip: ``(device, inode)`` of directories that are never entered (reprod's own state).
    :param checkpoint: called once a directory; raises to stop.
    :param is_new: whether the regular files of a directory need no stat (see Listing).
    :param pace: a limit of entries a second.
    :param sync: ask the server for attributes (``reprod.fs.statx``).
    """
    device = os.fstat(root).st_dev
    with Ladder(root) as ladder:
        pending = [top]
        while pending:
            checkpoint()
            path = pending.pop()
            try:
                fd = ladder.open(path) if path else root
                if sync:
                    ask_server(fd)
                st = os.fstat(fd)
            except OSError as error:
                yield Listing(path, -1, None, error=error)
                continue
            if (st.st_dev, st.st_ino) in skip:
                continue
            here = stat_tuple(st)
            listing = Listing(path, fd, here, foreign=st.st_dev != device, sync=sync)
            _list(listing, selection, stat_files=not is_new(path, here))
            if pace is not None:
                pace.charge(1 + len(listing.names) + len(listing.unread))
                pace.wait(checkpoint)
            yield listing
            pending.extend(join(path, name) for name in listing.directories)


def _list(listing: Listing, selection: Selection, *, stat_files: bool) -> None:
    """Fill in the names of a listing."""
    try:
        with os.scandir(listing.fd) as entries:
            while some := list(islice(entries, PART_ENTRIES)):
                _take(listing, some, selection, stat_files=stat_files)
    except OSError as error:
        listing.error = error
    listing.names.sort()
    listing.unread.sort()


def _take(listing: Listing, entries: list[os.DirEntry[str]], selection: Selection, *, stat_files: bool) -> None:
    """Sort some entries by what they are; by comprehensions, because there is one call for each file of a walk."""
    others = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
    if len(others) < len(entries):
        directories = _encode([entry for entry in entries if entry.is_dir(follow_symlinks=False)])
        listing.directories += [n for n in directories if selection.takes_directory(join(listing.path, n))]
    if selection.symlinks == "skip":
        others = [entry for entry in others if not entry.is_symlink()]
    if not stat_files:
        regular = [entry for entry in others if entry.is_file(follow_symlinks=False)]
        listing.unread += _select(listing, _encode(regular), selection)
        if len(regular) == len(others):
            return
        others = [entry for entry in others if not entry.is_file(follow_symlinks=False)]
    listing.names += _select(listing, _encode(others), selection)


def _encode(entries: list[os.DirEntry[str]]) -> list[bytes]:
    """Return their names as bytes, in one go: no name holds a NUL."""
    return "\0".join([entry.name for entry in entries]).encode(_ENCODING, _ERRORS).split(b"\0") if entries else []


def _select(listing: Listing, names: list[bytes], selection: Selection) -> list[bytes]:
    if selection.everything:
        return names
    return [name for name in names if selection.takes_file(join(listing.path, name))]


def _stat_all(fd: int, names: list[bytes]) -> dict[bytes, Stat]:
    """Return the stat of each that is there. Raises OSError for one that is there and cannot be stat'ed."""
    lstat = os.stat
    try:
        return {name: stat_tuple(lstat(name, dir_fd=fd, follow_symlinks=False)) for name in names}
    except FileNotFoundError:
        found = ((name, lstat_at(fd, name)) for name in names)
        return {name: st for name, st in found if st is not None}
