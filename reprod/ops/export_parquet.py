"""A version as a Parquet table: one row for each file and symlink of the set, in path order.

Columns: ``path`` (the raw bytes), ``path_text`` (for people: what is not UTF-8 as ``\\xNN``), ``kind`` (``file`` or
``link``), ``size`` in bytes, ``mtime`` in nanoseconds UTC, ``mode`` (permission bits), ``sha256`` (32 bytes; that of a
link's target), and one column for each further algorithm. pyarrow is optional and imported here only.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from reprod.core.claims import DIGEST_SIZES
from reprod.core.entry import Entry, Kind, display
from reprod.errors import UsageError
from reprod.ops.export_set import UNKNOWN, Source

#: Rows held at once and written as one group: some 60 MB while they are converted, however many there are.
GROUP = 20_000

_KINDS = {Kind.FILE: "file", Kind.LINK: "link"}


def require_pyarrow() -> None:
    """Raise UsageError where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--format parquet needs pyarrow, which is not installed here",
            hint="pip install pyarrow, or choose another --format",
        ) from error


def pieces(source: Source, entries: Iterator[Entry]) -> Iterator[bytes]:
    """Yield the bytes of the table, group by group."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(pa, source)
    held = _Held()
    # Dictionaries of paths and digests, which never repeat, would only be built to be given up.
    with parquet.ParquetWriter(held, schema, compression="zstd", use_dictionary=["kind"]) as writer:
        members = (entry for entry in entries if entry.content.kind in _KINDS)
        while (columns := _columns(list(islice(members, GROUP)), source.more))["path"]:
            writer.write_table(pa.table(columns, schema=schema))
            del columns  # or two groups are held while the next one is gathered
            yield held.take()
    yield held.take()


def _schema(pa: Any, source: Source) -> Any:
    fields = [
        pa.field("path", pa.binary(), nullable=False),
        pa.field("path_text", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("mtime", pa.timestamp("ns", tz="UTC")),
        pa.field("mode", pa.int32()),
        pa.field("sha256", pa.binary(32), nullable=False),
        *(pa.field(name, pa.binary(DIGEST_SIZES[name])) for name in source.more),
    ]
    said = {"reprod.name": source.name, "reprod.version": source.seq, "reprod.digest": source.digest}
    return pa.schema(fields, {key: str(value) for key, value in said.items() if value is not None})


def _columns(rows: list[Entry], more: tuple[str, ...]) -> dict[str, list[Any]]:
    known = [row.mode != 0 or row.mtime_ns != 0 for row in rows]  # a manifest may state neither
    return {
        "path": [row.path for row in rows],
        "path_text": [display(row.path) for row in rows],
        "kind": [_KINDS[row.content.kind] for row in rows],
        "size": [row.content.size if row.content.size != UNKNOWN else None for row in rows],
        "mtime": [row.mtime_ns if stated else None for row, stated in zip(rows, known, strict=True)],
        "mode": [row.mode & 0o7777 if stated else None for row, stated in zip(rows, known, strict=True)],
        "sha256": [row.content.sha256 for row in rows],
        **{name: [row.content.more.get(name) for row in rows] for name in more},
    }


class _Held:
    """A file to pyarrow: keeps what it writes until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing waits elsewhere."""

    def close(self) -> None:
        """What was written stays to be taken."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces = []
        return taken
