"""The verb that looks at the files again: are they what a sealed version says, or what somebody's manifest claims?

Nothing is refreshed first. Modes: ``full`` reads every byte; ``uncached`` also, from the disk rather than the page
cache; ``sampled`` reads a random part and whatever has another stat; ``quick`` reads nothing. Other bytes under the
fingerprint that the index has is silent corruption; other bytes under another one is a modification.
"""

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reprod.config import Config
from reprod.config.places import known_state_dir
from reprod.core.claims import Claims
from reprod.core.digest import text
from reprod.core.entry import Kind
from reprod.core.ordered import digest_of
from reprod.core.pattern import Selection
from reprod.errors import DamagedError, IncompleteError
from reprod.fs.root import Root, open_root
from reprod.ops.compare import Comparison, Depth
from reprod.ops.observe import Look
from reprod.ops.plan import require_same_filesystem
from reprod.ops.reference import Reference, open_version, require_version, resolve
from reprod.ops.refresh import state_inodes
from reprod.ops.sample import Mode, Sample, drop_cached
from reprod.ops.version_claims import claims_of_version, folder, nothing_claimed, place_of, referenced, within
from reprod.store import meta, versions
from reprod.store.connection import Database

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class _Question:
    """What to compare with what. ``db`` is the index of the same files, where there is one."""

    claims: Claims
    root_path: str
    selection: Selection
    db: Database | None
    mode: Mode
    sample: Sample | None
    extra_fails: bool
    top: bytes
    only: bytes | None
    skip: frozenset[tuple[int, int]]
    known: meta.Meta | None = None  # of the dataset


def verify(
    state: Path,
    config: Config,
    ref: str,
    path: str | None,
    mode: Mode,
    checkpoint: Callable[[], None],
    progress: Progress = lambda _: None,
    sample: Sample | None = None,
    dataset: str | None = None,
) -> dict[str, Any]:
    """Compare the files of a dataset with a version, its newest where ``ref`` names none; docs/verification.md.

    The selection is the version's own, not that of today's configuration. Of a run on ``NAME/SUB`` it is the files
    below SUB; paths are relative to the dataset's root then too.

    :param path: only this file, or all below this directory; relative to the root.
    :param sample: what mode ``sampled`` reads. :param dataset: picks one of those of a run.
    :raises UsageError: the run did not use the path.
    :raises NotFoundError: no such dataset, version or path. :raises IncompleteError: the path was not known then, or
        nobody knows any more which folders were. :raises DatasetUnavailableError: the root is not there, or
        what is there is on another file system (law 4).
    :raises DamagedError: the records of the version are not what was sealed.
    """
    began = time.monotonic()
    reference = resolve(state, ref, name=dataset)
    whole, path = path is None and reference.below is None, within(reference, path)
    with closing(open_version(state, reference)) as db:
        version = referenced(db, reference)
        record = db.read(lambda c: versions.record(c, version.seq))
        known = db.read(meta.read)
        claims = claims_of_version(db, version.seq, path)
        if reference.below is not None:
            claims = replace(claims, digest=text(folder(db, reference, version).digest or b""))
        top, only = place_of(claims, path)
        if path is not None and not claims.entries:
            raise nothing_claimed(f"{reference.name}@{version.seq}", path, claims)
        place = os.fsdecode(known.root) if known.root else record["root"]  # now: it may have been moved since
        question = _Question(
            claims, place, Selection.of_record(record["selection"]), db, mode, sample,
            True, top, only, state_inodes(str(state)), known,
        )  # fmt: skip
        answer = _answer(question, checkpoint, progress, began, complete=claims.digest is not None)
        if answer["differs"] or (whole and answer["digest_actual"] not in {None, claims.digest}):
            _require_records(db, replace(reference, seq=version.seq), claims if whole else None, answer)
        if not whole:
            answer["digest_actual"] = None
    return {
        "ref": reference.text,
        "name": reference.named,
        "version": version.seq,
        "run_id": reference.run_id,
        **answer,
    }


def _require_records(db: Database, reference: Reference, whole: Claims | None, answer: dict[str, Any]) -> None:
    """Before a file is blamed: raise DamagedError if the records are not those that were sealed.

    :param whole: the claims of the whole version, None if they are to be read.
    """
    claims = whole or claims_of_version(db, reference.seq or 0)
    if claims.digest is None or digest_of(claims.entries) == claims.digest:
        return
    require_version(db, reference)  # it may have been pruned meanwhile
    files = "; the files are what was sealed" if whole and answer["digest_actual"] == claims.digest else ""
    raise DamagedError(
        f"the records of {reference.name}@{reference.seq} give another digest than the one that was sealed{files}",
        hint=f"the database was altered; reprod verify {reference.name} --chain --full says in which versions",
    )


def validate(
    claims: Claims,
    root_path: str,
    *,
    mode: Mode = "full",
    sample: Sample | None = None,
    extra_fails: bool | None = None,
    ref: str | None = None,
    checkpoint: Callable[[], None] = lambda: None,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Compare the files below ``root_path`` (or that file) with what a manifest claims; docs/verification.md.

    Paths in the manifest are relative to the root, symlinks in them are never followed.

    :param extra_fails: whether files that it does not list make it invalid; None: only if it records its selection.
    :param ref: what the answer calls the manifest.
    :raises DatasetUnavailableError: the root is not there. :raises IncompleteError: no algorithm of it is installed.
    """
    began = time.monotonic()
    selection = claims.selection or Selection()
    if claims.cut:
        files = (path for path in claims.entries if claims.entries[path].kind is Kind.FILE)
        selection = replace(selection, until=max(files, default=b""))
    question = _Question(
        claims, root_path, selection, None, mode, sample,
        claims.selection is not None if extra_fails is None else extra_fails,
        b"", None, state_inodes(str(known_state_dir())),
    )  # fmt: skip
    answer = _answer(question, checkpoint, progress, began, complete=True)
    if claims.digest and not answer["differs"] and answer["digest_actual"] not in {None, claims.digest}:
        answer |= {"valid": False, "differs": True}
        answer["manifest_warnings"].append("the dataset digest differs, although every hash that is listed is equal")
    return {"ref": ref, "root": root_path, **answer}


def _answer(
    question: _Question, checkpoint: Callable[[], None], progress: Progress, began: float, *, complete: bool
) -> dict[str, Any]:
    claims = question.claims
    extra, warnings = _algorithms(claims)
    with open_root(question.root_path) as root:
        _require_root(root, question.known)
        comparison = Comparison(claims, _depth(question), _own_inode(claims, root))
        selection = question.selection
        if question.only is not None or root.only is not None:
            selection = replace(selection, only=question.only or root.only)
        with Look(
            root,
            db=question.db,
            wanted=comparison.wants,
            extra=extra,
            prepare=drop_cached if question.mode == "uncached" else None,
            checkpoint=checkpoint,
        ) as look:
            tell = _teller(comparison, progress)
            for sight, hashed in look.walk(selection, top=question.top, skip=question.skip):
                comparison.take(sight, hashed)
                tell()
            # Beside a root that is one file nothing is its business, whatever a manifest lists.
            hidden = question.db is None and root.only is None
            for sight, hashed in look.at(comparison.doubtful(hidden=hidden)):
                comparison.take(sight, hashed)
                tell()
            comparison.bar(look.unlisted)
    return _result(question, comparison, [*claims.warnings, *warnings], complete, time.monotonic() - began)


def _require_root(root: Root, known: meta.Meta | None) -> None:
    """Raise DatasetUnavailableError for the empty place that a disk leaves behind: nothing in it is missing."""
    if known is None or known.identity is None or known.moving == "ordered":  # another root, because a person said so
        return
    require_same_filesystem(root, known.identity)


def _result(
    question: _Question, seen: Comparison, warnings: list[str], complete: bool, seconds: float
) -> dict[str, Any]:
    """Return the document that docs/verification.md describes."""
    claims, mode = question.claims, question.mode
    complete = complete and not (seen.unreadable or seen.unread or claims.unknown)
    differs = bool(seen.missing or seen.mismatched or (seen.extra and question.extra_fails))
    missing, extra = ([os.fsdecode(path) for path in sorted(paths)] for paths in (seen.missing, seen.extra))
    mismatched = _by_path(seen.mismatched)
    return {
        "mode": mode,
        "digest_expected": claims.digest,
        "digest_actual": seen.digest() if complete else None,
        "valid": complete and not differs,
        "differs": differs,
        "complete": complete,
        "content_verified": seen.depth.full and complete,
        "weak": claims.weak,
        "algorithms": list(claims.algorithms),
        "checked_files": len(claims.entries) - len(seen.barred),
        "checked_links": claims.links - sum(claims.entries[path].kind is Kind.LINK for path in seen.barred),
        "hashed_files": seen.read_files,
        "bytes_hashed": seen.read_bytes,
        "missing": missing,
        "mismatched": mismatched,
        "extra": extra,
        "extra_fails": question.extra_fails,
        "moved": seen.moved(),
        "type_changes": _by_path(seen.type_changes),
        "metadata_only": _by_path(seen.metadata),
        "metadata_only_count": seen.metadata_count,
        "unreadable": _by_path(seen.unreadable),
        "unread": [os.fsdecode(path) for path in sorted(seen.unread)],
        "unknown": [os.fsdecode(path) for path in claims.unknown],
        "missing_files": missing,
        "hash_mismatches": mismatched,
        "sample": question.sample.document() if question.sample is not None and mode == "sampled" else None,
        "manifest_warnings": warnings,
        "seconds": round(seconds, 3),
    }


def _by_path(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda entry: str(entry["path"]))


def _depth(question: _Question) -> Depth:
    chosen: Callable[[bytes], bool] | None = None
    if question.mode == "quick":
        chosen = frozenset[bytes]().__contains__
    elif question.mode == "sampled":
        chosen = (question.sample or Sample()).takes
    return Depth(chosen, question.mode != "quick", question.db is not None, question.extra_fails)


def _algorithms(claims: Claims) -> tuple[tuple[str, ...], list[str]]:
    """Return the algorithms to compute beside sha256, and what is to be said of those that cannot be."""
    extra = tuple(name for name in claims.algorithms if name != "sha256")
    if "blake3" not in extra or find_spec("blake3") is not None:
        return extra, []
    if any(set(claim.hashes) == {"blake3"} for claim in claims.entries.values()):
        raise IncompleteError("the manifest has blake3 digests only", hint="pip install blake3")
    return tuple(name for name in extra if name != "blake3"), ["blake3 digests were not compared: it is not installed"]


def _own_inode(claims: Claims, root: Root) -> int | None:
    """Return the inode of the manifest itself if it may lie among the files: it cannot list itself."""
    if claims.file is None or claims.file[0] != os.fstat(root.fd).st_dev:
        return None
    return claims.file[1]


def _teller(comparison: Comparison, progress: Progress) -> Callable[[], None]:
    """Return what reports how far it is; files count in a quick look, bytes where they are read."""
    claims = comparison.claims
    total = {"total_files": len(claims.entries), "total_bytes": claims.size if comparison.depth.full else None}
    began = time.monotonic()
    last = 0.0

    def tell() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 0.1:
            return
        last = now
        files = len(claims.entries) - len(comparison.missing)
        report: dict[str, Any] = {"phase": "verifying", "files": files, "bytes": comparison.read_bytes, **total}
        size = total["total_bytes"]
        done = comparison.read_bytes / size if size else files / max(1, len(claims.entries))
        if 0 < done <= 1:
            report["percent"] = 100 * done
            if now - began > 1:
                report["seconds_left"] = (now - began) * (1 - done) / done
        progress(report)

    return tell
