"""A dataset with its database, a watch that a test scripts, and what every refresh must leave true."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import oracle

from reprod.config import DatasetConfig
from reprod.core import digest
from reprod.core.entry import Content, Kind
from reprod.ops.plan import Order
from reprod.ops.refresh import Hints, Report, Settings, refresh
from reprod.store import listing, timeline, versions
from reprod.store.connection import Database, open_database

KINDS = {Kind.FILE: "file", Kind.LINK: "link"}


class ScriptedWatch:
    """A watch whose word is what the test says: hints with the time they were seen, whole or not."""

    def __init__(self) -> None:
        self.whole_ns: int | None = time.time_ns()
        self.seen: dict[bytes, int] = {}
        self.leased: dict[bytes, int] = {}
        self.closed: frozenset[bytes] = frozenset()
        self.before_settled: Callable[[], None] = lambda: None

    def hint(self, *paths: bytes) -> None:
        now = time.time_ns()
        for path in paths:
            self.seen.setdefault(path, now)

    def whole_since_ns(self) -> int | None:
        return self.whole_ns

    def hints(self) -> Hints:
        return Hints(dict(self.leased), False, min(self.leased.values(), default=None), self.closed)

    def settled(self) -> Hints:
        self.before_settled()
        both = {**self.seen, **self.leased}
        return Hints(both, False, min(both.values(), default=None))

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hints are taken out for a refresh, and come back with their times if it fails."""
        self.leased, self.seen = self.seen, {}
        try:
            yield
        except BaseException:
            self.seen = {**self.seen, **self.leased}
            raise
        finally:
            self.leased = {}


class Place:
    """One real directory, one real database, and the calls that tests make on them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "data"
        self.root.mkdir()
        self.state = base / "state"
        self.state.mkdir()
        self.config = DatasetConfig("data", str(self.root))
        self.watch = ScriptedWatch()
        self._opened: list[Database] = []
        self.db = self.restart()

    @property
    def raw(self) -> bytes:
        return os.fsencode(self.root)

    def path(self, relative: bytes) -> bytes:
        return os.path.join(self.raw, relative) if relative else self.raw

    def write(self, relative: str, data: bytes | str) -> Path:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def restart(self) -> Database:
        """Open the database anew, abandoning the old connection as a killed process would."""
        self.db = open_database(self.state / "data.sqlite", "dataset")
        self._opened.append(self.db)
        return self.db

    def refresh(
        self,
        paths: frozenset[bytes] | None = None,
        *,
        watched: bool = True,
        checkpoint: Callable[[], None] = lambda: None,
        rehash: bool = False,
        accept_root: bool = False,
        config: DatasetConfig | None = None,
    ) -> Report:
        with self.watch.lease():
            return refresh(
                self.db,
                config or self.config,
                Order(paths, rehash, accept_root),
                Settings(str(self.state), 2),
                watch=self.watch if watched else None,
                checkpoint=checkpoint,
            )

    def marks(self) -> list[object]:
        return list(self.db.read(timeline.marks))

    def contents(self, seq: int) -> oracle.Contents:
        return as_contents({e.path: e.content for e in self.db.read(lambda c: list(listing.entries(c, seq)))})

    def assert_equals_disk(self) -> oracle.Contents:
        """The newest version is what an independent full read finds: digest, counts and contents."""
        newest = self.db.read(versions.newest)
        truth = oracle.scan(self.raw)
        assert newest is not None
        assert self.contents(newest.seq) == truth
        assert newest.digest is not None
        assert digest.text(newest.digest) == oracle.dt1(truth)
        assert newest.files == sum(kind == "file" for kind, _, _ in truth.values())
        assert newest.size == sum(size for kind, size, _ in truth.values() if kind == "file")
        return truth

    def close(self) -> None:
        for db in self._opened:
            db.close()


def as_contents(entries: dict[bytes, Content]) -> oracle.Contents:
    """The product's contents in the oracle's words, without what is no part of a set."""
    return {
        path: (KINDS[c.kind], c.size, c.sha256 or b"")
        for path, c in entries.items()
        if c.kind in KINDS and c.problem is None
    }
