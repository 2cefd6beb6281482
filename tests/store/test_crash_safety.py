"""What survives between two commits: batches, touches, gaps, hints, deletions."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ops_place import Place

from reprod.core.binding import Mark
from reprod.ops import batches, scan
from reprod.store import changes, index, listing, timeline, versions
from reprod.store.observation import Observation


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place with one version of four files in two directories."""
    here = Place(tmp_path)
    for name in ("a", "b", "d/c", "d/e"):
        here.write(name, name)
    here.refresh()
    yield here
    here.close()


def pending(place: Place) -> dict[str, int | None]:
    names = ("touched", "low_ctime_ns", "high_ctime_ns", "gap_from_ns", "gap_kind")
    row = place.db.read(lambda c: c.execute(f"SELECT {', '.join(names)} FROM pending").fetchone())
    return dict(zip(names, row, strict=True))


def last(place: Place) -> Mark:
    return place.db.read(timeline.marks)[-1]


class Killed(BaseException):
    """The end in the middle."""


def kill_before_the_seal(place: Place, monkeypatch: pytest.MonkeyPatch, paths: frozenset[bytes] | None = None) -> None:
    """All batches are committed, the seal never comes."""
    with monkeypatch.context() as patch:
        patch.setattr(
            scan.Scan,
            "finish",
            lambda self: (self.reading.drain(everything=True), self.reading.batches.flush(), stop()),
        )
        with pytest.raises(Killed):
            place.refresh(paths)


def stop() -> None:
    raise Killed


def test_there_and_back_is_a_touch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A to B (seen, committed, not sealed) to A: no version, and no proof either, but a touch with its ctimes."""
    before = last(place)
    path = place.write("a", "B")
    time.sleep(0.03)
    kill_before_the_seal(place, monkeypatch)
    ctime = path.stat().st_ctime_ns
    assert pending(place)["touched"] == 1
    assert pending(place)["low_ctime_ns"] == ctime
    path.write_text("a")
    place.restart()
    report = place.refresh()
    assert not report.sealed
    mark = last(place)
    assert (mark.kind, mark.seq, mark.low_ctime_ns, mark.proved_ns) == ("touch", before.seq, ctime, None)
    assert mark.born_ns == path.stat().st_ctime_ns
    assert pending(place)["touched"] == 0
    assert place.db.read(timeline.marks)[0].proved_ns is None
    place.refresh()
    assert last(place).proved_ns is not None
    place.assert_equals_disk()


def test_a_touch_between_batches_and_seal_outlives_a_quiet_walk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed refresh wrote makes the next walk find every fingerprint equal: that must not count as a proof."""
    proved = last(place).proved_ns
    os.chmod(place.root / "a", 0o600)
    time.sleep(0.03)
    kill_before_the_seal(place, monkeypatch)
    place.restart()
    place.refresh()
    assert [m.kind for m in place.db.read(timeline.marks)] == ["version", "touch"]
    assert place.db.read(timeline.marks)[0].proved_ns == proved


@pytest.mark.parametrize(
    "act",
    [
        lambda root: os.chmod(root / "a", 0o600),
        lambda root: os.utime(root / "a", ns=(1, 1)),
        lambda root: os.link(root / "a", root.parent / "other"),
        lambda root: (root / "a").write_text("a"),
        lambda root: ((root / "new").touch(), (root / "new").unlink()),
        lambda root: (root / "empty").mkdir(),
        lambda root: os.chmod(root / "d", 0o700),
        lambda root: os.mkfifo(root / "fifo"),
    ],
    ids=["chmod", "utime", "link", "same content", "came and went", "empty directory", "directory mode", "fifo"],
)
def test_what_changes_no_content_is_a_touch(place: Place, act: object) -> None:
    """No new version, the same digest, but a mark that says when."""
    time.sleep(0.03)
    began = time.time_ns() - 15_000_000
    act(place.root)  # type: ignore[operator]
    report = place.refresh()
    mark = last(place)
    assert (report.sealed, mark.kind, mark.seq) == (False, "touch", 1)
    assert mark.low_ctime_ns is not None
    assert mark.born_ns >= began
    place.refresh()
    assert (last(place).kind, last(place).proved_ns is not None) == ("touch", True)
    place.assert_equals_disk()


def test_deletions_count_only_at_the_seal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the walk saw that a file is gone: the index still has it; then it goes, once."""
    (place.root / "a").unlink()
    kill_before_the_seal(place, monkeypatch)
    assert b"a" in place.db.read(lambda c: index.files(c, index.directory(c, b"").id, (b"", b"z")))  # type: ignore[union-attr]
    place.restart()
    report = place.refresh()
    assert (report.version.removed, report.version.added, report.version.modified) == (1, 0, 0)
    place.assert_equals_disk()


def test_at_most_one_batch_is_hashed_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the middle of a scan of many files loses no more than the open batch."""
    monkeypatch.setattr(batches, "BATCH_ROWS", 20)
    for number in range(400):
        place.write(f"many{number // 40}/f{number}", str(number))
    time.sleep(0.03)
    seen = []

    def progress() -> None:
        seen.append(True)
        if len(seen) == 8:
            raise Killed

    with pytest.raises(Killed):
        place.refresh(checkpoint=progress)
    kept = place.db.read(lambda c: c.execute("SELECT count(*) FROM file WHERE sha256 IS NOT NULL").fetchone()[0]) - 4
    place.restart()
    report = place.refresh()
    assert report.counts.hashed_files == 400 - kept
    place.assert_equals_disk()


def test_first_hint_is_the_earliest(place: Place) -> None:
    """Hints of one refresh count with the first."""
    place.write("a", "1")
    place.write("b", "2")
    place.watch.seen = {b"a": 5 * 10**18, b"b": 4 * 10**18}
    place.refresh(frozenset({b"a", b"b"}))
    assert last(place).first_hint_ns == 4 * 10**18
    place.watch.seen = {b"a": 3 * 10**18}
    place.refresh()
    assert last(place).proved_ns is not None  # nothing had changed: no mark takes that hint


def test_gaps(place: Place) -> None:
    """A gap stays with every mark until a full walk under a whole watch; without a watch each walk opens the next."""
    place.db.write(lambda c: timeline.open_gap(c, 700, "overflow"))
    place.db.write(lambda c: timeline.open_gap(c, 900, "re-arm"))
    assert (pending(place)["gap_from_ns"], pending(place)["gap_kind"]) == (700, "overflow")
    for number in range(2):
        place.write("a", f"partial {number}")
        place.watch.hint(b"a")
        place.refresh(frozenset({b"a"}))
        assert last(place).gap_from_ns == 700
    place.write("a", "full")
    place.watch.hint(b"a")
    place.refresh()
    assert last(place).gap_from_ns == 700
    assert pending(place)["gap_from_ns"] is None
    place.write("a", "whole")
    place.watch.hint(b"a")
    place.refresh()
    assert last(place).gap_from_ns is None
    walk = place.refresh(watched=False).walk_ns
    assert pending(place)["gap_from_ns"] == walk


def test_a_watch_that_breaks_during_a_refresh_is_a_gap_of_that_refresh(place: Place) -> None:
    """The loss is told after the walk began: the mark of this very walk must already know."""
    walk = place.refresh().walk_ns
    place.write("a", "changed")
    place.watch.hint(b"a")

    def rearm() -> None:
        place.watch.whole_ns = time.time_ns()

    place.watch.before_settled = rearm
    place.refresh()
    assert last(place).gap_from_ns == walk


def test_an_unannounced_change_is_a_gap_since_the_last_walk(place: Place) -> None:
    """A walk finds what no event told of: then nobody knows since when events were lost."""
    walk = place.refresh().walk_ns
    place.write("a", "changed")
    place.watch.hint(b"b")
    report = place.refresh()
    assert (report.unannounced, last(place).gap_from_ns) == (1, walk)
    place.write("d/c", "changed")
    place.watch.hint(b"d")  # a directory above is an announcement
    assert place.refresh().unannounced == 0


def test_reading_all_again_is_no_news(place: Place) -> None:
    """A walk that reads every file again and finds each as it was has lost nothing."""
    place.refresh()
    report = place.refresh(rehash=True)
    assert report.counts.hashed_files == report.counts.files > 0
    assert (report.unannounced, last(place).gap_from_ns) == (0, None)


def test_downtime_begins_at_the_last_thing_known(place: Place) -> None:
    """What happened while nobody watched begins with the last mark or proof."""
    walk = place.refresh().walk_ns
    place.db.write(lambda c: timeline.open_downtime(c, time.time_ns(), "a boot", 0, 1))
    assert (pending(place)["gap_from_ns"], pending(place)["gap_kind"]) == (max(walk, last(place).sealed_ns), "downtime")


def test_pruned_and_missing_versions(place: Place) -> None:
    """What is not there is said with the newest number."""
    from reprod.errors import NotFoundError

    with pytest.raises(NotFoundError) as caught:
        place.db.read(lambda c: versions.version(c, 7))
    assert "1" in caught.value.hint
    place.db.write(lambda c: c.execute("UPDATE version SET pruned = 1"))
    assert last(place).pruned


def test_the_chain_holds(place: Place) -> None:
    """Every version's chain value follows from its record and the one before."""
    import hashlib

    for content in "123":
        place.write("a", content)
        place.refresh()
    rows = place.db.read(lambda c: c.execute("SELECT record, chain FROM version ORDER BY seq").fetchall())
    previous = b""
    for record, chain in rows:
        previous = hashlib.sha256(
            versions.CHAIN_PREFIX + previous.hex().encode() + b"\n" + record.encode() + b"\n"
        ).digest()
        assert chain == previous


def test_another_selection_is_a_version_of_its_own(place: Place) -> None:
    """Interrupted or not, the first full walk under it seals one, and it says so."""
    import dataclasses

    narrowed = dataclasses.replace(place.config, exclude=("d/",))
    with pytest.raises(Killed):
        place.refresh(config=narrowed, checkpoint=stop)
    report = place.refresh(frozenset({b"a"}), config=narrowed)
    assert (report.full, report.sealed, report.version.reason, report.version.removed) == (True, True, "selection", 2)
    assert not place.refresh(config=narrowed).sealed
    assert place.refresh().version.reason == "selection"
    place.assert_equals_disk()


def test_more_algorithms_read_everything_again(place: Place) -> None:
    """Asked for later, they are there for every file, and it is no change of content."""
    import dataclasses

    wider = dataclasses.replace(place.config, algorithms=("sha256", "md5"))
    report = place.refresh(config=wider)
    assert (report.sealed, report.counts.hashed_files) == (False, 4)
    assert all(set(e.content.more) == {"md5"} for e in place.db.read(lambda c: list(listing.entries(c, 1))))


def test_a_name_seen_twice_in_one_batch(place: Place) -> None:
    """Two looks at one new name in one batch are one entry."""
    stat = (0o100644, 1, 7, 7, 7)
    twice = [Observation(b"d", b"n", None, stat, 1, b"x" * 32), Observation(b"d", b"n", None, stat, 1, b"x" * 32)]
    place.db.write(lambda c: changes.apply(c, twice, [], 10))
    count = place.db.read(lambda c: c.execute("SELECT count(*) FROM file WHERE name = x'6e'").fetchone()[0])
    assert count == 1


def test_whole_second_stamps_may_be_a_second_younger(place: Place) -> None:
    """A file system that keeps whole seconds cuts a ctime down: born counts the second that it may have been cut by."""
    second = 10**9
    stat = (0o100644, 1, 7, 50 * second, 7)
    seen = [Observation(b"d", b"n", None, stat, 1, b"x" * 32)]
    place.db.write(lambda c: changes.apply(c, seen, [], 90 * second))
    assert (pending(place)["low_ctime_ns"], pending(place)["high_ctime_ns"]) == (50 * second, 51 * second)


def test_a_ctime_to_come_counts_as_the_moment_it_was_seen(place: Place) -> None:
    """A clock that was ahead must not make a set look younger than it is for ever."""
    seen = [Observation(b"d", b"n", None, (0o100644, 1, 7, 9 * 10**18, 7), 1, b"x" * 32)]
    place.db.write(lambda c: changes.apply(c, seen, [], 1234))
    assert pending(place)["high_ctime_ns"] == 1234


@pytest.mark.parametrize(
    "year_ns", [2400 * 31_556_952 * 10**9 - 62_167_219_200 * 10**9, -(10**18)], ids=["2400", "1938"]
)
def test_any_mtime_can_be_kept(place: Place, year_ns: int) -> None:
    """A file system keeps times beyond 64 bits of nanoseconds; the index takes them, and knows the file again."""
    path = place.write("odd", "odd")
    os.utime(path, ns=(year_ns, year_ns))
    place.refresh()
    place.assert_equals_disk()
    assert place.refresh().counts.hashed_files == 0
    os.utime(path, ns=(1, 1))
    assert place.refresh().touched


@pytest.mark.parametrize(("before", "after"), [(100, 200), (200, 100)], ids=["forward", "back"])
def test_a_clock_step_begins_another_life(place: Place, before: int, after: int) -> None:
    """Whichever way the clock was set, one life of it ended and another began, and what may be of either is in none."""
    place.refresh()
    place.db.write(lambda c: timeline.step(c, before, after, 5))
    mark = last(place)
    assert (mark.kind, mark.sealed_ns, mark.gap_from_ns, mark.first_hint_ns) == ("step", after, before, after - 5)
    assert mark.born_ns <= after
    assert mark.root_since_ns <= after
    assert pending(place)["gap_from_ns"] == 95


def test_a_clock_set_while_nobody_watched(place: Place) -> None:
    """Within one boot the offset to the time since then tells; over a reboot a clock behind what is known does."""
    place.refresh()
    known = max(last(place).sealed_ns, last(place).proved_ns or 0)
    place.db.write(lambda c: timeline.open_downtime(c, known + 50, "a", 7000, 10))
    place.db.write(lambda c: timeline.open_downtime(c, known + 60, "a", 7009, 10))
    assert last(place).kind == "version"
    place.db.write(lambda c: timeline.open_downtime(c, known + 70, "a", 7120, 10))
    step = last(place)
    assert (step.kind, step.sealed_ns, step.gap_from_ns) == ("step", known + 70, known + 70 - 111)
    place.db.write(lambda c: timeline.open_downtime(c, known + 200, "a", 7020, 10))
    step = last(place)  # at any time since the last thing known
    assert (step.sealed_ns, step.gap_from_ns, step.first_hint_ns) == (known + 200, known + 300, known + 200 - 230)
    place.db.write(lambda c: timeline.open_downtime(c, 5_000, "b", 99, 10))
    step = last(place)
    assert (step.sealed_ns, step.gap_from_ns, step.first_hint_ns) == (5_000, known + 200, 0)
