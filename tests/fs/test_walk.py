"""Listing: what is selected, what is never entered, what cannot be listed."""

import errno
import os
import socket
from pathlib import Path

import pytest

from reprod.core.pattern import Selection
from reprod.fs import walk as walking
from reprod.fs.walk import LAST, Listing, walk


def listed(root: Path, selection: Selection, **named: object) -> dict[bytes, Listing]:
    fd = os.open(root, os.O_RDONLY)
    try:
        return {listing.path: listing for listing in walk(fd, selection, **named)}  # type: ignore[arg-type]
    finally:
        os.close(fd)


def names(root: Path, selection: Selection, **named: object) -> set[bytes]:
    fd = os.open(root, os.O_RDONLY)
    try:
        tree = walk(fd, selection, **named)  # type: ignore[arg-type]
        return {os.path.join(listing.path, name) for listing in tree for part in listing.parts() for name in part.files}
    finally:
        os.close(fd)


def test_everything_that_is_no_directory_is_an_entry(tmp_path: Path) -> None:
    """Files, links (to a directory too), FIFOs and sockets are entries; a link is never walked through."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    (tmp_path / "to-directory").symlink_to("d")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert names(tmp_path, Selection()) == {b"d/f", b"to-directory", b"dangling", b"fifo", b"s"}
    assert names(tmp_path, Selection(symlinks="skip")) == {b"d/f", b"fifo", b"s"}


def test_hostile_names(tmp_path: Path) -> None:
    """Any byte but slash and NUL."""
    wanted = {bytes([b]) * 3 for b in range(1, 256) if b != 0x2F and b != 0x2E} | {b"new\nline", b"\xff\xfe"}
    for name in wanted:
        os.close(os.open(os.path.join(os.fsencode(tmp_path), name), os.O_CREAT, 0o644))
    assert names(tmp_path, Selection()) == wanted


def test_an_excluded_directory_is_not_even_listed(tmp_path: Path) -> None:
    """Exclude wins, and nothing below comes back."""
    for path in ("keep/a.csv", "skip/b.csv", "keep/skip/c.csv", "keep/d.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    selection = Selection(include=("*.csv",), exclude=("skip/",))
    assert names(tmp_path, selection) == {b"keep/a.csv"}
    assert set(listed(tmp_path, selection)) == {b"", b"keep"}


def test_state_is_never_entered(tmp_path: Path) -> None:
    """A directory that is given by device and inode is not listed, wherever it lies."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state/f").touch()
    status = (tmp_path / "state").stat()
    assert names(tmp_path, Selection(), skip=frozenset({(status.st_dev, status.st_ino)})) == set()


def test_new_directories_need_no_stat(tmp_path: Path) -> None:
    """Files that are going to be opened anyway are not stat'ed; links and special files are."""
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("f")
    found = listed(tmp_path, Selection(), is_new=lambda _path, _stat: True)[b""]
    assert (found.unread, found.names) == ([b"f"], [b"l"])


def test_parts_cover_every_name_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large directory comes in ranges that meet, the last open at its end; what vanished meanwhile is left out."""
    monkeypatch.setattr(walking, "PART_ENTRIES", 3)
    for name in "gfedcba":
        (tmp_path / name).touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    for listing in walk(fd, Selection()):
        (tmp_path / "b").unlink()
        parts = list(listing.parts())
    os.close(fd)
    assert [sorted(part.files) for part in parts] == [[b"a", b"c"], [b"d", b"e", b"f"], [b"g"]]
    assert [part[:2] for part in parts] == [(b"", b"c"), (b"c", b"f"), (b"f", LAST)]


def test_a_stat_that_fails_ends_the_listing_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after it is unknown, not absent."""
    monkeypatch.setattr(walking, "PART_ENTRIES", 2)
    for name in "abcdef":
        (tmp_path / name).touch()
    lstat = os.stat

    def failing(path: object, **named: object) -> os.stat_result:
        if path == b"d":
            raise OSError(errno.EIO, "Input/output error")
        return lstat(path, **named)  # type: ignore[arg-type]

    fd = os.open(tmp_path, os.O_RDONLY)
    for listing in walk(fd, Selection()):
        monkeypatch.setattr(os, "stat", failing)
        parts = list(listing.parts())
        monkeypatch.undo()
        assert [sorted(part.files) for part in parts] == [[b"a", b"b"]]
        assert listing.error is not None
        assert listing.error.errno == errno.EIO
    os.close(fd)


def test_a_missing_top_is_said(tmp_path: Path) -> None:
    """What is not there is an error, never an empty directory."""
    found = listed(tmp_path, Selection(), top=b"nothing")
    assert isinstance(found[b"nothing"].error, FileNotFoundError)
