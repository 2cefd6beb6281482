"""What inotify's events mean for one root: which paths changed, which files were closed, which cookies were laid.

Owns an armed instance with the watches of one tree and of the cookies. Rules: a new directory is watched before it is
told of, so that who looks there misses nothing; one that was moved is told under its old and its new name, and dropped
only when no event of the same read brings it back. Called from one thread at a time.
"""

import os

from reprod.fs.inotify import (
    ATTRIB,
    CLOSE_WRITE,
    CREATE,
    DELETE,
    DELETE_SELF,
    IGNORED,
    ISDIR,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    OVERFLOW,
    UNMOUNT,
    Event,
    Inotify,
)
from reprod.fs.ladder import DIRECTORY_FLAGS
from reprod.fs.walk import join
from reprod.fs.watch import WatchFailure, no_longer_watched, shown
from reprod.fs.watch_tree import Node, WatchedTree

_LEFT = DELETE_SELF | MOVE_SELF | UNMOUNT | IGNORED


class EventSource:
    """One instance, armed by making it: the tree, the cookies, and what came of the events up to now.

    Raises ``WatchFailure``, or OSError for a limit of inotify.
    """

    def __init__(self, root: bytes, identity: tuple[int, int], cookies: bytes, only: bytes | None) -> None:
        self._inotify = Inotify()
        self._root = root
        self._only = only
        self._paths: set[bytes] = set()
        self._closed: set[bytes] = set()
        self._names: list[bytes] = []
        self._orphans: list[Node] = []
        try:
            self._cookies = self._watch_cookies(cookies)
            self._tree = WatchedTree(self._inotify, root, identity, recursive=only is None)
            self._tree.grow()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the kernel forget all watches."""
        self._inotify.close()

    @property
    def fd(self) -> int:
        """What to poll: readable while events are queued."""
        return self._inotify.fd

    def read(self) -> list[Event]:
        """Return the next events that are queued, oldest first; none if there are none."""
        return self._inotify.read()

    def take(self, events: list[Event]) -> bool:
        """Take in events, oldest first; False once the queue had overflowed."""
        for watch, mask, name in events:
            if mask & OVERFLOW:
                return False
            if watch == self._cookies:
                self._take_cookie(mask, name)
                continue
            node = self._tree.node(watch)
            if node is not None:
                self._take(node, mask, name)
        orphans, self._orphans = self._orphans, []
        for node in orphans:
            if node.parent is None:  # it went to where we do not look
                self._tree.drop(node)
        return True

    def taken(self) -> tuple[set[bytes], set[bytes], list[bytes]]:
        """Return what changed, what of it was closed, and which cookies were seen since the last call."""
        taken = self._paths, self._closed, self._names
        self._paths, self._closed, self._names = set(), set(), []
        return taken

    def look_again(self, path: bytes) -> None:
        """Watch a directory that may be new, then hint at all of it."""
        self._tree.grow(path)
        self._paths.add(path)

    def _watch_cookies(self, cookies: bytes) -> int:
        try:
            fd = os.open(cookies, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise WatchFailure("other", f"{shown(cookies)} is not a directory") from error
        try:
            return self._inotify.add(fd)
        finally:
            os.close(fd)

    def _take_cookie(self, mask: int, name: bytes) -> None:
        if mask & _LEFT:
            raise WatchFailure("other", "the directory of the cookies is gone")
        if mask & CREATE:
            self._names.append(name)

    def _take(self, node: Node, mask: int, name: bytes) -> None:
        if mask & _LEFT and node is self._tree.root:
            raise no_longer_watched(self._root)
        path = self._tree.path(node)
        if mask & IGNORED:
            self._tree.forget(node.watch)
        if path is None or not self._is_ours(name):
            return
        if mask & UNMOUNT:  # what it covered shows up
            self.look_again(path)
            return
        if mask & (IGNORED | DELETE_SELF | MOVE_SELF):
            return  # the directory above tells what became of it
        path = join(path, name) if name else path
        if mask & ISDIR and name:
            self._take_directory(node, mask, path, name)
        self._paths.add(path)
        if mask & (CLOSE_WRITE | DELETE | MOVED_FROM | MOVED_TO):
            self._closed.add(path)

    def _take_directory(self, node: Node, mask: int, path: bytes, name: bytes) -> None:
        child = node.children.get(name)
        if mask & (MOVED_FROM | DELETE) and child is not None:
            child.detach()
            if mask & MOVED_FROM:
                self._orphans.append(child)
        elif self._only is None and (mask & (CREATE | MOVED_TO) or (mask & ATTRIB and child is None)):
            self._tree.grow(path)

    def _is_ours(self, name: bytes) -> bool:
        return self._only is None or name == self._only
