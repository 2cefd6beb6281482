"""A renamed directory is not read again, and nothing that differs hides behind that."""

import os
import time

import pytest
from ops_place import Place

from reprod.ops import scan


def settle() -> None:
    """Let what was written last become older than the slack."""
    until = time.monotonic() + 0.03
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize("own_stats", [8192, 10], ids=["walk stats", "workers stat"])
def test_renaming_a_directory_reads_nothing(place: Place, monkeypatch: pytest.MonkeyPatch, own_stats: int) -> None:
    """10,000 files in a tree with links that is renamed: no file is opened, and the digest is the oracle's."""
    monkeypatch.setattr(scan, "OWN_STATS", own_stats)
    for folder in ("a", "a/b", "a/b/c", "a/d"):
        (place.root / folder).mkdir()
        for n in range(2500):
            (place.root / folder / f"{n}").write_bytes(b"%d" % n)
    (place.root / "a/b/link").symlink_to("../d")
    settle()
    assert place.refresh().counts.hashed_files == 10_000
    (place.root / "a").rename(place.root / "z")
    place.watch.hint(b"a", b"z")
    report = place.refresh(frozenset({b"a", b"z"}))
    assert (report.counts.hashed_files, report.version.added, report.version.removed) == (0, 10_001, 10_001)
    place.assert_equals_disk()
    (place.root / "z/b").rename(place.root / "z/d/b")  # deeper, found by a walk
    assert place.refresh().counts.hashed_files == 0
    place.assert_equals_disk()


def test_what_changed_with_the_rename_is_read(place: Place) -> None:
    """Written before or after the rename, replaced, new, or with its old mtime: each is read, the rest is not."""
    for n in range(20):
        place.write(f"a/{n}", "old")
    settle()
    place.refresh()
    place.write("a/0", "before")
    (place.root / "a").rename(place.root / "z")
    place.write("z/1", "after!")
    place.write("z/new", "new")
    before = (place.root / "z/2").stat()
    place.write("z/2", "sly")
    os.utime(place.root / "z/2", ns=(before.st_atime_ns, before.st_mtime_ns))
    place.write("other", "put")
    (place.root / "other").rename(place.root / "z/3")
    settle()
    assert place.refresh().counts.hashed_files == 5
    place.assert_equals_disk()


@pytest.mark.parametrize("path", [b"a/f", b"z/f"])
def test_a_hinted_file_is_read_even_if_only_renamed(place: Place, path: bytes) -> None:
    """A long write stamps its ctime when it begins: what a hint told of is read under either name."""
    place.write("a/f", "1")
    place.write("a/g", "1")
    settle()
    place.refresh()
    (place.root / "a").rename(place.root / "z")
    place.watch.hint(b"a", b"z", path)
    assert place.refresh(frozenset({b"a", b"z", path})).counts.hashed_files == 1
    place.assert_equals_disk()


def test_rehash_reads_what_was_renamed(place: Place) -> None:
    """Who asks for every byte gets every byte."""
    place.write("a/f", "1")
    settle()
    place.refresh()
    (place.root / "a").rename(place.root / "z")
    assert place.refresh(rehash=True).counts.hashed_files == 1
    place.assert_equals_disk()


def test_another_directory_with_the_same_inode_is_read(place: Place) -> None:
    """An inode that is used again is another directory: its files have other fingerprints, and are read."""
    for round_ in range(20):
        place.write("a/f", "1")
        settle()
        place.refresh()
        (place.root / "a/f").unlink()
        (place.root / "a").rmdir()
        place.write(f"z{round_}/f", "2")
        settle()
        assert place.refresh().counts.hashed_files == 1
        place.assert_equals_disk()
