"""Look at the files of a set as they are now, without writing anything: for ``diff`` and ``verify``.

``Look`` walks, opens only what its caller wants read, and never leaves the root: every file is reached one component at
a time, through no symlink. A file that changes while it is read, or changed a moment before, is read once more. What is
in flight is bounded, so a look at a million files takes no more memory than one at a thousand.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from reprod.core.entry import Content, Kind, Problem
from reprod.core.pattern import Selection
from reprod.fs import mounts
from reprod.fs.hash import Hashed, Outcome
from reprod.fs.ladder import Ladder
from reprod.fs.pool import HashPool
from reprod.fs.read import Stat, lstat_at, settle_ns
from reprod.fs.root import Root
from reprod.fs.walk import Listing, Part, join, walk
from reprod.fs.worker import LARGE
from reprod.store import index
from reprod.store.connection import Database

#: Small files between two looks at what the workers have finished; asking costs as much as hashing one.
DRAIN_EVERY = 64

#: What stands for the stat of an entry that was listed, and gone before it could be stat'ed.
_GONE: Stat = (0, 0, 0, 0, 0)


class Sight(NamedTuple):
    """A path as it was come by. ``stat`` None: it is a directory.

    ``known`` is the content of a regular file where its fingerprint is the one in the index. ``content`` is what is
    there without reading a file: a link with its target's digest, or something special.
    """

    path: bytes
    stat: Stat | None
    known: Content | None = None
    content: Content | None = None


class Look:
    """One look at a root. Used by one thread; ``close`` ends what is still being read.

    ``unlisted`` are the directories that could not be listed: nothing is known of what is below them.

    :param db: the index whose fingerprints are compared; None: there is none for these files.
    :param wanted: whether to read a regular file.
    :param extra: algorithms beside sha256.
    :param prepare: called with an open directory and a name, just before that file is queued to be read.
    """

    def __init__(
        self,
        root: Root,
        *,
        db: Database | None = None,
        wanted: Callable[[Sight], bool],
        extra: tuple[str, ...] = (),
        prepare: Callable[[int, bytes], None] | None = None,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        self.unlisted: list[bytes] = []
        self._root, self._db, self._wanted, self._prepare = root, db, wanted, prepare
        self._checkpoint = checkpoint
        self._slack = mounts.settle_slack_ns(root.identity.fs_type)
        unseen_ns = mounts.unseen_writes_ns(root.identity.fs_type)
        self._sync = mounts.is_network(root.identity.fs_type)
        self._pool = HashPool(root.fd, slack_ns=self._slack, unseen_ns=unseen_ns, extra=extra, sync=self._sync)
        self._again: list[Sight] | None = []
        self._added = 0

    def walk(
        self, selection: Selection, *, top: bytes = b"", skip: frozenset[tuple[int, int]] = frozenset()
    ) -> Iterator[tuple[Sight, Hashed | None]]:
        """Yield every selected path below ``top``, files that are read with their result and in any order.

        :param skip: ``(device, inode)`` of directories that are never entered (reprod's own state).
        """
        tree = walk(self._root.fd, selection, top=top, skip=skip, checkpoint=self._checkpoint, sync=self._sync)
        for listing in tree:
            for name in listing.directories:
                yield Sight(join(listing.path, name), None), None
            for part in listing.parts():
                yield from self._compare(listing, part)
            self._note_error(listing)
        yield from self._rest()

    def _compare(self, listing: Listing, part: Part) -> Iterator[tuple[Sight, Hashed | None]]:
        known = self._known(listing.path, part)
        for name in part.vanished:
            yield Sight(join(listing.path, name), _GONE), Hashed(Outcome.VANISHED)
        for name, st in part.files.items():
            found = known.get(name)
            content = found[1] if found is not None and found[0] == st else None
            sight = _sight(join(listing.path, name), listing.fd, name, st, content)
            if sight.content is None and self._wanted(sight):
                yield from self._read(sight, listing.path, name, listing.fd)
            else:
                yield sight, None

    def at(self, paths: Iterable[bytes]) -> Iterator[tuple[Sight, Hashed | None]]:
        """Yield those of ``paths`` that are there, every regular file read."""
        with Ladder(self._root.fd) as ladder:
            for path in paths:
                self._checkpoint()
                directory, _, name = path.rpartition(b"/")
                try:
                    fd = ladder.open(directory) if directory else self._root.fd
                    st = lstat_at(fd, name)
                except OSError:  # a directory on the way is gone, no directory any more, or closed to us
                    continue
                if st is None:
                    continue
                sight = _sight(path, fd, name, st, None)
                if stat.S_ISDIR(st[0]) or sight.content is not None:
                    yield sight, None
                else:
                    yield from self._read(sight, directory, name, fd)
        yield from self._rest()

    def close(self) -> None:
        """End running reads."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note_error(self, listing: Listing) -> None:
        """A directory that vanished holds nothing; neither does one that became a symlink or a file."""
        if listing.error is not None and listing.error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            self.unlisted.append(listing.path)

    def _known(self, directory: bytes, part: Part) -> dict[bytes, tuple[Stat, Content]]:
        return self._db.read(lambda c: index.contents(c, directory, part[:2])) if self._db is not None else {}

    def _read(self, sight: Sight, directory: bytes, name: bytes, fd: int) -> Iterator[tuple[Sight, Hashed | None]]:
        if sight.stat is not None:
            _wait_out(sight.stat, self._slack)
            if self._prepare is not None:
                self._prepare(fd, name)
            self._pool.add(directory, name, sight.stat[1], sight)
            self._added += 1
        if self._added >= DRAIN_EVERY or (sight.stat is not None and sight.stat[1] >= LARGE):
            self._added = 0
            yield from self._drain()

    def _drain(self, *, everything: bool = False) -> Iterator[tuple[Sight, Hashed | None]]:
        for results in self._pool.collect(self._checkpoint, everything=everything):
            for _, _, sight, hashed in results:
                if self._again is not None and hashed.outcome in {Outcome.RACY, Outcome.UNSTABLE}:
                    self._again.append(sight)
                else:
                    yield sight, hashed

    def _rest(self) -> Iterator[tuple[Sight, Hashed | None]]:
        """Yield what is still being read, and then what has to be read again."""
        yield from self._drain(everything=True)
        again, self._again = self._again or [], None
        if again:
            yield from self.at(sight.path for sight in again)
        self._again = []


@dataclass(slots=True)
class Seen:
    """What was found at the paths, and the directories where nothing could be found out."""

    contents: dict[bytes, Content] = field(default_factory=dict)
    unlisted: list[bytes] = field(default_factory=list)


def observe(
    root: Root,
    selection: Selection,
    db: Database,
    *,
    read_all: bool = False,
    skip: frozenset[tuple[int, int]] = frozenset(),
    checkpoint: Callable[[], None],
) -> Seen:
    """Return the content at every selected path.

    :param read_all: read every byte; else only files whose fingerprint is not the one in the index.
    """
    seen = Seen()
    with Look(root, db=db, wanted=lambda sight: read_all or sight.known is None, checkpoint=checkpoint) as look:
        for sight, hashed in look.walk(selection, skip=skip):
            content = content_seen(sight, hashed)
            if content is not None:
                seen.contents[sight.path] = content
        seen.unlisted = look.unlisted
    return seen


def content_seen(sight: Sight, hashed: Hashed | None) -> Content | None:
    """Return what is at a path; None: nothing, a directory, or a file that was neither known nor read."""
    if hashed is None:
        return sight.content or sight.known
    if hashed.outcome == Outcome.CLEAN and hashed.stat is not None:
        return Content(Kind.FILE, hashed.stat[1], hashed.sha256, None, hashed.more or {})
    if hashed.outcome == Outcome.VANISHED:
        return None
    problem = Problem.UNREADABLE if hashed.outcome == Outcome.UNREADABLE else Problem.UNSTABLE
    return Content(Kind.FILE, 0, None, problem)


def _sight(path: bytes, fd: int, name: bytes, st: Stat, known: Content | None) -> Sight:
    if stat.S_ISREG(st[0]):
        return Sight(path, st, known)
    if stat.S_ISDIR(st[0]):
        return Sight(path, None)
    if not stat.S_ISLNK(st[0]):
        return Sight(path, st, content=Content(Kind.SPECIAL, st[1]))
    try:
        target = os.readlink(name, dir_fd=fd)
    except OSError:
        return Sight(path, st, content=Content(Kind.LINK, st[1], None, Problem.UNSTABLE))
    return Sight(path, st, content=Content(Kind.LINK, st[1], hashlib.sha256(os.fsencode(target)).digest()))


def _wait_out(st: Stat, slack_ns: int) -> None:
    """A file that changed a moment ago can be read clean a moment later; at most the slack."""
    slack = settle_ns(st, slack_ns)
    left = st[3] + slack - time.time_ns()
    if 0 < left <= slack:
        time.sleep(left / 1e9 + 0.001)
