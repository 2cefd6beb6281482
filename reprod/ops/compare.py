"""One comparison for every verification: what is claimed of a set against what a look at its files finds.

Rules: a digest that differs, another size, another kind, a missing and a new path are differences; mode and times are
reported and never one. What could not be read is no difference either, it makes the result incomplete. A moved file
stays in the missing and the extra paths: nothing hides a change. Only what differs is kept, so memory does not grow
with what is equal.
"""

import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from reprod.core import digest
from reprod.core.claims import Claim, Claims
from reprod.core.entry import Content, Kind, Problem, named
from reprod.core.manifest import rfc3339
from reprod.core.ordered import ordered_tree
from reprod.fs.hash import Hashed, Outcome
from reprod.ops.observe import Sight, content_seen

#: Manifests hold times in whole microseconds, rounded or cut.
TIME_TOLERANCE_NS = 1_000

#: After a copy every time differs; that many are listed, the others counted.
MAX_METADATA = 10_000


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep a comparison goes.

    :param sample: of the files with an unchanged stat, which to read; None: every file is read.
    :param stat_changed: whether to read files whose stat says that they were written.
    :param indexed: whether sights come with what an index knows, so that an unknown fingerprint says something.
    :param extra_fails: whether a path that is not claimed is a difference; only then its content matters.
    """

    sample: Callable[[bytes], bool] | None
    stat_changed: bool
    indexed: bool
    extra_fails: bool

    @property
    def full(self) -> bool:
        """Whether every byte is read."""
        return self.sample is None


@dataclass(slots=True)
class Comparison:
    """Takes sights one by one. ``own_inode`` is that of the manifest, which may lie among the files that it lists."""

    claims: Claims
    depth: Depth
    own_inode: int | None = None
    read_files: int = 0
    read_bytes: int = 0
    mismatched: list[dict[str, Any]] = field(default_factory=list)
    type_changes: list[dict[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    metadata_count: int = 0
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    unread: list[bytes] = field(default_factory=list)
    extra: dict[bytes, Content] = field(default_factory=dict)
    missing: set[bytes] = field(init=False)
    barred: set[bytes] = field(default_factory=set)
    _other: dict[bytes, tuple[bool, bytes]] = field(default_factory=dict)
    _left: set[bytes] = field(default_factory=set)
    _unknown: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.missing = set(self.claims.entries)
        self._unknown = frozenset(self.claims.unknown)

    def wants(self, sight: Sight) -> bool:
        """Whether the bytes of a regular file must be read."""
        if self.depth.sample is None and sight.path in self.claims.entries:
            return True
        claim = self.claims.entries.get(sight.path)
        if claim is None:
            return (
                self.depth.full
                and self.depth.extra_fails
                and not self._is_own(sight)
                and not self._was_unknown(sight.path)
            )
        if (
            self.depth.sample is None
            or sight.stat is None
            or claim.kind is not Kind.FILE
            or claim.size not in {None, sight.stat[1]}
        ):
            return False  # the difference is proven
        if self._stat_changed(claim, sight):
            return self.depth.stat_changed
        return self.depth.sample(sight.path)

    def take(self, sight: Sight, hashed: Hashed | None) -> None:
        """Compare one path with what is claimed of it."""
        claim = self.claims.entries.get(sight.path)
        if claim is not None:
            self.missing.discard(sight.path)
        if hashed is not None and hashed.stat is not None and hashed.outcome is Outcome.CLEAN:
            self.read_files += 1
            self.read_bytes += hashed.stat[1]
            if claim is not None and _is_equal(claim, hashed):  # as nearly all are
                self._compare_metadata(claim, hashed.stat[0], hashed.stat[2])
                return
        content = content_seen(sight, hashed)
        if hashed is not None and hashed.outcome == Outcome.VANISHED:
            self._unreadable(sight.path, "vanished")
        elif content is not None and content.problem is not None:
            self._unreadable(sight.path, content.problem.word)
        elif claim is None:
            self._take_extra(sight, content)
        elif _kind(sight) != _word(claim.kind):
            self._take_other_kind(claim, sight, content)
        else:
            self._compare(claim, sight, content)

    def doubtful(self, *, hidden: bool) -> list[bytes]:
        """Return paths to look at directly after the walk.

        New ones that nobody read and that may be missing ones moved; with ``hidden`` also the missing ones, because
        the selection in a manifest may leave out what it lists.
        """
        if not self.depth.full and not self.depth.stat_changed:
            return []
        sizes = {self.claims.entries[path].size for path in self.missing}
        news = [p for p, c in self.extra.items() if c.sha256 is None and (c.size in sizes or None in sizes)]
        return sorted([*news, *(self.missing if hidden else ())])

    def bar(self, directories: Sequence[bytes]) -> None:
        """Note directories that could not be listed: what is claimed below them is unknown, not missing."""
        for directory in sorted(directories):
            self._unreadable(directory or b".", Problem.UNREADABLE.word)
        if directories:
            closed = frozenset(directories)
            self.barred = {path for path in self.missing if not closed.isdisjoint(_above(path))}
            self.missing -= self.barred

    def moved(self) -> list[dict[str, Any]]:
        """Return missing and extra paths with the same content, where it is alone on both sides, and never empty."""
        sources: dict[tuple[Kind, tuple[tuple[str, bytes], ...]], list[bytes]] = defaultdict(list)
        for path in self.missing if self.extra else ():
            claim = self.claims.entries[path]
            sources[claim.kind, tuple(claim.hashes.items())].append(path)
        algorithms = {tuple(name for name, _ in hashes) for _, hashes in sources}
        targets: dict[tuple[Kind, tuple[tuple[str, bytes], ...]], list[bytes]] = defaultdict(list)
        for path, content in self.extra.items():
            hashes = _hashes(content)
            for names in algorithms if hashes and content.size else ():
                if all(name in hashes for name in names):
                    targets[content.kind, tuple((name, hashes[name]) for name in names)].append(path)
        pairs = [(a[0], targets[key][0]) for key, a in sources.items() if len(a) == 1 == len(targets.get(key, ()))]
        return [{**named(a, "from"), **named(b, "to")} for a, b in sorted(pairs)]

    def digest(self) -> str | None:
        """Return the dataset digest of what was found; None where not every content is known."""
        if not self.depth.full or self.unreadable or any(c.sha256 is None for c in self.extra.values()):
            return None
        if self.claims.proven and not (self.missing or self.extra or self._other or self._left or self.barred):
            return self.claims.digest
        gone = self.missing | self._left
        present = sorted([*(path for path in self.claims.entries if path not in gone), *self.extra])
        return digest.text(ordered_tree(self._row(path) for path in present))

    def _row(self, path: bytes) -> tuple[bytes, bool, bytes]:
        extra = self.extra.get(path)
        if extra is not None:
            return path, extra.kind is Kind.LINK, extra.sha256 or b""
        other = self._other.get(path)
        if other is not None:
            return path, *other
        claim = self.claims.entries[path]
        return path, claim.kind is Kind.LINK, claim.hashes["sha256"]

    def _compare(self, claim: Claim, sight: Sight, content: Content | None) -> None:
        """Compare what is of the kind that is claimed."""
        found = _hashes(content)
        if found and found["sha256"] != claim.hashes.get("sha256"):
            self._other[claim.path] = (claim.kind is Kind.LINK, found["sha256"])
        differing = [name for name, value in claim.hashes.items() if found.get(name, value) != value]
        if claim.kind is Kind.FILE and claim.size not in {None, _size(sight, content)}:
            self._mismatch(claim, sight, content, "size", _strongest(claim))
        elif differing:
            self._mismatch(claim, sight, content, "content", "sha256" if "sha256" in differing else differing[0])
        elif not found and self.depth.indexed and sight.known is None:
            self.unread.append(claim.path)
        elif claim.kind is Kind.FILE and sight.stat is not None:
            self._compare_metadata(claim, sight.stat[0], sight.stat[2])

    def _compare_metadata(self, claim: Claim, mode: int, mtime_ns: int) -> None:
        if claim.mode is not None and (claim.mode ^ mode) & 0o7777:
            self._metadata(claim.path, "permissions", f"{claim.mode & 0o7777:04o}", f"{mode & 0o7777:04o}")
        if claim.mtime_ns is not None and abs(claim.mtime_ns - mtime_ns) > TIME_TOLERANCE_NS:
            self._metadata(claim.path, "modified_time", rfc3339(claim.mtime_ns), rfc3339(mtime_ns))

    def _metadata(self, path: bytes, name: str, expected: str, actual: str) -> None:
        self.metadata_count += 1
        if len(self.metadata) < MAX_METADATA:
            self.metadata.append({**named(path), "field": name, "expected": expected, "actual": actual})

    def _take_other_kind(self, claim: Claim, sight: Sight, content: Content | None) -> None:
        self.type_changes.append({**named(claim.path), "expected": _word(claim.kind), "actual": _kind(sight)})
        self._mismatch(claim, sight, content, "type", _strongest(claim))
        found = _hashes(content)
        if found and content is not None:
            self._other[claim.path] = (content.kind is Kind.LINK, found["sha256"])
        else:
            self._left.add(claim.path)

    def _take_extra(self, sight: Sight, content: Content | None) -> None:
        if sight.stat is None or (content is not None and content.kind is Kind.SPECIAL) or self._is_own(sight):
            return
        if self._was_unknown(sight.path):
            return
        self.extra[sight.path] = content or Content(Kind.FILE, sight.stat[1])

    def _mismatch(self, claim: Claim, sight: Sight, content: Content | None, reason: str, algorithm: str) -> None:
        found, known = _hashes(content), _hashes(sight.known)
        expected, actual = claim.hashes[algorithm], found.get(algorithm)
        entry: dict[str, Any] = {
            **named(claim.path),
            "reason": reason,
            "algorithm": algorithm,
            "expected": expected.hex(),
            "actual": actual.hex() if actual else None,
            "silent": reason == "content" and known.get(algorithm) == expected,
        }
        if reason == "size":
            entry |= {"expected_size": claim.size, "actual_size": _size(sight, content)}
        self.mismatched.append(entry)

    def _unreadable(self, path: bytes, problem: str) -> None:
        self.unreadable.append({**named(path), "problem": problem})

    def _stat_changed(self, claim: Claim, sight: Sight) -> bool:
        if self.depth.indexed or sight.stat is None:
            return sight.known is None
        return claim.mtime_ns is not None and abs(claim.mtime_ns - sight.stat[2]) > TIME_TOLERANCE_NS

    def _was_unknown(self, path: bytes) -> bool:
        """Whether nobody knew what was at a path, so that nothing there is new."""
        return bool(self._unknown) and not self._unknown.isdisjoint([path, *(d + b"/" for d in _above(path))])

    def _is_own(self, sight: Sight) -> bool:
        return self.own_inode is not None and sight.stat is not None and sight.stat[4] == self.own_inode


def _is_equal(claim: Claim, hashed: Hashed) -> bool:
    """Whether a file that was read is what a claim with nothing but a sha256 says."""
    return (
        claim.kind is Kind.FILE
        and claim.hashes.get("sha256") == hashed.sha256
        and len(claim.hashes) == 1
        and hashed.stat is not None
        and claim.size in {None, hashed.stat[1]}
    )


def _hashes(content: Content | None) -> dict[str, bytes]:
    return {} if content is None or content.sha256 is None else {"sha256": content.sha256, **content.more}


def _size(sight: Sight, content: Content | None) -> int:
    return content.size if content is not None else sight.stat[1] if sight.stat is not None else 0


def _strongest(claim: Claim) -> str:
    return "sha256" if "sha256" in claim.hashes else next(iter(claim.hashes))


def _kind(sight: Sight) -> str:
    if sight.stat is None:
        return "directory"
    mode = sight.stat[0]
    return _word(Kind.FILE if stat.S_ISREG(mode) else Kind.LINK if stat.S_ISLNK(mode) else Kind.SPECIAL)


def _word(kind: Kind) -> str:
    return kind.name.lower()


def _above(path: bytes) -> Iterator[bytes]:
    """Yield the directories above a path, the root ``b""`` last."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path
