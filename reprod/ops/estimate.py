"""How large a dataset is, told in a moment and before it is scanned: names are counted, nothing is stat'ed or read."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from reprod.config import DatasetConfig
from reprod.fs.root import open_root
from reprod.fs.walk import walk
from reprod.ops.plan import select
from reprod.ops.refresh import state_inodes

#: Some 500,000 names on a local disk; longer than that nobody waits for an answer.
BUDGET_S = 0.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was counted: entries of the set (files, links, special files). ``whole``: all of it in the time given."""

    files: int
    whole: bool
    fs_type: str


def estimate(
    dataset: DatasetConfig,
    state_dir: str,
    *,
    budget_s: float = BUDGET_S,
    checkpoint: Callable[[], None] = lambda: None,
) -> Estimate:
    """Count for ``budget_s`` seconds, to the end of a directory. Raises DatasetUnavailableError, ConfigError."""
    deadline, files, whole = time.monotonic() + budget_s, 0, True
    with open_root(dataset.path) as root:
        tree = walk(
            root.fd,
            select(dataset, root),
            skip=state_inodes(state_dir),
            checkpoint=checkpoint,
            is_new=lambda _path, _stat: True,
        )
        for listing in tree:
            files += len(listing.unread) + len(listing.names)
            if time.monotonic() > deadline:
                whole = not listing.directories and next(tree, None) is None
                break
        return Estimate(files, whole, root.identity.fs_type)
