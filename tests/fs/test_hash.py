"""One file: clean, or why not."""

import hashlib
import mmap
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reprod.fs import read
from reprod.fs.hash import Hashed, Outcome
from reprod.fs.read import CHUNK, settle_ns

SLACK = 20_000_000


def hashed(folder: Path, name: bytes = b"f", slack_ns: int = 1, **named: object) -> Hashed:
    fd = os.open(folder, os.O_RDONLY)
    try:
        outcome, *rest = read.read_at(fd, name, slack_ns, **named)  # type: ignore[arg-type]
        return Hashed(Outcome(outcome), *rest)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_digests_are_hashlibs(tmp_path: Path, size: int) -> None:
    """Every size around the chunk, with and without further algorithms."""
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    time.sleep(0.01)
    plain, more = hashed(tmp_path), hashed(tmp_path, extra=("md5", "blake2b"))
    assert plain.outcome == more.outcome == Outcome.CLEAN
    assert plain.sha256 == more.sha256 == hashlib.sha256(data).digest()
    assert more.more == {"md5": hashlib.md5(data).digest(), "blake2b": hashlib.blake2b(data).digest()}  # noqa: S324


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A link, a FIFO, a socket, a directory: never read, never waited for."""
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in (b"link", b"fifo", b"socket", b"folder"):
            assert hashed(tmp_path, name).outcome == Outcome.OTHER
    assert hashed(tmp_path, b"nothing").outcome == Outcome.VANISHED


def test_a_young_file_is_racy(tmp_path: Path) -> None:
    """Within the slack of its ctime it is not read; after it, it is."""
    (tmp_path / "f").write_text("x")
    assert hashed(tmp_path, slack_ns=10**10).outcome == Outcome.RACY
    time.sleep(0.03)
    assert hashed(tmp_path, slack_ns=SLACK).outcome == Outcome.CLEAN


def test_whole_seconds_need_more_than_a_second() -> None:
    """A file system without finer stamps shows a change within the same second only by waiting it out."""
    assert settle_ns((0, 0, 5_000_000_000, 7_000_000_000, 1), SLACK) > 1_000_000_000
    assert settle_ns((0, 0, 5_000_000_000, 7_000_000_001, 1), SLACK) == SLACK


def test_stop_and_limit(tmp_path: Path) -> None:
    """A stopped read has no digest; a file over the limit is not read."""
    (tmp_path / "f").write_bytes(b"x" * 3 * CHUNK)
    time.sleep(0.01)
    assert hashed(tmp_path, between=lambda _: True).outcome == Outcome.UNSTABLE
    over = hashed(tmp_path, limit=CHUNK)
    assert (over.outcome, over.sha256) == (Outcome.LARGE, None)


def test_noatime_is_given_up_where_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of somebody else is read all the same."""
    (tmp_path / "f").write_text("x")
    open_ = os.open

    def refuse(path: object, flags: int, *args: object, **named: object) -> int:
        if flags & os.O_NOATIME:
            raise PermissionError(1, "Operation not permitted")
        return open_(path, flags, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(read, "_noatime", os.O_NOATIME)
    time.sleep(0.01)
    monkeypatch.setattr(os, "open", refuse)
    assert hashed(tmp_path).outcome == Outcome.CLEAN


@pytest.mark.parametrize("how", ["open", "mapped"])
@pytest.mark.parametrize("size", [5000, CHUNK + 1])
def test_a_young_file_that_is_open_for_writing_is_a_moving_target(tmp_path: Path, how: str, size: int) -> None:
    """Also when only a mapping is left of it: a store to a dirty page changes no stat. Closed, or old, it is clean."""
    file = tmp_path / "f"
    file.write_bytes(b"x" * size)
    time.sleep(0.01)
    assert hashed(tmp_path).outcome == Outcome.CLEAN
    writer = open(file, "r+b")  # noqa: SIM115 - closed below
    page = mmap.mmap(writer.fileno(), 4096) if how == "mapped" else None  # noqa: TID251 - somebody else's
    if page is not None:
        writer.close()
    assert hashed(tmp_path).outcome == Outcome.UNSTABLE
    assert hashed(tmp_path, unseen_ns=0).outcome == Outcome.CLEAN
    page.close() if page is not None else writer.close()
    assert hashed(tmp_path).outcome == Outcome.CLEAN


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
def test_who_is_not_the_owner_cannot_tell(tmp_path: Path) -> None:
    """The kernel gives a lease to the owner and to root only; for others the file is as clean as its stat says."""
    (tmp_path / "f").write_bytes(b"x")
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    time.sleep(0.01)
    script = (
        "import os, sys; from reprod.fs.read import read_at; os.setgid(65534); os.setuid(65534); "
        "print(read_at(int(sys.argv[1]), b'f', 1)[0])"
    )
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with open(tmp_path / "f", "r+b"):
            command = [sys.executable, "-c", script, str(folder)]
            done = subprocess.run(command, pass_fds=(folder,), capture_output=True, text=True, timeout=30, check=True)
    finally:
        os.close(folder)
    assert done.stdout == f"{int(Outcome.CLEAN)}\n"


def test_asking_does_no_harm(tmp_path: Path) -> None:
    """While a file is asked about 2,000 times, a writer opens it all the time: it never fails, and nobody is killed."""
    file = tmp_path / "f"
    file.write_bytes(b"x")
    stop, failures, opened = threading.Event(), [], [0]

    def write() -> None:
        while not stop.is_set():
            try:
                os.close(os.open(file, os.O_WRONLY))
                opened[0] += 1
            except OSError as error:
                failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        outcomes = {hashed(tmp_path).outcome for _ in range(2000)}
    finally:
        stop.set()
        writer.join()
    assert failures == []
    assert opened[0] > 100
    assert outcomes <= {Outcome.CLEAN, Outcome.UNSTABLE, Outcome.RACY}
