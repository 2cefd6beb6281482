"""The registry's rows of datasets: which there are, where their files lie, and what is last known of each.

There is no transaction across files: a dataset's own file is sealed first, then its row here. A name that comes to
stand for another root begins an *epoch*: another file, with numbers and chain going on after those of the one before. A
name that was given up is an *alias* for what was recorded until then; one whose history was purged is an alias for
nothing, so that no run is taken for one on a later dataset of that name. Functions take a connection inside a
transaction of the caller's; times are Unix nanoseconds.
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
    moving_to: bytes | None = None
    renaming_to: str | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """A root that a name stood for before its present one; its versions are those up to ``last_seq``."""

    file: str
    root: bytes
    last_seq: int
    digest: bytes | None
    chain: bytes | None
    ended_ns: int


#: Versions that may have been sealed without the registry hearing of it (a crash in between): no number is used twice.
NUMBER_MARGIN = 9

_PURGED = ""  # as the present name of a dataset whose history was deleted: no dataset is called so

_COLUMNS = (
    "name, root, file, seq, digest, chain, files, bytes, sealed_ns, proved_ns, state, reason, removed_ns, moving_to, "
    "renaming_to"
)


def datasets(db: sqlite3.Connection) -> list[KnownDataset]:
    """Return all rows by name, removed datasets included."""
    return [KnownDataset(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM dataset ORDER BY name")]


def dataset(db: sqlite3.Connection, name: str) -> KnownDataset | None:
    """Return one row."""
    row = db.execute(f"SELECT {_COLUMNS} FROM dataset WHERE name = ?", (name,)).fetchone()
    return KnownDataset(*row) if row else None


def claimed_files(db: sqlite3.Connection) -> frozenset[str]:
    """Return the files that belong to a dataset, those of ended epochs included."""
    return frozenset(row[0] for row in db.execute("SELECT file FROM dataset UNION SELECT file FROM epoch"))


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


def purge(db: sqlite3.Connection, name: str, now_ns: int) -> list[str]:
    """Forget a dataset and its epochs; its names until now stand for nothing. The files returned are to be deleted."""
    gone = [row[0] for row in db.execute("SELECT file FROM epoch WHERE name = ?1", (name,))]
    gone += [row[0] for row in db.execute("SELECT file FROM dataset WHERE name = ?", (name,))]
    db.execute("DELETE FROM dataset WHERE name = ?", (name,))
    db.execute("DELETE FROM epoch WHERE name = ?", (name,))
    db.execute("UPDATE alias SET dataset = ? WHERE dataset = ?", (_PURGED, name))
    db.execute("INSERT OR REPLACE INTO alias (name, until_ns, dataset) VALUES (?, ?, ?)", (name, now_ns, _PURGED))
    return gone


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


# --- epochs ----------------------------------------------------------------------------------------------------------


def epochs(db: sqlite3.Connection, name: str) -> list[Epoch]:
    """Return the epochs of a dataset that have ended, oldest first."""
    rows = db.execute(
        "SELECT file, root, last_seq, digest, chain, ended_ns FROM epoch WHERE name = ? ORDER BY last_seq", (name,)
    )
    return [Epoch(*row) for row in rows]


def epoch_of(db: sqlite3.Connection, name: str, seq: int) -> Epoch | None:
    """Return the ended epoch that a version number is of, None if it is of the present one."""
    return next((epoch for epoch in epochs(db, name) if seq <= epoch.last_seq + NUMBER_MARGIN), None)


def begin_epoch(db: sqlite3.Connection, known: KnownDataset, root: bytes, file: str, now_ns: int) -> None:
    """A dataset's name stands for another root from now on; nothing is known of it yet but where numbers go on."""
    last = max((epoch.last_seq for epoch in epochs(db, known.name)), default=0)
    if known.seq > last:  # one that never sealed a version leaves nothing that could be asked for
        db.execute(
            "INSERT INTO epoch (name, file, root, last_seq, digest, chain, ended_ns) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (known.name, known.file, known.root, known.seq, known.digest, known.chain, now_ns),
        )
    db.execute(
        "UPDATE dataset SET root = ?, file = ?, digest = NULL, files = NULL, bytes = NULL, sealed_ns = NULL, "
        "proved_ns = NULL, state = 'new', reason = NULL, removed_ns = NULL, moving_to = NULL WHERE name = ?",
        (root, file, known.name),
    )


def resume_epoch(db: sqlite3.Connection, name: str, epoch: Epoch) -> None:
    """The root before the present one is back, and nothing was sealed since: as if it had never been away."""
    db.execute("DELETE FROM epoch WHERE name = ? AND last_seq = ?", (name, epoch.last_seq))
    db.execute(
        "UPDATE dataset SET root = ?, file = ?, digest = ?, chain = ?, removed_ns = NULL, moving_to = NULL "
        "WHERE name = ?",
        (epoch.root, epoch.file, epoch.digest, epoch.chain, name),
    )


# --- names and roots that are to change ------------------------------------------------------------------------------


def intend(
    db: sqlite3.Connection, name: str, *, moving_to: bytes | None = None, renaming_to: str | None = None
) -> None:
    """Note what a person wants of a dataset before its configuration says so; without either it is taken back."""
    db.execute("UPDATE dataset SET moving_to = ?, renaming_to = ? WHERE name = ?", (moving_to, renaming_to, name))


def move(db: sqlite3.Connection, name: str, root: bytes) -> None:
    """The dataset's files are at another place: the same epoch, the same file, the same numbers."""
    db.execute("UPDATE dataset SET root = ?, moving_to = NULL WHERE name = ?", (root, name))


def rename(db: sqlite3.Connection, old: str, new: str, now_ns: int) -> None:
    """Give a dataset another name; what was recorded under the old one until now is found by an alias."""
    db.execute("UPDATE dataset SET name = ?, renaming_to = NULL, removed_ns = NULL WHERE name = ?", (new, old))
    db.execute("UPDATE epoch SET name = ? WHERE name = ?", (new, old))
    db.execute("UPDATE alias SET dataset = ? WHERE dataset = ?", (new, old))
    db.execute("INSERT OR REPLACE INTO alias (name, until_ns, dataset) VALUES (?, ?, ?)", (old, now_ns, new))


class Names:
    """What the names that runs recorded are called now; read once, asked often."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._present = {row[0] for row in db.execute("SELECT name FROM dataset")}
        self._aliases = db.execute("SELECT name, until_ns, dataset FROM alias ORDER BY until_ns").fetchall()

    def present(self, name: str, at_ns: int) -> str:
        """Return the present name of what ``name`` stood for at a moment; the name itself if nothing else is known."""
        return self._then(name, at_ns) or name

    def present_name(self, named: str, at_ns: int) -> str:
        """Return what ``NAME`` or ``NAME/SUB`` is called now."""
        name, slash, path = named.partition("/")
        return self.present(name, at_ns) + slash + path

    def purged(self, name: str, at_ns: int) -> bool:
        """Whether the history of what ``name`` stood for at a moment was deleted since."""
        return self._then(name, at_ns) == _PURGED

    def renamed(self, name: str) -> str | None:
        """Return what became of a name that stands for nothing now."""
        if name in self._present:
            return None
        return next((new for old, _, new in reversed(self._aliases) if old == name), None) or None

    def _then(self, name: str, at_ns: int) -> str | None:
        return next((new for old, until_ns, new in self._aliases if old == name and at_ns <= until_ns), None)
