"""Bring two sets to one hash algorithm, so that a version and somebody's manifest can be compared.

Two entries can only be told equal by a digest that both sides have. Where one algorithm covers every file of both sets
it is used throughout; else each path is compared by the strongest one that both sides have of it, and where there is
none, equal sizes prove nothing: such a path is *unknown*. Paths are raw bytes, digests raw bytes by algorithm.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reprod.core.claims import Claims
from reprod.core.entry import Content, Kind, Problem

#: The strongest first.
ORDER = ("sha256", "sha512", "blake2b", "blake3", "sha1", "md5")

Hashes = Mapping[str, bytes]

#: The size of a file of which a manifest says none (SHA256SUMS).
UNKNOWN_SIZE = -1

#: All empty files look alike, so none is ever called renamed: they must be known where their size is not said.
_EMPTY = {name: hashlib.new(name).digest() for name in ("sha256", "sha512", "blake2b", "sha1", "md5")}


@dataclass(slots=True)
class HashedSet:
    """One side. ``barred`` are directories of which nothing is known; ``until``: nothing is known beyond that path.

    ``links``: whether it tells symlinks at all; SHA256SUMS has no line for them.
    """

    contents: dict[bytes, Content] = field(default_factory=dict)
    hashes: dict[bytes, Hashes] = field(default_factory=dict)
    barred: tuple[bytes, ...] = ()
    until: bytes | None = None
    links: bool = True

    @property
    def complete(self) -> bool:
        """Whether all of the set is known."""
        return self.until is None and not self.barred and all(c.problem is None for c in self.contents.values())

    def knows(self, path: bytes, kind: Kind) -> bool:
        """Whether something that is not listed is known not to be there."""
        if path in self.contents:
            return True
        if kind is Kind.LINK and not self.links:
            return False
        if self.until is not None and path > self.until:
            return False
        return not any(not top or path.startswith(top + b"/") for top in self.barred)


def of_contents(contents: dict[bytes, Content], barred: tuple[bytes, ...] = ()) -> HashedSet:
    """Return a version, or the files as they are now, as one side."""
    members = {path: c for path, c in contents.items() if c.kind in {Kind.FILE, Kind.LINK}}
    return HashedSet(members, {p: {"sha256": c.sha256, **c.more} for p, c in members.items() if c.sha256}, barred)


def of_claims(claims: Claims) -> HashedSet:
    """Return what a manifest claims as one side."""
    side = HashedSet()
    for path, claim in claims.entries.items():
        empty = claim.size is None and any(claim.hashes.get(name) == found for name, found in _EMPTY.items())
        size = 0 if empty else UNKNOWN_SIZE if claim.size is None else claim.size
        side.contents[path] = Content(claim.kind, size, None)
        side.hashes[path] = claim.hashes
    for path in claims.unknown:
        if not path.endswith(b"/") and path:
            side.contents[path] = Content(Kind.FILE, 0, None, Problem.UNREADABLE)
    side.barred = tuple(path.rstrip(b"/") for path in claims.unknown if path.endswith(b"/") or not path)
    side.until = max(claims.entries, default=b"") if claims.cut else None
    side.links = claims.selection is not None or any(c.kind is Kind.LINK for c in side.contents.values())
    return side


def common_algorithm(a: HashedSet, b: HashedSet) -> str | None:
    """Return the strongest algorithm that every entry of both sides has whose content is known; None: there is none."""
    return next((name for name in ORDER if all(name in hashes for hashes in _all(a, b))), None)


def _all(a: HashedSet, b: HashedSet) -> Iterator[Hashes]:
    yield from a.hashes.values()
    yield from b.hashes.values()


def bring_together(a: HashedSet, b: HashedSet) -> tuple[dict[bytes, Content], dict[bytes, Content], frozenset[bytes]]:
    """Return both sides with digests that can be compared, as ``reprod.core.delta.compare`` takes them.

    Third come the paths of which the sides have no algorithm in common and equal sizes: without a digest on the second
    side. What one side cannot know of is left out of the other.
    """
    everywhere = common_algorithm(a, b)
    left = {path: _with(a, path, everywhere) for path, held in a.contents.items() if b.knows(path, held.kind)}
    right = {path: _with(b, path, everywhere) for path, held in b.contents.items() if a.knows(path, held.kind)}
    incomparable = set()
    if everywhere is None:
        for path in left.keys() & right.keys():
            name = next((n for n in ORDER if n in a.hashes.get(path, {}) and n in b.hashes.get(path, {})), None)
            left[path], right[path] = _with(a, path, name), _with(b, path, name)
            if name is None and not _surely_other(left[path], right[path]):
                right[path] = Content(right[path].kind, right[path].size, None, right[path].problem)
                incomparable.add(path)
    return left, right, frozenset(incomparable)


def _with(side: HashedSet, path: bytes, algorithm: str | None) -> Content:
    content, hashes = side.contents[path], side.hashes.get(path, {})
    found = hashes.get(algorithm) if algorithm is not None else next((hashes[n] for n in ORDER if n in hashes), None)
    return Content(content.kind, content.size, found, content.problem)


def _surely_other(a: Content, b: Content) -> bool:
    return a.kind != b.kind or (a.size != b.size and UNKNOWN_SIZE not in {a.size, b.size})
