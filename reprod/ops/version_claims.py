"""What a sealed version of a dataset claims of its files, in the form in which every verification reads it.

It claims what was seen when it was sealed. What was not is named in ``unknown``: a file whose bytes nobody could read,
and a folder (with a slash at its end) that nobody could list.
"""

import os
from dataclasses import replace
from typing import Any

from reprod.core.claims import Claims, ClaimsBuilder
from reprod.core.digest import text
from reprod.core.entry import Kind
from reprod.errors import IncompleteError, NotFoundError, ReprodError, UsageError
from reprod.ops.reference import Reference
from reprod.store import listing, subtree, versions
from reprod.store.connection import Database
from reprod.store.versions import Version


def referenced(db: Database, reference: Reference) -> Version:
    """Return the version of a reference, the newest where it names none. Raises NotFoundError."""
    seq = reference.seq
    found = db.read(versions.newest) if seq is None else db.read(lambda c: versions.version(c, seq))
    if found is None:
        raise NotFoundError(f"{reference.name} has no version yet", hint=f"reprod scan {reference.name}")
    return found


def folder(db: Database, reference: Reference, version: Version) -> Version:
    """Return a version with digest and totals of the folder that a run named.

    :raises IncompleteError: they are not known.
    """
    found = db.read(lambda c: subtree.subtree(c, version.seq, os.fsencode(reference.below or "")))
    if found is None or found.node is None:
        title = f"{reference.named}@{version.seq}"
        raise IncompleteError(f"{title} is not known as a whole", hint=f"reprod log {reference.name}")
    return replace(version, digest=found.node, files=found.files, size=found.size, problems=0)


def within(reference: Reference, path: str | None) -> str | None:
    """Return the path to look at: the one that was asked for, else the folder that the run named.

    :raises UsageError: the run did not use that path.
    """
    below = reference.below
    if below is None or path is None:
        return below if path is None else path
    if f"{path.rstrip('/')}/".startswith(f"{below}/"):
        return path
    raise UsageError(
        f"{reference.text} used {reference.named} alone: {path!r} is not in it",
        hint=f"paths are relative to the root of {reference.name}: {below}/{path}",
    )


def claims_of_version(db: Database, seq: int, path: str | None = None) -> Claims:
    """Return what a version says of its files, or only of the file ``path`` or those below it. No warnings, no file.

    Below a folder that could not be listed then nothing is claimed: what the index has there is remembered from before.

    :raises IncompleteError: nobody knows any more which folders those were. :raises DamagedError: nor can it be read.
    """
    builder = ClaimsBuilder()
    unknown: list[bytes] = []
    wanted = _clean(path)

    def pack(connection: Any) -> None:
        unlisted = listing.unlisted(connection, seq)
        unknown.extend(folder + b"/" for folder in unlisted if _is_within(folder, wanted) or _is_within(wanted, folder))
        for entry in listing.entries(connection, seq, unlisted):
            content = entry.content
            if content.kind not in {Kind.FILE, Kind.LINK} or not _is_within(entry.path, wanted):
                continue
            if content.sha256 is None:
                unknown.append(entry.path)
                continue
            hashes = {"sha256": content.sha256, **content.more}
            size = content.size if content.kind is Kind.FILE else None
            builder.add(entry.path, content.kind, size, hashes, entry.mode & 0o7777, entry.mtime_ns, exact=True)

    db.read(pack)
    found = db.read(lambda c: versions.version(c, seq)).digest
    return Claims(
        builder.entries(),
        builder.algorithms(),
        digest=text(found) if found else None,
        unknown=tuple(unknown),
        links=builder.links(),
        size=builder.size,
    )


def place_of(claims: Claims, path: str | None) -> tuple[bytes, bytes | None]:
    """Return the directory to walk for a path that was asked for, and the path itself if it is a file or a link."""
    wanted = _clean(path)
    if wanted in claims.entries:
        return wanted.rpartition(b"/")[0], wanted
    return wanted, None


def nothing_claimed(title: str, path: str, claims: Claims) -> ReprodError:
    """Return what to say of a path at which a version claims nothing: it was not known, or it was not there."""
    if not claims.unknown:
        return NotFoundError(f"{title} holds nothing at {path!r}", hint="paths are relative to its root")
    closed = os.fsdecode(claims.unknown[0])
    why = f"the folder {closed!r} could not be listed" if closed.endswith("/") else "it could not be read"
    return IncompleteError(
        f"{path!r} is not known at that version: {why} when {title} was sealed",
        hint=f"reprod log {title.partition('@')[0]} shows which versions are complete",
    )


def _is_within(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")


def _clean(path: str | None) -> bytes:
    return b"" if path in {None, "", "."} else os.fsencode(path or "").rstrip(b"/")
