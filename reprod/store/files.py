"""Where the databases lie in STATE, and what happens to a damaged one.

    STATE/registry.sqlite           datasets, environments, outbox
    STATE/datasets/NAME.sqlite      one for each dataset; NAME.2.sqlite after the name was given to another root

A damaged file is set aside under a name that says so, never deleted; a new one continues the numbering after the
highest version that the registry knows, with the chain's head.
"""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from reprod.errors import DamagedError, NotFoundError, StateError, did_you_mean
from reprod.store import meta, registry, versions
from reprod.store.connection import Database, open_database, open_readonly
from reprod.store.index import Connection

__all__ = ["Connection", "Opened", "open_dataset", "open_dataset_readonly", "open_registry", "open_registry_readonly"]

#: Versions that may have been sealed without the registry hearing of it (a crash in between): no number is used twice.
REBUILD_MARGIN = 9


@dataclass(frozen=True, slots=True)
class Opened:
    """A dataset's database; ``set_aside`` is where a damaged predecessor went."""

    db: Database
    set_aside: Path | None = None


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
    try:
        return Opened(open_database(path, "registry"))
    except DamagedError:
        aside = _set_aside(path)
        return Opened(open_database(path, "registry"), aside)


def open_dataset(state: Path, records: Database, name: str, root: bytes) -> Opened:
    """Open a dataset's database for writing; made, taken up again, or rebuilt with its numbering continued."""
    known = records.read(lambda db: registry.dataset(db, name))
    if known is None:  # new, or the registry was rebuilt
        file = _kept_file(state, records, name, root) or _fresh_file(state, name, known)
    else:
        file = known.file if known.root == root else _fresh_file(state, name, known)
    path = state / "datasets" / file
    aside = None
    try:
        db = open_database(path, "dataset")
    except DamagedError:
        aside = _set_aside(path)
        db = open_database(path, "dataset")
    records.write(lambda c: registry.add(c, name, root, file, time.time_ns()))
    highest = db.read(versions.newest)
    if known is not None and known.seq and (highest is None or highest.seq < known.seq):
        if highest is None:
            first_seq, first_chain = known.seq + 1 + REBUILD_MARGIN, known.chain
            db.write(lambda c: meta.write(c, first_seq=first_seq, first_chain=first_chain))
        else:  # an older copy of the file was put back: its newest version is not what the registry saw
            db.close()
            aside = _set_aside(path)
            return Opened(open_dataset(state, records, name, root).db, aside)
    if highest is not None and (known is None or known.seq < highest.seq):  # a crash came between seal and registry
        newest = highest
        records.write(lambda c: registry.sealed(c, name, newest))
    return Opened(db, aside)


def open_dataset_readonly(state: Path, name: str) -> tuple[Database, registry.KnownDataset]:
    """Open a dataset's database for reading, with or without a daemon.

    :raises NotFoundError: no dataset of that name was ever scanned here.
    """
    records = open_registry_readonly(state)
    try:
        known = records.read(lambda db: registry.dataset(db, name))
        names = [d.name for d in records.read(registry.datasets)]
    finally:
        records.close()
    if known is None:
        raise NotFoundError(
            f"no dataset named {name!r}",
            hint=did_you_mean(name, names) or "reprod dataset list shows them; reprod dataset add NAME PATH adds one",
        )
    return open_readonly(state / "datasets" / known.file), known


def open_registry_readonly(state: Path) -> Database:
    """Open the registry for reading, with or without a daemon."""
    return open_readonly(state / "registry.sqlite")


def _kept_file(state: Path, records: Database, name: str, root: bytes) -> str | None:
    """Return the newest file that holds this dataset's history, if the registry has forgotten which one that is."""
    others = {known.file for known in records.read(registry.datasets)}
    kept = []
    for path in (state / "datasets").glob(f"{name}*.sqlite"):
        number = path.name.removeprefix(name).removesuffix("sqlite").strip(".") or "1"
        if not number.isdecimal() or path.name in others:
            continue  # another dataset, whose name begins with this one
        try:
            with closing(open_readonly(path)) as db:
                if db.read(meta.read).root == root:
                    kept.append((int(number), path.name))
        except (DamagedError, StateError):
            continue  # what cannot be read cannot be taken up again
    return max(kept)[1] if kept else None


def _fresh_file(state: Path, name: str, known: registry.KnownDataset | None) -> str:
    """Return a file name for a dataset that is new, or whose name now stands for another root."""
    if known is None and not (state / "datasets" / f"{name}.sqlite").exists():
        return f"{name}.sqlite"
    number = 2
    while (state / "datasets" / f"{name}.{number}.sqlite").exists():
        number += 1
    return f"{name}.{number}.sqlite"


def _set_aside(path: Path) -> Path:
    """Rename a database and its log, so that a person can still look at them."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        log = path.with_name(path.name + suffix)
        if log.exists():
            log.replace(aside.with_name(aside.name + suffix))
    return aside
