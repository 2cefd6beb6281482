"""Compare files with the index: the part of a refresh that looks.

Looks either at everything (a full walk) or at the paths that were hinted at. What differs is handed to the reading
(``reprod.ops.reading``); what is gone is only collected (``reprod.ops.findings``).
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from reprod.core.entry import Problem
from reprod.core.pattern import Selection
from reprod.fs.batch import Results
from reprod.fs.ladder import Ladder
from reprod.fs.pace import Pace
from reprod.fs.pool import HashPool
from reprod.fs.read import Stat, lstat_at, refresh, stat_tuple
from reprod.fs.walk import Listing, Part, join, walk
from reprod.ops import moved
from reprod.ops.findings import Counts, Findings
from reprod.ops.reading import Reading
from reprod.store import index
from reprod.store.connection import Database
from reprod.store.observation import SeenDirectory

#: Entries that are stat'ed by the walk itself, some 10 ms of work; the rest of a larger tree goes to the workers, which
#: halves the time of a walk that finds nothing on two processors, and more where each stat waits for a network.
OWN_STATS = 8192


@dataclass(slots=True)
class _Directory:
    """A directory under comparison: its listing, its row, and how many parts of it are still to come."""

    listing: Listing
    known: index.KnownDirectory | None
    left: int = 0
    origin: bytes | None = None  # where the index knows it from, if it is new here

    @property
    def place(self) -> int | None:
        return self.known.id if self.known is not None and self.known.present else None


@dataclass(slots=True)
class Scan:
    """One comparison of a tree with its index. ``checkpoint`` raises to stop; ``progress`` gets the counts.

    ``hinted`` files are read even if their fingerprint is the known one: a write that takes longer than the slack
    stamps its ctime when it begins, so a file that was read in the middle of one looks unchanged at its end. Its last
    event comes after that.
    """

    db: Database
    root: int
    selection: Selection
    pool: HashPool
    slack_ns: int
    checkpoint: Callable[[], None]
    progress: Callable[[Counts], None]
    skip: frozenset[tuple[int, int]] = frozenset()
    rehash: bool = False
    hinted: frozenset[bytes] = frozenset()
    pace: Pace | None = None
    share_stats: bool = True
    sync: bool = False
    found: Findings = field(default_factory=Findings)
    reading: Reading = field(init=False)
    _told_in: frozenset[bytes] = field(init=False)  # directories of the hinted files
    _stats: int = 0

    def __post_init__(self) -> None:
        self.reading = Reading(
            self.db, self.root, self.pool, self.slack_ns, self.found, self.checkpoint, self.progress, self._take_stats
        )
        self._told_in = frozenset(path.rpartition(b"/")[0] for path in self.hinted)

    def everything(self, top: bytes = b"") -> None:
        """Compare a directory and all below it."""
        tree = walk(
            self.root,
            self.selection,
            top=top,
            skip=self.skip,
            checkpoint=self.checkpoint,
            is_new=self._is_new,
            pace=self.pace,
            sync=self.sync,
        )
        for listing in tree:
            self._compare(listing)
            self.reading.drain()
            self.progress(self.found.counts)

    def paths(self, paths: Iterable[bytes]) -> None:
        """Compare what was hinted at: a path that is a directory means all below it."""
        done: set[bytes] = set()
        with Ladder(self.root) as ladder:
            for path in sorted(paths):
                self.checkpoint()
                top = self._look(ladder, path, done)
                if top is not None and top not in done:
                    done.add(top)
                    self.everything(top)
                self.reading.drain()

    def finish(self) -> None:
        """Wait for all reads and write what they gave."""
        self.reading.finish()

    def _is_new(self, path: bytes, st: Stat) -> bool:
        known = self.db.read(lambda db: index.directory(db, path))
        return (known is None or not known.present) and (self.rehash or moved.origin(self.db, path, st) is None)

    # --- a whole directory -------------------------------------------------------------------------------------------

    def _compare(self, listing: Listing) -> None:
        path = listing.path
        self.found.counts.directories += 1
        directory = _Directory(listing, self.db.read(lambda db: index.directory(db, path)))
        if listing.stat is None or listing.error is not None:
            self._unlisted(listing, directory.known)
            return
        self.reading.new_files(path, listing.unread, leaf=not listing.directories)
        place = directory.place
        if place is None and not listing.foreign and not self.rehash:
            directory.origin = moved.origin(self.db, path, listing.stat)
        if place is not None:
            children = self.db.read(lambda db: index.children(db, place))
            self._compare_directories(listing, children)
        self._stats += len(listing.names)
        if self.share_stats and self._stats > OWN_STATS and listing.names:
            ranges = list(listing.ranges())
            directory.left = len(ranges)
            for after, until, names in ranges:
                self.pool.add_stats(path, names, (directory, after, until))
            return
        for part in listing.parts():
            self._compare_part(directory, part, listing.fd)
            self.checkpoint()
            self.reading.drain()
        self._end(directory, listing.fd)

    def _take_stats(self, results: Results) -> None:
        """Compare a part that a worker stat'ed; the walk is elsewhere by now, so its directory is opened again."""
        directory, after, until = results.groups[0].tag
        listing: Listing = directory.listing
        directory.left -= 1
        try:
            with Ladder(self.root) as ladder:
                fd = ladder.open(listing.path) if listing.path else self.root
                part = Part.of(after, until, results.groups[0].names, results.stats())
                if listing.error is None:
                    self._compare_part(directory, part, fd)
                if directory.left == 0:
                    self._end(directory, fd)
        except OSError as error:
            listing.error = listing.error or error
            if directory.left == 0:
                self._unlisted(listing, directory.known)

    def _compare_part(self, directory: _Directory, part: Part, fd: int) -> None:
        listing, place = directory.listing, directory.place
        self.found.vanished += len(part.vanished)
        if place is None:
            self._compare_entries(listing.path, self._without_moved(directory, part), {}, fd)
        elif not self._is_unchanged(listing, part, place):
            known = self.db.read(lambda db: index.files(db, place, part[:2]))
            self._compare_entries(listing.path, part.files, known, fd)

    def _without_moved(self, directory: _Directory, part: Part) -> dict[bytes, Stat]:
        """Take in what was renamed with its directory, and return the rest."""
        if directory.origin is None:
            return part.files
        same, rest = moved.unchanged(self.db, directory.origin, directory.listing.path, part, self.hinted)
        self.reading.take_known(same)
        return rest

    def _end(self, directory: _Directory, fd: int) -> None:
        """Take note of the directory itself, once all its entries were compared."""
        listing = directory.listing
        if listing.error is not None:
            self._unlisted(listing, directory.known)
            return
        if listing.stat is not None:
            self._see(listing.path, listing.stat, directory.known, foreign=listing.foreign)
        if stat_tuple(os.fstat(fd)) != listing.stat:  # a name may have gone after the stat, before the listing: that
            self.found.vanished += 1  # was never seen, whether the index knew it or not, and no ctime that was tells

    def _is_unchanged(self, listing: Listing, part: Part, place: int) -> bool:
        """Whether every entry is as it was, compared in one go: what a walk finds of nearly every directory."""
        if self.rehash or listing.unread or listing.path in self._told_in:
            return False
        if self.db.read(lambda db: index.stats(db, place, part[:2])) != part.files:
            return False
        files = [st[1] for st in part.files.values() if stat.S_ISREG(st[0])]
        self.found.counts.files += len(files)
        self.found.counts.bytes += sum(files)
        return True

    def _compare_directories(self, listing: Listing, known: dict[bytes, int]) -> None:
        """Take note of subdirectories that are gone."""
        for name in known.keys() - set(listing.directories):
            if not self._is_directory(listing.fd, listing.path, name):
                self.found.lose_directory(known[name], join(listing.path, name))

    def _compare_entries(
        self, path: bytes, files: dict[bytes, Stat], known: dict[bytes, index.KnownFile], fd: int
    ) -> None:
        """Have read what is new or another; take note of what is gone."""
        for name, st in files.items():
            row = known.pop(name, None)
            if row is not None and row[6] is not None:
                self.found.doubtful.add(join(path, name))
            if row is None or row[:5] != st or row[6] is not None or self.rehash or join(path, name) in self.hinted:
                self.reading.entry(fd, path, name, row[5] if row else None, st)
            elif stat.S_ISREG(st[0]):
                self.found.counts.files += 1
                self.found.counts.bytes += st[1]
        for name, row in known.items():
            self._missing(fd, path, name, row[5])

    def _unlisted(self, listing: Listing, known: index.KnownDirectory | None) -> None:
        """Keep what is known of a directory that could not be listed, and say so."""
        path = listing.path
        if listing.error is not None and listing.error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            self.found.vanished += 1  # it went, or became something else, since its parent was listed
            return
        self.found.problems.append((path, Problem.UNREADABLE))
        if known is None or known.problem is None or not known.present:
            st = listing.stat
            stamp = (st[2], st[3], st[4]) if st else None
            self.reading.batches.add_directory(SeenDirectory(path, stamp, Problem.UNREADABLE, listing.foreign))

    def _see(self, path: bytes, st: Stat, known: index.KnownDirectory | None, *, foreign: bool = False) -> None:
        if self.selection.only is not None and known is not None:
            return  # a dataset that is one file: what goes on beside it in its directory is not its business
        stamp = (st[2], st[3], st[4])
        if known is None or known.stat != stamp or known.problem is not None or not known.present:
            self.reading.batches.add_directory(SeenDirectory(path, stamp, foreign=foreign))
            self.found.change_directory(path)

    def _missing(self, fd: int, directory: bytes, name: bytes, known: int) -> None:
        """An entry that the listing does not have: gone, deselected, or missed by a readdir during a rename."""
        try:
            refresh(fd, name, sync=self.sync)
            st = lstat_at(fd, name)
        except OSError:
            return  # cannot tell: it stays
        taken = st is not None and not stat.S_ISDIR(st[0]) and self.selection.takes_file(join(directory, name))
        if taken and st is not None and not (stat.S_ISLNK(st[0]) and self.selection.symlinks == "skip"):
            self.reading.entry(fd, directory, name, known, st)
            return
        self.found.lose_file(known, join(directory, name))

    def _is_directory(self, fd: int, path: bytes, name: bytes) -> bool:
        """Whether a known subdirectory that the listing does not have is there all the same."""
        try:
            refresh(fd, name, sync=self.sync)
            st = lstat_at(fd, name)
        except OSError:
            return True
        return st is not None and stat.S_ISDIR(st[0]) and self.selection.takes_directory(join(path, name))

    # --- a hinted path -----------------------------------------------------------------------------------------------

    def _look(self, ladder: Ladder, path: bytes, done: set[bytes]) -> bytes | None:
        """Compare one hinted path; returns a directory that has to be walked instead, if any."""
        directory, _, name = path.rpartition(b"/")
        if any(path == top or path.startswith(top + b"/") or top == b"" for top in done):
            return None
        if not path:
            return path
        unknown = self._topmost_unknown(directory)
        if unknown is not None:  # its parent is known: there it may be in the place of a file
            return self._look(ladder, unknown, done) if self.selection.takes_directory(unknown) else None
        known = self.db.read(lambda db: index.directory(db, directory))
        if known is None or known.problem is not None:  # one name says nothing of a directory that could not be listed
            return directory
        try:
            fd = ladder.open(directory) if directory else self.root
            st = lstat_at(fd, name)
            here = stat_tuple(os.fstat(fd))
        except OSError:  # the directory itself is gone or barred: look at it from above
            return self._look(ladder, directory, done)
        place = known.id
        row = self.db.read(lambda db: index.file(db, place, name))
        child = self.db.read(lambda db: index.children(db, place)).get(name) if st is None or row is None else None
        self._see(directory, here, known)
        if st is not None and stat.S_ISDIR(st[0]):
            if row is not None:
                self.found.lose_file(row[5], path)
            return path if self.selection.takes_directory(path) else None
        if child is not None:
            self.found.lose_directory(child, path)
        self._look_at_file(fd, directory, name, row, st)
        return None

    def _look_at_file(
        self, fd: int, directory: bytes, name: bytes, row: index.KnownFile | None, st: Stat | None
    ) -> None:
        if st is None or not self.selection.takes_file(join(directory, name)):
            if row is not None:
                self._missing(fd, directory, name, row[5])
        elif stat.S_ISLNK(st[0]) and self.selection.symlinks == "skip":
            return
        else:
            self.reading.entry(fd, directory, name, row[5] if row else None, st)

    def _topmost_unknown(self, directory: bytes) -> bytes | None:
        """Return the first directory on the way to ``directory`` that the index does not have."""
        parts = directory.split(b"/") if directory else []
        for depth in range(len(parts) + 1):
            prefix = b"/".join(parts[:depth])
            known = self.db.read(lambda db, prefix=prefix: index.directory(db, prefix))  # type: ignore[misc]
            if known is None or not known.present:
                return prefix
        return None
