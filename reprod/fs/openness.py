"""Who may read a folder besides us: what decides whether the names in it go to a tracking server."""

import os
import stat


def is_shown(root: str) -> bool:
    """Whether telling the names below ``root`` gives nothing away: they are our own user's, or every user's to read.

    Every user's are those whose folder may be listed by others, and reached through each folder above it. False where
    that cannot be looked at.
    """
    try:
        real = os.path.realpath(root)
        status = os.stat(real)
        if status.st_uid == os.geteuid():
            return True
        wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
        return status.st_mode & wanted == wanted and _is_reachable(os.path.dirname(real))
    except OSError:
        return False


def _is_reachable(folder: str) -> bool:
    while True:
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return False
        above = os.path.dirname(folder)
        if above == folder:
            return True
        folder = above
