"""Atomic files: the old content or the new, nothing left over."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprod.fs.atomic import remove, write_atomic, write_output


def test_new_file_has_data_and_exact_mode(tmp_path: Path) -> None:
    """The mode is the one asked for, whatever the umask."""
    target = tmp_path / "x.toml"
    before = os.umask(0o077)
    try:
        write_atomic(target, b"one\n", 0o664)
    finally:
        os.umask(before)
    assert target.read_bytes() == b"one\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o664
    assert os.listdir(tmp_path) == ["x.toml"]


def test_replacing_is_a_new_inode(tmp_path: Path) -> None:
    """A reader that holds the old file keeps all of the old content."""
    target = tmp_path / "x"
    write_atomic(target, b"old")
    with target.open("rb") as held:
        write_atomic(target, b"newer")
        assert held.read() == b"old"
    assert target.read_bytes() == b"newer"


def test_name_of_255_bytes(tmp_path: Path) -> None:
    """The temporary name does not depend on the target's, so the longest name works."""
    target = tmp_path / ("n" * 255)
    write_atomic(target, b"")
    assert target.read_bytes() == b""


def test_symlink_is_replaced_not_followed(tmp_path: Path) -> None:
    """What a symlink points to stays as it is."""
    other = tmp_path / "other"
    other.write_bytes(b"kept")
    link = tmp_path / "link"
    link.symlink_to(other)
    write_atomic(link, b"mine")
    assert not link.is_symlink()
    assert other.read_bytes() == b"kept"


@pytest.mark.parametrize("failing", ["fsync", "fchmod"])
def test_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """If writing fails, the old content stands and no temporary file is left."""
    target = tmp_path / "x"
    write_atomic(target, b"old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, broken)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_rename_failure_leaves_nothing(tmp_path: Path) -> None:
    """A target that is a directory is an error, and the temporary file is gone."""
    (tmp_path / "dir").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "dir", b"x")
    assert os.listdir(tmp_path) == ["dir"]


def test_remove(tmp_path: Path) -> None:
    """Removing says whether there was something to remove."""
    target = tmp_path / "x"
    write_atomic(target, b"")
    assert remove(target) is True
    assert remove(target) is False
    assert not target.exists()


class TestOutput:
    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
    def test_a_new_file_has_what_the_umask_gives(self, tmp_path: Path, umask: int, mode: int) -> None:
        """An output is as private as any file that the user makes."""
        before = os.umask(umask)
        try:
            write_output(tmp_path / "x", [b"one", b" two"])
        finally:
            os.umask(before)
        assert (tmp_path / "x").read_bytes() == b"one two"
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode
        assert os.listdir(tmp_path) == ["x"]

    def test_an_old_file_keeps_its_mode_and_its_links(self, tmp_path: Path) -> None:
        """What is replaced keeps its permission bits, and a link still leads to it."""
        (tmp_path / "x").write_bytes(b"old")
        (tmp_path / "x").chmod(0o640)
        (tmp_path / "link").symlink_to("x")
        write_output(tmp_path / "link", [b"new"])
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "x").read_bytes() == b"new"
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640

    def test_what_is_no_file_is_written_into(self, tmp_path: Path) -> None:
        """A pipe gets the data and stays a pipe; a folder is an error."""
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        write_output(tmp_path / "pipe", [b"a", b"b"])
        assert os.read(reader, 10) == b"ab"
        os.close(reader)
        assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
        with pytest.raises(IsADirectoryError):
            write_output(tmp_path, [b"a"])

    def test_a_failure_in_the_middle_keeps_the_old_file(self, tmp_path: Path) -> None:
        """If the pieces end with an error, the old content stands and nothing is left over."""
        (tmp_path / "x").write_bytes(b"old")

        def pieces() -> Iterator[bytes]:
            yield b"new" * 100_000
            raise RuntimeError

        with pytest.raises(RuntimeError):
            write_output(tmp_path / "x", pieces())
        assert (tmp_path / "x").read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["x"]
