"""Have entries read, and put what they hold into the index: the half of a scan that takes time.

What is clean goes into the index batch by batch. What met a moving target is read again once it has settled, and is
unstable if it never does.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reprod.core.entry import Kind, Problem
from reprod.fs.batch import Results
from reprod.fs.hash import Hashed, Outcome
from reprod.fs.ladder import Ladder
from reprod.fs.pool import HashPool
from reprod.fs.read import Stat, lstat_at, settle_ns
from reprod.fs.walk import join
from reprod.ops.batches import Batches
from reprod.ops.findings import REMEMBERED_PATHS, Counts, Findings
from reprod.store.connection import Database
from reprod.store.observation import NewFiles, Observation

ATTEMPTS = 3  # reads of a file that keeps changing, before it is called unstable

_FILE, _SPECIAL = int(Kind.FILE), int(Kind.SPECIAL)

#: The stat of a file that the walk left to whoever opens it. A ctime of 0 proves nothing, which is the safe side.
_UNKNOWN: Stat = (0, 0, 0, 0, 0)

#: What hangs on such a file on its way through the pool: no row, and no stat.
_NEW: tuple[int | None, Stat] = (None, _UNKNOWN)


@dataclass(slots=True)
class Reading:
    """The reads of one scan. ``on_stats`` gets the results of batches that were only stat'ed."""

    db: Database
    root: int
    pool: HashPool
    slack_ns: int
    found: Findings
    checkpoint: Callable[[], None]
    progress: Callable[[Counts], None]
    on_stats: Callable[[Results], None]
    batches: Batches = field(init=False)
    _again: list[tuple[bytes, bytes, int | None, Stat]] = field(default_factory=list)
    _left: dict[bytes, int] = field(default_factory=dict)  # new directories, and how many of their files are to come

    def __post_init__(self) -> None:
        self.batches = Batches(self.db)

    def new_files(self, directory: bytes, names: list[bytes], *, leaf: bool) -> None:
        """Have files read that the index does not know. ``leaf``: all that their directory holds, but for links."""
        if names:
            self.pool.add_unknown(directory, names, _NEW)
            if leaf:
                self._left[directory] = len(names)

    def entry(self, fd: int, directory: bytes, name: bytes, known: int | None, st: Stat) -> None:
        """Have an entry read whose fingerprint is not the known one. ``fd`` is the directory, ``known`` the row."""
        if stat.S_ISREG(st[0]):
            self.pool.add(directory, name, st[1], (known, st))
        elif stat.S_ISLNK(st[0]):
            self._read_link(fd, directory, name, known, st)
        else:
            self._observe([Observation(directory, name, known, st, _SPECIAL)])

    def take_known(self, seen: list[Observation]) -> None:
        """Take in entries whose content is known from elsewhere."""
        if seen:
            self._observe(seen)

    def drain(self, *, everything: bool = False) -> None:
        """Take in what was read: as much as keeps the window bounded, or all."""
        for results in self.pool.collect(self._wait, everything=everything):
            if results.read:
                self._take(results)
            else:
                self.on_stats(results)
            self.progress(self.found.counts)
            self.batches.flush_if_due()
        self.batches.flush_if_due()
        self._count_applied()

    def _wait(self) -> None:
        """What there is to do every 100 ms while a large file is read: be stopped, tell, write down what is old."""
        self.checkpoint()
        self.progress(self.found.counts)
        self.batches.flush_if_due()

    def finish(self) -> None:
        """Wait for all reads, repeat those that met a moving target, and write the rest."""
        for attempt in range(ATTEMPTS):
            self.drain(everything=True)
            again, self._again = self._again, []
            if not again:
                break
            if attempt + 1 < ATTEMPTS:
                self._retry(again)
            else:
                for directory, name, known, st in again:
                    self._problem(directory, name, known, st, Problem.UNSTABLE)
        self.batches.flush()
        self._count_applied()
        self.progress(self.found.counts)

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

    # --- taking in -------------------------------------------------------------------------------------------------

    def _take(self, results: Results) -> None:
        """Take in what the pool read: in columns what is new and clean, in one go what is clean, and the rest."""
        if results.clean and not results.has_more and all(group.tag is _NEW for group in results.groups):
            for group, stats, digests in results.by_group():
                self._take_new(NewFiles(group.directory, group.names, stats, digests))
            return
        for group in results.groups:  # not all of it is here, or not clean: the seal computes its node
            self._left.pop(group.directory, None)
        clean = Outcome.CLEAN
        read = [
            Observation(directory, name, tag[0], hashed.stat, _FILE, hashed.sha256, hashed.more)
            for directory, name, tag, hashed in results
            if hashed.outcome is clean and hashed.stat is not None
        ]
        self.found.counts.hashed_files += len(read)
        self.found.counts.hashed_bytes += sum([seen.stat[1] for seen in read])
        self._observe(read)
        if len(read) < len(results):
            for directory, name, (known, st), hashed in results:
                if hashed.outcome is not clean:
                    self._take_unclean(directory, name, known, st, hashed)

    def _take_new(self, files: NewFiles) -> None:
        count, size, counts = len(files.names), files.size(), self.found.counts
        counts.hashed_files += count
        counts.hashed_bytes += size
        counts.files += count
        counts.bytes += size
        self.batches.add_new(files)
        left = self._left.pop(files.directory, 0) - count
        if left > 0:
            self._left[files.directory] = left
        elif left == 0:
            self.batches.complete(files.directory)
        room = REMEMBERED_PATHS - len(self.found.changed_paths)
        if room > 0:
            self.found.changed_paths += [join(files.directory, name) for name in files.names[:room]]

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
                    self.entry(fd, directory, name, known, st)
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
        self.found.vanished += 1
        if known is not None:
            self.found.lose_file(known, join(directory, name))

    def _problem(self, directory: bytes, name: bytes, known: int | None, st: Stat, problem: Problem) -> None:
        self.found.problems.append((join(directory, name), problem))
        self._observe([Observation(directory, name, known, st, _FILE, problem=int(problem))])

    def _observe(self, seen: list[Observation]) -> None:
        files = [o.stat[1] for o in seen if o.kind == _FILE]
        self.found.counts.files += len(files)
        self.found.counts.bytes += sum(files)
        self.batches.add(seen)
        room = REMEMBERED_PATHS - len(self.found.changed_paths)
        if room > 0:
            self.found.changed_paths += [join(o.directory, o.name) for o in seen[:room]]

    def _count_applied(self) -> None:
        self.found.counts.changed = self.batches.applied.changed
        self.found.counts.touched = self.batches.applied.touched
