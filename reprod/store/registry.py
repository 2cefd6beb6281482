"""The registry's rows of datasets: which there are, where their files lie, and what is last known of each.

There is no transaction across files: a dataset's own file is sealed first, then its row here. Functions take a
connection inside a transaction of the caller's; times are Unix nanoseconds.
"""

import sqlite3
from dataclasses import dataclass

from reprod.store.versions import Version


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """What the registry knows of a dataset; ``seq`` 0 means that it was never scanned."""

    name: str
    root: bytes
    file: str
    seq: int
    digest: bytes | None
    chain: bytes | None
    files: int | None
    size: int | None
    sealed_ns: int | None
    proved_ns: int | None
    state: str
    reason: str | None
    removed_ns: int | None


_COLUMNS = "name, root, file, seq, digest, chain, files, bytes, sealed_ns, proved_ns, state, reason, removed_ns"


def datasets(db: sqlite3.Connection) -> list[KnownDataset]:
    """Return all rows by name, removed datasets included."""
    return [KnownDataset(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM dataset ORDER BY name")]


def dataset(db: sqlite3.Connection, name: str) -> KnownDataset | None:
    """Return one row."""
    row = db.execute(f"SELECT {_COLUMNS} FROM dataset WHERE name = ?", (name,)).fetchone()
    return KnownDataset(*row) if row else None


def add(db: sqlite3.Connection, name: str, root: bytes, file: str, now_ns: int) -> None:
    """Take a dataset in, or take it up again after a removal. Another root means another file."""
    db.execute(
        "INSERT INTO dataset (name, root, file, added_ns) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
        "root = excluded.root, file = excluded.file, removed_ns = NULL",
        (name, root, file, now_ns),
    )


def remove(db: sqlite3.Connection, name: str, now_ns: int) -> None:
    """Note that a dataset is no longer registered; its history stays."""
    db.execute("UPDATE dataset SET removed_ns = ?, state = 'removed' WHERE name = ?", (now_ns, name))


def purge(db: sqlite3.Connection, name: str) -> None:
    """Forget a dataset; its file is the caller's to delete."""
    db.execute("DELETE FROM dataset WHERE name = ?", (name,))


def sealed(db: sqlite3.Connection, name: str, version: Version) -> None:
    """Note the newest version of a dataset: what a rebuilt file continues from."""
    db.execute(
        "UPDATE dataset SET seq = max(seq, ?), digest = ?, chain = ?, files = ?, bytes = ?, sealed_ns = ? "
        "WHERE name = ?",
        (version.seq, version.digest, version.chain, version.files, version.size, version.sealed_ns, name),
    )


def noted(db: sqlite3.Connection, name: str, state: str, reason: str | None, proved_ns: int | None) -> None:
    """Note the state of a dataset, so that ``status`` can tell it while no daemon runs."""
    db.execute(
        "UPDATE dataset SET state = ?, reason = ?, proved_ns = coalesce(?, proved_ns) WHERE name = ?",
        (state, reason, proved_ns, name),
    )


def see_boot(db: sqlite3.Connection, boot_id: str, now_ns: int) -> None:
    """Remember that this boot is ours."""
    db.execute("INSERT OR IGNORE INTO boot (boot_id, seen_ns) VALUES (?, ?)", (boot_id, now_ns))


def boots(db: sqlite3.Connection) -> frozenset[str]:
    """Return all boots of this host that a daemon saw: a run that names one had our clock."""
    return frozenset(row[0] for row in db.execute("SELECT boot_id FROM boot"))
