"""The outcome of reading one file, with names: what ``reprod.fs.read`` answers in plain tuples."""

from enum import IntEnum
from typing import NamedTuple

from reprod.fs import read
from reprod.fs.read import Stat


class Outcome(IntEnum):
    """How a read ended."""

    CLEAN = read.CLEAN
    UNREADABLE = read.UNREADABLE
    UNSTABLE = read.UNSTABLE  # it changed while it was read
    RACY = read.RACY  # changed within the slack: wait, then read
    VANISHED = read.VANISHED  # not there any more
    OTHER = read.OTHER  # no regular file any more
    LARGE = read.LARGE  # nobody knew its size, and it is not for a batch of small ones


#: The member for each number: indexing costs a fifth of the Enum's call.
OUTCOMES = tuple(Outcome)


class Hashed(NamedTuple):
    """What a read of one file gave: ``sha256`` when clean, ``error`` (an errno) when unreadable, ``stat`` if known."""

    outcome: Outcome
    stat: Stat | None = None
    sha256: bytes | None = None
    more: dict[str, bytes] | None = None
    error: int = 0
