"""What history costs: bytes a file and a change in the database, the difference of versions, an old version again.

A dataset of tiny files gets versions that each change 1 % of it, as 80 % changes, 10 % new files, 10 % deletions. The
times are those of the verbs as the command line calls them, opening the database included.
"""

import os
import random
import time
from pathlib import Path

from bench import Bench
from daemon import write_config
from material import tiny_files
from measure import in_turn, one, seconds
from table import Target

from reprod.config import Config, load
from reprod.ops.diff import diff
from reprod.ops.plan import Order
from reprod.ops.refresh import Settings, refresh
from reprod.store import files, listing, registry

SHARE = 0.01  # of the files, in each version


class Past:
    """A dataset with a history, in a STATE of its own."""

    def __init__(self, bench: Bench) -> None:
        home = bench.folder / "history"
        self.root = tiny_files(home / "data", bench.history_files)
        self.state = home / "state"
        self._file = write_config(home, self.root)
        self._random = random.Random(3)
        self._names = sorted(p.relative_to(self.root) for p in self.root.rglob("*.bin"))
        self._fresh = 0
        self.changes = 0

    def config(self) -> Config:
        """Return the configuration."""
        return load(str(self._file), tracking=False)

    def refresh(self, paths: frozenset[bytes] | None) -> None:
        """Seal a version, and leave the database folded and closed."""
        records = files.open_registry(self.state).db
        db = files.open_dataset(self.state, records, "bench", os.fsencode(self.root)).db
        dataset = self.config().datasets[0]
        report = refresh(db, dataset, Order(paths), Settings(str(self.state)))
        if not report.sealed:
            raise RuntimeError("a version was not sealed")
        records.write(lambda c: registry.sealed(c, "bench", report.version))
        db.close()
        records.close()

    def step(self) -> None:
        """Make the next version."""
        share = max(10, int(len(self._names) * SHARE))
        picked = self._random.sample(self._names, share)
        gone, changed = picked[: share // 10], picked[share // 10 : share - share // 10]
        fresh = [Path(changed[0].parent) / f"n{self._fresh + i:07}.bin" for i in range(share // 10)]
        self._fresh += len(fresh)
        for name in gone:
            (self.root / name).unlink()
        for name in [*changed, *fresh]:
            (self.root / name).write_bytes(os.urandom(16))
        left = set(gone)
        self._names = [*(n for n in self._names if n not in left), *fresh]
        self.changes += len(gone) + len(changed) + len(fresh)
        time.sleep(0.03)
        self.refresh(frozenset(os.fsencode(p) for p in (*gone, *changed, *fresh)))

    def bytes(self) -> int:
        """Return the size of the dataset's database."""
        return sum(p.stat().st_size for p in (self.state / "datasets").glob("bench.sqlite*"))

    def entries(self, seq: int) -> int:
        """Read a version's entries; return how many there are."""
        db, _ = files.open_dataset_readonly(self.state, "bench")
        try:
            return db.read(lambda c: sum(1 for _ in listing.entries(c, seq)))
        finally:
            db.close()


def history(bench: Bench) -> None:
    """Measure a database with many versions."""
    past = Past(bench)
    past.refresh(None)
    first = past.bytes()
    bench.table.add(
        f"database, a file ({bench.history_files:,} files)",
        one(first / bench.history_files), "B", target=Target("180 B", "150 B"),
    )  # fmt: skip
    for _ in range(bench.versions - 1):
        past.step()
    last = bench.versions
    grown = (past.bytes() - first) / past.changes
    bench.table.add(f"database, a change ({last} versions of 1 %)", one(grown), "B", target=Target("130 B", "104 B"))
    config = past.config()
    adjacent, far, again = in_turn(
        max(5, bench.rounds),
        lambda: 1000 * seconds(lambda: diff(past.state, config, f"bench@{last - 1}", f"bench@{last}")),
        lambda: 1000 * seconds(lambda: diff(past.state, config, "bench@1", f"bench@{last}")),
        lambda: 1000 * seconds(lambda: past.entries((1 + last) // 2)),
    )
    share = past.changes // (last - 1)
    bench.table.add(f"diff of adjacent versions, {share:,} changes", adjacent, "ms", target=Target("50 ms", "10 ms"))
    bench.table.add(f"diff of versions 1 and {last}", far, "ms")
    bench.table.add(f"all entries of version {(1 + last) // 2}", again, "ms")
