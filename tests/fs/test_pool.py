"""The pool: whatever happens to its workers, every file comes back once, with the digest that hashlib gives."""

import gc
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reprod.fs import process
from reprod.fs.hash import Hashed, Outcome
from reprod.fs.pace import BURST_S, Pace
from reprod.fs.pool import BATCH_FILES, HashPool
from reprod.fs.worker import LARGE

SLACK = 1  # files of a test are as old as they are

#: Bytes of a file of holes whose reading no test sees the end of: a quarter of an hour, where this was measured.
ENDLESS = 1 << 40


def populate(root: Path, count: int, folder: str = "") -> dict[bytes, str]:
    """Write ``count`` small files; path to sha256."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    expected = {}
    for number in range(count):
        data = f"{folder}{number}".encode() * (number % 50)
        path = root / folder / f"f{number}"
        path.write_bytes(data)
        expected[os.fsencode(path.relative_to(root))] = hashlib.sha256(data).hexdigest()
    return expected


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A directory and a descriptor of it."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, fd
    os.close(fd)


def feed(pool: HashPool, paths: dict[bytes, str], size: int = 0) -> dict[bytes, Hashed]:
    """Add all and collect all, as a scan does."""
    found: dict[bytes, Hashed] = {}

    def take(*, everything: bool) -> None:
        for rows in pool.collect(lambda: None, everything=everything):
            for directory, name, tag, hashed in rows:
                assert tag not in found
                assert tag == (directory + b"/" + name if directory else name)
                found[tag] = hashed

    for path in paths:
        directory, _, name = path.rpartition(b"/")
        pool.add(directory, name, size, path)
        take(everything=False)
    take(everything=True)
    return found


def assert_right(found: dict[bytes, Hashed], expected: dict[bytes, str]) -> None:
    assert {path: (h.sha256 or b"").hex() for path, h in found.items()} == expected
    assert {h.outcome for h in found.values()} <= {Outcome.CLEAN}


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def test_more_than_a_batch_of_files_and_large_ones(root: tuple[Path, int]) -> None:
    """Small files through processes, large ones through threads, all equal to hashlib; no process is left."""
    path, fd = root
    expected = {**populate(path, 700), **populate(path, 700, "a/b")}
    before = children()
    with HashPool(fd, slack_ns=SLACK, workers=2) as pool:
        found = feed(pool, expected)
        assert set(children()) > set(before)
        big = {b"big1": b"x" * (LARGE + 1), b"big2": b"y" * (3 * LARGE)}
        for name, data in big.items():
            (path / os.fsdecode(name)).write_bytes(data)
        time.sleep(0.001)
        large = feed(pool, dict.fromkeys(big, ""), size=LARGE)
    assert_right(found, expected)
    assert_right(large, {name: hashlib.sha256(data).hexdigest() for name, data in big.items()})
    assert set(children()) <= set(before)


def test_few_files_need_no_process(root: tuple[Path, int]) -> None:
    """A one-file change must not wait for a process to start."""
    path, fd = root
    expected = populate(path, 20)
    before = children()
    with HashPool(fd, slack_ns=SLACK) as pool:
        assert_right(feed(pool, expected), expected)
        assert set(children()) <= set(before)


def test_all_algorithms_in_one_read(root: tuple[Path, int]) -> None:
    """Further digests equal hashlib's, through workers too."""
    path, fd = root
    extra = ("md5", "sha1", "sha512", "blake2b")
    populate(path, BATCH_FILES + 5)
    with HashPool(fd, slack_ns=SLACK, extra=extra, workers=1) as pool:
        found = feed(pool, {b"f%d" % n: "" for n in range(BATCH_FILES + 5)})
    for name, hashed in found.items():
        data = (path / os.fsdecode(name)).read_bytes()
        assert hashed.sha256 == hashlib.sha256(data).digest()
        assert hashed.more == {a: hashlib.new(a, data).digest() for a in extra}


def test_unknown_size_of_a_large_file(root: tuple[Path, int]) -> None:
    """A large file in a batch comes back as LARGE with its size, unread."""
    path, fd = root
    (path / "big").write_bytes(b"x" * LARGE)
    time.sleep(0.01)
    with HashPool(fd, slack_ns=SLACK) as pool:
        hashed = feed(pool, {b"big": ""})[b"big"]
    assert hashed.outcome == Outcome.LARGE
    assert hashed.stat is not None
    assert hashed.stat[1] == LARGE


def test_killed_workers_cost_nothing_but_time(root: tuple[Path, int]) -> None:
    """Every worker is killed from outside as soon as it appears, three times over: the results are complete."""
    path, fd = root
    expected = populate(path, 3000)
    before, killed = set(children()), 0
    with HashPool(fd, slack_ns=SLACK, workers=2) as pool:
        found: dict[bytes, Hashed] = {}
        for number, name in enumerate(expected):
            pool.add(b"", name, 0, name)
            if number % 500 == 300:
                for pid in set(children()) - before:
                    os.kill(pid, 9)
                    killed += 1
            for rows in pool.collect(lambda: None):
                found.update({tag: hashed for _, _, tag, hashed in rows})
        for rows in pool.collect(lambda: None, everything=True):
            found.update({tag: hashed for _, _, tag, hashed in rows})
    assert killed >= 3
    assert_right(found, expected)
    assert set(children()) <= before


def test_no_process_to_be_had(root: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started the work is done all the same."""
    path, fd = root
    expected = populate(path, 600)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process.subprocess, "Popen", refuse)
    with HashPool(fd, slack_ns=SLACK, workers=2) as pool:
        assert_right(feed(pool, expected), expected)


def test_close_while_busy_is_quick_and_leaves_nothing(root: tuple[Path, int]) -> None:
    """Stopped in the middle of large and small files: back before they are read, no process, no descriptor left."""
    path, fd = root
    populate(path, 2000)
    with open(path / "sparse", "wb") as file:
        file.truncate(ENDLESS)
    gc.collect()  # what earlier tests left open
    before, open_before = children(), len(os.listdir("/proc/self/fd"))
    pool = HashPool(fd, slack_ns=SLACK, workers=2)
    pool.add(b"", b"sparse", ENDLESS)
    for number in range(2000):
        pool.add(b"", b"f%d" % number, 0)
    pool.close()
    assert set(children()) <= set(before)
    assert len(os.listdir("/proc/self/fd")) <= open_before


def test_checkpoint_stops_a_wait(root: tuple[Path, int]) -> None:
    """A long read does not keep the checkpoint from raising."""
    path, fd = root
    with open(path / "sparse", "wb") as file:
        file.truncate(ENDLESS)
    time.sleep(0.01)
    began = time.monotonic()

    def stop() -> None:
        if time.monotonic() - began > 0.2:
            raise KeyboardInterrupt

    with HashPool(fd, slack_ns=SLACK) as pool:
        pool.add(b"", b"sparse", ENDLESS)
        with pytest.raises(KeyboardInterrupt):
            list(pool.collect(stop, everything=True))


def test_vanished_and_moved_directories(root: tuple[Path, int]) -> None:
    """What is gone is vanished; a link in the place of a directory is not followed."""
    path, fd = root
    populate(path, 3, "there")
    (path / "link").symlink_to("there")
    with HashPool(fd, slack_ns=SLACK) as pool:
        found = feed(pool, {b"gone/f": "", b"there/nothing": "", b"link/f0": "", b"there/f0": ""})
    assert found[b"gone/f"].outcome == found[b"there/nothing"].outcome == Outcome.VANISHED
    assert found[b"link/f0"].outcome in {Outcome.VANISHED, Outcome.UNREADABLE}
    assert found[b"there/f0"].outcome == Outcome.CLEAN


def test_what_is_queued_never_fills_a_pipe(root: tuple[Path, int]) -> None:
    """Thousands of files with the shortest names, added before anything is collected, do not block the caller: what is
    sent for a name is longer than the name."""
    folder, fd = root
    names = [os.fsencode(f"{i:x}") for i in range(30_000)]
    for name in names:
        (folder / os.fsdecode(name)).touch()
    with HashPool(fd, slack_ns=SLACK, workers=2) as pool:
        pool.add_unknown(b"", names)
        rows = [row for batch in pool.collect(lambda: None, everything=True) for row in batch]

    assert sorted(name for _, name, _, _ in rows) == sorted(names)
    assert {hashed.outcome for _, _, _, hashed in rows} == {Outcome.CLEAN}


def test_files_of_unknown_size_come_back_once_and_large_ones_as_such(root: tuple[Path, int]) -> None:
    """Files whose size nobody knew are hashed, each once; one that is large is handed back with its stat."""
    folder, fd = root
    expected = populate(folder, 3 * BATCH_FILES + 7, "some")
    (folder / "some" / "huge").write_bytes(b"\0" * LARGE)
    names = [path.rpartition(b"/")[2] for path in expected] + [b"huge"]
    with HashPool(fd, slack_ns=SLACK, workers=2) as pool:
        pool.add_unknown(b"some", names, "tag")
        rows = [row for batch in pool.collect(lambda: None, everything=True) for row in batch]

    assert len(rows) == len(names)
    assert {tag for _, _, tag, _ in rows} == {"tag"}
    found = {directory + b"/" + name: hashed for directory, name, _, hashed in rows}
    assert found.pop(b"some/huge").outcome is Outcome.LARGE
    assert {path: (h.sha256 or b"").hex() for path, h in found.items()} == expected


@pytest.mark.parametrize("size", [LARGE // 4, 3 * LARGE])
def test_a_limit_of_reads_is_kept(root: tuple[Path, int], size: int) -> None:
    """So many bytes take as long as the limit says, in small files and within one large one."""
    path, fd = root
    total, rate = 3 * LARGE, 6 * LARGE
    for i in range(total // size):
        (path / f"f{i}").write_bytes(os.urandom(size))
    began = time.monotonic()
    with HashPool(fd, slack_ns=SLACK, workers=2, pace=Pace(rate)) as pool:
        for _ in range(2):
            for i in range(total // size):
                pool.add(b"", b"f%d" % i, size)
            pool._close_batch()  # the limit is between batches
        assert sum(len(results) for results in pool.collect(lambda: None, everything=True)) == 2 * total // size
    assert time.monotonic() - began > total / rate - BURST_S
