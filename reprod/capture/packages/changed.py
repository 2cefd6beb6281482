"""Owns whether what is installed has changed since a moment: then a list made now may not be what a process runs with.

Stamps of directories tell, because installers make and remove entries; those of files do not, since a link made to one
from another environment changes its stamp too. 200 packages take 1 ms.
"""

import os
from collections.abc import Sequence

from reprod.capture.packages.records import SITE_NAMES

#: Start times have clock ticks of 10 ms, and stamps come from a clock that is up to 10 ms late.
SLACK_NS = 20_000_000
#: Where stamps are whole seconds; two on FAT.
COARSE_SLACK_NS = 2_000_000_000

_RECORDS = (".dist-info", ".egg-info", ".egg-link", ".pth")


def find_change(site_dirs: Sequence[str], since_ns: int) -> str | None:
    """Return what changed in the directories of packages since ``since_ns`` (epoch) or may have; None: nothing did.

    In a directory that only lies on the path, and may be the user's own, the records alone count.
    """
    for path in site_dirs:
        try:
            if _is_later(os.stat(path), since_ns) and os.path.basename(path) in SITE_NAMES:
                return f"{path} was changed after the process had started"
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.endswith(_RECORDS) and _is_later(entry.stat(follow_symlinks=False), since_ns):
                        return f"{path}/{entry.name} was changed after the process had started"
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{path}: {error.strerror}"
    return None


def _is_later(status: os.stat_result, since_ns: int) -> bool:
    slack = SLACK_NS if status.st_ctime_ns % 1_000_000_000 else COARSE_SLACK_NS
    return status.st_ctime_ns > since_ns - slack
