"""What is kept and why, what goes and how, and that nothing else ever does."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from history_store import DAY, HOUR, HistoryStore

from reprod.config import StoreConfig
from reprod.core import digest
from reprod.core.entry import Kind
from reprod.errors import DamagedError, IncompleteError, NotFoundError, UsageError
from reprod.ops import diff, history, prune, verify
from reprod.ops.chain import verify_chain
from reprod.ops.prune import Claims, Step, choose
from reprod.store import files, listing, retention, versions
from reprod.store.connection import Database, open_database
from reprod.store.retention import Sealed

NOW = 20_000 * DAY + 12 * HOUR
NAMES = [f"d{i % 20}__n{i}" for i in range(400)]


def spans(*ages: int, incomplete: tuple[int, ...] = ()) -> list[Sealed]:
    """Versions 1, 2, ... sealed so long before NOW, each the disk's state until the next."""
    at = [NOW - age for age in ages]
    until = [*at[1:], None]
    return [Sealed(i + 1, at[i], until[i], i + 1 not in incomplete) for i in range(len(at))]


@pytest.mark.parametrize(
    ("sealed", "store", "claims", "kept"),
    [
        pytest.param([], StoreConfig(), Claims(), {}, id="nothing"),
        pytest.param(spans(900 * DAY), StoreConfig(0, 0), Claims(), {1: "newest"}, id="the newest, however old"),
        pytest.param(
            spans(9 * DAY, 8 * DAY, 3 * DAY),
            StoreConfig(7, 0),
            Claims(),
            {2: "recent", 3: "newest"},
            id="what the disk held within the days counts, not when it was sealed",
        ),
        pytest.param(
            spans(5 * HOUR, 2 * HOUR, HOUR // 2, 1),
            StoreConfig(0, 0),
            Claims(),
            {2: "recent", 3: "recent", 4: "newest"},
            id="the last hour stays whatever is configured",
        ),
        pytest.param(
            spans(50 * DAY, 40 * DAY, 30 * DAY, 20 * DAY, 0),
            StoreConfig(7, 0),
            Claims(frozenset({2}), NOW - 25 * DAY),
            {2: "run", 3: "waiting", 4: "recent", 5: "newest"},
            id="runs, and since when one waits",
        ),
        pytest.param(
            spans(30 * DAY + 2 * HOUR, 30 * DAY + HOUR, 30 * DAY, 29 * DAY + HOUR, 29 * DAY, 0),
            StoreConfig(7, 30),
            Claims(),
            {3: "daily", 5: "recent", 6: "newest"},
            id="the last of each day",
        ),
        pytest.param(
            spans(91 * DAY, 89 * DAY, 88 * DAY, 8 * DAY, 7 * DAY + HOUR, 0),
            StoreConfig(7, 90),
            Claims(),
            {2: "daily", 3: "daily", 4: "daily", 5: "recent", 6: "newest"},
            id="the days of the daily ones are counted from now",
        ),
        pytest.param(
            spans(30 * DAY + HOUR, 30 * DAY, 20 * DAY, 19 * DAY, incomplete=(2, 4)),
            StoreConfig(7, 60),
            Claims(),
            {1: "daily", 3: "newest", 4: "newest"},
            id="a complete one before a later one that is not; the newest complete one stays",
        ),
        pytest.param(
            spans(30 * DAY, -400 * DAY, 20 * DAY, 10 * DAY),
            StoreConfig(7, 0),
            Claims(),
            {1: "recent", 2: "recent", 4: "newest"},
            id="a clock that was ahead loses nothing",
        ),
    ],
)  # fmt: skip
def test_what_is_kept_and_why(sealed: list[Sealed], store: StoreConfig, claims: Claims, kept: dict[int, str]) -> None:
    """The strongest reason for each version that stays."""
    assert choose(sealed, store, claims, NOW) == kept


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HistoryStore]:
    """120 days of four versions a day: a hundred names, forty of them changed each time."""
    found = HistoryStore(tmp_path)
    now = time.time_ns()
    held = dict.fromkeys(NAMES[:100], 1)
    for number in range(480):
        for i in range(40):
            name = NAMES[(number * 7 + i * 11) % 100]
            if name in held and (number + i) % 5 == 0:
                del held[name]
            else:
                held[name] = 1 + (number + i) % 97
        found.seal(now - 120 * DAY + number * DAY // 4, **held)
    yield found
    found.close()


def expected(store: HistoryStore, *pinned: int) -> list[int]:
    """The versions that a prune of the fixture's history must leave, by the documented rule."""
    sealed = store.opened["data"].read(versions.versions)
    now = time.time_ns()
    last_of_day = {v.sealed_ns // DAY: v for v in sealed}
    kept = {v.seq for v in last_of_day.values() if now - v.sealed_ns <= 90 * DAY} | {sealed[-1].seq} | set(pinned)
    return sorted(kept | {a.seq for a, b in itertools.pairwise(sealed) if now - b.sealed_ns <= 7 * DAY})


def run_prune(store: HistoryStore, *, dry_run: bool = False, step: Step | None = None) -> dict[str, object]:
    return prune.prune(store.state, store.records, "data", store.store, dry_run=dry_run, step=step)


def assert_whole(store: HistoryStore) -> list[int]:
    """Every kept version is what it was and gives its digest again; the others answer nothing."""
    db = store.opened["data"]
    kept = []
    for version in db.read(versions.versions):
        if version.pruned:
            with pytest.raises(IncompleteError):
                store.told(version.seq)
            continue
        kept.append(version.seq)
        told = store.told(version.seq)
        assert told == store.held[version.seq]
        assert digest.tree({p: (s[0] == Kind.LINK, s[2]) for p, s in told.items()}) == version.digest
    for a, b in itertools.pairwise(kept):
        left, right = db.read(lambda c, a=a, b=b: versions.contents_between(c, a, b))  # type: ignore[misc]
        before, after = store.held[a], store.held[b]
        assert {p: c.sha256 for p, c in right.items() if p in left} == {
            p: after[p][2] for p in before.keys() & after.keys() if before[p][:3] != after[p][:3]
        }
    return kept


def test_a_prune_keeps_what_it_must_and_gives_the_rest_back(store: HistoryStore) -> None:
    """Digests of kept versions recompute, the chain over all records holds, and the file shrinks (tests 20, 23)."""
    store.run("old", data=3)
    store.run("older", data=200)
    before = store.opened["data"].read(retention.summary)
    planned = run_prune(store, dry_run=True)
    assert store.opened["data"].read(retention.summary) == before
    report = run_prune(store)
    assert report["pruned"] == planned["pruned"]
    kept = assert_whole(store)
    assert {3, 200, 480} <= set(kept)
    assert report["kept_versions"] == len(kept)
    assert kept == expected(store, 3, 200)
    assert len(report["pruned"]) == 480 - len(kept)  # type: ignore[arg-type]
    chain = verify_chain(store.state, "data", contents=True)
    assert (chain["valid"], chain["versions"], chain["contents_checked"]) == (True, 480, len(kept))
    after = store.opened["data"].read(retention.summary)
    assert after.used_bytes == after.file_bytes < before.file_bytes * 0.85
    assert (after.kept, after.pruned) == (len(kept), 480 - len(kept))
    assert run_prune(store)["pruned"] == []


def test_a_forgotten_version_is_not_provable_anywhere(store: HistoryStore) -> None:
    """Not in verify, diff, entries, a pin or a reference; log still tells that there was one."""
    pruned = run_prune(store)["pruned"]
    assert isinstance(pruned, list)
    seq, kept = pruned[-1], assert_whole(store)[0]
    rows = {row["version"]: row for row in history.log(store.state, "data")}
    assert rows[seq]["pruned"]
    assert rows[seq]["digest"] is not None
    assert not rows[kept]["pruned"]
    for ask in (
        lambda: verify.verify(store.state, store.config, f"data@{seq}", None, "full", lambda: None),
        lambda: diff.diff(store.state, store.config, f"data@{seq}", f"data@{kept}"),
        lambda: diff.diff(store.state, store.config, f"data@{kept}", f"data@{seq}"),
        lambda: store.opened["data"].write(lambda c: versions.pin(c, seq, "u#r", 1)),
    ):
        with pytest.raises(IncompleteError) as caught:
            ask()
        assert f"{seq} was pruned" in caught.value.message
    with pytest.raises(NotFoundError):
        store.told(481)
    with pytest.raises(UsageError):
        diff.diff(store.state, store.config, "data@x", "data")


def test_the_cap_takes_the_oldest_daily_ones_and_nothing_else(store: HistoryStore) -> None:
    """One by one until the file fits; what runs used, and the last days, stay although it does not fit then."""
    store.run("old", data=10)
    run_prune(store)
    before = assert_whole(store)
    used = store.opened["data"].read(retention.used_bytes)
    store.store = StoreConfig(max_gb=used * 0.9 / 1e9)
    report = run_prune(store)
    left = assert_whole(store)
    assert report["over_bytes"] == 0
    assert 0 < len(report["pruned"]) < 80  # type: ignore[arg-type]
    daily = [seq for seq in before if seq != 10]
    assert report["pruned"] == daily[: len(report["pruned"])]  # type: ignore[arg-type]
    store.store = StoreConfig(max_gb=1e-6)
    report = run_prune(store)
    assert isinstance(report["kept"], dict)
    assert (report["kept"]["run"], report["kept"]["daily"]) == (1, 0)
    assert report["kept"]["recent"] >= 27
    assert isinstance(report["over_bytes"], int)
    assert report["over_bytes"] > 0
    assert set(assert_whole(store)) < set(left)


def test_a_run_that_waits_holds_what_it_may_have_started_on(store: HistoryStore) -> None:
    """Noticed and not bound yet: everything since its start stays, and goes once it is bound."""
    store.store = StoreConfig(keep_days=0, keep_daily_days=0)
    start = time.time_ns() - 30 * DAY
    store.run("waits", at=start, data=None)
    report = run_prune(store)
    kept = report["kept"]
    assert isinstance(kept, dict)
    assert kept["waiting"] >= 119
    store.records.write(lambda c: c.execute("UPDATE delivery SET state = 'done', outcome = 'captured'"))
    assert run_prune(store)["kept_versions"] == 1
    assert_whole(store)


def test_a_void_pin_goes_and_an_unknown_one_stays(store: HistoryStore) -> None:
    """A run that was bound to another version in the end frees the first; one that nobody knows frees nothing."""
    store.store = StoreConfig(keep_days=0, keep_daily_days=0)
    store.run("again", data=7)
    db = store.opened["data"]
    db.write(lambda c: versions.pin(c, 5, "u#again", 1))
    db.write(lambda c: versions.pin(c, 6, "u#again", time.time_ns()))  # perhaps its snapshot is being written now
    db.write(lambda c: versions.pin(c, 8, "u#forgotten", 1))
    run_prune(store)
    assert assert_whole(store) == [6, 7, 8, 480]


def test_stopped_anywhere_it_goes_on(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any number of steps all kept versions are whole, and another prune ends where one in peace would have."""
    monkeypatch.setattr(prune, "ROWS_A_STEP", 40)
    monkeypatch.setattr(prune, "PAGES_A_STEP", 3)

    class StoppedError(Exception):
        """Raised in the place of a kill."""

    planned = run_prune(store, dry_run=True)["pruned"]
    for steps in (1, 2, 3, 20, 60):
        left = iter(range(steps))

        def stop(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise StoppedError

        with pytest.raises(StoppedError):
            run_prune(store, step=Step(checkpoint=stop))
        assert_whole(store)
    run_prune(store)
    kept = assert_whole(store)
    assert sorted(set(range(1, 481)) - set(kept)) == planned
    assert store.opened["data"].read(lambda c: c.execute("PRAGMA freelist_count").fetchone()[0]) == 0


def test_killed_in_the_middle(store: HistoryStore) -> None:
    """SIGKILL while steps are taken: the file is sound, every kept version is whole, and the next prune ends it."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom reprod.config import StoreConfig\n"
        "from reprod.ops import prune\nfrom reprod.store import files\nprune.ROWS_A_STEP = 20\n"
        "state = Path(sys.argv[1])\n"
        "records = files.open_registry(state).db\nprint('ready', flush=True)\n"
        "prune.prune(state, records, 'data', StoreConfig(), step=prune.Step(rest=lambda s: time.sleep(0.001)))\n"
    )
    for wait_s in (0.02, 0.2):
        with subprocess.Popen([sys.executable, "-c", script, str(store.state)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(wait_s)
            os.kill(process.pid, signal.SIGKILL)
        check = store.opened["data"].read(lambda c: c.execute("PRAGMA integrity_check").fetchone()[0])
        assert check == "ok"
        assert_whole(store)
    run_prune(store)
    assert assert_whole(store) == expected(store)
    assert verify_chain(store.state, "data", contents=True)["valid"]


def test_readers_and_seals_go_on_meanwhile(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees a lock: readers get old or new and never a mixture, seals come in between (test 25)."""
    monkeypatch.setattr(prune, "ROWS_A_STEP", 100)
    errors: list[BaseException] = []
    reads = 0
    done = threading.Event()

    def read() -> None:
        nonlocal reads
        db, _ = files.open_dataset_readonly(store.state, "data")
        try:
            while not done.is_set() or not reads:
                newest = db.read(versions.newest)
                assert newest is not None
                assert newest.digest == _digest_of(db, newest.seq)
                reads += 1
        except BaseException as error:  # noqa: BLE001 - the test's own thread tells it below
            errors.append(error)
        finally:
            db.close()

    def forget() -> None:
        try:
            prune.prune(store.state, store.records, "data", store.store)
        except BaseException as error:  # noqa: BLE001 - the test's own thread tells it below
            errors.append(error)

    threads = [threading.Thread(target=read), threading.Thread(target=forget)]
    for thread in threads:
        thread.start()
    for number in range(60):
        store.seal(time.time_ns(), a=number + 1, b=number // 2 + 1)
    threads[1].join(60)
    done.set()
    threads[0].join(60)
    assert errors == []
    assert reads > 0
    assert assert_whole(store) == expected(store)


def _digest_of(db: Database, seq: int) -> bytes:
    found = db.read(lambda c: list(listing.entries(c, seq)))
    return digest.tree({e.path: (e.content.kind is Kind.LINK, e.content.sha256 or b"") for e in found})


def test_nothing_is_kept_of_what_never_was(store: HistoryStore) -> None:
    """An unknown name is an error; what is registered and was never scanned is left out."""
    with pytest.raises(NotFoundError):
        prune.prune(store.state, store.records, "nope", store.store)
    assert prune.prunable(store.state, store.records) == ["data"]
    store.open("empty")
    assert prune.prune(store.state, store.records, "empty", store.store)["kept_versions"] == 0


def test_a_file_gives_space_back_in_steps(tmp_path: Path) -> None:
    """The setting that this needs is written when a file is made; a later open does not change it."""
    with_rows = open_database(tmp_path / "x.sqlite", "dataset")
    assert with_rows.read(lambda c: c.execute("PRAGMA auto_vacuum").fetchone()[0]) == 2
    with_rows.close()


def test_a_dry_run_only_reads(tmp_path: Path) -> None:
    """Without a daemon a damaged registry stays where it is, and a dry run changes no byte of any file."""
    store = HistoryStore(tmp_path)
    store.seal(time.time_ns() - 200 * DAY, a=1)
    store.seal(time.time_ns() - 199 * DAY, a=2)
    store.seal(time.time_ns() - DAY, a=3)
    store.close()

    def told() -> dict[str, bytes]:
        kept = (p for p in store.state.rglob("*") if p.is_file() and not p.name.endswith(("-shm", "-wal")))
        return {str(p): p.read_bytes() for p in kept}

    before = told()
    assert [r["pruned"] for r in prune.prune_here(store.state, None, StoreConfig(0, 0), dry_run=True)] == [[1, 2]]
    assert told() == before
    with open(store.state / "registry.sqlite", "r+b") as file:
        file.write(b"\0" * 100)
    before = told()
    with pytest.raises(DamagedError):
        prune.prune_here(store.state, None, StoreConfig(), dry_run=True)
    assert told() == before


def test_nothing_is_made_by_asking(tmp_path: Path) -> None:
    """All is nothing, one by name is not known; an empty name is no name."""
    for name in ("x", ""):
        with pytest.raises(NotFoundError):
            prune.prune_here(tmp_path, name, StoreConfig())
    assert prune.prune_here(tmp_path, None, StoreConfig()) == []
    assert list(tmp_path.iterdir()) == []
