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
    names: list[bytes] = []
    open_nodes = [hashlib.sha256()]
    here, last = b"", b""
    for path, is_link, sha256 in entries:
        if path <= last:
            raise ValueError(f"{path!r} does not come after {last!r}")
        last = path
        directory, _, name = path.rpartition(b"/")
        if directory != here:
            wanted = directory.split(b"/") if directory else []
            common = 0
            while common < min(len(names), len(wanted)) and names[common] == wanted[common]:
                common += 1
            _close(names, open_nodes, common)
            names += wanted[common:]
            open_nodes += [hashlib.sha256() for _ in wanted[common:]]
            here = directory
        open_nodes[-1].update(link_line(sha256, name) if is_link else file_line(sha256, name))
    _close(names, open_nodes, 0)
    return open_nodes[0].digest()


def _close(names: list[bytes], open_nodes: "list[hashlib._Hash]", level: int) -> None:
    """Finish the directories below ``level``: each becomes a line of its parent."""
    while len(names) > level:
        node = open_nodes.pop().digest()
        open_nodes[-1].update(directory_line(node, names.pop()))
