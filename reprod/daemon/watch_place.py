"""What to watch for a dataset's root, and whether watching it would see anything.

Looked at anew whenever a watch is armed: what is at the root may be another thing then. Blocks; paths are raw bytes.
"""

import os

from reprod.fs import mounts
from reprod.fs.root import split_root
from reprod.fs.watch import WatchFailure

#: A folder, and the name in it that alone counts if the dataset is one file; None: the whole tree.
Place = tuple[bytes, bytes | None]


class UnsuitedError(WatchFailure):
    """Raised instead of arming where a watch would arm and see nothing, or is not wanted."""


def place_of(root: bytes) -> Place:
    """Return what to watch: for a symlink to one file that is where the file is."""
    folder, name = split_root(os.fsdecode(root))
    return os.fsencode(folder), None if name is None else os.fsencode(name)


def leads_elsewhere(root: bytes, place: Place) -> bool:
    """Whether the root is a symlink to one file: then no event tells that it was made to lead to another."""
    return place[1] is not None and place != (os.path.dirname(root), os.path.basename(root))


def require_suited(root: bytes, backend: str) -> None:
    """Raise ``UnsuitedError`` if the root is to be polled: configured so, or its file system makes no events here."""
    if backend == "poll":
        raise UnsuitedError("other", "configured: watch.backend = poll")
    try:
        descriptor = os.open(root, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # arming will say it better
    try:
        mount = mounts.mount_of(descriptor)
    finally:
        os.close(descriptor)
    if mount is not None and mounts.is_network(mount.fs_type):
        raise UnsuitedError("other", f"{mount.fs_type}: changes made by other hosts make no events here")
