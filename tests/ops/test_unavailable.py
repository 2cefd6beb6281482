"""Law 4: what could not be looked at is kept, and said; a root that is another one is never taken for the old."""

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ops_place import Place

from reprod.config import DatasetConfig
from reprod.core.binding import LOCAL_SLACK_NS, bind
from reprod.core.entry import Problem
from reprod.errors import DatasetUnavailableError
from reprod.fs import mounts, walk
from reprod.store import timeline, versions


def bar(monkeypatch: pytest.MonkeyPatch, folder: bytes, *, opening: bool) -> None:
    """Make a directory unlistable: it cannot be opened, or reading it ends in an I/O error after the first name."""
    open_, scandir = os.open, os.scandir

    def barred_open(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if path == folder and flags & os.O_DIRECTORY:
            raise OSError(errno.EACCES, "Permission denied")
        return open_(path, flags, *args, **named)

    class Broken:
        def __init__(self, entries: Any) -> None:
            self.entries = entries

        def __enter__(self) -> Any:
            yield_one = iter(self.entries)

            def some() -> Any:
                yield next(yield_one)
                raise OSError(errno.EIO, "Input/output error")

            return some()

        def __exit__(self, *_: object) -> None:
            self.entries.close()

    def barred_scandir(fd: Any) -> Any:
        entries = scandir(fd)
        return Broken(entries) if os.readlink(f"/proc/self/fd/{fd}").endswith("/" + folder.decode()) else entries

    if opening:
        monkeypatch.setattr(os, "open", barred_open)
    else:
        monkeypatch.setattr(walk.os, "scandir", barred_scandir)


@pytest.mark.parametrize("opening", [True, False], ids=["open", "readdir"])
def test_an_unlistable_directory_keeps_its_entries(
    place: Place, monkeypatch: pytest.MonkeyPatch, opening: bool
) -> None:
    """Nothing of it is deleted, the set has no digest while it lasts, and the old digest is back afterwards."""
    for name in ("barred/a", "barred/b", "barred/deep/c", "free"):
        place.write(name, name)
    first = place.refresh().version
    bar(monkeypatch, b"barred", opening=opening)
    report = place.refresh()
    assert report.sealed
    assert report.problems == ((b"barred", Problem.UNREADABLE),)
    assert (report.version.digest, report.version.files, report.version.problems) == (None, 4, 1)
    assert place.contents(report.version.seq) == place.contents(first.seq)
    assert not place.refresh().sealed  # no version each time
    monkeypatch.undo()
    report = place.refresh()
    assert (report.sealed, report.version.digest) == (True, first.digest)
    place.assert_equals_disk()


@pytest.mark.parametrize("opening", [True, False], ids=["open", "readdir"])
def test_a_first_scan_with_an_unlistable_directory(
    place: Place, monkeypatch: pytest.MonkeyPatch, opening: bool
) -> None:
    """Unlistable from the start: incomplete, and complete as soon as it can be listed, though no known file changed."""
    place.write("barred/a", "a")
    place.write("free", "f")
    bar(monkeypatch, b"barred", opening=opening)
    version = place.refresh().version
    assert (version.digest, version.problems) == (None, 1)
    monkeypatch.undo()
    assert place.refresh().sealed
    place.assert_equals_disk()


def test_an_empty_directory_that_heals_gives_the_digest_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No entry differs between the two, only what is known of the directory."""
    (place.root / "barred").mkdir()
    place.write("free", "f")
    bar(monkeypatch, b"barred", opening=True)
    assert place.refresh().version.digest is None
    monkeypatch.undo()
    assert place.refresh().version.digest is not None
    place.assert_equals_disk()


def test_a_hint_below_an_unlistable_directory_does_not_heal_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at one name says nothing about the rest of a directory that could not be read."""
    place.write("barred/a", "a")
    place.write("barred/b", "b")
    place.refresh()
    bar(monkeypatch, b"barred", opening=False)
    place.refresh()
    place.write("barred/a", "changed")
    assert place.refresh(frozenset({b"barred/a"})).version.digest is None
    monkeypatch.undo()
    assert place.refresh(frozenset({b"barred/a"})).version.digest is not None
    place.assert_equals_disk()


def test_deleted_while_unlistable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A barred directory that is then removed takes its entries along, and the set is whole again."""
    place.write("barred/a", "a")
    place.write("free", "f")
    place.refresh()
    bar(monkeypatch, b"barred", opening=True)
    place.refresh()
    monkeypatch.undo()
    shutil.rmtree(place.root / "barred")
    place.refresh()
    place.assert_equals_disk()


def forgets_nothing(place: Place, act: Callable[[], object]) -> None:
    before = place.db.read(versions.newest)
    marks = place.marks()
    assert before is not None
    with pytest.raises(DatasetUnavailableError) as caught:
        act()
    assert caught.value.exit_code == 6
    assert caught.value.hint
    assert place.db.read(versions.newest) == before
    assert place.marks() == marks
    assert place.contents(before.seq)


def test_a_missing_root_forgets_nothing(place: Place) -> None:
    """Missing: unavailable. Back: the same version, without a new one."""
    place.write("a", "a")
    place.write("d/b", "b")
    place.refresh()
    away = place.base / "away"
    place.root.rename(away)
    forgets_nothing(place, place.refresh)
    away.rename(place.root)
    report = place.refresh()
    assert (report.sealed, report.version.seq) == (False, 1)
    place.assert_equals_disk()


def test_a_root_that_is_replaced_during_the_walk_deletes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another directory took the path in the middle: nothing of that walk counts as a deletion."""
    for name in "abc":
        place.write(name, name)
    place.refresh()
    (place.root / "a").unlink()
    swapped = []

    def swap() -> None:
        if not swapped:
            swapped.append(True)
            place.root.rename(place.base / "away")
            place.root.mkdir()

    forgets_nothing(place, lambda: place.refresh(checkpoint=swap))
    assert place.contents(1).keys() == {b"a", b"b", b"c"}
    place.refresh()
    assert place.assert_equals_disk() == {}


def test_an_interrupted_first_look_at_a_new_root_is_not_taken_for_granted(place: Place) -> None:
    """Killed in the first walk of a new root: the next refresh looks at all of it, also if only asked for a hint."""
    place.write("a", "old")
    place.write("b", "old")
    place.refresh()
    place.root.rename(place.base / "away")
    place.write("a", "new")
    place.write("c", "new")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.refresh(checkpoint=stop)
    report = place.refresh(frozenset({b"a"}))
    assert report.full
    place.assert_equals_disk()


def other_filesystem(monkeypatch: pytest.MonkeyPatch) -> None:
    original = mounts.root_identity

    def identity(fd: int) -> mounts.RootIdentity:
        return dataclasses.replace(original(fd), source="/dev/other")

    monkeypatch.setattr(mounts, "root_identity", identity)


def test_another_file_system_is_refused_until_accepted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty mount point in place of the disk forgets nothing; a person can say that it is right."""
    place.write("a", "a")
    place.refresh()
    other_filesystem(monkeypatch)
    place.write("b", "b")
    forgets_nothing(place, place.refresh)
    report = place.refresh(accept_root=True)
    assert (report.full, report.sealed) == (True, True)
    place.assert_equals_disk()
    assert not place.refresh().sealed


def test_a_root_accepted_after_the_start_binds_nothing_from_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old files on a disk that was mounted after the start were not there for the run."""
    import time

    place.write("a", "a")
    place.refresh()
    time.sleep(0.03)
    start = time.time_ns()
    time.sleep(0.03)
    other_filesystem(monkeypatch)
    place.refresh(accept_root=True)
    place.refresh()
    binding = bind(place.db.read(timeline.marks), start, LOCAL_SLACK_NS)
    assert binding.seq is None


def test_a_mount_below_the_root_is_as_young_as_its_first_sight(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is suddenly another inode, with all its old ctimes, was not there before it was seen."""
    import time

    place.write("d/f", "below")
    other = place.base / "other"
    other.mkdir()
    (other / "f").write_text("mounted over")
    place.refresh()
    time.sleep(0.03)
    start = time.time_ns()
    time.sleep(0.03)
    from reprod.fs.ladder import Ladder

    original = Ladder.open
    mounted = os.open(other, os.O_RDONLY | os.O_DIRECTORY)

    def crossing(ladder: Ladder, path: bytes) -> int:
        return mounted if path == b"d" else original(ladder, path)

    monkeypatch.setattr(Ladder, "open", crossing)
    try:
        assert place.refresh().sealed
        binding = bind(place.db.read(timeline.marks), start, LOCAL_SLACK_NS)
        assert binding.seq is None, binding
    finally:
        os.close(mounted)


def test_a_dataset_that_is_one_file(tmp_path: Path) -> None:
    """It is a directory that holds only that file; gone means unavailable."""
    place = Place(tmp_path)
    place.write("one.csv", "1,2")
    place.write("two.csv", "3,4")
    place.config = DatasetConfig("data", str(place.root / "one.csv"))
    assert place.contents(place.refresh().version.seq).keys() == {b"one.csv"}
    place.write("two.csv", "5,6")
    assert not place.refresh().sealed
    place.write("one.csv", "changed")
    assert place.refresh(frozenset({b"one.csv"})).sealed
    (place.root / "one.csv").unlink()
    forgets_nothing(place, place.refresh)
    place.close()
