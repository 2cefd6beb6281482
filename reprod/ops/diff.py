"""The verb that says what lies between two references: two versions, or a version and the files as they are now."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reprod.config import Config
from reprod.core import digest
from reprod.core.delta import Delta, compare
from reprod.core.entry import Content, Kind, Problem, named
from reprod.core.pattern import Selection
from reprod.errors import NotFoundError, UsageError
from reprod.fs.root import open_root
from reprod.ops.observe import Seen, observe
from reprod.ops.reference import Reference, last_used, open_version, require_version, resolve
from reprod.ops.refresh import state_inodes
from reprod.store import versions
from reprod.store.connection import Database


def diff(
    state: Path, config: Config, a: str, b: str | None, checkpoint: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Return what leads from ``a`` to ``b``.

    ``NAME`` alone: from what a run last used (else the newest version) to now.

    :raises UsageError: the two are of different datasets.
    """
    first = resolve(state, a)
    second = resolve(state, b) if b is not None else Reference(first.name, first.name, None)
    if first.name != second.name:
        raise UsageError(
            f"{a} is of {first.name}, {b} of {second.name}", hint="compare versions of one dataset: NAME@1 NAME@2"
        )
    if first.seq is None and second.seq is None:
        first = last_used(state, first.name) or first
    db = open_version(state, first)
    try:
        newest = db.read(versions.newest)
        if newest is None:
            raise NotFoundError(f"{first.name} has no version yet", hint=f"reprod scan {first.name}")
        if first.seq is None and second.seq is None:
            first = Reference(f"{first.name}@{newest.seq}", first.name, newest.seq)
        before, after = _sides(db, state, config, first, second, checkpoint)
        return _document(db, first, second, compare(before, after))
    finally:
        db.close()


def _sides(
    db: Database, state: Path, config: Config, first: Reference, second: Reference, checkpoint: Callable[[], None]
) -> tuple[dict[bytes, Content], dict[bytes, Content]]:
    """Return both contents, at least where they may differ."""
    a, b = first.seq, second.seq
    if a is not None and b is not None:
        require_version(db, second)
        return db.read(lambda c: versions.contents_between(c, a, b))
    sealed = a if a is not None else b
    if sealed is None:  # pragma: no cover - the caller made one of them a version
        raise UsageError("now cannot be compared with now", hint="NAME@N NAME")
    then = {e.path: e.content for e in db.read(lambda c: list(versions.entries(c, sealed)))}
    seen = _now(db, state, config, first.name, checkpoint)
    barred = tuple(path + b"/" if path else b"" for path in seen.unlisted)
    now = {p: replace(c, sha256=None, problem=Problem.UNREADABLE) for p, c in then.items() if p.startswith(barred)}
    now.update(seen.contents)
    return (then, now) if a is not None else (now, then)


def _now(db: Database, state: Path, config: Config, name: str, checkpoint: Callable[[], None]) -> Seen:
    dataset = next((d for d in config.datasets if d.name == name), None)
    if dataset is None:
        raise NotFoundError(f"{name} is not registered any more", hint="compare two versions: NAME@1 NAME@2")
    with open_root(dataset.path) as root:
        selection = Selection(
            dataset.include,
            dataset.exclude,
            root.ignore_lines() if root.only is None else (),
            dataset.symlinks,
            root.only,
        )
        skip = state_inodes(str(state))
        return observe(root, selection, db, read_all=False, skip=skip, checkpoint=checkpoint)


def _document(db: Database, first: Reference, second: Reference, delta: Delta) -> dict[str, Any]:
    return {
        "a": {**first.document(), "digest": _digest(db, first)},
        "b": {**second.document(), "digest": _digest(db, second)},
        "different": bool(delta),
        "added": [{**named(c.path), "size": c.after.size if c.after else 0} for c in delta.added],
        "removed": [{**named(c.path), "size": c.before.size if c.before else 0} for c in delta.removed],
        "modified": [_modified(c.path, c.before, c.after) for c in delta.modified if c.before and c.after],
        "renamed": [
            {**named(r.source, "from"), **named(r.target, "to"), "size": r.content.size} for r in delta.renamed
        ],
        "summary": {
            "added": len(delta.added),
            "removed": len(delta.removed),
            "modified": len(delta.modified),
            "renamed": len(delta.renamed),
            "bytes": _growth(delta),
        },
    }


def _digest(db: Database, reference: Reference) -> str | None:
    if reference.seq is None:
        return None
    seq = reference.seq
    found = db.read(lambda c: versions.version(c, seq)).digest
    return digest.text(found) if found else None


def _modified(path: bytes, before: Content, after: Content) -> dict[str, Any]:
    return {
        **named(path),
        "size_a": before.size,
        "size_b": after.size,
        "digest_a": before.sha256.hex() if before.sha256 else None,
        "digest_b": after.sha256.hex() if after.sha256 else None,
        "problem_b": after.problem.word if after.problem else None,
    }


def _growth(delta: Delta) -> int:
    added = sum(c.after.size for c in delta.added if c.after and c.after.kind is Kind.FILE)
    removed = sum(c.before.size for c in delta.removed if c.before and c.before.kind is Kind.FILE)
    return added - removed + sum(c.after.size - c.before.size for c in delta.modified if c.before and c.after)
