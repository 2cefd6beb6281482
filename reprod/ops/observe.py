"""Look at the files of a dataset as they are now, without writing anything: for ``diff`` and ``verify``.

Where a fingerprint is the one in the index the content is known and need not be read, unless the caller wants every
byte read; everything else is hashed. Symlinks and special files as in a refresh.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from reprod.core.entry import Content, Kind, Problem
from reprod.core.pattern import Selection
from reprod.fs import mounts
from reprod.fs.hash import Hashed, Outcome
from reprod.fs.pool import HashPool
from reprod.fs.root import Root
from reprod.fs.walk import Listing, Stat, join, walk
from reprod.store import index
from reprod.store.connection import Database


@dataclass(slots=True)
class Seen:
    """What was found at the paths, and where nothing could be found out.

    ``expected`` holds, for each path whose fingerprint is the one in the index, the digest that the index has for it.
    """

    contents: dict[bytes, Content] = field(default_factory=dict)
    expected: dict[bytes, bytes | None] = field(default_factory=dict)
    unlisted: list[bytes] = field(default_factory=list)
    hashed_bytes: int = 0
    hashed_files: int = 0


def observe(
    root: Root,
    selection: Selection,
    db: Database,
    *,
    read_all: bool,
    skip: frozenset[tuple[int, int]] = frozenset(),
    only: Callable[[bytes], bool] = lambda _: True,
    checkpoint: Callable[[], None],
    progress: Callable[[Seen], None] = lambda _: None,
) -> Seen:
    """Return the content at every selected path for which ``only`` is true.

    :param read_all: read every byte; else only files whose fingerprint is not the one in the index.
    :param skip: ``(device, inode)`` of directories that are never entered (reprod's own state).
    """
    seen = Seen()
    slack = mounts.settle_slack_ns(root.identity.fs_type)
    with HashPool(root.fd, slack_ns=slack) as pool:

        def take(*, everything: bool) -> None:
            for rows in pool.collect(checkpoint, everything=everything):
                for directory, name, _, hashed in rows:
                    _take(seen, join(directory, name), hashed)
                progress(seen)

        tree = walk(root.fd, selection, skip=skip, checkpoint=checkpoint)
        for directory, name, st, fd, content in _entries(tree, db, seen):
            path = join(directory, name)
            if not only(path):
                continue
            if stat.S_ISREG(st[0]):
                if content is not None and not read_all:
                    seen.contents[path] = content
                    continue
                if content is not None:
                    seen.expected[path] = content.sha256
                _wait_out(st, slack)
                pool.add(directory, name, st[1])
                take(everything=False)
            else:
                seen.contents[path] = _link(fd, name, st)
        take(everything=True)
    return seen


def _entries(
    tree: Iterator[Listing], db: Database, seen: Seen
) -> Iterator[tuple[bytes, bytes, Stat, int, Content | None]]:
    """Yield every selected entry, with its known content where the fingerprint is the one in the index."""
    for listing in tree:
        if listing.error is not None and not isinstance(listing.error, FileNotFoundError):
            seen.unlisted.append(listing.path)
        known = db.read(lambda c, path=listing.path: index.contents(c, path))  # type: ignore[misc]
        for name, st in sorted(listing.files.items()):
            if st is None:  # cannot be: no directory is new here
                continue
            found = known.get(name)
            yield listing.path, name, st, listing.fd, found[1] if found is not None and found[0] == st else None


def _take(seen: Seen, path: bytes, hashed: Hashed) -> None:
    if hashed.outcome == Outcome.CLEAN and hashed.stat is not None:
        seen.hashed_files += 1
        seen.hashed_bytes += hashed.stat[1]
        seen.contents[path] = Content(Kind.FILE, hashed.stat[1], hashed.sha256)
    elif hashed.outcome != Outcome.VANISHED:
        problem = Problem.UNREADABLE if hashed.outcome == Outcome.UNREADABLE else Problem.UNSTABLE
        seen.contents[path] = Content(Kind.FILE, 0, None, problem)


def _link(fd: int, name: bytes, st: Stat) -> Content:
    if not stat.S_ISLNK(st[0]):
        return Content(Kind.SPECIAL, st[1])
    try:
        target = os.readlink(name, dir_fd=fd)
    except OSError:
        return Content(Kind.LINK, st[1], None, Problem.UNSTABLE)
    return Content(Kind.LINK, st[1], hashlib.sha256(os.fsencode(target)).digest())


def _wait_out(st: Stat, slack_ns: int) -> None:
    """A file that changed a moment ago can be read clean a moment later; at most the slack."""
    left = st[3] + slack_ns - time.time_ns()
    if 0 < left <= slack_ns:
        time.sleep(left / 1e9 + 0.001)
