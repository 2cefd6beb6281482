"""Digests of odd files: sparse, growing, linked from elsewhere, very deep, very many, with inodes that are used again.

Plain files below ``tmp_path``. The oracle reads on its own; where a path is longer than the kernel takes, the test says
what it wrote. Sizes are bytes, times Unix nanoseconds.
"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import oracle
import pytest
from ops_place import Place

from reprod.core import digest
from reprod.core.entry import Problem
from reprod.store import versions

GIB = 1 << 30

#: Entries of the large directory; the long form is 100,000.
ENTRIES = int(os.environ.get("REPROD_ENTRIES", "20000"))


def let_settle() -> None:
    """Let what was written last become older than the slack, so that it can be read clean at once."""
    until = time.monotonic() + 0.03
    while time.monotonic() < until:
        pass


def resident() -> int:
    """Return how much of this process is in memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def newest(place: Place) -> versions.Version:
    found = place.db.read(versions.newest)
    assert found is not None
    return found


# --- what a file is --------------------------------------------------------------------------------------------------


def sparse_sha256(extents: dict[int, bytes]) -> bytes:
    """Return the digest of 1 GiB that is zero but for these, without reading anything."""
    state, at = hashlib.sha256(), 0
    for start, data in [*sorted(extents.items()), (GIB, b"")]:
        while at < start:
            zeros = bytes(min(start - at, 1 << 20))
            state.update(zeros)
            at += len(zeros)
        state.update(data)
        at += len(data)
    return state.digest()


def test_a_sparse_file_is_its_zeros(place: Place) -> None:
    """1 GiB of nothing with two extents of 4 KiB has the digest of all its bytes, and takes no memory for them."""
    extents = {0.25: b"first" * 819, 0.75: b"other" * 819}
    path = place.root / "sparse"
    with open(path, "wb") as file:
        file.truncate(GIB)
        for part, data in extents.items():
            file.seek(int(GIB * part))
            file.write(data)
    if path.stat().st_blocks * 512 > GIB // 2:
        pytest.skip("this file system has no sparse files")
    let_settle()
    before, most = resident(), 0

    def look() -> None:
        nonlocal most
        most = max(most, resident() - before)

    began = time.monotonic()
    place.refresh(checkpoint=look)
    took_s = time.monotonic() - began
    print(f"refresh {took_s:.2f} s, {most >> 10} KiB more memory at most")
    truth: oracle.Contents = {b"sparse": ("file", GIB, sparse_sha256({int(GIB * p): d for p, d in extents.items()}))}
    assert place.contents(1) == truth
    assert digest.text(newest(place).digest or b"") == oracle.dt1(truth)
    assert most < 128 << 20


def test_the_last_bytes_of_a_sparse_file_count(place: Place) -> None:
    """Two files of holes that differ in size or in one byte differ in digest; a hole is as good as written zeros."""
    sizes = {"a": 3 << 20, "b": (3 << 20) + 1, "c": 3 << 20, "d": 3 << 20}
    for name, size in sizes.items():
        with open(place.root / name, "wb") as file:
            file.truncate(size)
    (place.root / "c").write_bytes(bytes(sizes["c"]))
    with open(place.root / "d", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"1")
    place.refresh()
    truth = place.assert_equals_disk()
    assert len({content[2] for content in truth.values()}) == 3


def test_written_through_a_link_outside(place: Place) -> None:
    """A file that is written by a name outside the root makes no event here, and the next walk finds it under both of
    its names inside; a further name elsewhere, and its end, are no version."""
    place.write("f", "one")
    os.link(place.root / "f", place.root / "g")
    place.refresh()
    outside = place.base / "outside"
    os.link(place.root / "f", outside)
    report = place.refresh()
    assert (report.sealed, report.touched) == (False, True)
    with open(outside, "r+b") as file:
        file.write(b"two")
    report = place.refresh()
    assert (report.sealed, report.version.modified, report.unannounced) == (True, 2, 1)
    assert {content[2] for content in place.assert_equals_disk().values()} == {hashlib.sha256(b"two").digest()}
    outside.unlink()
    assert place.refresh().sealed is False
    place.assert_equals_disk()


def test_a_hint_of_one_name_and_a_walk_for_the_other(place: Place) -> None:
    """A write is hinted under the name that was written; the other name of the file follows with the next walk."""
    place.write("f", "one")
    os.link(place.root / "f", place.root / "g")
    place.refresh()
    place.write("f", "two")
    place.watch.hint(b"f")
    place.refresh(frozenset({b"f"}))
    place.refresh()
    place.assert_equals_disk()


@pytest.mark.parametrize("hinted", [False, True], ids=["walk", "hint"])
def test_an_inode_that_is_used_again(place: Place, hinted: bool) -> None:
    """Another file with the size, the mtime and the inode of the one that was there is read: the ctime is another."""
    same = 0
    for number in range(10):
        path = place.write("f", f"{number:05}")
        os.utime(path, ns=(0, 10**18))
        place.refresh(frozenset({b"f"}) if hinted and number else None)
        place.assert_equals_disk()
        before = path.stat()
        path.unlink()
        path.write_text(f"{number:04}x")
        os.utime(path, ns=(0, 10**18))
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        same += after.st_ino == before.st_ino
        place.refresh(frozenset({b"f"}) if hinted else None)
        place.assert_equals_disk()
    print(f"{same} of 10 had the same inode")


def test_sizes_and_names_at_their_limits(place: Place) -> None:
    """Empty files, names of 255 bytes of any kind, and contents around the sizes that are read at once."""
    names = [b"n" * 255, b"\xff" * 255, b"\n" * 255, "é".encode() * 127 + b"x", b"\\" * 255]
    for name in names:
        with open(place.path(name), "wb"):
            pass
    for size in (1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 1):
        place.write(f"{size}", os.urandom(size))
    place.refresh()
    truth = place.assert_equals_disk()
    assert sum(size == 0 for _, size, _ in truth.values()) == len(names)
    for name in names:
        with open(place.path(name), "wb") as file:
            file.write(name)
    place.refresh(frozenset(names))
    place.assert_equals_disk()


def test_a_directory_becomes_a_file_and_back(place: Place) -> None:
    """Between two walks a directory becomes a file, a file a directory, and both back again."""
    place.write("d/deep/f", "f")
    place.write("d/g", "g")
    place.write("f", "f")
    place.refresh()
    contents = [place.assert_equals_disk()]
    for _ in range(2):
        (place.root / "d").rename(place.base / "directory")
        (place.root / "f").rename(place.root / "d")
        (place.base / "directory").rename(place.root / "f")
        place.refresh()
        contents.append(place.assert_equals_disk())
    assert contents[0] == contents[2] != contents[1]
    assert newest(place).seq == 3
    (place.root / "f").rename(place.root / "aside")
    (place.root / "aside").rename(place.root / "f")
    assert place.refresh().sealed is False


# --- deep and many ---------------------------------------------------------------------------------------------------


@contextmanager
def deep(root: Path, name: bytes, levels: int) -> Iterator[int]:
    """Make a chain of directories by descriptors alone; yield one of the deepest."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(levels):
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def remove_chain(root: Path, name: bytes) -> None:
    """Remove such a chain, whose paths no other tool takes: each level is lifted to the top and emptied."""
    top, lifted = os.fsencode(root / os.fsdecode(name)), os.fsencode(root / "lifted")
    while os.path.lexists(top):
        for entry in os.scandir(top):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
        if os.path.lexists(os.path.join(top, name)):
            os.rename(os.path.join(top, name), lifted)
            os.rmdir(top)
            os.rename(lifted, top)
        else:
            os.rmdir(top)


def put(directory: int, name: bytes, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=directory)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def assert_holds(place: Place, contents: dict[bytes, bytes]) -> None:
    """The newest version holds exactly these files: what no path can reach, the test knows from having written it."""
    truth: oracle.Contents = {p: ("file", len(d), hashlib.sha256(d).digest()) for p, d in contents.items()}
    version = newest(place)
    assert place.contents(version.seq) == truth
    assert digest.text(version.digest or b"") == oracle.dt1(truth)


def test_paths_longer_than_the_kernel_takes(place: Place) -> None:
    """40 levels of names of 200 bytes: the leaf is hashed; what is changed, added and removed there is found by a hint
    and by a walk."""
    name = b"n" * 200
    above = b"/".join([name] * 40)
    leaf, other = above + b"/leaf", above + b"/other"
    try:
        with deep(place.root, name, 40) as fd:
            put(fd, b"leaf", b"one")
            with pytest.raises(OSError, match="too long"):
                os.lstat(place.path(leaf))
            place.refresh()
            assert_holds(place, {leaf: b"one"})
            put(fd, b"leaf", b"two")
            place.refresh(frozenset({leaf}))
            assert_holds(place, {leaf: b"two"})
            put(fd, b"other", b"new")
            place.refresh(frozenset({above}))
            assert_holds(place, {leaf: b"two", other: b"new"})
            put(fd, b"leaf", b"three")
            assert place.refresh().counts.hashed_files == 1
            assert_holds(place, {leaf: b"three", other: b"new"})
            os.unlink(b"leaf", dir_fd=fd)
            place.refresh()
            assert_holds(place, {other: b"new"})
    finally:
        remove_chain(place.root, name)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def chain_dt1(name: bytes, levels: int, files: dict[int, tuple[bytes, bytes]]) -> str:
    """Return the digest of a chain of directories with a file (name, data) at some levels, the root being level 0.

    The oracle goes down a tree by recursion, which Python ends at a thousand; this goes up.
    """
    listing = b""
    for level in range(levels, -1, -1):
        lines = {name + b"/": b"%s  %s/\n" % (hashlib.sha256(listing).hexdigest().encode(), name)} if listing else {}
        if level in files:
            file, data = files[level]
            lines[file] = b"%s  %s\n" % (hashlib.sha256(data).hexdigest().encode(), file)
        listing = b"".join(lines[key] for key in sorted(lines))
    return "dt1:" + hashlib.sha256(listing).hexdigest()


LEVELS = 2000


def test_a_chain_of_2000_directories(place: Place) -> None:
    """2,000 levels: found by a walk and by a hint of the leaf alone, changed and removed, without recursion, and with
    fewer than 64 descriptors more at any moment."""
    most, before = 0, descriptors()
    leaf = b"d/" * LEVELS + b"leaf"

    def count() -> None:
        nonlocal most
        most = max(most, descriptors() - before)

    def assert_found(paths: frozenset[bytes] | None, *more: tuple[int, bytes, bytes]) -> None:
        place.refresh(paths, checkpoint=count)
        files = {0: (b"top", b"top")} | {level: (name, data) for level, name, data in more}
        assert digest.text(newest(place).digest or b"") == chain_dt1(b"d", LEVELS, files)
        assert newest(place).files == len(files)

    try:
        place.write("top", "top")
        assert_found(None)
        with deep(place.root, b"d", LEVELS) as fd:
            put(fd, b"leaf", b"one")
            assert_found(frozenset({leaf}), (LEVELS, b"leaf", b"one"))
            put(fd, b"leaf", b"two")
            assert_found(frozenset({leaf}), (LEVELS, b"leaf", b"two"))
            put(fd, b"leaf", b"three")
            place.write("d/d/d/half", "half")
            assert_found(None, (LEVELS, b"leaf", b"three"), (3, b"half", b"half"))
            place.restart()
            assert_found(None, (LEVELS, b"leaf", b"three"), (3, b"half", b"half"))
    finally:
        remove_chain(place.root, b"d")
    assert_found(None)
    assert 0 < most < 64


def test_a_directory_of_very_many_files(place: Place) -> None:
    """All of its files are in the set; one that is added, changed or removed is found by a walk and by a hint, and
    nothing else is read again."""
    for number in range(ENTRIES):
        put_file(place.path(b"%d" % number), b"%d" % number)
    let_settle()
    place.refresh()
    truth = place.assert_equals_disk()
    assert len(truth) == ENTRIES
    steps: list[tuple[bytes, Callable[[bytes], None]]] = [
        (b"middle", lambda path: put_file(path, b"new")),
        (b"%d" % (ENTRIES // 2), lambda path: put_file(path, b"changed")),
        (b"0", os.unlink),
    ]
    for hinted in (True, False):
        for name, act in steps:
            act(place.path(name))
            let_settle()
            report = place.refresh(frozenset({name}) if hinted else None)
            assert report.counts.hashed_files == (act is not os.unlink)
            put_in(truth, place, name)
            assert place.contents(newest(place).seq) == truth
        steps = [(b"another", steps[0][1]), (b"1", steps[1][1]), (b"2", steps[2][1])]
    assert digest.text(newest(place).digest or b"") == oracle.dt1(truth)


def put_file(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def put_in(truth: oracle.Contents, place: Place, name: bytes) -> None:
    """Bring the truth up to date for one name; reading all again would take most of the test's time."""
    truth.pop(name, None)
    if os.path.exists(place.path(name)):
        with open(place.path(name), "rb") as file:
            data = file.read()
        truth[name] = ("file", len(data), hashlib.sha256(data).digest())


# --- growing ---------------------------------------------------------------------------------------------------------

#: Appends a line of a fixed length to a file every few milliseconds, now and then after a longer pause, until its
#: standard input ends; it keeps the file open all the while, or not.
WRITER = """
import select, sys
path, held = sys.argv[1], sys.argv[2] == "held"
file = open(path, "ab", buffering=0)
number, ended = 0, False
while not ended:
    if not held:
        file = open(path, "ab", buffering=0)
    file.write(b"%099d\\n" % number)
    if not held:
        file.close()
    number += 1
    ended = bool(select.select([sys.stdin], [], [], 0.15 if number % 50 == 0 else 0.004)[0])
"""

LINE = 100


@contextmanager
def writer(path: Path, how: str) -> Iterator[None]:
    """Have a process append to a file for the time of the block, and some lines at least."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), how], stdin=subprocess.PIPE)
    assert process.stdin is not None
    size = path.stat().st_size
    try:
        until = time.monotonic() + 60
        while path.stat().st_size == size:
            assert time.monotonic() < until, "the writer writes"
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        finally:
            process.kill()


@pytest.mark.parametrize(("how", "size"), [("held", 0), ("reopened", 0), ("reopened", 2 << 20)])
def test_a_log_that_grows_while_it_is_read(place: Place, how: str, size: int) -> None:
    """While a process appends, no digest is of anything but a state that the file really was in, and a set with a
    moving file has none; when the process has ended the digest is the file's."""
    log = place.write("log", bytes(size))
    place.write("other", "x")
    place.refresh()
    looks = unstable = 0
    with writer(log, how):
        until = time.monotonic() + 0.8
        while time.monotonic() < until or (not unstable and time.monotonic() < until + 60):
            looks += 1
            place.watch.hint(b"log")
            report = place.refresh(frozenset({b"log"}) if looks % 2 else None)
            moving = report.problems == ((b"log", Problem.UNSTABLE),)
            assert moving == (report.version.digest is None)
            unstable += moving
    print(f"{how}: {unstable} of {looks} looks unstable, {log.stat().st_size} bytes")
    assert unstable
    place.refresh()
    place.assert_equals_disk()
    assert_only_states_of(place, log.read_bytes(), size)


def assert_only_states_of(place: Place, data: bytes, size: int) -> None:
    """Every digest in the history is of the log as it was after some line, or of the other file."""
    state = hashlib.sha256(data[:size])
    states = {hashlib.sha256(b"x").digest(), state.digest()}
    for start in range(size, len(data), LINE):
        state.update(data[start : start + LINE])
        states.add(state.digest())
    for table in ("file", "history"):
        rows = place.db.read(lambda c, t=table: c.execute(f"SELECT sha256 FROM {t} WHERE kind = 1").fetchall())
        assert {row[0] for row in rows if row[0] is not None} <= states
