"""What an entry is: its kind, and its content, which is one of its two identities that are never mixed.

The other is its fingerprint (``reprod.fs.read.Stat``), which only tells whether reading again can be skipped. Times are
integer nanoseconds since the epoch.
"""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from enum import IntEnum


class Kind(IntEnum):
    """What an entry is. The numbers are stored."""

    ABSENT = 0
    FILE = 1
    LINK = 2
    SPECIAL = 3  # FIFO, socket, device: listed, never opened, never in the set


class Problem(IntEnum):
    """Why an entry has no digest. The numbers are stored; a version with one of these has no digest either."""

    UNREADABLE = 1
    UNSTABLE = 2

    @property
    def word(self) -> str:
        """The word for it in JSON and on screens."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Content:
    """Content identity: what a version says about one path.

    ``sha256`` is None when there is a problem and for special files. ``more`` holds further digests by algorithm.
    """

    kind: Kind
    size: int
    sha256: bytes | None = None
    problem: Problem | None = None
    more: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A path (raw bytes, relative to the root) with its content, and the metadata that is never part of a digest."""

    path: bytes
    content: Content
    mtime_ns: int = 0
    mode: int = 0


#: What Windows takes for an absolute path or a drive; here it is a name like any other.
ABSOLUTE_ELSEWHERE = re.compile(rb"\\|[A-Za-z]:[\\/]")


def named(path: bytes, key: str = "path") -> dict[str, str]:
    """Return a path for JSON: its display form under ``key``, and ``KEY_b64`` where that does not say it all.

    So it is where the bytes are not UTF-8, and where another system would read the name as an absolute path.
    """
    text = display(path)
    if text.encode("utf-8") == path and not ABSOLUTE_ELSEWHERE.match(path):
        return {key: text}
    return {key: text, f"{key}_b64": b64encode(path).decode()}


def display(path: bytes) -> str:
    """Return a path as text that any JSON reader takes: bytes that are not UTF-8 become ``\\xNN``."""
    return path.decode("utf-8", "backslashreplace")
