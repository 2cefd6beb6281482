"""The difference of two versions: added, removed, modified, renamed with the same content.

Works on ``{path: Content}`` mappings restricted to the paths that may differ. Special files are no part of a set and
never part of a difference.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from reprod.core.entry import Content, Kind


@dataclass(frozen=True, slots=True)
class Change:
    """A path with what it was and what it is; None: not there."""

    path: bytes
    before: Content | None
    after: Content | None


@dataclass(frozen=True, slots=True)
class Rename:
    """Content that left one path and came up, alone of its kind on both sides, at another."""

    source: bytes
    target: bytes
    content: Content


@dataclass(frozen=True, slots=True)
class Delta:
    """What leads from one version to another, each list in path order."""

    added: tuple[Change, ...] = ()
    removed: tuple[Change, ...] = ()
    modified: tuple[Change, ...] = ()
    renamed: tuple[Rename, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.modified or self.renamed)


def compare(before: Mapping[bytes, Content], after: Mapping[bytes, Content]) -> Delta:
    """Return the delta from ``before`` to ``after``.

    Two entries are equal when kind, digest and problem are; an entry without a digest equals nothing, itself neither,
    because nobody knows its bytes.
    """
    added, removed, modified = [], [], []
    for path in sorted(before.keys() | after.keys()):
        old, new = _member(before.get(path)), _member(after.get(path))
        if old is None and new is not None:
            added.append(Change(path, None, new))
        elif new is None and old is not None:
            removed.append(Change(path, old, None))
        elif old is not None and new is not None and not _equal(old, new):
            modified.append(Change(path, old, new))
    renames = _renames(removed, added)
    gone = {rename.source for rename in renames}
    came = {rename.target for rename in renames}
    return Delta(
        tuple(c for c in added if c.path not in came),
        tuple(c for c in removed if c.path not in gone),
        tuple(modified),
        tuple(renames),
    )


def _member(content: Content | None) -> Content | None:
    return None if content is None or content.kind in {Kind.ABSENT, Kind.SPECIAL} else content


def _equal(old: Content, new: Content) -> bool:
    return old.sha256 is not None and (old.kind, old.sha256) == (new.kind, new.sha256)


def _renames(removed: list[Change], added: list[Change]) -> list[Rename]:
    """Pair what left with what came by content; only unique pairs, and never empty files, which all look alike."""
    sources: dict[tuple[Kind, bytes], list[Change]] = defaultdict(list)
    targets: dict[tuple[Kind, bytes], list[Change]] = defaultdict(list)
    for change in removed:
        if change.before is not None and change.before.sha256 and change.before.size:
            sources[change.before.kind, change.before.sha256].append(change)
    for change in added:
        if change.after is not None and change.after.sha256 and change.after.size:
            targets[change.after.kind, change.after.sha256].append(change)
    pairs = []
    for key, olds in sources.items():
        news = targets.get(key, [])
        if len(olds) == len(news) == 1 and olds[0].before is not None:
            pairs.append(Rename(olds[0].path, news[0].path, olds[0].before))
    return sorted(pairs, key=lambda rename: rename.target)
