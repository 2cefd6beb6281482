"""The verb that says what lies between two states: two versions, a version and the files now, manifest files.

Versions of one dataset are compared under one root only; a manifest file can be compared with anything, by the
algorithms that both sides have. Of what is below a folder that one side could not list, nothing is said but that.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reprod.config import Config
from reprod.core import digest
from reprod.core.comparable import HashedSet, bring_together, common_algorithm, of_claims, of_contents
from reprod.core.delta import Change, Delta, compare
from reprod.core.entry import Content, Kind, named
from reprod.core.pattern import Selection
from reprod.errors import NotFoundError, UsageError
from reprod.fs.root import open_root
from reprod.ops.manifest_file import is_manifest_file, read_claims
from reprod.ops.observe import observe
from reprod.ops.reference import (
    Reference,
    last_used,
    open_version,
    require_one_epoch,
    require_present_root,
    require_version,
    resolve,
)
from reprod.ops.refresh import state_inodes
from reprod.store import files, listing, versions
from reprod.store.connection import Database
from reprod.store.subtree import is_in, subtree

Checkpoint = Callable[[], None]

#: Contents by path, and the directories that could not be listed.
_Held = tuple[dict[bytes, Content], tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class _Side:
    """One side as the answer names it, with what it holds."""

    document: dict[str, Any]
    held: HashedSet


def diff(state: Path, config: Config, a: str, b: str | None, checkpoint: Checkpoint = lambda: None) -> dict[str, Any]:
    """Return what leads from ``a`` to ``b``.

    ``NAME`` alone: from what a run last used (else the newest version) to now.

    :raises UsageError: the two are of different datasets or roots. :raises IncompleteError: a version was pruned.
    :raises DamagedError: a manifest is damaged or hostile.
    """
    if any(text is not None and is_manifest_file(text) for text in (a, b)):
        if b is None:
            raise UsageError(f"{a} is a manifest file: compare it with what?", hint=f"reprod diff {a} NAME@N")
        return _compare_sets(_side(state, config, a, checkpoint), _side(state, config, b, checkpoint))
    return _compare_states(state, config, a, b, checkpoint)


def _compare_states(state: Path, config: Config, a: str, b: str | None, checkpoint: Checkpoint) -> dict[str, Any]:
    first = resolve(state, a)
    second = resolve(state, b) if b is not None else Reference(first.named, first.name, None)
    if first.name != second.name:
        for reference in (first, second):  # a name with a typing error is not another dataset
            files.open_dataset_readonly(state, reference.name, seq=reference.seq)[0].close()
        raise UsageError(
            f"{a} is of {first.name}, {b} of {second.name}", hint="compare versions of one dataset: NAME@1 NAME@2"
        )
    first, second = _same_place(first, second)
    if first.seq is None and second.seq is None:
        first = last_used(state, first.name) or first
    with closing(open_version(state, first)) as db:
        require_one_epoch(state, first, second)
        newest = db.read(versions.newest)
        if newest is None:
            raise NotFoundError(f"{first.name} has no version yet", hint=f"reprod scan {first.name}")
        if first.seq is None and second.seq is None:
            first = Reference(f"{first.name}@{newest.seq}", first.name, newest.seq)
        return _between(db, state, config, first, second, checkpoint)


def _same_place(first: Reference, second: Reference) -> tuple[Reference, Reference]:
    """Return both, of the folder that a run named; raise UsageError for two runs on different ones."""
    if first.run_id is not None and second.run_id is not None and first.below != second.below:
        raise UsageError(
            f"{first.text} is of {first.named}, {second.text} of {second.named}",
            hint=f"compare the versions of the whole: {first.name}@{first.seq} {second.name}@{second.seq}",
        )
    below = first.below if first.below is not None else second.below
    return replace(first, below=below), replace(second, below=below)


# --- versions and now ------------------------------------------------------------------------------------------------


def _between(
    db: Database, state: Path, config: Config, first: Reference, second: Reference, checkpoint: Checkpoint
) -> dict[str, Any]:
    a, b = first.seq, second.seq
    if a is not None and b is not None:
        require_version(db, second)
        before, after = db.read(lambda c: versions.contents_between(c, a, b))
        closed = [db.read(lambda c, seq=seq: listing.unlisted(c, seq)) for seq in (a, b)]  # type: ignore[misc]
        unlisted = [_folders_below(each, first.below) for each in closed]
        before, after = (_below(each, first.below) for each in (before, after))
        whole = True
    else:
        require_present_root(state, config, first.name)
        before, then = _sealed(db, a if a is not None else b or 0, first.below)
        after, now = _now(db, state, config, first, checkpoint)
        whole = not now and all(c.problem is None for c in after.values())
        unlisted = [then, now]
        if a is None:
            before, after, unlisted = after, before, unlisted[::-1]
    a_side, b_side = (_version_document(db, reference, whole=whole) for reference in (first, second))
    before, after = (_known(contents, *unlisted) for contents in (before, after))
    return difference_document(a_side, b_side, compare(before, after), _unknown(*unlisted), algorithm="sha256")


def _sealed(db: Database, seq: int, below: str | None) -> _Held:
    """Return the entries of a version, and the folders that could not be listed then."""

    def read(c: files.Connection) -> _Held:
        unlisted = listing.unlisted(c, seq)
        held = {e.path: e.content for e in listing.entries(c, seq, unlisted)}
        return _below(held, below), _folders_below(unlisted, below)

    return db.read(read)


def _below(contents: dict[bytes, Content], below: str | None) -> dict[bytes, Content]:
    """Return what is below a directory, by its paths from there."""
    if below is None:
        return contents
    top = os.fsencode(below) + b"/"
    return {path[len(top) :]: content for path, content in contents.items() if path.startswith(top)}


def _folders_below(unlisted: Iterable[bytes], below: str | None) -> tuple[bytes, ...]:
    """Return which of these directories are below one, by their paths from there: itself (``b""``) if one holds it."""
    if below is None:
        return tuple(unlisted)
    top = os.fsencode(below)
    return tuple(
        dict.fromkeys(b"" if is_in(top, p) else p[len(top) + 1 :] for p in unlisted if is_in(p, top) or is_in(top, p))
    )


def _known(contents: dict[bytes, Content], a: tuple[bytes, ...], b: tuple[bytes, ...]) -> dict[bytes, Content]:
    """Leave out what one side cannot know of: below a folder that it could not list."""
    barred = tuple(path + b"/" if path else b"" for path in (*a, *b))
    return {path: content for path, content in contents.items() if not path.startswith(barred)} if barred else contents


def _unknown(a: Iterable[bytes], b: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the folders of which nothing is said, and which side could not list each; one inside another: once."""
    found = []
    last: dict[str, bytes] = {}
    sides = {"a": frozenset(a), "b": frozenset(b)}
    for path in sorted(sides["a"] | sides["b"], key=lambda path: path and path + b"/"):
        told = [side for side, closed in sides.items() if path in closed and not _is_below(path, last.get(side))]
        last |= dict.fromkeys(told, path)
        if told:
            found.append({**named(path + b"/"), "side": told[0] if len(told) == 1 else "both"})
    return found


def _is_below(path: bytes, top: bytes | None) -> bool:
    return top is not None and (not top or path.startswith(top + b"/"))


def _now(db: Database, state: Path, config: Config, reference: Reference, checkpoint: Checkpoint) -> _Held:
    dataset = next((d for d in config.datasets if d.name == reference.name), None)
    if dataset is None:
        raise NotFoundError(f"{reference.name} is not registered any more", hint="compare two versions: NAME@1 NAME@2")
    with open_root(dataset.path) as root:
        selection = Selection(
            dataset.include,
            dataset.exclude,
            root.ignore_lines() if root.only is None else (),
            dataset.symlinks,
            root.only,
        )
        skip = state_inodes(str(state))
        seen = observe(root, selection, db, read_all=False, skip=skip, checkpoint=checkpoint)
    return _below(seen.contents, reference.below), _folders_below(seen.unlisted, reference.below)


def _version_document(db: Database, reference: Reference, *, whole: bool) -> dict[str, Any]:
    """Return one side for JSON. ``whole``: whether all of it was seen, where it is the files as they are now."""
    seq = reference.seq
    if seq is None:
        return {**reference.document(), "digest": None, "complete": whole}
    if reference.below is not None:
        held = db.read(lambda c: subtree(c, seq, os.fsencode(reference.below or "")))
        found = held.node if held is not None else None
    else:
        found = db.read(lambda c: versions.version(c, seq)).digest
    return {**reference.document(), "digest": digest.text(found) if found else None, "complete": found is not None}


# --- manifest files --------------------------------------------------------------------------------------------------


def _side(state: Path, config: Config, text: str, checkpoint: Checkpoint) -> _Side:
    if is_manifest_file(text):
        claims = read_claims(text)
        held = of_claims(claims)
        shown = {"ref": text, "name": None, "version": None, "run_id": None, "digest": claims.digest}
        return _Side({**shown, "complete": held.complete}, held)
    reference = resolve(state, text)
    with closing(open_version(state, reference)) as db:
        seq = reference.seq
        if seq is not None:
            held = of_contents(*_sealed(db, seq, reference.below))
        else:
            held = of_contents(*_now(db, state, config, reference, checkpoint))
        return _Side(_version_document(db, reference, whole=held.complete), held)


def _compare_sets(a: _Side, b: _Side) -> dict[str, Any]:
    before, after, incomparable = bring_together(a.held, b.held)
    return difference_document(
        a.document,
        b.document,
        compare(before, after),
        _unknown(a.held.barred, b.held.barred),
        algorithm=common_algorithm(a.held, b.held),
        incomparable=incomparable,
    )


# --- the answer ------------------------------------------------------------------------------------------------------


def difference_document(
    a: dict[str, Any],
    b: dict[str, Any],
    delta: Delta,
    unknown: list[dict[str, Any]],
    *,
    algorithm: str | None,
    incomparable: frozenset[bytes] = frozenset(),
) -> dict[str, Any]:
    """Return a difference for JSON; ``a`` and ``b`` name the sides."""
    return {
        "a": a,
        "b": b,
        "different": bool(delta),
        "algorithm": algorithm,
        "added": [{**named(c.path), "size": _size(c.after)} for c in delta.added],
        "removed": [{**named(c.path), "size": _size(c.before)} for c in delta.removed],
        "modified": [_modified(c, c.before, c.after, incomparable) for c in delta.modified if c.before and c.after],
        "renamed": [
            {**named(r.source, "from"), **named(r.target, "to"), "size": _size(r.content)} for r in delta.renamed
        ],
        "unknown": unknown,
        "summary": {
            "added": len(delta.added),
            "removed": len(delta.removed),
            "modified": len(delta.modified),
            "renamed": len(delta.renamed),
            "bytes": _growth(delta),
        },
    }


def _modified(change: Change, before: Content, after: Content, incomparable: frozenset[bytes]) -> dict[str, Any]:
    problem = after.problem.word if after.problem else None
    return {
        **named(change.path),
        "size_a": _size(before),
        "size_b": _size(after),
        "digest_a": before.sha256.hex() if before.sha256 else None,
        "digest_b": after.sha256.hex() if after.sha256 else None,
        "problem_a": before.problem.word if before.problem else None,
        "problem_b": "no common hash" if change.path in incomparable else problem,
    }


def _growth(delta: Delta) -> int:
    """Return by how many bytes the regular files grew."""
    changes = (*delta.added, *delta.removed, *delta.modified)
    return sum(_bytes(c.after) - _bytes(c.before) for c in changes)


def _bytes(content: Content | None) -> int:
    return max(content.size, 0) if content is not None and content.kind is Kind.FILE else 0


def _size(content: Content | None) -> int | None:
    return content.size if content is not None and content.size >= 0 else None
