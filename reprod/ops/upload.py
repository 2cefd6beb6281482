"""The verb that brings a version's manifest to the tracking server once, whole or as a delta, and refers to it.

A remembered upload counts while every run of its chain is there, which is asked again at times. What is lost is
uploaded again: the version itself, or, from this host's history, the versions that it rests on. What another daemon
uploaded is taken as it is: the digest is the reference, and whoever reads recomputes it. Sizes are bytes as uploaded.
"""

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from reprod.core import digest, stored
from reprod.errors import IncompleteError, NotFoundError
from reprod.ops import stored_files
from reprod.ops.stored_files import DELTA, LINKS, SIZES, SUMS
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import DIGEST_TAG, SinkError, StoredRun, Upload
from reprod.store import listing, uploads, versions
from reprod.store.connection import Database

#: Runs from a delta down to its checkpoint, both counted: what a reader has to fetch.
LONGEST_CHAIN = 16

#: Of its checkpoint: above this a delta saves little and makes every reader fetch both.
LARGEST_SHARE = 0.25

#: Bytes that a changed file costs a packed delta at least (its digest is random; 60 to 82 measured with its path).
LEAST_BYTES_A_CHANGE = 40

#: How long a chain that was seen whole counts as whole: 1000 runs on one version ask once.
CHECK_AGAIN_S = 600.0

#: Store runs looked at to find one whole chain.
MOST_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class Server:
    """A tracking server as a place for manifests. ``scratch`` is a folder for files under way."""

    records: Database
    child: MlflowChild
    tracking_uri: str
    scratch: Path
    check_again_s: float = CHECK_AGAIN_S


@dataclass(frozen=True, slots=True)
class Stored:
    """A complete version whose manifest is wanted on the server; ``db`` is its dataset's file, open for reading."""

    name: str
    seq: int
    digest: bytes
    db: Database

    @property
    def file(self) -> str:
        """The file's name: the epoch of the dataset."""
        return self.db.path.name

    @property
    def text(self) -> str:
        """``dt1:`` and the hex form."""
        return digest.text(self.digest)


def ensure_stored(server: Server, version: Stored) -> uploads.Upload:
    """Return where the version's manifest lies on the server, uploaded now if it is not there.

    :raises SinkError: the server is unreachable or refuses; never of kind ``gone``, which is about the user's run.
    """
    with plainly(f"the manifest of {version.name}@{version.seq}"):
        known = server.records.read(lambda c: uploads.find(c, server.tracking_uri, version.digest))
        if known is not None and not is_fresh(server, known):
            known = _confirmed(server, known, version)
        if known is None:
            known = _adopted(server, version)
        if known is None:
            return _upload(server, version)
        if (known.file, known.seq) != (version.file, version.seq):  # the same content again: a base for what follows
            known = _kept(server, replace(known, file=version.file, seq=version.seq))
        return known


@contextmanager
def plainly(what: str) -> Iterator[None]:
    """Let a `SinkError` say what could not be stored; ``gone`` would be about the user's run, and is never raised."""
    try:
        yield
    except SinkError as error:
        kind = "unreachable" if error.kind == "gone" else error.kind
        said = f"{what} cannot be stored on the server: {error.message}"
        raise SinkError(kind, said, hint=error.hint, detail=error.detail) from error


def _kept(server: Server, upload: uploads.Upload) -> uploads.Upload:
    server.records.write(lambda c: uploads.keep(c, upload))
    return upload


# --- what is there ----------------------------------------------------------------------------------------------------


def is_fresh(server: Server, known: uploads.Upload) -> bool:
    """Return whether an upload was seen on the server lately enough not to ask again."""
    return 0 <= time.time_ns() - known.checked_ns < server.check_again_s * 1e9


def _confirmed(server: Server, known: uploads.Upload, version: Stored) -> uploads.Upload | None:
    """Return a remembered upload whose chain is whole, mended if need be; None if it must be made anew."""
    lost = _lost(server, known.chain)
    if known.run_id not in lost and all(_mended(server, run_id, version) for run_id in lost):
        now = time.time_ns()
        server.records.write(lambda c: uploads.checked(c, known, now))
        return server.records.read(lambda c: uploads.find(c, server.tracking_uri, version.digest))
    server.records.write(lambda c: uploads.forget(c, server.tracking_uri, known.run_id))
    return None


def _lost(server: Server, chain: Iterable[str]) -> list[str]:
    """Return the store runs that were deleted, or lost the tag by which they are found."""
    now = server.child.runs(chain)
    return [*now.missing, *now.denied, *(row.run.run_id for row in now.runs if DIGEST_TAG not in row.tags)]


def _mended(server: Server, lost: str, version: Stored) -> bool:
    """Upload again what a lost run held, whole; False if this host cannot: it has no such version any more."""
    held = server.records.read(lambda c: uploads.by_run(c, server.tracking_uri, lost))
    if held is None or held.file != version.file or not _is_provable(version.db, held.seq, held.digest):
        return False
    again = _upload(server, Stored(version.name, held.seq, held.digest, version.db), whole=True)

    def mend(c: uploads.Connection) -> None:
        uploads.replace(c, server.tracking_uri, lost, again.run_id)
        uploads.forget(c, server.tracking_uri, lost)

    server.records.write(mend)
    return True


def _is_provable(db: Database, seq: int, expected: bytes) -> bool:
    """Whether the file still holds this very version: not pruned, not rebuilt with other numbers."""
    try:
        found = db.read(lambda c: versions.version(c, seq))
    except NotFoundError:
        return False
    return not found.pruned and found.digest == expected


def _adopted(server: Server, version: Stored) -> uploads.Upload | None:
    """Return what another daemon, or a forgotten attempt of ours, uploaded: the first whose chain is whole."""
    for run in server.child.find_stored(version.text):
        chain = _chain(server, run, set())
        if chain:
            return _kept(server, _row(server, version, run.run_id, _base_of(run), chain))
    return None


def _chain(server: Server, run: StoredRun, seen: set[str]) -> list[tuple[str, int]]:
    """Return the runs from this one down to its checkpoint with their sizes; nothing if it is not whole.

    ``seen`` runs are not looked at twice, so a maze of duplicates that leads nowhere is left soon.
    """
    wanted = {"checkpoint": (SUMS, SIZES), "delta": (DELTA,)}.get(run.kind)
    if run.run_id in seen or len(seen) >= MOST_LOOKED_AT or wanted is None or not set(wanted) <= set(run.files):
        return []
    seen.add(run.run_id)
    own = (run.run_id, sum(run.files.get(name, 0) for name in (*wanted, LINKS)))
    if run.kind == "checkpoint":
        return [own]
    for base in server.child.find_stored(run.base or "", run.base_run):
        below = _chain(server, base, seen)
        if below:
            return [own, *below] if len(below) < LONGEST_CHAIN else []
    return []


def _base_of(run: StoredRun) -> bytes | None:
    return bytes.fromhex((run.base or "").removeprefix(digest.PREFIX)) if run.kind == "delta" else None


def _row(
    server: Server, version: Stored, run_id: str, base: bytes | None, chain: list[tuple[str, int]]
) -> uploads.Upload:
    return uploads.Upload(
        tracking_uri=server.tracking_uri,
        file=version.file,
        seq=version.seq,
        digest=version.digest,
        run_id=run_id,
        kind="checkpoint" if base is None else "delta",
        base=base,
        chain=tuple(run for run, _ in chain),
        size=chain[0][1],
        checkpoint_size=chain[-1][1],
        checked_ns=time.time_ns(),
    )


# --- what is brought there --------------------------------------------------------------------------------------------


def _upload(server: Server, version: Stored, *, whole: bool = False) -> uploads.Upload:
    base = None if whole else _base(server, version)
    folder = Path(tempfile.mkdtemp(prefix="store-", dir=server.scratch))
    try:
        if base is not None and not _write_delta(folder, version, base):
            base = None
        if base is None:
            version.db.read(lambda c: stored_files.write_checkpoint(folder, listing.entries(c, version.seq)))
        size = sum(path.stat().st_size for path in folder.iterdir())
        run_id = _begun(server, version)
        server.child.upload(Upload(run_id, str(folder), version.text, _tags(version, base)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    below = [(run, 0) for run in base.chain[:-1]] + [(base.chain[-1], base.checkpoint_size)] if base else []
    return _kept(server, _row(server, version, run_id, base.digest if base else None, [(run_id, size), *below]))


def _begun(server: Server, version: Stored) -> str:
    """Return the run to upload to: that of an attempt that did not end, or a new one, noted before its first byte."""
    where = (server.tracking_uri, version.file, version.seq, version.digest)
    begun = server.records.read(lambda c: uploads.begun(c, *where))
    if begun is not None and server.child.runs([begun]).runs:
        return begun
    run_id = server.child.open_store(f"{version.name} {version.seq} {digest.short(version.text)}")
    server.records.write(lambda c: uploads.begin(c, *where, run_id))
    return run_id


def _tags(version: Stored, base: uploads.Upload | None) -> dict[str, str]:
    tags = {"reprod.manifest.dataset": version.name, "reprod.manifest.version": str(version.seq)}
    if base is None:
        return tags | {"reprod.manifest.kind": "checkpoint"}
    return tags | {
        "reprod.manifest.kind": "delta",
        "reprod.manifest.base": digest.text(base.digest),
        "reprod.manifest.base_run": base.run_id,
    }


def _base(server: Server, version: Stored) -> uploads.Upload | None:
    """Return the nearest earlier upload of this dataset that a delta may lead from; None: a checkpoint is due."""
    known = server.records.read(lambda c: uploads.earlier(c, server.tracking_uri, version.file, version.seq))
    base = next((u for u in known if _is_provable(version.db, u.seq, u.digest)), None)
    if base is None or len(base.chain) >= LONGEST_CHAIN:
        return None
    changed = sum(
        v.added + v.removed + v.modified for v in version.db.read(versions.versions) if base.seq < v.seq <= version.seq
    )
    if changed > stored.MAX_CHANGES or changed * LEAST_BYTES_A_CHANGE > LARGEST_SHARE * base.checkpoint_size:
        return None
    return base if is_fresh(server, base) or not _lost(server, base.chain) else None


def _write_delta(folder: Path, version: Stored, base: uploads.Upload) -> bool:
    """Write the delta from ``base``; False, and no file, if it cannot be had or is too large to be worth it."""
    try:
        before, after = version.db.read(lambda c: versions.contents_between(c, base.seq, version.seq))
    except (NotFoundError, IncompleteError):
        return False  # pruned in this moment
    changes = stored.changes_between(before, after)
    size = stored_files.write_delta(folder, stored.Delta(digest.text(base.digest), version.text, changes))
    if size < LARGEST_SHARE * base.checkpoint_size and len(changes) <= stored.MAX_CHANGES:
        return True
    (folder / DELTA).unlink()
    return False
