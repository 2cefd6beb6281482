"""The verb that checks the hash chain over a dataset's version records, and what else can witness for it.

    chain(v) = sha256("reprod-chain-v1\\n" || hex(chain(v - 1)) || "\\n" || record(v) || "\\n")

A record that was altered breaks the chain at its version. A history that was rewritten as a whole, with a chain that
fits, still contradicts its heads elsewhere: in the registry, and in what was recorded for runs (the tag
``reprod.chain`` on the run is the witness that this host cannot alter). Forgotten versions keep their records, so
nothing is left out.
"""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reprod.core import digest
from reprod.core.entry import Kind
from reprod.ops.reference import open_epochs, resolve
from reprod.store import files, listing, meta, registry, uses, versions
from reprod.store.connection import Database


@dataclass(slots=True)
class _Findings:
    """What came up. ``sealed`` are the versions that are there."""

    broken: list[dict[str, Any]] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    sealed: dict[int, versions.Recorded] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)  # the first number of each file
    contents: int = 0

    def broke(self, version: int, reason: str) -> None:
        self.broken.append({"version": version, "reason": reason})

    def lost_before(self, seq: int) -> bool:
        """Whether a version that is not there belongs to a file that was damaged and set aside: numbers leave a gap."""
        later = [start for start in self.starts if start > seq]
        earlier = [known for known in self.sealed if known < seq]
        return bool(later) and min(later) > (max(earlier, default=0)) + 1


def verify_chain(
    state: Path,
    ref: str,
    *,
    contents: bool = False,
    checkpoint: Callable[[], None] = lambda: None,
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Recompute the chain over every record of a dataset and compare its heads; docs/history.md has the result.

    :param contents: also compute the digest of every kept version from its rows again: a few seconds for each million
        of entries, times the versions.
    :raises NotFoundError: no dataset of that name was ever scanned here. :raises DamagedError: a file cannot be read.
    """
    name = resolve(state, ref).name
    found = _Findings()
    for _, _, db in open_epochs(state, name):
        with closing(db):
            _check_records(db, found)
            if contents:
                _check_contents(db, found, checkpoint, progress)
    with closing(files.open_registry_readonly(state)) as records:
        _check_heads(records, name, found)
        runs = _check_runs(records, name, found)
    broken = sorted(found.broken, key=lambda entry: int(entry["version"]))
    newest = max(found.sealed, default=None)
    return {
        "name": name,
        "valid": not broken,
        "complete": not found.lost,
        "versions": len(found.sealed),
        "pruned": sum(version.pruned for version in found.sealed.values()),
        "head": {"version": newest, "chain": found.sealed[newest].chain.hex()} if newest is not None else None,
        "runs": runs,
        "broken": broken,
        "lost": found.lost,
        "contents_verified": contents,
        "contents_checked": found.contents,
    }


def _check_records(db: Database, found: _Findings) -> None:
    """Check one file: each record against the chain, and each version against its record."""
    known = db.read(meta.read)
    sealed = db.read(versions.recorded)
    head = found.sealed[max(found.sealed)].chain if found.sealed else None
    if known.first_reason == "root" and head is not None and known.first_chain != head and sealed:
        found.broke(sealed[0].seq, "its chain does not go on from that of the root before")
    previous, expected = known.first_chain or b"", sealed[0].seq if sealed else 0
    found.starts += [expected] if sealed else []
    for version in sealed:
        if version.seq != expected:
            found.broke(version.seq, f"version {expected} before it is missing")
        if versions.link(previous, version.record) != version.chain:
            found.broke(version.seq, "its record or its chain value is not what was sealed")
        else:
            differs = _contradictions(version)
            if differs:
                found.broke(version.seq, f"its record says otherwise: {', '.join(differs)}")
        found.sealed[version.seq] = version
        previous, expected = version.chain, version.seq + 1


def _contradictions(version: versions.Recorded) -> list[str]:
    """Return what a version's row says that its record does not."""
    try:
        record = json.loads(version.record)
    except ValueError:
        return ["everything"]
    told = {
        "seq": version.seq,
        "sealed_ns": version.sealed_ns,
        "digest": digest.text(version.digest) if version.digest else None,
        "files": version.files,
        "bytes": version.size,
        "problems": version.problems,
        "reason": version.reason,
    }
    return [key for key, value in told.items() if record.get(key) != value]


def _check_contents(
    db: Database, found: _Findings, checkpoint: Callable[[], None], progress: Callable[[dict[str, Any]], None]
) -> None:
    """Compute the digest of each kept version from its rows."""
    kept = [v for v in db.read(versions.recorded) if not v.pruned and v.digest is not None]
    for number, version in enumerate(kept):
        checkpoint()
        progress({"phase": "versions", "percent": 100 * number / len(kept)})
        lines = db.read(lambda c, seq=version.seq: _lines(c, seq))  # type: ignore[misc]
        if digest.tree(lines) != version.digest:
            found.broke(version.seq, "its entries do not give its digest")
        found.contents += 1


def _lines(c: files.Connection, seq: int) -> dict[bytes, tuple[bool, bytes]]:
    return {
        entry.path: (entry.content.kind is Kind.LINK, entry.content.sha256)
        for entry in listing.entries(c, seq)
        if entry.content.kind is not Kind.SPECIAL and entry.content.sha256 is not None
    }


def _check_heads(records: Database, name: str, found: _Findings) -> None:
    """Check that the heads that the registry has are there."""
    known = records.read(lambda c: registry.dataset(c, name))
    heads = [(epoch.last_seq, epoch.chain) for epoch in records.read(lambda c: registry.epochs(c, name))]
    if known is not None and known.sealed_ns:
        heads.append((known.seq, known.chain))
    for seq, chain in heads:
        version = found.sealed.get(seq)
        if version is not None and chain not in {None, version.chain}:
            found.broke(seq, "the registry has another head of the chain")
        elif version is None and found.lost_before(seq):
            found.lost.append({"version": seq, "run_id": None})
        elif version is None:
            found.broke(seq, "the registry knows of it, and it is not there")


def _check_runs(records: Database, name: str, found: _Findings) -> int:
    """Check what was recorded for runs; returns how many there are."""
    used = records.read(lambda c: list(uses.uses(c, name)))
    for use in used:
        version = found.sealed.get(use.seq)
        if version is None and found.lost_before(use.seq):
            found.lost.append({"version": use.seq, "run_id": use.run_id})
        elif version is None:
            found.broke(use.seq, f"run {use.run_id} recorded it, and it is not there")
        elif use.digest is not None and use.digest != (digest.text(version.digest) if version.digest else None):
            found.broke(use.seq, f"run {use.run_id} recorded another digest")
        elif use.digest is not None and use.chain is not None and use.chain != version.chain.hex():
            found.broke(use.seq, f"run {use.run_id} recorded another chain value")
    return len({use.run_id for use in used})
