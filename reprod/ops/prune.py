"""The verb that forgets old versions: what is kept and why, and the small steps by which the rest goes.

Kept is the newest version and the newest complete one; what the disk held within ``keep_days``; what a run refers to;
the last of each UTC day for ``keep_daily_days``. Only the daily ones yield to ``max_gb``. A version belongs to the time
until its successor was sealed: one of last year that was superseded an hour ago is what a run of two hours ago started
on. Times are Unix nanoseconds, sizes bytes.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args

from reprod.config import StoreConfig
from reprod.errors import NotFoundError, StateError
from reprod.store import files, meta, registry, retention, uses
from reprod.store.connection import Database, open_database, open_readonly
from reprod.store.retention import Sealed

Why = Literal["newest", "recent", "waiting", "run", "daily"]

T = TypeVar("T")

DAY_NS = 86_400_000_000_000

#: Kept whatever the configuration says. A run is bound within seconds of its start where all is well; a tracking
#: server that was away is polled every five minutes, and a first walk of a large set takes its time. Runs that were
#: noticed and wait for longer are known by their rows (``waiting``).
FLOOR_NS = 3_600_000_000_000

#: A pin is written just before the snapshot that it is for; until so long afterwards nobody calls it void.
PIN_GRACE_NS = FLOOR_NS

#: What one transaction takes: folding costs 10 to 20 us a row and a commit one ms, so a seal never waits noticeably.
ROWS_A_STEP = 500
PAGES_A_STEP = 500


@dataclass(frozen=True, slots=True)
class Claims:
    """What others need of a dataset: versions that runs refer to, and since when a run waits for its version."""

    pinned: frozenset[int] = frozenset()
    waiting_since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a caller does around each step: ``checkpoint`` raises to stop, ``rest`` lets others work (seconds taken)."""

    checkpoint: Callable[[], None] = lambda: None
    rest: Callable[[float], None] = lambda _: None


def choose(sealed: Sequence[Sealed], store: StoreConfig, claims: Claims, now_ns: int) -> dict[int, Why]:
    """Return which versions are kept, each with its strongest reason; ``sealed`` are those not forgotten, by number."""
    last_of_day: dict[int, Sealed] = {}
    for version in sealed:
        day = version.sealed_ns // DAY_NS
        if version.complete or day not in last_of_day or not last_of_day[day].complete:
            last_of_day[day] = version
    daily = {v.seq for v in last_of_day.values() if now_ns - v.sealed_ns <= store.keep_daily_days * DAY_NS}
    newest = {v.seq for v in (*sealed[-1:], *[v for v in sealed if v.complete][-1:])}
    recent_ns = now_ns - max(FLOOR_NS, int(store.keep_days * DAY_NS))
    waiting_ns = claims.waiting_since_ns if claims.waiting_since_ns is not None else now_ns + DAY_NS
    kept: dict[int, Why] = {}
    for version in sealed:
        # The clock may have been set back since: then it was sealed later than its successor.
        until_ns = max(version.sealed_ns, now_ns if version.until_ns is None else version.until_ns)
        reasons: dict[Why, bool] = {
            "newest": version.seq in newest,
            "recent": until_ns >= recent_ns,
            "waiting": until_ns >= waiting_ns,
            "run": version.seq in claims.pinned,
            "daily": version.seq in daily,
        }
        why = next((why for why, holds in reasons.items() if holds), None)
        if why is not None:
            kept[version.seq] = why
    return kept


def prune(
    state: Path, records: Database, name: str, store: StoreConfig, *, dry_run: bool = False, step: Step | None = None
) -> dict[str, Any]:
    """Forget what need not be kept of one dataset, and return what was done (with ``dry_run``: would be).

    Interrupted anywhere, every kept version is still whole, and the next call goes on.

    :raises NotFoundError: no dataset of that name was ever scanned here.
    """
    step = step or Step()
    known = records.read(lambda c: registry.dataset(c, name))
    if known is None or not _has_file(state, known):
        nothing_kept(name)
    path = _file(state, known)
    db = open_readonly(path) if dry_run else open_database(path, "dataset")
    try:
        before = db.read(retention.summary)
        claims, void = _claims(db, records, name)
        now_ns = time.time_ns()
        sealed = db.read(retention.sealed)
        kept = choose(sealed, store, claims, now_ns)
        gone = [v.seq for v in sealed if v.seq not in kept]
        cap = int(store.max_gb * 1e9)
        if dry_run:
            gone += _first_over_cap(db, kept, before, cap, len(gone))
        else:
            db.write(lambda c: retention.unpin(c, void))
            gone = _forget(db, gone, step)
            gone += _shrink(db, kept, cap, step)
            while _write(db, step, partial(retention.give_back, pages=PAGES_A_STEP)):
                pass
            db.write(lambda c: meta.write(c, pruned_ns=now_ns))
        after = before if dry_run else db.read(retention.summary)
    finally:
        db.close()
    return _report(name, kept, gone, before, after, cap, dry_run=dry_run)


def prunable(state: Path, records: Database) -> list[str]:
    """Return the datasets that are registered and have a history."""
    known = records.read(registry.datasets)
    return [each.name for each in known if each.removed_ns is None and _has_file(state, each)]


def prune_here(state: Path, name: str | None, store: StoreConfig, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Prune one dataset or all without a daemon; the registry is only read, and a damaged one stays where it is.

    :raises NotFoundError: no dataset of that name was ever scanned here. :raises StateError, DamagedError: the history
        cannot be read.
    """
    try:
        records = files.open_registry_readonly(state)
    except NotFoundError:
        return [] if name is None else nothing_kept(name)
    with closing(records):
        names = [name] if name is not None else prunable(state, records)
        return [prune(state, records, each, store, dry_run=dry_run) for each in names]


def nothing_kept(name: str) -> NoReturn:
    """Say that there is no such dataset. Raises NotFoundError, always."""
    raise NotFoundError(f"nothing is kept of a dataset named {name!r}", hint="reprod dataset list")


def _file(state: Path, known: registry.KnownDataset) -> Path:
    return state / "datasets" / known.file


def _has_file(state: Path, known: registry.KnownDataset) -> bool:
    """Whether a dataset has a history. Raises StateError."""
    try:
        return _file(state, known).exists()
    except OSError as error:
        raise StateError(f"cannot look into {state}: {error.strerror}", hint="check its permissions") from error


def _claims(db: Database, records: Database, name: str) -> tuple[Claims, list[retention.Pin]]:
    """Return what runs need, and the pins that are void: their run's snapshots are frozen and refer to other versions.

    A pin of a run that the registry does not know stays: the registry may have been lost, the run not.
    """
    pins = db.read(retention.pins)
    used = records.read(lambda c: {(use.owner, use.seq) for use in uses.uses(c, name)})
    frozen = records.read(uses.published_owners)
    old_ns = time.time_ns() - PIN_GRACE_NS
    void = [p for p in pins if p.owner in frozen and (p.owner, p.seq) not in used and p.made_ns < old_ns]
    pinned = {p.seq for p in pins if p not in void} | {seq for _, seq in used}
    return Claims(frozenset(pinned), records.read(lambda c: uses.unproven_since_ns(c, name))), void


def _forget(db: Database, seqs: Iterable[int], step: Step) -> list[int]:
    """Mark versions, then fold their rows away; returns those that nobody had claimed meanwhile."""
    wanted = list(seqs)
    gone: list[int] = []
    while wanted:
        some, wanted = wanted[:ROWS_A_STEP], wanted[ROWS_A_STEP:]
        gone += _write(db, step, partial(retention.forget, seqs=some))
    while _write(db, step, partial(retention.fold, rows=ROWS_A_STEP)):
        pass
    _sweep(db, step)
    return gone


def _sweep(db: Database, step: Step) -> None:
    after: int | None = 0
    while after is not None:
        after = _write(db, step, partial(retention.sweep, after=after, rows=ROWS_A_STEP))
    while _write(db, step, partial(retention.sweep_directories, rows=ROWS_A_STEP)):
        pass


def _shrink(db: Database, kept: dict[int, Why], cap: int, step: Step) -> list[int]:
    """Let the oldest daily versions go, one by one, while the file holds more than ``cap``."""
    gone: list[int] = []
    for seq in sorted(seq for seq, why in kept.items() if why == "daily"):
        if not cap or db.read(retention.used_bytes) <= cap:
            break
        gone += _forget(db, [seq], step)
    for seq in gone:
        del kept[seq]
    return gone


def _first_over_cap(db: Database, kept: dict[int, Why], before: retention.Summary, cap: int, already: int) -> list[int]:
    """Return which daily versions would go, as if each version held as many rows of history as the others."""
    each = before.rows / max(1, before.kept) * retention.HISTORY_ROW_BYTES
    left = before.used_bytes - already * each
    gone = []
    for seq in sorted(seq for seq, why in kept.items() if why == "daily"):
        if not cap or left <= cap:
            break
        gone.append(seq)
        left -= each
    for seq in gone:
        del kept[seq]
    return gone


def _write(db: Database, step: Step, change: Callable[[files.Connection], T]) -> T:
    """Take one step."""
    step.checkpoint()
    began = time.monotonic()
    result = db.write(change)
    step.rest(time.monotonic() - began)
    return result


def _report(
    name: str,
    kept: dict[int, Why],
    gone: list[int],
    before: retention.Summary,
    after: retention.Summary,
    cap: int,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    return {
        "name": name,
        "dry_run": dry_run,
        "pruned": sorted(gone),
        "pruned_before": before.pruned,
        "kept": {why: sum(1 for each in kept.values() if each == why) for why in get_args(Why)},
        "kept_versions": len(kept),
        "bytes_before": before.used_bytes,
        "bytes": None if dry_run else after.used_bytes,
        "max_bytes": cap or None,
        "over_bytes": None if dry_run else max(0, after.used_bytes - cap) if cap else 0,
    }
