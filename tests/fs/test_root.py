"""The root: opened once, named well when it cannot be."""

import os
import time
from pathlib import Path

import pytest

from reprod.errors import DatasetUnavailableError
from reprod.fs.root import known_since_ns, open_root, split_root


def test_missing_and_wrong_roots_say_what_to_do(tmp_path: Path) -> None:
    """Missing, a FIFO, a file as a folder: unavailable, with a hint."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    for path in ("missing", "fifo", "file/below"):
        with pytest.raises(DatasetUnavailableError) as caught:
            open_root(str(tmp_path / path))
        assert caught.value.hint


def test_replaced_roots_are_noticed(tmp_path: Path) -> None:
    """The same path with another directory behind it is not the same; touching it is."""
    root = tmp_path / "root"
    root.mkdir()
    with open_root(str(root)) as opened:
        (root / "f").touch()
        assert opened.is_still_there()
        root.rename(tmp_path / "away")
        assert not opened.is_still_there()
        root.mkdir()
        assert not opened.is_still_there()


def test_one_file_is_its_directory(tmp_path: Path) -> None:
    """Opened is the folder, restricted to the name."""
    (tmp_path / "f\udcff").touch()
    with open_root(str(tmp_path / "f\udcff")) as opened:
        assert opened.only == b"f\xff"
        assert os.fstat(opened.fd).st_ino == tmp_path.stat().st_ino


def test_ignore_lines(tmp_path: Path) -> None:
    """A regular file at the root counts, a FIFO or link of that name does not hang and is none."""
    ignore = tmp_path / ".reprodignore"
    with open_root(str(tmp_path)) as opened:
        assert opened.ignore_lines() == ()
        ignore.write_bytes(b"*.tmp\r\n\xff\n")
        assert opened.ignore_lines() == (b"*.tmp", b"\xff")
        ignore.unlink()
        os.mkfifo(ignore)
        assert opened.ignore_lines() == ()
        ignore.unlink()
        ignore.mkdir()
        assert opened.ignore_lines() == ()


def test_a_symlink_to_a_file_stands_for_the_file(tmp_path: Path) -> None:
    """As one to a directory stands for that; retargeted, the root is another."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").touch()
    link = tmp_path / "link"
    link.symlink_to("one/f")
    assert split_root(str(link)) == (str(tmp_path / "one"), "f")
    with open_root(str(link)) as opened:
        assert opened.only == b"f"
        link.unlink()
        link.symlink_to("two/f")
        assert not opened.is_still_there()


def test_known_since_is_never_too_old(tmp_path: Path) -> None:
    """Renaming a directory above makes the root as young as that; through a symlink nothing older is proven."""
    root = tmp_path / "a/root"
    root.mkdir(parents=True)
    with open_root(str(root)) as opened:
        assert known_since_ns(opened, time.time_ns()) <= time.time_ns()
    time.sleep(0.02)
    before = time.time_ns()
    time.sleep(0.02)
    (tmp_path / "a").rename(tmp_path / "b")
    with open_root(str(tmp_path / "b/root")) as opened:
        assert known_since_ns(opened, time.time_ns()) > before
    (tmp_path / "link").symlink_to("b/root")
    now = time.time_ns()
    with open_root(str(tmp_path / "link")) as opened:
        assert known_since_ns(opened, now) == now
