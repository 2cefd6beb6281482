"""What a manifest or a version claims of the files of a set: the one form that every verification and diff reads.

Claims come from anywhere (a version of ours, a file that somebody sent), so whoever makes them checks every name and
every digest through ``ClaimsBuilder``. A million of them are held packed, in some 250 bytes each with their names.
Paths are raw bytes relative to the root, sizes bytes, times Unix nanoseconds, digests raw bytes by algorithm.
"""

import re
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from reprod.core.entry import ABSOLUTE_ELSEWHERE, Kind, display
from reprod.core.pattern import Selection

#: Bytes in a digest of each algorithm that can be verified.
DIGEST_SIZES = {"sha256": 32, "blake3": 32, "sha512": 64, "blake2b": 64, "sha1": 20, "md5": 16}

#: Two files with the same digest of these can be made on purpose.
WEAK = frozenset({"md5", "sha1"})

#: Some 2.5 GB of claims; ten times the largest dataset that this is measured with.
MAX_ENTRIES = 10_000_000

#: 64-bit, as in file systems and in SQLite.
LARGEST = (1 << 63) - 1

#: Shape, size, mtime_ns, mode; only the shape where nothing is said of the others.
_HEAD = struct.Struct("<HqqI")
_SHORT = struct.Struct("<H")
_NO_NUMBER, _NO_MODE = -LARGEST - 1, 0xFFFFFFFF

#: An empty, ``.`` or ``..`` component (the first one is empty in an absolute path), or NUL.
_OUTSIDE = re.compile(rb"(?:\A|/)\.{0,2}(?:/|\Z)|\0")


class Refused(Exception):  # noqa: N818 - no error of its own: the reader adds file and place and raises DamagedError
    """Raised for a claim that cannot be taken; the message says what is wrong with it."""


class Claim(NamedTuple):
    """What is claimed of one path. None: nothing is said of it. A link's digest is that of its raw target."""

    path: bytes
    kind: Kind
    size: int | None
    hashes: dict[str, bytes]
    mode: int | None = None
    mtime_ns: int | None = None


class _Shape(NamedTuple):
    """What equal entries have in common. ``bare``: nothing but digests is claimed."""

    kind: Kind
    algorithms: tuple[str, ...]
    bare: bool


class Entries(Mapping[bytes, Claim]):
    """Claims by path, packed: a Claim is made each time it is asked for. Paths come in the order of their arrival."""

    __slots__ = ("_packed", "_shapes")

    def __init__(self, packed: dict[bytes, bytes], shapes: Sequence[_Shape]) -> None:
        self._packed, self._shapes = packed, shapes

    def __getitem__(self, path: bytes) -> Claim:
        found: Claim | None = self.get(path)
        if found is None:
            raise KeyError(path)
        return found

    def get(self, path: bytes, default: Any = None) -> Any:
        """Return the claim of ``path``: what Mapping has, at a third of the cost."""
        packed = self._packed.get(path)
        if packed is None:
            return default
        kind, algorithms, bare = self._shapes[_SHORT.unpack_from(packed)[0]]
        if bare:
            at, size, mtime_ns, mode = _SHORT.size, _NO_NUMBER, _NO_NUMBER, _NO_MODE
        else:
            at = _HEAD.size
            _, size, mtime_ns, mode = _HEAD.unpack_from(packed)
        hashes = {}
        for name in algorithms:
            end = at + DIGEST_SIZES[name]
            hashes[name] = packed[at:end]
            at = end
        return Claim(
            path,
            kind,
            None if size < 0 else size,
            hashes,
            None if mode == _NO_MODE else mode,
            None if mtime_ns == _NO_NUMBER else mtime_ns,
        )

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, path: object) -> bool:
        return path in self._packed


@dataclass(frozen=True, slots=True)
class Claims:
    """A whole set as claimed.

    ``digest`` is ``dt1:...``, and ``proven`` if the entries were seen to have it. ``selection`` None: not recorded,
    so nobody can say which files were left out on purpose. ``cut``: only the first files of the set are listed.
    ``unknown``: paths whose content was not known then, directories with a slash at their end. ``size`` is None where
    not every size is claimed. ``file``: device and inode of the file that the claims are from. ``warnings`` are
    sentences for people.
    """

    entries: Mapping[bytes, Claim]
    algorithms: tuple[str, ...] = ()
    digest: str | None = None
    proven: bool = False
    selection: Selection | None = None
    cut: bool = False
    unknown: tuple[bytes, ...] = ()
    weak: bool = False
    links: int = 0
    size: int | None = None
    file: tuple[int, int] | None = None
    warnings: tuple[str, ...] = ()


def check_path(path: bytes, *, exact: bool = False) -> bytes:
    """Return ``path`` if it stays below a root: on every system, or, where its bytes were given exactly, on this one.

    :raises Refused: it does not.
    """
    if _OUTSIDE.search(path) is None and (exact or ABSOLUTE_ELSEWHERE.match(path) is None):
        return path
    shown = shorten(display(path))
    if not path:
        raise Refused("the path is empty")
    if b"\0" in path:
        raise Refused(f"the path {shown} holds a NUL")
    if path[:1] in {b"/", b"\\"} or path[1:2] == b":":
        raise Refused(f"the path {shown} is absolute; only paths below the root are taken")
    raise Refused(f"the path {shown} has an empty, '.' or '..' component")


def parse_digest(algorithm: str, text: object) -> bytes:
    """Return the bytes of a hex digest in either case. :raises Refused: wrong type, length or digits."""
    size = DIGEST_SIZES[algorithm]
    if not isinstance(text, str):
        raise Refused(f"the {algorithm} digest is no text")
    if len(text) != 2 * size:
        raise Refused(f"the {algorithm} digest has {len(text)} characters instead of {2 * size}")
    try:
        found = bytes.fromhex(text)
    except ValueError:
        raise Refused(f"the {algorithm} digest {shorten(text)} is not hexadecimal") from None
    if len(found) != size:  # fromhex skips white space
        raise Refused(f"the {algorithm} digest {shorten(text)} is not hexadecimal")
    return found


def shorten(text: str, length: int = 100) -> str:
    """Return a text of any origin in quotes, escaped and cut, as it can stand in a message."""
    shown = ascii(text[: length + 1])
    return shown if len(shown) <= length + 2 else f"{shown[: length - 3]}...{shown[0]}"


@dataclass(slots=True)
class ClaimsBuilder:
    """Takes one claim after another, checks it, and packs it. Every fault raises Refused."""

    packed: dict[bytes, bytes] = field(default_factory=dict)
    files: int = 0
    size: int | None = 0  # None: not every file came with its size
    passed_over: int = 0
    _shapes: dict[_Shape, int] = field(default_factory=dict)

    def add(
        self,
        path: bytes,
        kind: Kind,
        size: int | None,
        hashes: Mapping[str, bytes],
        mode: int | None = None,
        mtime_ns: int | None = None,
        *,
        exact: bool = False,
    ) -> None:
        """Take what is claimed of ``path``. ``hashes`` is not empty, its digests have their algorithms' lengths."""
        check_path(path, exact=exact)
        if path in self.packed:
            raise Refused(f"the path {shorten(display(path))} is listed twice")
        if len(self.packed) >= MAX_ENTRIES:
            raise Refused(f"there are more than {MAX_ENTRIES:,} entries")
        algorithms = tuple(sorted(hashes)) if len(hashes) > 1 else tuple(hashes)
        bare = size is None and mtime_ns is None and mode is None
        shape = self._shapes.setdefault(_Shape(kind, algorithms, bare), len(self._shapes))
        head = (
            _SHORT.pack(shape)
            if bare
            else _HEAD.pack(
                shape,
                _NO_NUMBER if size is None else size,
                _NO_NUMBER if mtime_ns is None else mtime_ns,
                _NO_MODE if mode is None else mode,
            )
        )
        self.packed[path] = head + b"".join([hashes[name] for name in algorithms])
        if kind is Kind.FILE:
            self.files += 1
            self.size = None if size is None or self.size is None else self.size + size

    def check_parents(self) -> None:
        """Refuse an entry below another one: nothing can lie below a file, and links are not followed.

        Not by a look at each parent: a path of a million bytes has half a million of them.
        """
        ordered = sorted(self.packed)
        for path, after in pairwise(ordered):
            if not after.startswith(path):  # what begins alike comes together, but a-b stands between a and a/b
                continue
            at = bisect_left(ordered, path + b"/")
            if at < len(ordered) and ordered[at].startswith(path + b"/"):
                below = shorten(display(ordered[at]))
                raise Refused(f"the path {below} lies below {shorten(display(path))}, which is no folder")

    def entries(self) -> Entries:
        """Return all claims taken so far."""
        return Entries(self.packed, tuple(self._shapes))

    def algorithms(self) -> tuple[str, ...]:
        """Return the algorithms that occur, in the order of DIGEST_SIZES."""
        used = {name for shape in self._shapes for name in shape.algorithms}
        return tuple(name for name in DIGEST_SIZES if name in used)

    def everywhere(self, algorithm: str) -> bool:
        """Whether every file has a digest of this algorithm."""
        return all(algorithm in shape.algorithms for shape in self._shapes if shape.kind is Kind.FILE)

    def links(self) -> int:
        """Return how many symlinks were taken."""
        return len(self.packed) - self.files

    def is_weak(self) -> bool:
        """Whether some claim rests on nothing better than md5 or sha1."""
        return any(WEAK.issuperset(shape.algorithms) for shape in self._shapes)
