"""Whether so much is gone at once that the listing may be wrong and not the data.

A file system that answers with half a listing (a network mount that is coming back, a FUSE process that restarts) looks
like a deletion. So a walk that misses a large part of the entries, of which no event told, is held: nothing is
forgotten, and only a second walk some seconds later that misses them too is believed.
"""

from collections.abc import Mapping

from reprod.errors import DatasetUnavailableError
from reprod.ops.findings import Findings
from reprod.store import index, meta, versions
from reprod.store.connection import Database

#: From where on a loss is large: more than so many files, and more than this part of all.
LEAST_FILES = 1000
LEAST_SHARE = 0.2

#: How much later the second walk begins at the earliest: longer than a server takes to come back half.
CONFIRM_NS = 5_000_000_000


def hold_large_loss(db: Database, found: Findings, hinted: Mapping[bytes, int], began_ns: int) -> None:
    """Raise DatasetUnavailableError if a walk that began at ``began_ns`` lost much, and is the first to.

    :param hinted: paths of which events told; what is below them went in plain sight.
    """
    held_ns = db.read(meta.read).held_ns
    newest = db.read(versions.newest)
    files = newest.files if newest is not None else 0
    lost = db.read(lambda c: _lost(c, found, files))
    if lost <= max(LEAST_FILES, LEAST_SHARE * files) or all(is_covered(path, hinted) for path in found.lost_paths):
        if held_ns is not None:
            db.write(lambda c: meta.write(c, held_ns=None))
        return
    if held_ns is not None and began_ns - held_ns >= CONFIRM_NS:
        db.write(lambda c: meta.write(c, held_ns=None))
        return
    if held_ns is None or held_ns > began_ns:  # the first, or the clock was set back since
        db.write(lambda c: meta.write(c, held_ns=began_ns))
    raise DatasetUnavailableError(
        f"{lost:,} of {files:,} files are gone, and no event told of it",
        hint=f"nothing is forgotten yet: a walk {CONFIRM_NS // 1_000_000_000} seconds later decides; "
        "see whether something is not mounted",
    )


def is_covered(path: bytes, hinted: Mapping[bytes, int]) -> bool:
    """Whether a hint told of the path, or of a directory above it."""
    while True:
        if path in hinted:
            return True
        if not path:
            return False
        path = path.rpartition(b"/")[0]


def _lost(c: index.Connection, found: Findings, files: int) -> int:
    """Return how many fewer than ``files`` there are: what only went elsewhere is no loss."""
    gone = len(found.gone_files) + index.files_below(c, found.gone_directories)
    return files - (index.count_files(c) - gone) if gone > LEAST_FILES else 0
