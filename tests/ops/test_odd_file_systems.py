"""Digests and bindings on file systems with coarse stamps, cached attributes or changing inodes: real mounts.

Each is mounted on the root of a ``Place`` and unmounted when its test ends. What is missing here (root, loop devices,
a mkfs, FUSE, bindfs) skips its tests. A second of the wall clock matters where stamps are whole seconds, so those tests
begin at its beginning, and check that what they did fell into it. Times: ``_ns`` Unix nanoseconds, ``_s`` seconds.
"""

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import oracle
import pytest
from ops_place import Place

from reprod.config import DatasetConfig
from reprod.core.binding import LOCAL_SLACK_NS
from reprod.core.hosts import Host, Parts
from reprod.core.run import PendingRun
from reprod.core.snapshot import BoundDataset
from reprod.fs import mounts
from reprod.ops.publish import Walked, publish
from reprod.store import files, outbox, versions
from reprod.store.connection import Database

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")]

SECOND_NS = 1_000_000_000

#: ext4 whose inodes of 128 bytes have no room for anything below a second.
COARSE_EXT4 = ("mke2fs", "-q", "-t", "ext4", "-I", "128")
FINE_EXT4 = ("mke2fs", "-q", "-t", "ext4", "-I", "256")

#: How far apart two moments must be that a run's start may be told from.
AFTER_NS = 2 * LOCAL_SLACK_NS

Change = Callable[[Path], object]


# --- mounts ----------------------------------------------------------------------------------------------------------


def run_or_skip(*command: str | Path) -> str:
    """Run a command that prepares a file system, and return what it says; skip the test where it is missing or not
    allowed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"{command[0]} is not possible here: {done.stderr.strip()}")
    return done.stdout.strip()


def unmount(path: Path) -> None:
    """Unmount; lazily if something still holds it, so that no test leaves a mount behind."""
    if subprocess.run(["umount", path], capture_output=True, timeout=20).returncode:
        subprocess.run(["umount", "-l", path], capture_output=True, timeout=20)


def make_image(image: Path, mebibytes: int, mkfs: tuple[str, ...]) -> Path:
    """Make a sparse file with a file system in it."""
    with open(image, "wb") as file:
        file.truncate(mebibytes << 20)
    run_or_skip(*mkfs, image)
    return image


@contextmanager
def attached(image: Path) -> Iterator[Path]:
    """Yield the device of an image, which stays its own: of one that is mounted twice somebody else may have taken the
    number in between, and then it is another disk."""
    device = run_or_skip("losetup", "--find", "--show", image)
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], capture_output=True, timeout=60)


@contextmanager
def looped(image: Path, on: Path) -> Iterator[None]:
    """Mount an image, or a device, for the time of the block."""
    run_or_skip("mount", *([] if image.is_block_device() else ["-o", "loop"]), image, on)
    try:
        yield
    finally:
        unmount(on)


@contextmanager
def shared(below: Path, on: Path, options: str = "", *flags: str) -> Iterator[None]:
    """Mount ``below`` through FUSE as a network file system would show it: its host is whoever writes to ``below``.

    The change time is the modification time, as with sshfs, which is told of no other.
    """
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    named = "fsname=host:/export,subtype=sshfs" + (f",{options}" if options else "")
    run_or_skip("bindfs", "--ctime-from-mtime", *flags, "-o", named, below, on)
    try:
        yield
    finally:
        unmount(on)


# --- time and runs ---------------------------------------------------------------------------------------------------


def wait_until(moment_ns: int) -> None:
    """Return at that moment of the wall clock; none here is further away than some seconds."""
    assert moment_ns - time.time_ns() < 10 * SECOND_NS
    while time.time_ns() < moment_ns:
        time.sleep(0.001)


def begin_a_second() -> int:
    """Return at the beginning of a second of the wall clock, which one that is."""
    second = time.time_ns() // SECOND_NS * SECOND_NS + SECOND_NS
    wait_until(second + 30_000_000)  # stamps come from a clock that ticks every 4 to 10 ms, on a busy machine later
    return second


def sealed(place: Place) -> versions.Version:
    """Return the newest version."""
    newest = place.db.read(versions.newest)
    assert newest is not None
    return newest


def fingerprint(path: Path) -> tuple[int, int, int, int]:
    """Return what a walk would tell a file's states apart by."""
    st = path.stat()
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino


def held(db: Database) -> set[tuple[int, bytes]]:
    """Return every size and sha256 of a file that the index holds or held."""
    rows = "SELECT size, sha256 FROM {} WHERE kind = 1 AND sha256 IS NOT NULL"
    both = f"{rows.format('file')} UNION {rows.format('history')}"
    return {tuple(row) for row in db.read(lambda c: c.execute(both).fetchall())}


def summed(*contents: bytes) -> set[tuple[int, bytes]]:
    """Return sizes and sha256 of contents."""
    return {(len(data), hashlib.sha256(data).digest()) for data in contents}


class Started(NamedTuple):
    """A run that was started, and what the disk held at that moment."""

    start_ms: int
    truth: oracle.Contents


def start_a_run(place: Place) -> Started:
    """Start a run now; nothing changes until this returns."""
    start_ms = -(-time.time_ns() // 1_000_000)
    wait_until(start_ms * 1_000_000)
    return Started(start_ms, oracle.scan(place.raw))


def bound(place: Place, run: Started) -> BoundDataset:
    """Have the run published by the verb, by the clock of this host; it must be bound to its truth or not at all."""
    records = files.open_registry(place.state).db
    try:
        pending = PendingRun(f"{time.time_ns()}", "0", "run", "RUNNING", run.start_ms, None, "data")
        row = msgspec.json.encode(pending)
        records.write(lambda c: outbox.notice(c, "http://none", pending.run_id, "data", row, time.time_ns()))
        delivery = records.read(lambda c: outbox.due(c, "http://none", "noticed", time.time_ns()))[-1]
        walked = [Walked(place.config, place.db, 0.0)]
        alone, host = Parts(("data",), {}, (), rivals=False), Host("0" * 32, "here")
        (dataset,) = publish(records, delivery, pending, walked, alone, LOCAL_SLACK_NS, host).datasets
    finally:
        records.close()
    if dataset.digest is not None:
        assert dataset.digest == oracle.dt1(run.truth), (place.base.name, dataset, place.marks())
    return dataset


# --- whole-second stamps ---------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield where an ext4 that stamps whole seconds is mounted."""
    on = tmp_path / "disk"
    on.mkdir()
    with looped(make_image(tmp_path / "image", 64, COARSE_EXT4), on):
        (on / "probe").touch()
        assert (on / "probe").stat().st_ctime_ns % SECOND_NS == 0
        assert mounts.settle_slack_ns("ext4") < SECOND_NS  # its type promises finer ones: only the stamps tell
        yield on


def place_on(disk: Path, name: str, stack: ExitStack) -> Place:
    """Return a place whose data lies in a directory of the mounted disk."""
    (disk.parent / name).mkdir()
    place = Place(disk.parent / name)
    stack.callback(place.close)
    place.root.rmdir()
    place.root = disk / name
    place.root.mkdir()
    place.config = DatasetConfig("data", str(place.root))
    return place


def some_attempt(attempt: Callable[[int], bool]) -> None:
    """Try until everything fell into the second that it is about; what an attempt asserts holds in any case."""
    if not any(attempt(number) for number in range(5)):
        pytest.skip("this machine is too busy to do it within a second")


@pytest.mark.parametrize("hinted", [False, True], ids=["walk", "hint"])
def test_two_writes_in_one_second_with_one_stamp(disk: Path, hinted: bool) -> None:
    """AAAA is hashed, BBBB of the same size and stamps follows within the second: what is believed to be AAAA is never
    in the index, and the digest is that of BBBB."""

    def attempt(number: int) -> bool:
        place = place_on(disk, f"data{number}", stack)
        place.write("other", "x")
        place.refresh()
        paths = frozenset({b"f", b"l"}) if hinted else None
        second = begin_a_second()
        path, link = place.write("f", "AAAA"), place.root / "l"
        link.symlink_to("AAAA")
        before = fingerprint(path)
        place.watch.hint(b"f", b"l")

        def change() -> None:
            wait_until(second + 300_000_000)
            path.write_bytes(b"BBBB")
            link.unlink()
            link.symlink_to("BBBB")

        changing = threading.Thread(target=change)  # whatever the refresh is doing then
        changing.start()
        place.refresh(paths)
        changing.join(10)
        one_stamp = fingerprint(path) == before
        place.refresh(paths)
        place.assert_equals_disk()
        assert held(place.db) == summed(b"x", b"BBBB") or not one_stamp
        return one_stamp

    with ExitStack() as stack:
        some_attempt(attempt)


def rewrite(root: Path) -> None:
    (root / "f").write_bytes(b"BBBB")


def add(root: Path) -> None:
    (root / "new").write_bytes(b"new")


def remove(root: Path) -> None:
    (root / "d/g").unlink()


def rename(root: Path) -> None:
    (root / "f").rename(root / "renamed")


def rename_directory(root: Path) -> None:
    (root / "d").rename(root / "e")


def link(root: Path) -> None:
    (root / "link").symlink_to("f")


def fill_directory(root: Path) -> None:
    (root / "made/deep").mkdir(parents=True)
    (root / "made/deep/file").write_bytes(b"1")


CHANGES: list[Change] = [rewrite, add, remove, rename, rename_directory, link, fill_directory]


def test_a_change_after_the_start_with_a_stamp_before_it(disk: Path) -> None:
    """A change half a second after a run's start, whose stamp is the beginning of that second, is in no version that
    the run is bound to; a later run is bound to what it had."""

    def attempt(number: int) -> bool:
        changes = {f"{change.__name__}-{how}-{number}": change for change in CHANGES for how in ("walk", "hint")}
        places = {name: place_on(disk, name, stack) for name in changes}
        for place in places.values():
            place.write("f", "AAAA")
            place.write("d/g", "g")
        for place in places.values():
            place.refresh()
        second = begin_a_second()
        wait_until(second + 150_000_000)
        runs = {name: start_a_run(place) for name, place in places.items()}
        wait_until(max(run.start_ms for run in runs.values()) * 1_000_000 + 500_000_000)
        for name, change in changes.items():
            change(places[name].root)
            places[name].watch.hint(b"f", b"new", b"renamed", b"d", b"e", b"link", b"made")
        in_time = time.time_ns() < second + SECOND_NS
        for name, place in places.items():
            if "hint" in name:
                place.refresh(frozenset(place.watch.seen))
            place.refresh()
            assert bound(place, runs[name]).seq != sealed(place).seq
        wait_until(time.time_ns() + SECOND_NS + AFTER_NS + SECOND_NS // 10)
        later = {name: start_a_run(place) for name, place in places.items()}
        wait_until(time.time_ns() + SECOND_NS + AFTER_NS + SECOND_NS // 10)
        for name, place in places.items():
            place.refresh()
            assert bound(place, later[name]).bound in {"start", "ctime"}
        return in_time

    with ExitStack() as stack:
        some_attempt(attempt)


def there_by_name(root: Path) -> Change:
    (root / "x").write_bytes(b"x")
    return lambda root: (root / "x").unlink()


def there_by_link(root: Path) -> Change:
    (root / "x").symlink_to("f")
    return lambda root: (root / "x").unlink()


def there_by_move(root: Path) -> Change:
    outside = root.parent / f"{root.name}-outside"
    (outside / "old").rename(root / "old")
    return lambda root: (root / "old").rename(outside / "old")


def test_there_and_back_within_a_second(disk: Path) -> None:
    """A name that is there only while a run starts, in a directory whose stamp is of that second already: the run is
    not bound to what was there before and after."""

    def attempt(number: int) -> bool:
        acts = {f"{act.__name__}-{number}": act for act in (there_by_name, there_by_link, there_by_move)}
        places = {name: place_on(disk, name, stack) for name in acts}
        for name, place in places.items():
            place.write("f", "AAAA")
            place.write("gone", "gone")
            (disk / f"{name}-outside").mkdir()
            (disk / f"{name}-outside/old").write_bytes(b"old")
        for place in places.values():
            place.refresh(watched=False)
        second = begin_a_second()
        for place in places.values():
            (place.root / "gone").unlink()
            assert place.refresh(watched=False).sealed
        wait_until(time.time_ns() + AFTER_NS)
        undo = {name: act(places[name].root) for name, act in acts.items()}
        runs = {name: start_a_run(place) for name, place in places.items()}
        wait_until(time.time_ns() + AFTER_NS)
        for name, act in undo.items():
            act(places[name].root)
        in_time = time.time_ns() < second + SECOND_NS
        wait_until(second + SECOND_NS)
        for name, place in places.items():
            place.refresh(watched=False)
            bound(place, runs[name])
        return in_time

    with ExitStack() as stack:
        some_attempt(attempt)


# --- other stamps ----------------------------------------------------------------------------------------------------


def test_a_ctime_in_the_future(tmp_path: Path) -> None:
    """A file whose ctime is years ahead, as after a wrong clock, is read and clean; a change to it is found, in either
    direction, and a run is bound to what it had or not at all."""
    image, outside = tmp_path / "image", tmp_path / "outside"
    outside.mkdir()
    with ExitStack() as stack:
        place = Place(tmp_path)
        stack.callback(place.close)
        with looped(make_image(image, 64, FINE_EXT4), place.root):
            place.write("f", "AAAA")
            place.write("d/g", "g")
        for path in ("/f", "/d"):
            run_or_skip("debugfs", "-w", "-R", f"set_inode_field {path} ctime @{int(time.time()) + 10**8}", image)
        stack.enter_context(looped(image, place.root))
        assert (place.root / "f").stat().st_ctime_ns > time.time_ns() + 10**7 * SECOND_NS
        report = place.refresh()
        assert not report.problems
        place.assert_equals_disk()
        wait_until(time.time_ns() + AFTER_NS)
        first = start_a_run(place)
        wait_until(time.time_ns() + AFTER_NS)
        assert place.refresh().counts.hashed_files == 0
        assert bound(place, first).bound == "start"
        (place.root / "f").write_bytes(b"BBBB")
        (place.root / "d/h").write_bytes(b"h")
        place.refresh()
        place.assert_equals_disk()
        wait_until(time.time_ns() + AFTER_NS)
        second = start_a_run(place)
        wait_until(time.time_ns() + AFTER_NS)
        place.refresh()
        assert (bound(place, first).seq, bound(place, second).seq) == (1, 2)


STAMPS_S = [-(2**40), -(2**31), -1, 0, 2**31, 2**33, 2**40]


@pytest.mark.parametrize("mkfs", [None, FINE_EXT4], ids=["tmpfs", "ext4"])
def test_mtimes_at_the_limits(tmp_path: Path, mkfs: tuple[str, ...] | None) -> None:
    """Files and directories with an mtime before 1970, before 1677, after 2262 and at the limits of the file system
    are hashed, and one that only gets another such mtime is no new version."""
    with ExitStack() as stack:
        place = Place(tmp_path)
        stack.callback(place.close)
        if mkfs is None:
            run_or_skip("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place.root)
            stack.callback(unmount, place.root)
        else:
            stack.enter_context(looped(make_image(tmp_path / "image", 64, mkfs), place.root))
        for number, stamp in enumerate(STAMPS_S):
            for path in (place.write(f"f{number}", f"{number}"), place.write(f"d{number}/f", f"{number}").parent):
                os.utime(path, (0, stamp))
        first = place.refresh()
        assert not first.problems
        place.assert_equals_disk()
        assert place.refresh().counts.hashed_files == 0
        for number, stamp in enumerate(reversed(STAMPS_S)):
            os.utime(place.root / f"f{number}", (0, stamp))
            os.utime(place.root / f"d{number}", (0, stamp))
        assert place.refresh().sealed is False
        place.write("f0", "another")
        os.utime(place.root / "f0", (0, STAMPS_S[-1]))
        place.refresh()
        place.assert_equals_disk()


@pytest.mark.parametrize(
    ("mkfs", "mebibytes"), [(("mkfs.xfs", "-q"), 320), (("mkfs.btrfs", "-q"), 128)], ids=["xfs", "btrfs"]
)
def test_other_local_file_systems(tmp_path: Path, mkfs: tuple[str, ...], mebibytes: int) -> None:
    """Scanned, changed with the old mtime put back, remounted, a directory renamed: the digest is the disk's, and what
    did not change is not read again."""
    image = make_image(tmp_path / "image", mebibytes, mkfs)
    with ExitStack() as stack:
        device = stack.enter_context(attached(image))
        place = Place(tmp_path)
        stack.callback(place.close)
        with looped(device, place.root):
            for number in range(300):
                place.write(f"a/b{number % 3}/{number}", f"{number}")
            place.refresh()
            place.assert_equals_disk()
            changed = place.root / "a/b1/1"
            before = changed.stat()
            changed.write_bytes(b"x")
            os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert place.refresh().counts.hashed_files == 1
            place.assert_equals_disk()
        stack.enter_context(looped(device, place.root))
        (place.root / "a").rename(place.root / "z")
        report = place.refresh()
        assert (report.counts.hashed_files, report.version.files) == (0, 300)
        place.assert_equals_disk()


# --- what is not local -----------------------------------------------------------------------------------------------


@pytest.fixture
def below(tmp_path: Path) -> Path:
    """Return where the host of a shared directory writes."""
    path = tmp_path / "below"
    path.mkdir()
    return path


def put(path: Path, data: bytes, age_s: int) -> None:
    """Write a file that is so old: what is young on a network is not read for three seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    modified = time.time_ns() - age_s * SECOND_NS
    os.utime(path, ns=(modified, modified))


def test_changes_by_another_host_are_found_by_walks(tmp_path: Path, below: Path) -> None:
    """What the host of a FUSE share changes, adds, renames and deletes is found by the next walk: the digest is that
    of what the host has."""
    with ExitStack() as stack:
        place = Place(tmp_path)
        stack.callback(place.close)
        for number in range(30):
            put(below / f"d{number % 3}/{number}", b"%d" % number, 100)
        stack.enter_context(shared(below, place.root, "attr_timeout=0,entry_timeout=0"))
        report = place.refresh(watched=False)
        assert mounts.is_network(report.fs_type)
        place.assert_equals_disk()
        put(below / "d0/0", b"changed", 90)
        put(below / "d1/new", b"new", 90)
        (below / "d2/2").unlink()
        (below / "d1").rename(below / "renamed")
        report = place.refresh(watched=False)
        assert (report.sealed, report.version.problems) == (True, 0)
        assert place.assert_equals_disk() == oracle.scan(os.fsencode(below))


#: For how long a client may take attributes for true that it has asked for.
CACHED_S = 60


@pytest.mark.parametrize("option", ["", ",auto_cache"], ids=["reads ask the host", "reads are cached too"])
def test_attributes_that_are_cached_hide_nothing(tmp_path: Path, below: Path, option: str) -> None:
    """While a client caches attributes a plain stat tells of what was; a walk asks the host, and finds all changes."""
    old, new = b"A" * 5000, b"B" * 5000
    with ExitStack() as stack:
        place = Place(tmp_path)
        stack.callback(place.close)
        for name in ("same", "grown", "cut", "gone", "sub/deep"):
            put(below / name, old, 100)
        stack.enter_context(shared(below, place.root, f"attr_timeout={CACHED_S},entry_timeout={CACHED_S}{option}"))
        place.refresh(watched=False)
        sizes = {path: path.stat().st_size for path in place.root.iterdir()}
        put(below / "same", new, 90)
        put(below / "grown", new + b"more", 90)
        put(below / "cut", new[:10], 90)
        (below / "gone").unlink()
        put(below / "added", b"added", 90)
        put(below / "sub/deep", new, 90)
        assert sizes == {path: path.stat().st_size for path in sizes}, "the cache does not hide anything: tests nothing"
        place.refresh(watched=False)
        assert place.assert_equals_disk() == oracle.scan(os.fsencode(below))
        assert place.refresh(watched=False).counts.hashed_files == 0


def test_inodes_that_change_over_a_remount(tmp_path: Path, below: Path) -> None:
    """A share that numbers its inodes anew at every mount: files are read again, and no version is made, nothing is
    lost and nothing unavailable; a change between two mounts is found."""
    with ExitStack() as stack:
        place = Place(tmp_path)
        stack.callback(place.close)
        for number in range(60):
            put(below / f"d{number % 3}/{number}", b"%d" % number, 100)
        other, aside = tmp_path / "other", tmp_path / "aside"
        shutil.copytree(below, other, copy_function=shutil.copy2)  # the same stamps, and other inodes
        inodes = set()
        for number in range(4):
            with shared(below, place.root):
                inodes.add((place.root / "d0/0").stat().st_ino)
                report = place.refresh(watched=False)
                assert (report.version.seq, report.version.problems, report.sealed) == (1, 0, number == 0)
                print(f"mount {number}: {report.counts.hashed_files} of 60 files were read")
                assert place.refresh(watched=False).counts.hashed_files == 0, "nothing is read while it stays mounted"
                place.assert_equals_disk()
            below.rename(aside)
            other.rename(below)
            aside.rename(other)
        assert len(inodes) == 2
        put(below / "d0/0", b"changed", 90)
        with shared(below, place.root):
            assert place.refresh(watched=False).version.seq == 2
            place.assert_equals_disk()
