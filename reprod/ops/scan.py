"""Compare files with the index and hash what differs: the part of a refresh that takes time.

Looks either at everything (a full walk) or at the paths that were hinted at. Clean digests go into the index batch by
batch; deletions are only collected, because they count only if the root is still the same at the end (law 4).
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from reprod.core.entry import Kind, Problem
from reprod.core.pattern import Selection
from reprod.fs.hash import Hashed, Outcome, settle_ns
from reprod.fs.ladder import Ladder
from reprod.fs.pool import HashPool, Row
from reprod.fs.walk import Listing, Stat, join, lstat_at, stat_tuple, walk
from reprod.store import changes, index
from reprod.store.changes import Observation, SeenDirectory
from reprod.store.connection import Database

BATCH_ROWS = 2000  # one commit costs about 1 ms beside 5 us a row; a crash hashes at most this many again
ATTEMPTS = 3  # reads of a file that keeps changing, before it is called unstable
REMEMBERED_PATHS = 10_000  # changed paths kept to compare with the hints; beyond, "was it announced" is a sample


_FILE, _SPECIAL = int(Kind.FILE), int(Kind.SPECIAL)

#: The stat of a file that the walk left to whoever opens it. A ctime of 0 proves nothing, which is the safe side.
_UNKNOWN: Stat = (0, 0, 0, 0, 0)


@dataclass(slots=True)
class Counts:
    """What a scan did. Files and bytes count entries of the set, whether read or not."""

    files: int = 0
    bytes: int = 0
    hashed_files: int = 0
    hashed_bytes: int = 0
    changed: int = 0
    touched: int = 0
    directories: int = 0


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
    counts: Counts = field(default_factory=Counts)
    gone_files: list[int] = field(default_factory=list)
    gone_directories: list[int] = field(default_factory=list)
    changed_paths: list[bytes] = field(default_factory=list)
    changed_directories: list[bytes] = field(default_factory=list)
    problems: list[tuple[bytes, Problem]] = field(default_factory=list)
    vanished: int = 0  # what went between two looks: no ctime that was seen tells of it
    _again: list[tuple[bytes, bytes, int | None, Stat]] = field(default_factory=list)
    _rows: list[Observation] = field(default_factory=list)
    _seen: list[SeenDirectory] = field(default_factory=list)

    def everything(self, top: bytes = b"") -> None:
        """Compare a directory and all below it."""
        tree = walk(self.root, self.selection, top=top, skip=self.skip, checkpoint=self.checkpoint, is_new=self._is_new)
        for listing in tree:
            self._compare(listing)
            self._drain()
            self.progress(self.counts)

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
                self._drain()

    def finish(self) -> None:
        """Wait for all reads, repeat those that met a moving target, and write the rest."""
        for attempt in range(ATTEMPTS):
            self._drain(everything=True)
            again, self._again = self._again, []
            if not again:
                break
            if attempt + 1 < ATTEMPTS:
                self._retry(again)
            else:
                for directory, name, known, st in again:
                    self._problem(directory, name, known, st, Problem.UNSTABLE)
        self._flush()
        self.progress(self.counts)

    def _is_new(self, path: bytes) -> bool:
        known = self.db.read(lambda db: index.directory(db, path))
        return known is None or not known.present

    # --- comparing -------------------------------------------------------------------------------------------------

    def _compare(self, listing: Listing) -> None:
        path = listing.path
        self.counts.directories += 1
        known = self.db.read(lambda db: index.directory(db, path))
        if listing.stat is None or listing.error is not None:
            self._unlisted(listing, known)
            return
        files, children = {}, {}
        if known is not None and known.present:
            place = known.id
            files = self.db.read(lambda db: index.files(db, place))
            children = self.db.read(lambda db: index.children(db, place))
        self._see(path, listing.stat, known, foreign=listing.foreign)
        counts, rehash = self.counts, self.rehash
        self.pool.add_unknown(path, [name for name, st in listing.files.items() if st is None], (None, _UNKNOWN))
        for name, st in listing.files.items():
            row = files.pop(name, None)
            if st is None:
                continue
            if row is not None and row[:5] == st and row[6] is None and not rehash and not self._told(path, name):
                if stat.S_ISREG(st[0]):
                    counts.files += 1
                    counts.bytes += st[1]
            else:
                self._candidate(listing.fd, path, name, row[5] if row else None, st)
        for name, row in files.items():
            self._missing(listing.fd, path, name, row[5])
        gone = children.keys() - set(listing.directories)
        for name in gone:
            if not self._is_directory(listing.fd, path, name):
                self.gone_directories.append(children[name])
                self._changed(join(path, name))
        if (files or gone) and stat_tuple(os.fstat(listing.fd)) != listing.stat:
            self.vanished += 1  # it may have gone after the directory was stat'ed, before it was listed

    def _told(self, directory: bytes, name: bytes) -> bool:
        return bool(self.hinted) and join(directory, name) in self.hinted

    def _unlisted(self, listing: Listing, known: index.KnownDirectory | None) -> None:
        """Keep what is known of a directory that could not be listed, and say so."""
        path = listing.path
        if listing.error is not None and listing.error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            self.vanished += 1  # it went, or became something else, since its parent was listed: the next look tells
            return
        self.problems.append((path, Problem.UNREADABLE))
        if known is None or known.problem is None or not known.present:
            st = listing.stat
            stamp = (st[2], st[3], st[4]) if st else None
            self._seen.append(SeenDirectory(path, stamp, Problem.UNREADABLE, listing.foreign))

    def _see(self, path: bytes, st: Stat, known: index.KnownDirectory | None, *, foreign: bool = False) -> None:
        if self.selection.only is not None and known is not None:
            return  # a dataset that is one file: what goes on beside it in its directory is not its business
        stamp = (st[2], st[3], st[4])
        if known is None or known.stat != stamp or known.problem is not None or not known.present:
            self._seen.append(SeenDirectory(path, stamp, foreign=foreign))
            if len(self.changed_directories) < REMEMBERED_PATHS:
                self.changed_directories.append(path)

    def _missing(self, fd: int, directory: bytes, name: bytes, known: int) -> None:
        """An entry that the listing does not have: gone, deselected, or missed by a readdir during a rename."""
        try:
            st = lstat_at(fd, name)
        except OSError:
            return  # cannot tell: it stays
        taken = st is not None and not stat.S_ISDIR(st[0]) and self.selection.takes_file(join(directory, name))
        if taken and st is not None and not (stat.S_ISLNK(st[0]) and self.selection.symlinks == "skip"):
            self._candidate(fd, directory, name, known, st)
            return
        self.gone_files.append(known)
        self._changed(join(directory, name))

    def _is_directory(self, fd: int, path: bytes, name: bytes) -> bool:
        """Whether a known subdirectory that the listing does not have is there all the same."""
        try:
            st = lstat_at(fd, name)
        except OSError:
            return True
        return st is not None and stat.S_ISDIR(st[0]) and self.selection.takes_directory(join(path, name))

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
                self.gone_files.append(row[5])
                self._changed(path)
            return path if self.selection.takes_directory(path) else None
        if child is not None:
            self.gone_directories.append(child)
            self._changed(path)
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
            self._candidate(fd, directory, name, row[5] if row else None, st)

    def _topmost_unknown(self, directory: bytes) -> bytes | None:
        """Return the first directory on the way to ``directory`` that the index does not have."""
        parts = directory.split(b"/") if directory else []
        for depth in range(len(parts) + 1):
            prefix = b"/".join(parts[:depth])
            known = self.db.read(lambda db, prefix=prefix: index.directory(db, prefix))  # type: ignore[misc]
            if known is None or not known.present:
                return prefix
        return None

    # --- reading ---------------------------------------------------------------------------------------------------

    def _candidate(self, fd: int, directory: bytes, name: bytes, known: int | None, st: Stat) -> None:
        """Have an entry read whose fingerprint is not the known one."""
        if stat.S_ISREG(st[0]):
            self.pool.add(directory, name, st[1], (known, st))
        elif stat.S_ISLNK(st[0]):
            self._read_link(fd, directory, name, known, st)
        else:
            self._observe([Observation(directory, name, known, st, _SPECIAL)])

    def _read_link(self, fd: int, directory: bytes, name: bytes, known: int | None, st: Stat) -> None:
        began = time.time_ns()
        try:
            target = os.readlink(name, dir_fd=fd)
            after = lstat_at(fd, name)
        except OSError:
            self._again.append((directory, name, known, st))
            return
        if after != st or abs(began - st[3]) < settle_ns(st, self.slack_ns):
            self._again.append((directory, name, known, st))
            return
        sha256 = hashlib.sha256(os.fsencode(target)).digest()
        self._observe([Observation(directory, name, known, st, int(Kind.LINK), sha256)])

    def _drain(self, *, everything: bool = False) -> None:
        for rows in self.pool.collect(self.checkpoint, everything=everything):
            self._take(rows)
            self.progress(self.counts)
            if len(self._rows) >= BATCH_ROWS:
                self._flush()
        if len(self._rows) + len(self._seen) >= BATCH_ROWS:
            self._flush()

    def _take(self, rows: list[Row]) -> None:
        """Take in what the pool read: in one go what is clean, one by one what is not."""
        clean = Outcome.CLEAN
        read = [
            Observation(directory, name, tag[0], hashed.stat, _FILE, hashed.sha256, hashed.more)
            for directory, name, tag, hashed in rows
            if hashed.outcome is clean and hashed.stat is not None
        ]
        self.counts.hashed_files += len(read)
        self.counts.hashed_bytes += sum([seen.stat[1] for seen in read])
        self._observe(read)
        if len(read) < len(rows):
            for directory, name, (known, st), hashed in rows:
                if hashed.outcome is not clean:
                    self._take_unclean(directory, name, known, st, hashed)

    def _take_unclean(self, directory: bytes, name: bytes, known: int | None, st: Stat, hashed: Hashed) -> None:
        if hashed.outcome is Outcome.UNREADABLE:
            self._problem(directory, name, known, hashed.stat or st, Problem.UNREADABLE)
        elif hashed.outcome is Outcome.LARGE and hashed.stat is not None:
            self.pool.add(directory, name, hashed.stat[1], (known, hashed.stat))
        elif hashed.outcome is Outcome.VANISHED:
            self._vanish(directory, name, known)
        else:
            self._again.append((directory, name, known, hashed.stat or st))

    def _retry(self, again: list[tuple[bytes, bytes, int | None, Stat]]) -> None:
        """Look again at what moved, once the youngest of them has settled."""
        with Ladder(self.root) as ladder:
            self._settle([st for directory, name, _, _ in again if (st := self._lstat(ladder, directory, name)[1])])
            for directory, name, known, _ in again:
                fd, st = self._lstat(ladder, directory, name)
                if st is not None and not stat.S_ISDIR(st[0]):
                    self._candidate(fd, directory, name, known, st)
                else:
                    self._vanish(directory, name, known)

    def _settle(self, stats: list[Stat]) -> None:
        """Wait until reads of these can be clean; for a ctime to come no longer than the slack."""
        slacks = [settle_ns(st, self.slack_ns) for st in stats]
        settled = max((st[3] + slack for st, slack in zip(stats, slacks, strict=True)), default=0)
        deadline = min(settled, time.time_ns() + max(slacks, default=0)) + 1_000_000
        while time.time_ns() < deadline:
            self.checkpoint()
            time.sleep(min(0.05, max(0.0, (deadline - time.time_ns()) / 1e9)))

    def _lstat(self, ladder: Ladder, directory: bytes, name: bytes) -> tuple[int, Stat | None]:
        """Return a descriptor of the directory and the stat of the name in it, if both are still there."""
        try:
            fd = ladder.open(directory) if directory else self.root
            return fd, lstat_at(fd, name)
        except OSError:
            return -1, None

    def _vanish(self, directory: bytes, name: bytes, known: int | None) -> None:
        """A file went after its directory was listed."""
        self.vanished += 1
        if known is not None:
            self.gone_files.append(known)
            self._changed(join(directory, name))

    # --- writing ---------------------------------------------------------------------------------------------------

    def _observe(self, seen: list[Observation]) -> None:
        files = [o.stat[1] for o in seen if o.kind == _FILE]
        self.counts.files += len(files)
        self.counts.bytes += sum(files)
        self._rows += seen
        room = REMEMBERED_PATHS - len(self.changed_paths)
        if room > 0:
            self.changed_paths += [join(o.directory, o.name) for o in seen[:room]]

    def _problem(self, directory: bytes, name: bytes, known: int | None, st: Stat, problem: Problem) -> None:
        self.problems.append((join(directory, name), problem))
        self._observe([Observation(directory, name, known, st, _FILE, problem=int(problem))])

    def _changed(self, path: bytes) -> None:
        if len(self.changed_paths) < REMEMBERED_PATHS:
            self.changed_paths.append(path)

    def _flush(self) -> None:
        if not self._rows and not self._seen:
            return
        rows, self._rows = self._rows, []
        seen, self._seen = self._seen, []
        applied = self.db.write(lambda db: changes.apply(db, rows, seen, time.time_ns()))
        self.counts.changed += applied.changed
        self.counts.touched += applied.touched
