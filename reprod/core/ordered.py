"""The dataset digest of a set whose paths come in order, with one open directory a level: memory does not grow.

Full-path byte order is the order of the listings of ``dt1`` (a directory's key ends in ``/``), so each directory is
finished when the first path outside it comes. ``reprod.core.digest.tree`` does the same for a set in any order.
"""

import hashlib
from collections.abc import Iterable, Mapping

from reprod.core.claims import Claim
from reprod.core.digest import directory_line, file_line, link_line, text
from reprod.core.entry import Kind


def digest_of(entries: Mapping[bytes, Claim]) -> str:
    """Return the dataset digest (``dt1:...``) of claims in any order, each with a sha256."""
    return text(
        ordered_tree((path, (c := entries[path]).kind is Kind.LINK, c.hashes["sha256"]) for path in sorted(entries))
    )


def ordered_tree(entries: Iterable[tuple[bytes, bool, bytes]]) -> bytes:
    """Return the root node (32 bytes) of ``(path, is a link, sha256)`` in ascending order of the paths' bytes.

    :raises ValueError: the order is not ascending, or a path comes twice.
    """
    tree = OrderedTree()
    for path, is_link, sha256 in entries:
        tree.add(path, is_link, sha256)
    return tree.root()


class OrderedTree:
    """The dataset digest of entries that are added in ascending order of their paths' bytes."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._nodes = [hashlib.sha256()]
        self._here = self._last = b""

    def add(self, path: bytes, is_link: bool, sha256: bytes) -> None:
        """Take the next entry. :raises ValueError: its path does not come after the last one's."""
        if path <= self._last:
            raise ValueError(f"{path!r} does not come after {self._last!r}")
        self._last = path
        directory, _, name = path.rpartition(b"/")
        if directory != self._here:
            self._enter(directory)
        self._nodes[-1].update(link_line(sha256, name) if is_link else file_line(sha256, name))

    def root(self) -> bytes:
        """Return the root node (32 bytes); nothing is added after that."""
        self._leave(0)
        return self._nodes[0].digest()

    def _enter(self, directory: bytes) -> None:
        wanted = directory.split(b"/") if directory else []
        common = 0
        while common < min(len(self._names), len(wanted)) and self._names[common] == wanted[common]:
            common += 1
        self._leave(common)
        self._names += wanted[common:]
        self._nodes += [hashlib.sha256() for _ in wanted[common:]]
        self._here = directory

    def _leave(self, level: int) -> None:
        """Finish the directories below ``level``: each becomes a line of its parent."""
        while len(self._names) > level:
            node = self._nodes.pop().digest()
            self._nodes[-1].update(directory_line(node, self._names.pop()))
