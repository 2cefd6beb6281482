"""Open a SQLite file of reprod's: pragmas, migrations, damage, read-only.

``Database`` is the one owner of a connection: one thread at a time, writes in ``BEGIN IMMEDIATE``. A file of an older
format is brought up to date where that is permitted (``store.migrate``), one that is newer than this program is refused
untouched. A damaged one raises DamagedError and stays untouched: its owner decides.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from reprod.errors import DamagedError, NotFoundError, StateError
from reprod.store import migrate
from reprod.store.migrate import APPLICATION_ID, Schema

__all__ = ["APPLICATION_ID", "BUSY_TIMEOUT_MS", "Database", "Schema", "open_database", "open_readonly"]

BUSY_TIMEOUT_MS = 10_000

#: How long one try to begin writing waits for another process, and the pause to the next. Between two tries this
#: process's readers get their turn: `status` must answer while somebody else holds the file.
BUSY_TRY_MS = 20
BUSY_PAUSE_S = 0.01

#: Files up to this size are checked whole when opened (about 2 ms a MiB); in larger ones damage shows when it is met.
CHECKED_SIZE = 64 << 20

T = TypeVar("T")


class Database:
    """A connection with its lock. ``read`` and ``write`` take a function of the connection."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``query`` under the lock, in one consistent view of the file."""
        with self._lock, _errors(self.path):
            nested = self._connection.in_transaction
            if not nested:
                self._connection.execute("BEGIN")
            try:
                return query(self._connection)
            finally:
                if not nested:
                    self._connection.rollback()

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``change`` in one ``BEGIN IMMEDIATE`` transaction; any exception rolls it back.

        :raises StateError: also when another process has held the file for ``BUSY_TIMEOUT_MS``.
        """
        give_up_s = time.monotonic() + BUSY_TIMEOUT_MS / 1000
        while True:
            with self._lock, _errors(self.path):
                if self._begin(give_up_s):
                    return self._finish(change)
            time.sleep(BUSY_PAUSE_S)

    def _begin(self, give_up_s: float) -> bool:
        """Begin to write, unless another process holds the file; that is an error from ``give_up_s`` on."""
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TRY_MS}")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not _name(error).startswith("SQLITE_BUSY") or time.monotonic() >= give_up_s:
                raise
            return False
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        return True

    def _finish(self, change: Callable[[sqlite3.Connection], T]) -> T:
        try:
            result = change(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk rolls back by itself
                self._connection.rollback()
            raise
        return result

    def close(self) -> None:
        """Close the file; the last connection also folds the write-ahead log in."""
        with self._lock:
            self._connection.close()


def open_database(path: Path, schema: Schema) -> Database:
    """Open for writing, made and migrated as needed.

    :raises StateError: the directory or file cannot be written, there is no space, the file is newer than this
        program, or older and not to be changed by this process.
    :raises DamagedError: the file is no database of ours, or fails SQLite's own check.
    """
    with _errors(path):
        new = not path.exists()
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            if new:
                os.chmod(path, 0o640)  # the group may read status while the daemon is down
            _check(connection, path, schema)  # first: what is not for us stays as it is
            _pragmas(connection)
            migrate.migrate(connection, path, schema)
        except BaseException:
            connection.close()
            raise
    return Database(path, connection)


def open_readonly(path: Path) -> Database:
    """Open for reading, whether or not a daemon runs.

    After a clean stop a WAL file can only be read as immutable by who may not write the folder; after a kill that would
    give stale rows. So: ``mode=ro`` first, ``immutable`` only when there is no log to miss.

    :raises NotFoundError: it is not there, or nothing is in it.
    :raises StateError: it may not be read, is newer than this program, or older and not to be changed by this process.
    :raises DamagedError: it is no database of ours.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no {path}", hint="start the daemon once: reprod daemon") from error
    except OSError as error:  # a directory above it that this user may not enter
        raise StateError(
            f"cannot read {path}: {error.strerror}", hint=f"check the permissions of {path.parent}"
        ) from error
    with _errors(path):
        connection = _connect_readonly(path)
        try:
            _require_filled(connection, path)
            schema = migrate.outdated_schema(connection, path)
            if schema is None:
                return Database(path, connection)
            if not migrate.is_permitted():
                raise migrate.outdated(path)
        except BaseException:
            connection.close()
            raise
        connection.close()
        open_database(path, schema).close()
        return Database(path, _connect_readonly(path))


def format_at(path: Path) -> tuple[Schema | None, int]:
    """Return which of our files one is, None for none of ours, and its format, whether this program knows it or not.

    :raises StateError: it may not be read.
    :raises DamagedError: it is no database.
    """
    with _errors(path), closing(_connect_readonly(path)) as connection:
        return migrate.schema_of(connection), migrate.format_of(connection)


def _connect_readonly(path: Path) -> sqlite3.Connection:
    try:
        return _connect_uri(path, "mode=ro")
    except sqlite3.OperationalError:
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        return _connect_uri(path, "immutable=1")


def _connect_uri(path: Path, query: str) -> sqlite3.Connection:
    from urllib.parse import quote

    connection = sqlite3.connect(
        f"file:{quote(str(path))}?{query}", uri=True, isolation_level=None, check_same_thread=False, timeout=5
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _require_filled(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file without tables: cut to nothing, or of a daemon that ended before it wrote. SQLite takes it."""
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise NotFoundError(f"{path} is empty", hint="start the daemon, which mends that: reprod daemon")
    if migrate.schema_of(connection) is None:
        raise DamagedError(f"{path} is not a reprod database", hint="move it away; the daemon makes a new one")


def _pragmas(connection: sqlite3.Connection) -> None:
    for pragma in (
        "auto_vacuum = INCREMENTAL",  # counts for a new file only; pruning gives space back in small steps by it
        "journal_mode = WAL",
        "synchronous = NORMAL",  # a power cut may lose the last commits, never the file: walks find what was lost
        "foreign_keys = OFF",  # the rows are written by one place; checks would cost a third of a cold scan
        "cache_size = -16000",  # 16 MB
        "temp_store = MEMORY",
        "wal_autocheckpoint = 4000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _check(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and found != APPLICATION_ID[schema]:
        raise DamagedError(f"{path} is not a reprod {schema} database", hint="move it away; reprod makes a new one")
    migrate.require_usable(connection, path, schema)
    if not tables or path.stat().st_size > CHECKED_SIZE:
        return
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise DamagedError(f"{path} is damaged: {problem}", hint="it is set aside and rebuilt by a scan")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: what cannot be written is a state error, what cannot be read is damage."""
    try:
        yield
    except UnicodeEncodeError as error:  # SQLite's texts are UTF-8; a name from a shell's argument need not be
        message = f"nothing is called {error.object!r}: it is not UTF-8"
        raise NotFoundError(message, hint="reprod dataset list") from error
    except sqlite3.ProgrammingError as error:
        if "closed database" in str(error):  # its dataset was removed while somebody still asked
            raise StateError(f"{path} is closed", hint="ask again") from error
        raise
    except sqlite3.DatabaseError as error:
        code = _name(error)
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "malformed" in str(error):
            raise DamagedError(f"{path} is damaged: {error}", hint="it is set aside and rebuilt by a scan") from error
        if code.startswith("SQLITE_FULL"):
            raise StateError(
                f"no space left for {path}", hint=f"free space on the file system of {path.parent}"
            ) from error
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
            raise StateError(
                f"cannot use {path}: another process holds it ({error})", hint=f"end that process: fuser -v {path}"
            ) from error
        if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_NOMEM")):
            raise StateError(
                f"cannot use {path}: {error}", hint=f"check the permissions and the disk of {path.parent}"
            ) from error
        raise


def _name(error: sqlite3.Error) -> str:
    """Return SQLite's own name for an error; none where the module made it up."""
    return getattr(error, "sqlite_errorname", "") or ""
