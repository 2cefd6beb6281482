"""Which files a verification reads when it does not read all, and how it makes sure that the disk is read.

A file is in the sample if a keyed hash of its path says so: the same seed gives the same files in any order, and who
wrote the files cannot know the seed of the day.
"""

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["quick", "sampled", "full", "uncached"]

#: Numbers of damaged files for which a report says how likely one of them is found.
EXAMPLES = (1, 10, 100)

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _new_seed() -> int:
    return secrets.randbits(32)


@dataclass(frozen=True, slots=True)
class Sample:
    """Each file with a chance of ``percent`` (0 to 100), independent of the others."""

    percent: float = 1.0
    seed: int = field(default_factory=_new_seed)

    def takes(self, path: bytes) -> bool:
        """Whether the file at ``path`` is in the sample."""
        key = self.seed.to_bytes(8, "little")
        drawn = int.from_bytes(hashlib.blake2b(path, digest_size=8, key=key).digest(), "little")
        return drawn < self.percent / 100 * (1 << 64)

    def chance(self, damaged: int) -> float:
        """Return the probability that at least one of so many files with silently changed bytes is read."""
        return float(1 - (1 - self.percent / 100) ** damaged)

    def document(self) -> dict[str, Any]:
        """Return the sample for JSON."""
        chances = {str(damaged): round(self.chance(damaged), 6) for damaged in EXAMPLES}
        return {"percent": self.percent, "seed": self.seed, "detection_probability": chances}


def drop_cached(directory: int, name: bytes) -> None:
    """Have the kernel forget the cached pages of a file, so that reading it reads the disk. Nothing is raised.

    What is not yet on the disk is written first: such pages cannot be dropped.
    """
    try:
        fd = os.open(name, _OPEN, dir_fd=directory)
    except OSError:  # the read itself will say why
        return
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:  # a file system without one of them: it is read as it is
        pass
    finally:
        os.close(fd)
