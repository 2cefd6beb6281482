"""Law 3: a file that moves while it is read never gets a digest of a mixture, and gets one when it settles."""

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest
from ops_place import Place

from reprod.core.binding import LOCAL_SLACK_NS, bind
from reprod.core.entry import Problem
from reprod.fs import read as reading
from reprod.store import timeline

MIB = 1 << 20


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"B" * path.stat().st_size)


def overwrite_with_old_mtime(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def overwrite_the_end(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"E" * 10)


def replace(path: Path) -> None:
    other = path.parent.parent / "other"
    other.write_bytes(b"C" * path.stat().st_size)
    other.replace(path)


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


CHANGES = [overwrite, overwrite_with_old_mtime, overwrite_the_end, replace, truncate, append]
SIZES = [3 * MIB, 5000]


def interfere(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], *, times: int) -> list[int]:
    """Run ``act`` between the first and the last read of a file, for so many reads; returns the count so far."""
    done = [0]
    readv, read = os.readv, os.read

    def once() -> None:
        if done[0] < times:
            done[0] += 1
            act()

    def chunk(fd: int, buffers: Any) -> int:
        got = readv(fd, buffers)
        if got:
            once()
        return got

    def whole(fd: int, size: int) -> bytes:
        data = read(fd, size)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            once()
        return data

    monkeypatch.setattr(os, "read", whole)
    monkeypatch.setattr(os, "readv", chunk)
    return done


def assert_only_whole_files(place: Place, allowed: list[bytes]) -> None:
    """No digest in the index is of bytes that the file never was."""
    import hashlib

    whole = {hashlib.sha256(data).digest() for data in allowed}
    found = place.db.read(lambda c: c.execute("SELECT sha256 FROM file WHERE sha256 IS NOT NULL").fetchall())
    found += place.db.read(lambda c: c.execute("SELECT sha256 FROM history WHERE sha256 IS NOT NULL").fetchall())
    assert {row[0] for row in found} <= whole


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES, ids=["large", "small"])
def test_a_change_under_one_read_is_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], size: int
) -> None:
    """One change in the middle of a read costs a second read, and the digest is of what is there then."""
    path = place.write("f", b"A" * size)
    interfere(monkeypatch, lambda: change(path), times=1)
    report = place.refresh()
    assert not report.problems
    assert_only_whole_files(place, [path.read_bytes()])
    place.assert_equals_disk()


@pytest.mark.parametrize("size", SIZES, ids=["large", "small"])
def test_a_file_that_never_rests_is_unstable(place: Place, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Change under every read: unstable, no digest of anything mixed, no digest of the set; it settles later."""
    path = place.write("f", b"A" * size)
    place.write("other", "x")
    done = interfere(monkeypatch, lambda: overwrite(path), times=10**9)
    report = place.refresh()
    assert done[0] >= 2  # the first look only found it too young
    assert report.problems == ((b"f", Problem.UNSTABLE),)
    assert (report.version.digest, report.version.problems, report.version.files) == (None, 1, 2)
    assert_only_whole_files(place, [b"x"])
    monkeypatch.undo()
    report = place.refresh(frozenset({b"f"}))
    assert (report.sealed, report.version.problems) == (True, 0)
    place.assert_equals_disk()


def test_a_file_that_goes_while_it_is_read_is_gone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlinked in the middle of the read: not there, and no problem."""
    place.write("keep", "k")
    place.refresh()
    path = place.write("f", b"A" * 3 * MIB)
    interfere(monkeypatch, path.unlink, times=1)
    report = place.refresh()
    assert not report.problems
    place.assert_equals_disk()


def test_same_size_rewrite_with_old_mtime_is_found(place: Place) -> None:
    """Only ctime tells of it, and that is enough."""
    path = place.write("f", b"A" * 5000)
    place.refresh()
    overwrite_with_old_mtime(path)
    assert place.refresh().sealed
    place.assert_equals_disk()


def test_a_young_file_waits(place: Place) -> None:
    """A file of this very moment is read only when a further write would leave a trace."""
    path = place.write("f", "young")
    place.refresh()
    assert time.time_ns() - path.stat().st_ctime_ns >= LOCAL_SLACK_NS
    place.assert_equals_disk()


def test_a_fifo_in_the_place_of_a_file_does_not_hang(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swapped between lstat and open: it is special, never read, never in the set."""
    path = place.write("f", "data")
    place.write("g", "data")
    original, swapped = reading._open, []

    def swap(directory: int, name: bytes) -> int:
        if name == b"f" and not swapped:
            swapped.append(name)
            path.unlink()
            os.mkfifo(path)
        return original(directory, name)

    monkeypatch.setattr(reading, "_open", swap)
    report = place.refresh()
    assert swapped
    assert not report.problems
    assert place.assert_equals_disk().keys() == {b"g"}


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_an_unreadable_file_takes_the_digest_away(place: Place, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Unreadable: named, counted, the set has no digest; readable again: the digest is back."""
    place.write("good", "g")
    place.write("bad", "1")
    first = place.refresh().version
    place.write("bad", "2")
    original = reading._open

    def broken(directory: int, name: bytes) -> int:
        if name == b"bad":
            raise OSError(number, os.strerror(number))
        return original(directory, name)

    monkeypatch.setattr(reading, "_open", broken)
    report = place.refresh()
    assert report.problems == ((b"bad", Problem.UNREADABLE),)
    assert (report.version.digest, report.version.files, report.version.problems) == (None, 2, 1)
    assert place.contents(first.seq) != place.contents(report.version.seq)
    assert not place.refresh().sealed  # and it stays so, without a new version each time
    monkeypatch.undo()
    assert place.refresh().sealed
    place.assert_equals_disk()


def during_walk(monkeypatch: pytest.MonkeyPatch, folder: bytes, act: Callable[[], None], *, after: bool) -> None:
    """Run ``act`` once, right before or after the directory that holds ``folder`` is listed (it is already stat'ed)."""
    from reprod.fs import walk

    original, done = walk._list, []

    def listing(found: Any, *args: Any, **named: Any) -> None:
        hit = found.path == folder and not done
        if hit:
            done.append(folder)
            if not after:
                act()
        original(found, *args, **named)
        if hit and after:
            act()

    monkeypatch.setattr(walk, "_list", listing)


def run_started_now(place: Place) -> tuple[int, oracle.Contents]:
    """A run that starts now, with the slack around it quiet, and what the disk holds."""
    time.sleep(0.025)
    start = time.time_ns()
    time.sleep(0.025)
    return start, oracle.scan(place.raw)


def assert_bound_to_truth_or_nothing(place: Place, start: int, truth: oracle.Contents) -> None:
    binding = bind(place.db.read(timeline.marks), start, LOCAL_SLACK_NS)
    assert binding.seq is None or place.contents(binding.seq) == truth, binding


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "never seen"])
def test_unlink_between_stat_and_listing_of_its_directory(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, indexed: bool
) -> None:
    """The deletion's ctime was not seen, so the version without the file must not look older than the run."""
    place.write("f", "1")
    path = place.write("g", "2")
    time.sleep(0.03)
    if indexed:
        place.refresh()
    start, truth = run_started_now(place)
    during_walk(monkeypatch, b"", path.unlink, after=False)
    assert place.refresh().sealed
    assert_bound_to_truth_or_nothing(place, start, truth)
    place.assert_equals_disk()


def test_a_changed_directory_that_goes_under_the_walk_proves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed before S and gone before the walk came to it: that walk must not prove the version from before."""
    import shutil

    place.write("d/f", "1")
    place.write("g", "2")
    place.refresh()
    place.write("d/f", "other")  # nobody is told
    start, truth = run_started_now(place)
    during_walk(monkeypatch, b"", lambda: shutil.rmtree(place.root / "d"), after=True)
    place.refresh()
    assert_bound_to_truth_or_nothing(place, start, truth)
    monkeypatch.undo()
    place.refresh()
    assert_bound_to_truth_or_nothing(place, start, truth)
    place.assert_equals_disk()


def test_a_directory_that_becomes_a_file_under_the_walk_proves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, where a file took the directory's name."""
    import shutil

    def swap() -> None:
        shutil.rmtree(place.root / "d")
        place.write("d", "a file")

    place.write("d/f", "1")
    place.refresh()
    place.write("d/f", "other")
    start, truth = run_started_now(place)
    during_walk(monkeypatch, b"", swap, after=True)
    place.refresh()
    assert_bound_to_truth_or_nothing(place, start, truth)
    monkeypatch.undo()
    place.refresh()
    assert_bound_to_truth_or_nothing(place, start, truth)
    place.assert_equals_disk()


def test_a_file_that_goes_before_it_is_read_proves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed before S, gone between listing and read: the run had it."""
    place.write("f", "1")
    path = place.write("g", "2")
    place.refresh()
    path.write_text("other")
    start, truth = run_started_now(place)
    during_walk(monkeypatch, b"", path.unlink, after=True)
    place.refresh()
    assert_bound_to_truth_or_nothing(place, start, truth)
    place.assert_equals_disk()


def test_a_hint_has_a_file_read_even_if_its_stat_is_the_known_one(place: Place) -> None:
    """A write that takes longer than the slack stamps its ctime when it begins: what was read in its middle looks
    unchanged at its end. The event of its end has the file read again, by hint and in a walk alike."""
    place.write("a.bin", "what is there at the end")
    place.write("b.bin", "the same")
    place.refresh()
    for hinted in (frozenset({b"a.bin"}), None):
        place.db.write(lambda c: c.execute("UPDATE file SET sha256 = zeroblob(32) WHERE name = ?", (b"a.bin",)))
        place.watch.hint(b"a.bin")
        report = place.refresh(hinted)

        assert report.counts.hashed_files == 1
        place.assert_equals_disk()


def test_a_closed_file_is_read_even_if_only_its_directory_is_hinted_at(place: Place) -> None:
    """Under a storm hints are widened to a directory or everything; what was open for writing is read all the same."""
    place.write("d/a.bin", "what is there at the end")
    place.write("d/b.bin", "the same")
    place.refresh()
    for hinted in (frozenset({b"d"}), None):
        place.db.write(lambda c: c.execute("UPDATE file SET sha256 = zeroblob(32) WHERE name = ?", (b"a.bin",)))
        place.watch.hint(b"d")
        place.watch.closed = frozenset({b"d/a.bin"})
        assert place.refresh(hinted).counts.hashed_files == 1
        place.assert_equals_disk()


def test_a_file_that_is_read_again_and_found_as_it_was_leaves_no_trace(place: Place) -> None:
    """A late event for what a walk has seen already is no touch: it must not make the start of a run unprovable."""
    place.write("a.bin", "content")
    place.refresh()
    before = place.marks()
    place.watch.hint(b"a.bin")
    report = place.refresh(frozenset({b"a.bin"}))

    assert report.counts.hashed_files == 1
    assert not report.sealed
    assert place.marks() == before
