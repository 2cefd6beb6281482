"""Shows that the entries of an export are those that its digest stands for, while they stream by: nothing is held.

Rule: an export says a digest only if the rows that it was made of have it. The digest is that of ``dt1``; one level of
open directories is held (``reprod.core.ordered``). Sizes are no part
of the digest, so their sum is compared too. Digests are 32 raw bytes, sizes bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from reprod.core import digest
from reprod.core.entry import Entry, Kind, display
from reprod.core.ordered import OrderedTree
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


def _damaged(expected: Expected, why: str) -> DamagedError:
    return DamagedError(f"the records of {expected.title} are not what its digest says: {why}", hint=expected.hint)
