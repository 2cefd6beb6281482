"""The promise of the heart, as a state machine: whatever happens, the index equals the files and history holds."""

import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import oracle
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from ops_place import Place, as_contents

from reprod.core import digest
from reprod.core.binding import LOCAL_SLACK_NS, bind
from reprod.fs import read as reading
from reprod.fs import walk
from reprod.ops import batches, scan
from reprod.store import timeline, versions

NAMES = [
    b"a",
    b"a-b",
    b"a.b",
    b"ab",
    b"new\nline",
    b"cr\rname",
    b"back\\slash",
    b"\xff\xfe",
    b"\xc3\xa9",
    b" #L ",
    b"z",
]
DATA = [b"", b"1", b"2", b"11", b"x" * 50]
STEPS: Counter[str] = Counter()
HOOK: list[Callable[[], None]] = []  # called before and after a directory is listed, and before a file is opened
NUMBERS = count()  # of the machines, which Hypothesis makes: one for each example, one to look at, more to shrink

names = st.sampled_from(NAMES)
datas = st.sampled_from(DATA)
picks = st.integers(0, 10_000)


class Killed(BaseException):
    """What a kill -9 looks like from inside: nothing gets to clean up what is not a transaction."""


class IndexEqualsFiles(RuleBasedStateMachine):
    """Random file operations, refreshes of all kinds, kills and restarts, in a folder of its own below ``parent``."""

    parent: Path

    def __init__(self) -> None:
        super().__init__()
        self.base = self.parent / f"machine-{next(NUMBERS)}"
        self.base.mkdir()
        self.place = Place(self.base)
        self.lost = False  # a hint was lost since the last full refresh
        self.interrupted = False  # a walk was; as after a restart the next look is at everything (daemon/schedule.py)
        self.remembered: dict[int, oracle.Contents] = {}
        self.runs: list[tuple[int, oracle.Contents]] = []
        self.lost_ns: list[int] = []  # when hints were lost without anybody knowing

    # --- what happens to files ---------------------------------------------------------------------------------------

    def _all(self, *, folders: bool | None = None) -> list[bytes]:
        found = []
        for folder, names_, files in os.walk(self.place.raw):
            real = [n for n in names_ if not os.path.islink(os.path.join(folder, n))]
            links = [n for n in names_ if os.path.islink(os.path.join(folder, n))]
            chosen = (real if folders is not False else []) + (files + links if folders is not True else [])
            found += [os.path.relpath(os.path.join(folder, n), self.place.raw) for n in chosen]
        return sorted(found)

    def _pick(self, pick: int, *, folders: bool | None = None) -> bytes | None:
        found = self._all(folders=folders)
        return found[pick % len(found)] if found else None

    def _fresh(self, pick: int, name: bytes) -> bytes | None:
        """A path that is free, at most three directories deep."""
        folders = [b"", *(f for f in self._all(folders=True) if f.count(b"/") < 2)]
        path = os.path.join(folders[pick % len(folders)], name)
        return None if os.path.lexists(self.place.path(path)) else path

    def _changed(self, *paths: bytes) -> None:
        STEPS["steps"] += 1
        self.place.watch.hint(*paths)

    @rule(pick=picks, name=names, data=datas)
    def create(self, pick: int, name: bytes, data: bytes) -> None:
        path = self._fresh(pick, name)
        if path is not None:
            with open(self.place.path(path), "wb") as file:
                file.write(data)
            self._changed(path)

    @rule(pick=picks, name=names, inner=names, data=datas)
    def create_in_new_directory(self, pick: int, name: bytes, inner: bytes, data: bytes) -> None:
        path = self._fresh(pick, name)
        if path is not None:
            os.mkdir(self.place.path(path))
            with open(self.place.path(os.path.join(path, inner)), "wb") as file:
                file.write(data)
            self._changed(path)

    @rule(pick=picks, name=names)
    def make_empty_directory(self, pick: int, name: bytes) -> None:
        path = self._fresh(pick, name)
        if path is not None:
            os.mkdir(self.place.path(path))
            self._changed(path)

    @rule(pick=picks, data=datas, how=st.sampled_from(["write", "append", "truncate", "same size", "replace"]))
    def change(self, pick: int, data: bytes, how: str) -> None:
        path = self._pick(pick, folders=False)
        if path is None or not stat.S_ISREG(os.lstat(self.place.path(path)).st_mode):
            return
        full = self.place.path(path)
        before = os.stat(full)
        if how == "truncate":
            os.truncate(full, before.st_size // 2)
        elif how == "replace":
            other = os.path.join(os.fsencode(self.base), b"other")
            with open(other, "wb") as file:
                file.write(data)
            os.rename(other, full)
        elif how == "same size":  # and the mtime put back: only ctime tells
            with open(full, "r+b") as file:
                file.write(b"y" * before.st_size)
            os.utime(full, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            with open(full, "ab" if how == "append" else "wb") as file:
                file.write(data)
        self._changed(path)

    @rule(pick=picks, to=st.sampled_from([b"a", b"../data", b"\xff", b"nowhere"]), name=names)
    def link(self, pick: int, to: bytes, name: bytes) -> None:
        """Make a symlink, or retarget the one that is there."""
        path = self._fresh(pick, name)
        if path is None:
            links = [p for p in self._all(folders=False) if os.path.islink(self.place.path(p))]
            if not links:
                return
            path = links[pick % len(links)]
            os.unlink(self.place.path(path))
        os.symlink(to, self.place.path(path))
        self._changed(path)

    @rule(pick=picks, where=picks, name=names)
    def rename(self, pick: int, where: int, name: bytes) -> None:
        source, target = self._pick(pick), self._fresh(where, name)
        if source is None or target is None or (target + b"/").startswith(source + b"/"):
            return
        os.rename(self.place.path(source), self.place.path(target))
        self._changed(source, target)

    @rule(pick=picks, mode=st.sampled_from([0o600, 0o644, 0o755]))
    def chmod(self, pick: int, mode: int) -> None:
        path = self._pick(pick, folders=False)
        if path is not None and not os.path.islink(self.place.path(path)):
            os.chmod(self.place.path(path), mode)
            self._changed(path)

    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        path = self._pick(pick)
        if path is None:
            return
        full = self.place.path(path)
        if os.path.isdir(full) and not os.path.islink(full):
            shutil.rmtree(full)
        else:
            os.unlink(full)
        self._changed(path)

    @rule(pick=picks, data=datas)
    def swap_kind(self, pick: int, data: bytes) -> None:
        """A file becomes a directory of the same name, a directory a file."""
        path = self._pick(pick)
        if path is None:
            return
        full = self.place.path(path)
        if os.path.isdir(full) and not os.path.islink(full):
            shutil.rmtree(full)
            with open(full, "wb") as file:
                file.write(data)
        else:
            os.unlink(full)
            os.mkdir(full)
            with open(os.path.join(full, b"inside"), "wb") as file:
                file.write(data)
        self._changed(path)

    @rule(pick=picks, name=names)
    def make_fifo(self, pick: int, name: bytes) -> None:
        path = self._fresh(pick, name)
        if path is not None:
            os.mkfifo(self.place.path(path))
            self._changed(path)

    # --- what reprod does --------------------------------------------------------------------------------------------

    @rule()
    def refresh_everything(self) -> None:
        self.place.refresh()
        self.lost = self.interrupted = False
        self._after()

    def _hinted(self, paths: frozenset[bytes]) -> frozenset[bytes] | None:
        return None if self.interrupted else paths

    @rule(parents=st.booleans())
    def refresh_hinted(self, parents: bool) -> None:
        """Only what was hinted at; a directory above is as good a hint."""
        paths = frozenset(p.rpartition(b"/")[0] if parents else p for p in self.place.watch.seen)
        report = self.place.refresh(self._hinted(paths))
        if report.full:
            self.lost = self.interrupted = False
        if not self.lost:
            self._after()

    @rule(pick=picks)
    def lose_a_hint(self, pick: int) -> None:
        seen = sorted(self.place.watch.seen)
        if seen:
            self.lost_ns.append(self.place.watch.seen.pop(seen[pick % len(seen)]))
            self.lost = True

    @rule(after=st.integers(0, 6), restart=st.booleans(), hinted=st.booleans())
    def kill_a_refresh(self, after: int, restart: bool, hinted: bool) -> None:
        """End a refresh in the middle; a restart forgets the hints, as a new process does."""
        left = after

        def checkpoint() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        hints = dict(self.place.watch.seen)
        try:
            report = self.place.refresh(self._hinted(frozenset(hints)) if hinted else None, checkpoint=checkpoint)
        except Killed:
            STEPS["kills"] += 1
            self.interrupted = self.interrupted or restart or not hinted
            if restart:
                self.place.restart()
                self.place.db.write(lambda c: timeline.open_downtime(c, time.time_ns(), "a boot", 0, 1))
                self.place.watch.seen.clear()
                self.lost = True
        else:
            self.lost = self.lost and not report.full
            self.interrupted = self.interrupted and not report.full

    @rule(
        after=st.integers(0, 8),
        pick=picks,
        data=datas,
        how=st.sampled_from(["write", "delete", "create", "rename", "swap"]),
        hinted=st.booleans(),
    )
    def refresh_under_a_change(self, after: int, pick: int, data: bytes, how: str, hinted: bool) -> None:
        """Something happens between two looks of a refresh; the next one sees the rest."""
        acts = {
            "write": lambda: self.change(pick, data, "write"),
            "delete": lambda: self.delete(pick),
            "create": lambda: self.create(pick, b"created", data),
            "rename": lambda: self.rename(pick, pick // 7, b"renamed"),
            "swap": lambda: self.swap_kind(pick, data),
        }
        left = after

        def look() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                acts[how]()

        hints = dict(self.place.watch.seen)
        HOOK.append(look)
        try:
            report = self.place.refresh(self._hinted(frozenset(hints)) if hinted else None)
        finally:
            HOOK.clear()
        if left < 0:
            STEPS["interleaved"] += 1
        if report.full:
            self.lost = self.interrupted = False
        self._judge()
        self.place.refresh()
        self.lost = self.interrupted = False
        self._after()

    @rule(quiet=st.booleans())
    def start_a_run(self, quiet: bool) -> None:
        """Remember what the disk holds now; every later verdict about this moment must be that, or nothing."""
        time.sleep(0.021 if quiet else 0)
        self.runs.append((time.time_ns(), oracle.scan(self.place.raw)))
        time.sleep(0.021)

    # --- what must be true -------------------------------------------------------------------------------------------

    def _after(self) -> None:
        STEPS["refreshes"] += 1
        truth = self.place.assert_equals_disk()
        self._judge()
        db = self.place.db
        sealed = db.read(versions.versions)
        newest = sealed[-1]
        self.remembered[newest.seq] = truth
        for version in sealed:
            contents = self.place.contents(version.seq)
            assert contents == self.remembered.setdefault(version.seq, contents)
            assert version.digest is not None
            assert digest.text(version.digest) == oracle.dt1(contents)
        for one in sealed[-4:]:
            for other in sealed[:3]:
                self._between(one.seq, other.seq)

    def _judge(self) -> None:
        """Bind every run that was started so far."""
        marks = self.place.db.read(timeline.marks)
        for start, truth in self.runs[-6:]:
            binding = bind(marks, start, LOCAL_SLACK_NS)
            STEPS[f"{binding.bound} {binding.assurance}"] += 1
            if binding.seq is None or binding.incomplete:
                continue
            if binding.assurance == "events" and any(lost < start for lost in self.lost_ns):
                continue
            assert self.place.contents(binding.seq) == truth, (start, binding, marks)

    def _between(self, a: int, b: int) -> None:
        left, right = (as_contents(side) for side in self.place.db.read(lambda c: versions.contents_between(c, a, b)))
        before, after = self.remembered[a], self.remembered[b]
        differ = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
        assert {p for p in left.keys() | right.keys() if left.get(p) != right.get(p)} == differ
        assert all(left.get(p) == before.get(p) and right.get(p) == after.get(p) for p in differ)

    def teardown(self) -> None:
        try:
            self.place.refresh()
            self._after()
            STEPS["versions"] += len(self.place.db.read(versions.versions))
        finally:  # one that fails is tried hundreds of times with fewer steps
            self.place.close()
            shutil.rmtree(self.base)


def hooked(original: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """The same function, with HOOK called around it."""

    def call(*args: Any, **named: Any) -> Any:
        for look in HOOK:
            look()
        result = original(*args, **named)
        for look in HOOK if after else ():
            look()
        return result

    return call


@pytest.mark.parametrize("own_stats", [8192, 2], ids=["walk-stats", "workers-stat"])
def test_index_equals_files_whatever_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_stats: int) -> None:
    """After every refresh that saw everything the index is the disk, and every version is what it was."""
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setattr(IndexEqualsFiles, "parent", tmp_path, raising=False)
    monkeypatch.setattr(batches, "BATCH_ROWS", 3)
    monkeypatch.setattr(scan, "OWN_STATS", own_stats)
    monkeypatch.setattr(walk, "PART_ENTRIES", 2)
    STEPS.clear()
    monkeypatch.setattr(walk, "_list", hooked(walk._list, after=True))
    monkeypatch.setattr(reading, "_open", hooked(reading._open))
    run_state_machine_as_test(
        IndexEqualsFiles,
        settings=settings(
            max_examples=int(os.environ.get("REPROD_MACHINE", "40" if own_stats > 2 else "12")),  # processes take time
            report_multiple_bugs=False,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize="REPROD_MACHINE" not in os.environ,
        ),
    )
    print(dict(STEPS))
    # What happened at all, not how often: the clock has its part in which rules can run (2 to 20 kills were seen).
    assert STEPS["interleaved"]
    assert STEPS["start walk"] + STEPS["start events"] + STEPS["ctime walk"]
    assert STEPS["kills"]
    assert STEPS["refreshes"] > 30
