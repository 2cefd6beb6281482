"""Where the databases lie in STATE, and what happens to a damaged one.

    STATE/registry.sqlite           datasets, environments, outbox
    STATE/datasets/NAME.sqlite      one for each dataset; NAME.2.sqlite after the name was given to another root.
                                    A dataset that is renamed keeps its file: the registry says which one is whose

A damaged file is set aside under a name that says so, never deleted; a new one continues the numbering after the
highest version that the registry knows, with the chain's head.
"""

import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from reprod.errors import DamagedError, NotFoundError, StateError, did_you_mean
from reprod.store import copies, meta, migrate, registry, rehome, versions
from reprod.store.connection import Database, format_at, open_database, open_readonly
from reprod.store.index import Connection

__all__ = [
    "Connection",
    "Newer",
    "Opened",
    "newer",
    "open_dataset",
    "open_dataset_readonly",
    "open_registry",
    "open_registry_readonly",
]


@dataclass(frozen=True, slots=True)
class Opened:
    """A dataset's database; ``set_aside`` is where a damaged predecessor went."""

    db: Database
    set_aside: Path | None = None


@dataclass(frozen=True, slots=True)
class Newer:
    """A file of a format that this program does not know yet; ``back``: an older copy, and the commands for it."""

    path: Path
    format: int
    known: int
    back: tuple[copies.Copy, str] | None


def newer(state: Path) -> list[Newer]:
    """Return the files of STATE that a newer program wrote, the registry first; what cannot be read is left out."""
    found = []
    try:
        datasets = sorted((state / "datasets").glob("*.sqlite"))
    except OSError:  # closed to this user
        datasets = []
    for path in (state / "registry.sqlite", *datasets):
        try:
            path.stat()  # first: SQLite would make a file that is not there
            schema, number = format_at(path)
        except (OSError, DamagedError, StateError):
            continue
        if schema is not None and number > (known := len(migrate.scripts(schema))):
            found.append(Newer(path, number, known, copies.way_back(path, known)))
    return found


def open_registry(state: Path) -> Opened:
    """Open the registry for writing, making STATE as needed. A damaged registry is set aside too.

    :raises StateError: STATE cannot be made or written.
    """
    try:
        for folder in (state, state / "datasets", state / "cookies"):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"cannot make the state directory {state}: {error.strerror}",
            hint="make it writable for this user, or set REPROD_STATE_DIR",
        ) from error
    path = state / "registry.sqlite"
    lost = _is_empty(path) and any((state / "datasets").glob("*.sqlite"))
    try:
        aside = _set_aside(path) if lost else None
        return Opened(open_database(path, "registry"), aside)
    except DamagedError:
        aside = _set_aside(path)
        return Opened(open_database(path, "registry"), aside)


def open_dataset(state: Path, records: Database, name: str, root: bytes) -> Opened:
    """Open a dataset's database for writing; made, taken up again, or rebuilt with its numbering continued.

    Another root than the one that the name stood for begins an epoch, with a file of its own.
    """
    known = records.read(lambda db: registry.dataset(db, name))
    if known is None:
        known = _renamed(state, records, name, root)
    elif known.moving_to == root:
        rehome.move(state, records, known, root)
        known = records.read(lambda db: registry.dataset(db, name))
    if known is not None and known.root != root:
        return _another_root(state, records, known, root)
    found = known.file if known is not None else _kept_file(state, records, name, root)
    file = found or _fresh_file(state, name)  # found, although the registry does not know it: it was rebuilt
    path = state / "datasets" / file
    aside = _set_aside(path) if known is not None and known.seq and _is_empty(path) else None
    try:
        db = open_database(path, "dataset")
    except DamagedError:
        aside = _set_aside(path)
        db = open_database(path, "dataset")
    records.write(lambda c: registry.add(c, name, root, file, time.time_ns()))
    highest = db.read(versions.newest)
    if known is not None and known.seq and (highest is None or highest.seq < known.seq):
        if highest is None:
            if db.read(meta.read).first_seq is None:
                _number_on(db, known)
        else:  # an older copy of the file was put back: its newest version is not what the registry saw
            db.close()
            aside = _set_aside(path)
            return Opened(open_dataset(state, records, name, root).db, aside)
    if highest is not None and (known is None or known.seq < highest.seq):  # a crash came between seal and registry
        newest = highest
        records.write(lambda c: registry.sealed(c, name, newest))
    return Opened(db, aside)


def _renamed(state: Path, records: Database, name: str, root: bytes) -> registry.KnownDataset | None:
    """Return what is known of a dataset that was to get this name, once it has it."""
    former = rehome.renamed_to(records, name, root)
    if former is None:
        return None
    rehome.rename(state, records, former, name)
    return records.read(lambda db: registry.dataset(db, name))


def _another_root(state: Path, records: Database, known: registry.KnownDataset, root: bytes) -> Opened:
    """Open the file of a dataset whose name stands for another root from now on.

    Numbers go on, so that a number says which epoch it is of. A root that was away without a version of another one
    being sealed (a typing error in its path) is taken up again. Either way nothing is bound across this moment.
    """
    now, name = time.time_ns(), known.name
    known = _with_newest(state, records, known)
    past = records.read(lambda c: registry.epochs(c, name))
    last = past[-1] if past else None
    if last is not None and last.root == root and last.last_seq == known.seq:
        try:
            with closing(open_database(state / "datasets" / last.file, "dataset")) as db:
                db.write(lambda c: meta.write(c, epoch_ns=now))
        except DamagedError:
            pass  # it is set aside below
        records.write(lambda c: registry.resume_epoch(c, name, last))
        return open_dataset(state, records, name, root)
    file = _fresh_file(state, name)
    db = open_database(state / "datasets" / file, "dataset")
    if known.seq:
        _number_on(db, known, first_reason="root")
    db.write(lambda c: meta.write(c, root=root, epoch_ns=now))
    records.write(lambda c: registry.begin_epoch(c, known, root, file, now))
    return Opened(db)


def _with_newest(state: Path, records: Database, known: registry.KnownDataset) -> registry.KnownDataset:
    """Return what the registry knows of a dataset once it has heard of the last version in its file."""
    try:
        with closing(open_readonly(state / "datasets" / known.file)) as db:
            newest = db.read(versions.newest)
    except (DamagedError, StateError, NotFoundError):
        return known
    if newest is not None and newest.seq > known.seq:
        records.write(lambda c: registry.sealed(c, known.name, newest))
        return records.read(lambda c: registry.dataset(c, known.name)) or known
    return known


def _number_on(db: Database, known: registry.KnownDataset, **more: str) -> None:
    """Have an empty file go on after the highest number and the head of the chain that the registry knows."""
    first = known.seq + 1 + registry.NUMBER_MARGIN
    db.write(lambda c: meta.write(c, first_seq=first, first_chain=known.chain or b"", **more))


def open_dataset_readonly(
    state: Path, name: str, *, seq: int | None = None, at_ns: int | None = None
) -> tuple[Database, registry.KnownDataset]:
    """Open a dataset's database for reading, with or without a daemon.

    :param seq: a version that is wanted: one of an earlier epoch lies in that epoch's file (``file`` and ``root`` of
        the answer say so).
    :param at_ns: when ``name`` was recorded: a dataset that was renamed since is found by its present name.
    :raises NotFoundError: no dataset of that name was ever scanned here.
    """
    records = open_registry_readonly(state)
    try:
        known = records.read(lambda db: _locate(db, name, seq, at_ns))
    finally:
        records.close()
    return open_readonly(state / "datasets" / known.file), known


def _locate(db: Connection, name: str, seq: int | None, at_ns: int | None) -> registry.KnownDataset:
    names = registry.Names(db)
    if at_ns is not None and names.purged(name, at_ns):
        raise NotFoundError(f"the history of {name} that this run used was purged", hint=f"reprod log {name}")
    present = name if at_ns is None else names.present(name, at_ns)
    known = registry.dataset(db, present)
    if known is None:
        renamed = names.renamed(present)
        near = did_you_mean(name, [d.name for d in registry.datasets(db)])
        raise NotFoundError(
            f"no dataset named {name!r}",
            hint=f"it is called {renamed} now"
            if renamed
            else near or "reprod dataset list shows them; a new one is known once a daemon scanned it",
        )
    epoch = registry.epoch_of(db, present, seq) if seq is not None else None
    return known if epoch is None else replace(known, file=epoch.file, root=epoch.root)


def open_registry_readonly(state: Path) -> Database:
    """Open the registry for reading, with or without a daemon."""
    return open_readonly(state / "registry.sqlite")


def _kept_file(state: Path, records: Database, name: str, root: bytes) -> str | None:
    """Return the newest file that holds this dataset's history, if the registry has forgotten which one that is."""
    others = records.read(registry.claimed_files)
    kept = []
    for path in (state / "datasets").glob("*.sqlite"):
        number = path.name.removeprefix(name).removesuffix("sqlite").strip(".") or "1"
        if path.name in others:
            continue  # another dataset's
        try:
            with closing(open_readonly(path)) as db:
                found = db.read(meta.read)
        except (DamagedError, NotFoundError, StateError):
            continue  # what cannot be read, or is not made yet, cannot be taken up again
        called = found.name or (name if path.name.startswith(name) and number.isdecimal() else None)
        if found.root == root and called == name:
            kept.append((int(number) if number.isdecimal() else 0, path.name))
    return max(kept)[1] if kept else None


def _fresh_file(state: Path, name: str) -> str:
    """Return the name of a file that is not there yet, or was left empty by a process that was killed."""
    first = state / "datasets" / f"{name}.sqlite"
    if not first.exists() or _is_empty(first):
        return f"{name}.sqlite"
    number = 2
    while (state / "datasets" / f"{name}.{number}.sqlite").exists():
        number += 1
    return f"{name}.{number}.sqlite"


def _is_empty(path: Path) -> bool:
    """Whether a file was cut to nothing: SQLite takes that for a new database, and deletes the log that lies beside."""
    return path.exists() and path.stat().st_size == 0


def _set_aside(path: Path) -> Path:
    """Rename a database and its log, so that a person can still look at them."""
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside, number = path.with_name(stem), 1
    while aside.exists():  # two within a second
        number += 1
        aside = path.with_name(f"{stem}.{number}")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        log = path.with_name(path.name + suffix)
        if log.exists():
            log.replace(aside.with_name(aside.name + suffix))
    return aside
