"""Bring a state file to the present format: the numbered ``.sql`` files of a schema, in one transaction, after a copy.

Rule: registry and datasets count formats together, so a state has one format: what changes one schema adds a file to
the other's folder too. An existing file is changed only in a process that has ``permitted`` it, which is the daemon
behind its lock: a command of a newer reprod must not change files under an older daemon that runs. It is held against
other writers from before its copy is begun until it is committed; whatever ends it before that leaves it as it was.
"""

import functools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from reprod.errors import ReprodError, StateError
from reprod.store import copies

Schema = Literal["dataset", "registry"]
Stage = Literal["copy", "copied", "change", "commit", "done", "failed"]

APPLICATION_ID: dict[Schema, int] = {"dataset": 0x52505244, "registry": 0x52505252}  # "RPRD", "RPRR"

#: SQLite's virtual machine reports after so many of its steps: some 20 ms of work, within one long statement too, and
#: some seconds where each step moves much (a file of 1 GB in rows of 100 KB: 3.2 s of 7.5 s in all).
STEPS_A_REPORT = 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """What is being done to ``path``: ``done`` of ``total`` bytes of its copy, then of the statements of its change."""

    path: Path
    schema: Schema
    stage: Stage
    found: int
    wanted: int
    done: int
    total: int
    copy: Path | None = None


Report = Callable[[Step], None]

_reports: list[Report] = []  # who permits it in this process; the last one hears of it


@contextmanager
def permitted(report: Report) -> Iterator[None]:
    """Let this process bring files up to date within the block; ``report`` hears of each step, from any thread."""
    _reports.append(report)
    try:
        yield
    finally:
        _reports.remove(report)


def is_permitted() -> bool:
    """Return whether this process may bring files up to date."""
    return bool(_reports)


@functools.cache
def scripts(schema: Schema) -> tuple[str, ...]:
    """Return the scripts of a schema: the n-th leads to format n."""
    folder = resources.files("reprod.store") / "migrations" / schema
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple((folder / name).read_text(encoding="utf-8") for name in names)


def format_of(connection: sqlite3.Connection) -> int:
    """Return the format that a file has; 0 for one that was just made."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def schema_of(connection: sqlite3.Connection) -> Schema | None:
    """Return which of our files this is."""
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    return next((schema for schema, number in APPLICATION_ID.items() if number == found), None)


def require_known(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    """Refuse a file of a newer format. Raises StateError, naming the copy from before the upgrade if there is one."""
    found, known = format_of(connection), len(scripts(schema))
    if found <= known:
        return
    message = f"{path} was written by a newer reprod (format {found}, this one knows {known})"
    back = copies.way_back(path, known)
    if back is None:
        without = (
            "there is no copy from before an upgrade: upgrade reprod again, or set REPROD_STATE_DIR to another folder"
        )
        raise StateError(message, hint=without)
    copy, commands = back
    raise StateError(
        message,
        hint=f"upgrade reprod again; or go back to {copy.path.name}, from before the upgrade: stop the daemon, then "
        f"run: {commands}",
    )


def require_usable(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    """Refuse what ``migrate`` would refuse, before anything is written. Raises StateError."""
    require_known(connection, path, schema)
    if 0 < format_of(connection) < len(scripts(schema)) and not is_permitted():
        raise outdated(path)


def outdated_schema(connection: sqlite3.Connection, path: Path) -> Schema | None:
    """Return the schema of a file that is to be brought up to date, else None: also for one that is not ours, or empty.

    Raises StateError for a newer one.
    """
    schema = schema_of(connection)
    if schema is None:
        return None
    require_known(connection, path, schema)
    return schema if format_of(connection) < len(scripts(schema)) else None


def outdated(path: Path) -> StateError:
    """Return the refusal to use a file of an older format where it may not be changed."""
    return StateError(
        f"{path} is of an older reprod and not up to date yet",
        hint="start the daemon, or restart it if it runs: it brings the state up to date and keeps a copy",
    )


def migrate(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    """Make a new file's tables, or bring an older file to the present format.

    :raises StateError: no space, not permitted here, a newer format, a script that failed; the file is as it was.
    """
    if format_of(connection) == len(scripts(schema)):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        require_known(connection, path, schema)
        found = format_of(connection)  # again: another process may just have done it
        if found == 0:
            _run(connection, schema, 0, lambda *_: None)
            connection.execute("COMMIT")
        elif found < len(scripts(schema)):
            _upgrade(connection, path, schema, found)
        else:
            connection.rollback()
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def _upgrade(connection: sqlite3.Connection, path: Path, schema: Schema, found: int) -> None:
    if not _reports:
        raise outdated(path)
    report, wanted = _reports[-1], len(scripts(schema))

    def tell(stage: Stage, done: int, total: int, copy: Path | None = None) -> None:
        report(Step(path, schema, stage, found, wanted, done, total, copy))

    copies.require_space(path)
    copy: copies.Copy | None = None
    try:
        copy = _copy(path, found, lambda done, total: tell("copy", done, total))
        tell("copied", 0, 0, copy.path)
        _run(connection, schema, found, lambda done, total: tell("change", done, total))
        tell("commit", 0, 0)
        connection.execute("COMMIT")
    except BaseException as error:
        if copy is not None:
            _undo(connection, found, copy)
        tell("failed", 0, 0)
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUR_OWN:
            raise _failed(path, found, wanted, error) from error
        raise  # no space, another process, damage: what these mean is said where files are opened
    with suppress(sqlite3.Error):  # else a log as large as the file lies there until the end
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    tell("done", 0, 0, copy.path)


def _undo(connection: sqlite3.Connection, found: int, copy: copies.Copy) -> None:
    """Leave the file as it was; then the copy says nothing that the file does not."""
    with suppress(sqlite3.Error, OSError):  # a disk that fails here too: both are kept
        if connection.in_transaction:  # a full disk rolls back by itself
            connection.rollback()
        if format_of(connection) == found:
            copy.path.unlink(missing_ok=True)


#: What a script gets wrong, be it that it meets a state that its author did not think of. Primary codes: Python does
#: not know the names of all extended ones.
_OUR_OWN = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
    | {sqlite3.SQLITE_TOOBIG}
)


def _copy(path: Path, found: int, report: Callable[[int, int], None]) -> copies.Copy:
    try:
        return copies.make(path, found, report)
    except OSError as error:
        raise StateError(
            f"cannot copy {path} before it is brought up to date: {error.strerror or error}",
            hint=f"check the disk and the permissions of {path.parent}; nothing was changed",
        ) from error


def _failed(path: Path, found: int, wanted: int, error: BaseException) -> ReprodError:
    return StateError(
        f"{path} could not be brought from format {found} to {wanted}: {error}; it is as it was",
        hint="install the reprod again that it was used with, and report this",
    )


def _run(connection: sqlite3.Connection, schema: Schema, found: int, report: Callable[[int, int], None]) -> None:
    """Execute what leads from a format to the present one, inside the caller's transaction."""
    wanted = scripts(schema)
    todo = [statement for script in wanted[found:] for statement in statements(script)]
    done = 0

    def tick() -> None:
        report(done, len(todo))

    connection.set_progress_handler(tick, STEPS_A_REPORT)
    try:
        for statement in todo:
            tick()
            connection.execute(statement)
            done += 1
    finally:
        connection.set_progress_handler(None, 0)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID[schema]}")
    connection.execute(f"PRAGMA user_version = {len(wanted)}")


def statements(script: str) -> Iterator[str]:
    """Return the statements of a script one by one: ``executescript`` would commit what is under way."""
    rest = ""
    for piece in script.split(";"):
        rest += piece + ";"
        if sqlite3.complete_statement(rest):
            if _says_something(rest):
                yield rest
            rest = ""
    if _says_something(rest):
        yield rest  # cut in the middle: SQLite says so


def _says_something(text: str) -> bool:
    """Whether there is more than blanks and comments before the end of a statement."""
    return any(line.strip("; \t") and not line.lstrip().startswith("--") for line in text.splitlines())
