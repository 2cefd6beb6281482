"""Shows that the entries of an export are those that its digest stands for, while they stream by: nothing is held.

Rule: an export says a digest only if the rows that it was made of have it. The digest is that of ``dt1``; one level of
open directories is held, as in ``reprod.core.ordered``, but entries are given one by one, not taken. Sizes are no part
of the digest, so their sum is compared too. Digests are 32 raw bytes, sizes bytes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from reprod.core import digest
from reprod.core.entry import Entry, Kind, display
from reprod.errors import DamagedError

_SHA256_SIZE = 32


@dataclass(frozen=True, slots=True)
class Expected:
    """What the entries of a set must come to: ``digest`` is ``dt1:...``, ``size`` (bytes) None where it is not known.

    ``title`` names the set for people, ``hint`` says what to do if it is not so.
    """

    title: str
    hint: str
    digest: str
    files: int
    size: int | None


def proven(entries: Iterator[Entry], expected: Expected) -> Iterator[Entry]:
    """Pass the entries on, in ascending order of their paths; raise DamagedError at the end if they are others."""
    tree = OrderedTree()
    files = size = 0
    for entry in entries:
        content = entry.content
        if content.kind is not Kind.SPECIAL:
            sha256 = content.sha256
            if content.problem is not None or not isinstance(sha256, bytes) or len(sha256) != _SHA256_SIZE:
                raise _damaged(expected, f"'{display(entry.path)}' has no sha256")
            try:
                tree.add(entry.path, content.kind is Kind.LINK, sha256)
            except ValueError as error:
                raise _damaged(expected, f"'{display(entry.path)}' is out of order") from error
            if content.kind is Kind.FILE:
                files, size = files + 1, size + content.size
        yield entry
    found = digest.text(tree.root())
    if found != expected.digest:
        raise _damaged(expected, f"they give the digest {digest.short(found)}, not {digest.short(expected.digest)}")
    if files != expected.files or expected.size not in {None, size}:
        told = "" if expected.size is None else f" of {expected.size:,} bytes"
        raise _damaged(expected, f"they are {files:,} files of {size:,} bytes, not {expected.files:,}{told}")


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
        self._nodes[-1].update(digest.link_line(sha256, name) if is_link else digest.file_line(sha256, name))

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
            self._nodes[-1].update(digest.directory_line(node, self._names.pop()))


def _damaged(expected: Expected, why: str) -> DamagedError:
    return DamagedError(f"the records of {expected.title} are not what its digest says: {why}", hint=expected.hint)
