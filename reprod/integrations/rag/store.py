"""Owns the index on disk: one DuckDB file for each way of embedding, ``index.json`` that names the current one.

Rule: what is searched is the last corpus that was published, in one transaction; contents and vectors are added before
that and seen by nobody, so a process that is killed leaves the old corpus, and what it embedded is there next time.
A file is open only as long as it is used: DuckDB keeps other processes out of it meanwhile, for which they wait.

DuckDB, and not another store: docs/rag.md has the comparison. Digests are raw bytes, positions bytes, scores cosines.
"""

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from reprod.errors import DamagedError, NotFoundError, StateError, UsageError
from reprod.fs.atomic import write_atomic
from reprod.integrations.rag.chunking import Chunk
from reprod.integrations.rag.embedding import Identity

T = TypeVar("T")

#: Part of a file's name: another layout of the tables is another file, and nothing is ever migrated.
FORMAT = 1
#: Another process holds the file for one batch or one search, milliseconds; then it is stuck.
BUSY_S, BUSY_POLL_S = 30.0, 0.02
#: Values pass between Python and DuckDB while the interpreter is locked, 0.3 ms for a vector of 384 numbers and 2 us
#: for a digest, and an event loop must not stand still for long.
VECTORS_AT_ONCE, ROWS_AT_ONCE = 16, 1000
#: It reads no other file, fetches no extension, and leaves processors to the training beside it.
CONFIG = {
    "threads": 2,
    "memory_limit": "1GB",
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

#: What DuckDB says of a file that is none of its own, or not as it wrote it.
_DAMAGE = ("not a valid DuckDB", "checksum", "orrupt", "erialization")

_TABLES = """
CREATE TABLE IF NOT EXISTS document (path BLOB NOT NULL, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS content (digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS chunk (content BLOB NOT NULL, "first" BIGINT NOT NULL, "end" BIGINT NOT NULL,
    heading VARCHAR NOT NULL, text VARCHAR NOT NULL, passage BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS vector (passage BLOB NOT NULL, vector FLOAT[{dimensions}] NOT NULL);
"""
_SEARCH = """
WITH alive AS (SELECT content, min(path) AS path FROM document GROUP BY content),
seen AS (SELECT passage, min(path) AS path FROM chunk JOIN alive USING (content) GROUP BY passage),
near AS (SELECT passage, array_inner_product(vector, ?::FLOAT[{dimensions}]) AS score
    FROM vector JOIN seen USING (passage) ORDER BY score DESC, seen.path, passage LIMIT ?)
SELECT alive.path, chunk.content, chunk."first", chunk."end", chunk.heading, chunk.text, near.score
FROM near JOIN chunk USING (passage) JOIN alive USING (content)
ORDER BY near.score DESC, alive.path, chunk."first" LIMIT ?
"""


class Row(NamedTuple):
    """A chunk that was found, with a path at which its document is: the first in byte order."""

    path: bytes
    content: bytes
    start: int
    end: int
    heading: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Addition:
    """Documents' contents with all their chunks, and the vectors of those that had none, by their passage's digest."""

    contents: dict[bytes, list[Chunk]]
    vectors: dict[bytes, Sequence[float]]


def load_duckdb() -> Any:
    """Return DuckDB's module. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module("duckdb")
    except ImportError as error:
        raise UsageError("DuckDB is not installed here", hint="pip install duckdb") from error


class Index:
    """The index of one embedder and chunker in a folder. Its methods block, so they are called in a thread.

    :param checkpoint: called while another process is waited for; raises to stop.
    """

    def __init__(
        self, folder: Path, embedder: Identity, chunker: str, checkpoint: Callable[[], None] = lambda: None
    ) -> None:
        made_by = {"embedder": str(embedder), "chunker": chunker}
        told = json.dumps([FORMAT, embedder.name, embedder.version, embedder.dimensions, chunker]).encode()
        self.name = f"{hashlib.sha256(told).hexdigest()[:16]}.duckdb"
        self._folder, self._dimensions, self._made_by = folder, embedder.dimensions, made_by
        self._checkpoint = checkpoint
        self._duckdb = load_duckdb()

    def made_by_another(self) -> str | None:
        """Return what the current index was made with, if that is not this; None too if there is none."""
        current = _read_current(self._folder)
        if current is None or current.get("file") == self.name:
            return None
        return f"{current.get('embedder')}, {current.get('chunker')}"

    def known(self) -> tuple[set[bytes], set[bytes]]:
        """Return the digests of the contents and of the passages that are there. Makes the file if needed.

        :raises DamagedError: it is no index.
        """
        path = self._folder / self.name
        current = _read_current(self._folder)
        if path.exists() and (current is None or current.get("file") != self.name):
            self._drop_if_unfinished(path)

        def read(connection: Any) -> tuple[set[bytes], set[bytes]]:
            connection.execute(_TABLES.format(dimensions=self._dimensions))
            contents = set(_column(connection, "SELECT digest FROM content"))
            return contents, set(_column(connection, "SELECT passage FROM vector"))

        return self._use(read)

    def add(self, addition: Addition) -> None:
        """Add contents and vectors, in one transaction; they are not searched before ``publish``."""
        chunks = [
            (content, chunk.start, chunk.end, chunk.heading, chunk.text, chunk.digest)
            for content, found in addition.contents.items()
            for chunk in found
        ]
        vectors = list(addition.vectors.items())

        def write(connection: Any) -> None:
            _insert(connection, "content", ["BLOB"], [(digest,) for digest in addition.contents])
            _insert(connection, "chunk", ["BLOB", "BIGINT", "BIGINT", "VARCHAR", "VARCHAR", "BLOB"], chunks)
            _insert(connection, "vector", ["BLOB", f"FLOAT[{self._dimensions}]"], vectors, VECTORS_AT_ONCE)

        self._use(write)

    def publish(self, documents: Iterable[tuple[bytes, bytes]], *, forget: bool) -> tuple[int, int]:
        """Make ``(path, digest)`` the corpus that is searched; return how many documents are gone and chunks there.

        With ``forget`` what belongs to no document any more is removed. Indexes of other embedders are removed too.
        """
        rows = list(documents)

        def write(connection: Any) -> tuple[int, int]:
            before = set(_column(connection, "SELECT path FROM document"))
            connection.execute("DELETE FROM document")
            _insert(connection, "document", ["BLOB", "BLOB"], rows)
            if forget:
                connection.execute("DELETE FROM content WHERE digest NOT IN (SELECT content FROM document)")
                connection.execute("DELETE FROM chunk WHERE content NOT IN (SELECT content FROM document)")
                connection.execute("DELETE FROM vector WHERE passage NOT IN (SELECT passage FROM chunk)")
            alive = "SELECT count(*) FROM chunk WHERE content IN (SELECT content FROM document)"
            chunks = int(connection.execute(alive).fetchone()[0])
            return len(before - {path for path, _ in rows}), chunks

        found = self._use(write)
        write_atomic(self._folder / "index.json", json.dumps({"file": self.name, **self._made_by}).encode() + b"\n")
        for other in self._folder.glob("*.duckdb*"):
            if not other.name.startswith(self.name):
                other.unlink(missing_ok=True)
        return found

    def search(self, vector: Sequence[float], limit: int) -> list[Row]:
        """Return the ``limit`` nearest chunks, the best first, compared with every one. Equal ones in a fixed order.

        :raises NotFoundError: there is no index of this embedder and chunker.
        """
        current = _read_current(self._folder)
        if current is None:
            raise NotFoundError(f"{self._folder} holds no index", hint="await indexer.index_documents(...) first")
        if current.get("file") != self.name:
            raise NotFoundError(
                f"the index in {self._folder} was made with {self.made_by_another()}, "
                f"this is {self._made_by['embedder']}, {self._made_by['chunker']}",
                hint="search with what it was made with, or await indexer.index_documents(...) again",
            )
        sql = _SEARCH.format(dimensions=self._dimensions)

        def read(connection: Any) -> list[Row]:
            return [Row(*row) for row in connection.execute(sql, [list(vector), limit, limit]).fetchall()]

        return self._use(read, read_only=True)

    def _drop_if_unfinished(self, path: Path) -> None:
        """Remove a file that a killed process left before it was a database: nothing in it was ever searched."""
        try:
            self._use(lambda _: None)
        except DamagedError:
            path.unlink()
            path.with_name(f"{path.name}.wal").unlink(missing_ok=True)

    def _use(self, do: Callable[[Any], T], *, read_only: bool = False) -> T:
        """Return what ``do`` makes of a connection, in a transaction that is kept as a whole or not at all."""
        path = self._folder / self.name
        connection = self._open(path, read_only=read_only)
        try:
            connection.execute("BEGIN")
            found = do(connection)
            connection.execute("COMMIT")
            return found
        except self._duckdb.Error as error:
            raise _failure(path, error) from error
        finally:
            connection.close()

    def _open(self, path: Path, *, read_only: bool) -> Any:
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                return self._duckdb.connect(str(path), read_only=read_only, config=CONFIG)
            except self._duckdb.Error as error:
                said = _first_line(error)
                # The first: another process holds it; the second: another indexer of this process does.
                if "Conflicting lock" not in said and "different configuration" not in said:
                    raise _failure(path, error) from error
                if time.monotonic() > deadline:
                    raise StateError(f"{path} is in use: {said}", hint="end the process that holds it") from error
            self._checkpoint()
            time.sleep(BUSY_POLL_S)


def _column(connection: Any, sql: str) -> Iterator[bytes]:
    """Yield a query's only column."""
    cursor = connection.execute(sql)
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        yield from (row[0] for row in rows)


def _insert(
    connection: Any, table: str, types: Sequence[str], rows: Sequence[tuple[Any, ...]], at_once: int = ROWS_AT_ONCE
) -> None:
    """Insert rows by their columns, which takes a third of the time of one by one."""
    columns = ", ".join(f"unnest(?::{kind}[])" for kind in types)
    for i in range(0, len(rows), at_once):
        some = [list(column) for column in zip(*rows[i : i + at_once], strict=True)]
        connection.execute(f"INSERT INTO {table} SELECT {columns}", some)


def _read_current(folder: Path) -> dict[str, Any] | None:
    """Return what ``index.json`` says; None where there is none. Raises DamagedError."""
    try:
        found = json.loads((folder / "index.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DamagedError(
            f"{folder / 'index.json'} cannot be read: {error}", hint="remove it, and index again"
        ) from error
    return found if isinstance(found, dict) else {}


def _failure(path: Path, error: Exception) -> DamagedError | StateError:
    """Return the error that a failure of DuckDB's is: a damaged file, or one that cannot be used now."""
    said = _first_line(error)
    if any(word in said for word in _DAMAGE):
        return DamagedError(f"{path} is damaged: {said}", hint="remove the folder of the index, and index again")
    return StateError(f"{path} cannot be used: {said}", hint="may it be written, and is there free space?")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
