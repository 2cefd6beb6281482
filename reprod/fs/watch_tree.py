"""Which directory each inotify watch stands for: the watches of one tree, kept true while it is renamed and rebuilt.

Rules: a directory is watched before it is listed, so nothing falls between; a watch belongs to an inode and not to a
path, so a path is computed when it is asked for; a stale event may detach a directory that is there again, and the
event of its coming back, which follows, attaches it. No descriptor is held between two calls: one would keep the file
system from being unmounted.

Of two paths to one directory (a bind mount inside the tree) only the one met last is told; walks see both.
"""

import errno
import os
from dataclasses import dataclass, field

from reprod.fs import mounts
from reprod.fs.inotify import Inotify
from reprod.fs.ladder import DIRECTORY_FLAGS, Ladder
from reprod.fs.walk import join
from reprod.fs.watch import WatchFailure, as_limit, no_longer_watched, shown

#: Where a directory's link count is two plus its subdirectories, so that one without any need not be listed: a million
#: files in 1,000 directories are armed in 20 ms instead of a second.
_COUNTS_SUBDIRECTORIES = frozenset({"ext2", "ext3", "ext4", "tmpfs", "xfs"})

_NO_SUBDIRECTORY = 2


@dataclass(eq=False, slots=True)
class Node:
    """A watched directory. ``parent`` is None for the root, and for one that is no part of the tree any more."""

    watch: int
    name: bytes = b""
    parent: "Node | None" = None
    children: "dict[bytes, Node]" = field(default_factory=dict)

    def detach(self) -> None:
        """Take it, with all below it, out of the tree."""
        if self.parent is not None and self.parent.children.get(self.name) is self:
            del self.parent.children[self.name]
        self.parent = None


class WatchedTree:
    """The watches of the directory at ``root``, which must stay the one of ``identity``, and all below it."""

    def __init__(self, inotify: Inotify, root: bytes, identity: tuple[int, int], *, recursive: bool) -> None:
        self.root: Node | None = None
        self._inotify = inotify
        self._path = root
        self._identity = identity
        self._recursive = recursive
        self._nodes: dict[int, Node] = {}

    def node(self, watch: int) -> Node | None:
        """Return the directory that a watch stands for; None for one that ended."""
        return self._nodes.get(watch)

    def path(self, node: Node) -> bytes | None:
        """Return where it is, relative to the root; None if it is no part of the tree any more."""
        names = []
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return b"/".join(reversed(names)) if node is self.root else None

    def grow(self, top: bytes = b"") -> None:
        """Watch the directory at ``top`` and all below it; what vanishes meanwhile, or is barred, is left out.

        Raises ``WatchFailure`` if the root is another one, or a limit of inotify is reached.
        """
        root = self._open_root()
        try:
            counted = _counts_subdirectories(root)
            with Ladder(root) as ladder:
                pending = [top]
                while pending:
                    path = pending.pop()
                    try:
                        names = self._watch(path, ladder.open(path) if path else root, counted)
                    except OSError as error:
                        self._forgive(error, path)
                        continue
                    if self._recursive:
                        pending += [join(path, name) for name in names]
        finally:
            os.close(root)

    def drop(self, node: Node) -> None:
        """End the watches of a directory that left the tree, and of all below it."""
        pending = [node]
        while pending:
            one = pending.pop()
            self._inotify.remove(one.watch)
            pending += one.children.values()

    def forget(self, watch: int) -> None:
        """Take note that the kernel ended a watch."""
        node = self._nodes.pop(watch, None)
        if node is not None:
            node.detach()

    def _open_root(self) -> int:
        try:
            fd = os.open(self._path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise no_longer_watched(self._path) from error
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self._identity:
            os.close(fd)
            raise no_longer_watched(self._path)
        return fd

    def _watch(self, path: bytes, fd: int, counted: int | None) -> list[bytes]:
        """Watch one directory, then return the names of its subdirectories."""
        watch = self._inotify.add(fd)
        self._attach(watch, path)
        status = os.fstat(fd)
        if not self._recursive or (status.st_dev == counted and status.st_nlink == _NO_SUBDIRECTORY):
            return []
        with os.scandir(fd) as entries:
            return [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]

    def _attach(self, watch: int, path: bytes) -> None:
        node = self._nodes.get(watch)
        if node is None:
            node = self._nodes[watch] = Node(watch)
        if not path:
            self.root = node
            return
        directory, _, name = path.rpartition(b"/")
        parent = self._find(directory)
        if parent is None or node is self.root:
            return  # its parent is barred, or went: no event names it then
        node.detach()
        if self.path(parent) is None:
            return  # what we know above it was below it: the event that says so follows, and is for all of it
        displaced = parent.children.get(name)
        if displaced is not None:
            displaced.detach()
        node.name, node.parent = name, parent
        parent.children[name] = node

    def _find(self, path: bytes) -> Node | None:
        node = self.root
        for name in path.split(b"/") if path else ():
            node = node.children.get(name) if node is not None else None
        return node

    def _forgive(self, error: OSError, path: bytes) -> None:
        limit = as_limit(error.errno)
        if limit is not None:
            raise limit from error
        if not path or error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM}:
            place = shown(join(self._path, path))
            raise WatchFailure("other", f"cannot watch {place}: {error.strerror or error}") from error


def _counts_subdirectories(root: int) -> int | None:
    """Return the device of the root if the link count of its directories can be believed."""
    mount = mounts.mount_of(root)
    return os.fstat(root).st_dev if mount is not None and mount.fs_type in _COUNTS_SUBDIRECTORIES else None
