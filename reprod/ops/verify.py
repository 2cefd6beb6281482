"""The verb that reads the bytes again: are the files what a sealed version says?

Nothing is refreshed first. Other bytes under the fingerprint that the index has is silent corruption; other bytes under
another one is a modification. ``quick`` compares stats only and says that content was not read.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from reprod.config import Config
from reprod.core import digest
from reprod.core.delta import compare
from reprod.core.entry import Content, Kind, display, named
from reprod.core.pattern import Selection
from reprod.errors import NotFoundError
from reprod.fs.root import open_root
from reprod.ops.observe import Seen, observe
from reprod.ops.reference import Reference, open_version, resolve
from reprod.ops.refresh import state_inodes
from reprod.store import versions
from reprod.store.connection import Database

Mode = Literal["full", "quick"]


def verify(
    state: Path,
    config: Config,
    ref: str,
    path: str | None,
    mode: Mode,
    checkpoint: Callable[[], None],
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Compare the files of a dataset with a version, its newest where ``ref`` names none; docs/cli.md has the result.

    Root and selection are the version's own, not those of today's configuration.

    :param path: only this file, or all below this directory; relative to the root.
    :raises NotFoundError: no such dataset, version or path. :raises DatasetUnavailableError: the root is not there.
    """
    began = time.monotonic()
    reference = resolve(state, ref)
    db = open_version(state, reference)
    try:
        seq, expected, selection, root_path = _expected(db, reference)
        version = db.read(lambda c: versions.version(c, seq))
        wanted = _within(path)
        expected = {p: c for p, c in expected.items() if wanted(p)}
        if path is not None and not expected:
            raise NotFoundError(
                f"{reference.name}@{seq} holds nothing at {path!r}", hint="paths are relative to its root"
            )

        def tell(seen: Seen) -> None:
            progress({"phase": "reading", "files": seen.hashed_files, "bytes": seen.hashed_bytes,
                      "total_files": len(expected), "total_bytes": sum(c.size for c in expected.values())})  # fmt: skip

        with open_root(root_path) as root:
            seen = observe(
                root,
                selection,
                db,
                read_all=mode == "full",
                skip=state_inodes(str(state)),
                only=wanted,
                checkpoint=checkpoint,
                progress=tell,
            )
    finally:
        db.close()
    result = _result(reference, version, expected, seen, mode, time.monotonic() - began)
    if mode == "full" and path is None and not result["unreadable"]:
        result["digest_actual"] = digest.text(digest.tree(_lines_of(seen.contents)))
    return result


def _lines_of(contents: dict[bytes, Content]) -> dict[bytes, tuple[bool, bytes]]:
    return {
        path: (c.kind is Kind.LINK, c.sha256)
        for path, c in contents.items()
        if c.kind is not Kind.SPECIAL and c.sha256 is not None
    }


def _expected(db: Database, reference: Reference) -> tuple[int, dict[bytes, Content], Selection, str]:
    """Return what the version holds, and the selection and root under which it was made."""
    if reference.seq is not None:
        seq = reference.seq
    else:
        newest = db.read(versions.newest)
        if newest is None:
            raise NotFoundError(f"{reference.name} has no version yet", hint=f"reprod scan {reference.name}")
        seq = newest.seq
    contents = {e.path: e.content for e in db.read(lambda c: list(versions.entries(c, seq)))}
    record = db.read(lambda c: versions.record(c, seq))
    return (
        seq,
        {p: c for p, c in contents.items() if c.kind in {Kind.FILE, Kind.LINK}},
        Selection.of_record(record["selection"]),
        record["root"],
    )


def _within(path: str | None) -> Callable[[bytes], bool]:
    if path is None or path in {"", "."}:
        return lambda _: True
    wanted = os.fsencode(path).rstrip(b"/")
    return lambda p: p == wanted or p.startswith(wanted + b"/")


def _result(
    reference: Reference,
    version: versions.Version,
    expected: dict[bytes, Content],
    seen: Seen,
    mode: Mode,
    seconds: float,
) -> dict[str, Any]:
    delta = compare(expected, seen.contents)
    unreadable = [{**named(p), "problem": c.problem.word} for p, c in seen.contents.items() if c.problem is not None]
    unreadable += [{**named(p or b"."), "problem": "unreadable"} for p in seen.unlisted]
    unknown = {p for p, c in expected.items() if c.problem is not None}
    broken = {p for p, c in seen.contents.items() if c.problem is not None}
    mismatched = [
        _mismatch(change.path, change.before, change.after, seen.expected.get(change.path))
        for change in delta.modified
        if change.before and change.after and change.path not in unknown | broken
    ]
    moved = [(r.source, r.target) for r in delta.renamed]
    barred = tuple(p + b"/" if p else b"" for p in seen.unlisted)
    missing = [
        p for p in [*(c.path for c in delta.removed), *(s for s, _ in moved)] if not p.startswith(barred or (b"\0",))
    ]
    extra = [*(c.path for c in delta.added), *(t for _, t in moved)]
    differs = bool(missing or mismatched or extra)
    complete = not unreadable and not unknown
    return {
        "ref": reference.text,
        "name": reference.name,
        "version": version.seq,
        "run_id": reference.run_id,
        "digest_expected": digest.text(version.digest) if version.digest else None,
        "digest_actual": None,
        "valid": not differs and complete,
        "differs": differs,
        "complete": complete,
        "content_verified": mode == "full",
        "checked_files": len(expected),
        "bytes_hashed": seen.hashed_bytes,
        "missing": [display(p) for p in sorted(missing)],
        "mismatched": mismatched,
        "extra": [display(p) for p in sorted(extra)],
        "moved": [{**named(a, "from"), **named(b, "to")} for a, b in moved],
        "unreadable": unreadable,
        "seconds": round(seconds, 3),
    }


def _mismatch(path: bytes, before: Content, after: Content, indexed: bytes | None) -> dict[str, Any]:
    """``indexed`` is the digest that the index has behind the very stat that was found, None if it has another stat."""
    reason = "type" if before.kind != after.kind else "size" if before.size != after.size else "content"
    return {
        **named(path),
        "reason": reason,
        "expected": before.sha256.hex() if before.sha256 else None,
        "actual": after.sha256.hex() if after.sha256 else None,
        "silent": reason == "content" and indexed == before.sha256,
    }
