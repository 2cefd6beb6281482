"""Histories without files: sets of entries sealed at any moment, through the store's own functions.

What a refresh does with what it saw on a disk is done here with a dictionary, so that a test can make a year of
versions in a second and knows what each of them held.
"""

import hashlib
import json
import os
from pathlib import Path

import msgspec

from reprod.config import Config, DatasetConfig, EnvironmentConfig, MlflowConfig, ScanConfig, StoreConfig, WatchConfig
from reprod.core import digest
from reprod.core.entry import Kind
from reprod.core.snapshot import BoundDataset, Snapshot
from reprod.store import changes, files, index, listing, outbox, registry, versions
from reprod.store.connection import Database
from reprod.store.observation import Observation
from reprod.store.timeline import Evidence

DAY = 86_400_000_000_000
HOUR = DAY // 24

State = tuple[int, int, bytes, int, int]  # kind, size, digest, mtime, mode
Held = dict[bytes, State]


def entry(content: int, mtime: int = 7) -> State:
    """A file of this content; content 4 is a link."""
    sha = hashlib.sha256(b"%d" % content).digest()
    return (int(Kind.LINK if content == 4 else Kind.FILE), content, sha, mtime, 0o100600 + content % 8)


def make_equal(c: files.Connection, held: Held, now: int) -> None:
    """Write rows so that the open version holds exactly this, as a refresh does."""
    rows = c.execute(
        "SELECT CASE WHEN d.path = x'' THEN f.name ELSE CAST(d.path || x'2f' || f.name AS BLOB) END, f.id, f.kind, "
        "f.sha256 FROM file f JOIN directory d ON d.id = f.directory WHERE f.kind != 0"
    ).fetchall()
    known = {row[0]: row[1:] for row in rows}
    seq, has_base = index.open_version(c)
    for path in known.keys() - held.keys():
        changes.remove_file(c, known[path][0], seq, has_base)
        changes.note_touched(c, 1)
    for directory in {row[0].rpartition(b"/")[0] for row in rows}:
        if directory and not any(path.startswith(directory + b"/") for path in held):
            place = c.execute("SELECT id, present FROM directory WHERE path = ?", (directory,)).fetchone()
            if place and place[1]:
                changes.remove_directory(c, place[0], seq, has_base)
    seen = []
    for path, (kind, size, sha, mtime, mode) in held.items():
        row = known.get(path)
        if row is None or row[1:] != (kind, sha):
            folder, _, name = path.rpartition(b"/")
            seen.append(Observation(folder, name, row[0] if row else None, (mode, size, mtime, mtime, 1), kind, sha))
    changes.apply(c, seen, [], now)


def seal(db: Database, held: Held, now: int, root: str = "/data", reason: str = "change") -> versions.Version | None:
    """Seal these entries at this moment."""
    evidence = Evidence(now, now - 1, 1, None, None, None, True)
    described: dict[str, object] = {"root": root, "selection": {"include": [], "exclude": [], "symlinks": "record"}}

    def change(c: files.Connection) -> versions.Version | None:
        make_equal(c, held, now)
        return versions.seal(c, evidence, described, reason)

    return db.write(change)


class HistoryStore:
    """STATE with datasets whose versions were sealed when the test says."""

    def __init__(self, base: Path) -> None:
        self.base, self.state = base, base / "state"
        self.records = files.open_registry(self.state).db
        self.opened: dict[str, Database] = {}
        self.roots: dict[str, Path] = {}
        self.held: dict[int, Held] = {}
        self.store = StoreConfig()

    @property
    def config(self) -> Config:
        datasets = tuple(DatasetConfig(name, str(root)) for name, root in self.roots.items())
        return Config(
            MlflowConfig(), EnvironmentConfig(), WatchConfig(), ScanConfig(), datasets, (), None, self.base, self.state,
            self.base / "socket", self.store,
        )  # fmt: skip

    def open(self, name: str = "data", root: str | None = None) -> Database:
        """Open a dataset as the daemon does, at a root of its own or at another one."""
        path = self.base / (root or name)
        path.mkdir(exist_ok=True)
        if name in self.opened:
            self.opened.pop(name).close()
        self.roots[name] = path
        self.opened[name] = files.open_dataset(self.state, self.records, name, os.fsencode(path)).db
        return self.opened[name]

    def seal(self, at: int, name: str = "data", reason: str = "change", **held: int) -> versions.Version:
        """Seal entries (name: content; ``__`` for a slash) and tell the registry."""
        db = self.opened.get(name) or self.open(name)
        entries = {path.replace("__", "/").encode(): entry(content) for path, content in held.items()}
        version = seal(db, entries, at, str(self.roots[name]), reason)
        assert version is not None
        self.records.write(lambda c: registry.sealed(c, name, version))
        self.held[version.seq] = entries
        return version

    def run(self, run_id: str, *, at: int = 1, state: str = "done", **used: int | None) -> None:
        """A recorded run that used these versions; None: one that waits since ``at``."""
        bound = []
        for name, seq in used.items():
            if seq is None:
                continue
            db = self.opened[name]
            version = db.read(lambda c, seq=seq: versions.version(c, seq))  # type: ignore[misc]
            found = digest.text(version.digest) if version.digest else None
            bound.append(
                BoundDataset(
                    name, "/", "start", "walk", seq, found, 1, 1, version.sealed_ns, version.chain.hex(), ("sha256",),
                    0.1,
                )
            )  # fmt: skip
            if not version.pruned:
                db.write(lambda c, seq=seq: versions.pin(c, seq, f"u#{run_id}", at))  # type: ignore[misc]
        snapshot = msgspec.json.encode(Snapshot(at, "host", tuple(bound), None, None, None)) if bound else None
        run = {"name": run_id, "start_ms": at // 1_000_000, "dataset": ",".join(used)}

        def write(c: files.Connection) -> None:
            outbox.notice(c, "u", run_id, "data", json.dumps(run).encode(), at)
            number = c.execute("SELECT max(id) FROM delivery").fetchone()[0]
            if snapshot is not None:
                outbox.published(c, number, snapshot)
                c.execute("UPDATE delivery SET state = ? WHERE id = ?", (state, number))

        self.records.write(write)

    def told(self, seq: int, name: str = "data") -> Held:
        """What the store says that a version holds."""
        found = self.opened[name].read(lambda c: list(listing.entries(c, seq)))
        return {
            e.path: (int(e.content.kind), e.content.size, e.content.sha256 or b"", e.mtime_ns, e.mode) for e in found
        }

    def close(self) -> None:
        for db in (*self.opened.values(), self.records):
            db.close()
