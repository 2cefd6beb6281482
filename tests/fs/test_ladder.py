"""Deep trees: any depth, any length of path, with a bounded number of descriptors."""

import os
from pathlib import Path

import pytest

from reprod.core.pattern import Selection
from reprod.fs.ladder import MAX_RUNGS, Ladder
from reprod.fs.walk import walk

NAME = b"n" * 60


def dig(root: Path, depth: int) -> None:
    """Make directories below each other, beyond PATH_MAX, each with a file."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(NAME, dir_fd=fd)
        below = os.open(NAME, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        os.close(os.open(b"f", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=below))
        fd = below
    os.close(fd)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_deep_walk_is_bounded(tmp_path: Path) -> None:
    """200 levels, 12,000 bytes of path: every file is found, and descriptors stay bounded."""
    dig(tmp_path, 200)
    root = os.open(tmp_path, os.O_RDONLY)
    before, most, found = open_files(), 0, 0
    for listing in walk(root, Selection()):
        assert listing.error is None
        most = max(most, open_files() - before)
        found += len(listing.names)
    assert found == 200
    assert most <= MAX_RUNGS + 3
    assert open_files() == before
    os.close(root)


def test_opens_anywhere_in_any_order(tmp_path: Path) -> None:
    """From the deepest to the root to a sibling: always the right directory."""
    dig(tmp_path, 80)
    (tmp_path / "other").mkdir()
    root = os.open(tmp_path, os.O_RDONLY)
    before = open_files()
    with Ladder(root) as ladder:
        for depth in (80, 3, 79, 0, 40, 80):
            fd = ladder.open(b"/".join([NAME] * depth)) if depth else root
            assert os.fstat(fd).st_ino == inode(tmp_path, depth)
        assert os.fstat(ladder.open(b"other")).st_ino == (tmp_path / "other").stat().st_ino
    assert open_files() == before
    os.close(root)


def inode(root: Path, depth: int) -> int:
    fd = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        below = os.open(NAME, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    found = os.fstat(fd).st_ino
    os.close(fd)
    return found


def test_a_link_is_no_directory(tmp_path: Path) -> None:
    """No component may be a symlink, at any level, and an error leaves no descriptor behind."""
    (tmp_path / "real/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    root = os.open(tmp_path, os.O_RDONLY)
    before = open_files()
    with Ladder(root) as ladder:
        for path in (b"link", b"link/below"):
            with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
                ladder.open(path)
        with pytest.raises(FileNotFoundError):
            ladder.open(b"real/nothing/below")
        ladder.open(b"real/below")
    assert open_files() == before
    os.close(root)
