"""Where ``max_files`` cuts a set: after its first N regular files in the order of the paths' bytes.

The order is the manifest's own, so the same files give the same cut on every machine. Each directory is listed only
when its turn comes and the search ends one file after the cut, so what lies behind is neither listed nor read.
"""

import os
from collections.abc import Callable, Iterator

from reprod.core.pattern import Selection
from reprod.fs.ladder import Ladder
from reprod.fs.walk import join


def last_path(
    root: int,
    selection: Selection,
    max_files: int,
    *,
    skip: frozenset[tuple[int, int]] = frozenset(),
    checkpoint: Callable[[], None] = lambda: None,
) -> bytes | None:
    """Return the path of the last file to keep; None if there are no more than ``max_files``, so nothing is cut.

    :param root: open descriptor of the set's root.
    :param skip: ``(device, inode)`` of directories that are never entered (reprod's own state).
    """
    last = None
    for count, path in enumerate(_files_in_order(root, selection, skip, checkpoint)):
        if count == max_files:
            return last
        last = path
    return None


def _files_in_order(
    root: int, selection: Selection, skip: frozenset[tuple[int, int]], checkpoint: Callable[[], None]
) -> Iterator[bytes]:
    """Yield the selected regular files in path byte order.

    A directory that cannot be listed has no files here; the refresh says that it could not.
    """
    with Ladder(root) as ladder:
        pending = [b"/"]  # a directory ends in a slash, which also gives it its place in the order
        while pending:
            path = pending.pop()
            if not path.endswith(b"/"):
                yield path
                continue
            checkpoint()
            directory = path[:-1]
            try:
                fd = ladder.open(directory) if directory else root
                st = os.fstat(fd)
                if (st.st_dev, st.st_ino) not in skip:
                    pending += sorted(_listed(fd, directory, selection), reverse=True)
            except OSError:
                continue


def _listed(fd: int, directory: bytes, selection: Selection) -> Iterator[bytes]:
    with os.scandir(fd) as entries:
        for entry in entries:
            path = join(directory, os.fsencode(entry.name))
            if entry.is_dir(follow_symlinks=False):
                if selection.takes_directory(path):
                    yield path + b"/"
            elif entry.is_file(follow_symlinks=False) and selection.takes_file(path):
                yield path
