"""What inotify sees and watchfiles does not, on the real kernel."""

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from watch_area import Area, inotify_watches

from reprod.fs import inotify, watch_inotify
from reprod.fs.watch import Hint, max_queued_events
from reprod.fs.watch_choice import watcher_factory


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Area]:
    made = Area(tmp_path, "inotify")
    yield made
    for watcher in made.watchers:
        watcher.stop()


def watches_are_the_directories(area: Area) -> bool:
    """Whether as many directories are watched as there are, with the cookies."""
    return inotify_watches() == 1 + sum(1 for _ in os.walk(area.root))


def test_names_of_any_bytes(area: Area) -> None:
    """A root, a directory and a file whose names are not UTF-8, and one of 255 bytes, are seen as they are."""
    root = os.fsencode(area.root) + b"/\xff\xfe"
    os.makedirs(root + b"/\x80")
    area.start(root)
    long = b"n" * 255
    for path in (b"\xfe", b"\x80/\xfd\n", long):
        with open(root + b"/" + path, "wb"):
            pass
    area.told.wait_paths(b"\xfe", b"\x80/\xfd\n", long)
    assert not area.told.failures()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize(("name", "told"), [(b"plain", "plain"), (b"a\nb\xff", "a\nb\\xff")])
def test_a_root_that_may_not_be_listed_is_named_as_text(name: bytes, told: str) -> None:
    """What is said of a closed root is a sentence with its path as people read it, and no `b'...'` of the program's."""
    code = (
        "import os, sys\n"
        "from reprod.fs.watch import WatchFailure\n"
        "from reprod.fs.watch_choice import watcher_factory\n"
        "made = watcher_factory('inotify')(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), print, print, print)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    made.start()\nexcept WatchFailure as failure:\n    print(failure.message, end='')\n"
    )
    public = tempfile.mkdtemp(prefix="reprod-public-")
    try:
        Path(public).chmod(0o755)
        root = os.fsencode(public) + b"/" + name
        os.mkdir(root, 0o700)
        os.mkdir(f"{public}/cookies", 0o755)
        command = [sys.executable, "-c", code, root, f"{public}/cookies"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=30)
    finally:
        shutil.rmtree(public)
    assert (done.stdout, done.stderr) == (f"cannot watch: Permission denied: {public}/{told}", "")


def test_reading_is_no_news(area: Area) -> None:
    """Listing and reading the whole tree, as a hash of it does, makes not one hint."""
    for n in range(50):
        (area.root / f"{n}").write_bytes(b"x")
    area.start()
    for _ in range(20):
        for name in os.listdir(area.root):
            (area.root / name).read_bytes()
    area.quiesce()
    assert area.told.paths() == set()


def test_a_mapped_write_is_told_when_it_is_closed(area: Area) -> None:
    """A second store to a page that is dirty already changes no stat; that the mapping was closed is the only sign."""
    target = area.root / "page"
    target.write_bytes(b"a" * 4096)
    area.start()
    with open(target, "r+b") as file:
        page = mmap.mmap(file.fileno(), 4096)  # noqa: TID251 - a training job that writes, not us
    page[0] = 1
    page.flush()
    area.quiesce()
    area.told.told.clear()
    page[1] = 2
    area.quiesce()
    assert area.told.paths() == set()
    page.close()
    area.told.wait_paths(b"page")


def test_only_a_closing_says_that_a_file_is_closed(area: Area) -> None:
    """A hint of a write to an open file does not say that it is closed; the hint of its closing does."""

    def told_closed() -> list[bool]:
        return [hint.closed for hint in area.told.told if isinstance(hint, Hint) and hint.path == b"log"]

    area.start()
    with (area.root / "log").open("wb", buffering=0) as file:
        file.write(b"x")
        area.quiesce()
        assert told_closed()
        assert not any(told_closed())
        area.told.take()
    area.quiesce()
    assert told_closed() == [True]


def test_no_descriptor_pins_the_root(area: Area) -> None:
    """An armed watch keeps nothing of the data open: it could not be unmounted otherwise."""
    (area.root / "sub").mkdir()
    area.start()
    open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
    assert not [path for path in open_files if path.startswith(str(area.root))]


def test_renamed_directories_keep_their_watches(area: Area) -> None:
    """After renames, also onto each other's names, changes are told under the new names, each once."""
    for name in ("a/x/y", "b/z"):
        (area.root / name).mkdir(parents=True)
    area.start()
    (area.root / "a").rename(area.root / "t")
    (area.root / "b").rename(area.root / "a")
    (area.root / "t").rename(area.root / "b")
    area.quiesce()
    area.told.told.clear()
    (area.root / "a/z/new").touch()
    (area.root / "b/x/y/new").touch()
    area.quiesce()
    assert area.told.paths() == {b"a/z/new", b"b/x/y/new"}
    assert watches_are_the_directories(area)


def test_what_left_the_tree_is_not_watched(area: Area) -> None:
    """A tree that was moved out makes no hints any more, and its watches are given back."""
    outside = area.root.parent / "outside"
    (area.root / "d/e").mkdir(parents=True)
    area.start()
    (area.root / "d").rename(outside)
    area.quiesce()
    area.told.told.clear()
    (outside / "e/f").touch()
    area.quiesce()
    assert area.told.paths() == set()
    assert watches_are_the_directories(area)


def test_an_overflow_is_told_and_everything_watched_anew(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    """More events than the kernel holds, while the thread is held up: one hint for all, and nothing stays unwatched."""
    monkeypatch.setattr(watch_inotify, "_REBUILD_S", 0.05)
    going_on, told = threading.Event(), area.told

    def held_up(hints: list[Hint]) -> None:
        assert going_on.wait(60)
        told.hints(hints)

    watcher = watcher_factory("inotify")(
        os.fsencode(area.root), os.fsencode(area.cookies), held_up, told.cookie, told.failure
    )
    area.watchers.append(watcher)
    watcher.start()
    (area.root / "first").touch()
    held_up_ns = time.time_ns()
    for n in range(max_queued_events() // 2 + 2_000):  # at least two events each
        (area.root / f"{n % 50}").write_bytes(b"%d" % n)
    (area.root / "late/deep").mkdir(parents=True)
    going_on.set()
    told.wait(lambda: any(isinstance(item, Hint) and item.overflow for item in told.told))
    overflow = next(item for item in told.told if isinstance(item, Hint) and item.overflow)
    assert overflow.path == b""
    assert overflow.seen_ns - overflow.lag_ns <= held_up_ns
    area.quiesce()
    (area.root / "late/deep/f").touch()
    told.wait_paths(b"late/deep/f")
    assert watches_are_the_directories(area)


def test_a_limit_reached_later_is_a_failure(area: Area) -> None:
    """Directories made when no watch is left end the watch with the line that raises the limit (in a namespace)."""
    script = (
        "import os, queue, sys\n"
        "from reprod.fs.watch_choice import watcher_factory\n"
        "open('/proc/sys/user/max_inotify_watches', 'w').write('20')\n"
        "told = queue.Queue()\n"
        "none = lambda *_: None\n"
        "root, cookies = (os.fsencode(path) for path in sys.argv[1:])\n"
        "watcher = watcher_factory('inotify')(root, cookies, none, none, told.put)\n"
        "watcher.start()\n"
        "for n in range(30): os.mkdir(root + b'/%d' % n)\n"
        "failure = told.get(timeout=25)\n"
        "print(failure.kind, failure.message)\n"
        "watcher.stop()\n"
    )
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", script, str(area.root), str(area.cookies)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()[-200:]}")
    assert done.stdout.startswith("limit inotify limit reached (fs.inotify.max_user_watches")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_mounts_inside_the_tree(area: Area) -> None:
    """What is mounted over a directory is hinted at and watched, and so is what shows up when it is unmounted."""
    script = (
        "import os, queue, subprocess, sys, time\n"
        "from reprod.fs.watch_choice import watcher_factory\n"
        "root, cookies = (os.fsencode(path) for path in sys.argv[1:])\n"
        "hints = queue.Queue()\n"
        "watcher = watcher_factory('inotify')(root, cookies, hints.put, print, print)\n"
        "def wait(path):\n"
        "    until = time.monotonic() + 25\n"
        "    while path not in [hint.path for hint in hints.get(timeout=until - time.monotonic())]: pass\n"
        "watcher.start()\n"
        "sub = root + b'/sub'\n"
        "open(sub + b'/below', 'w').close(); wait(b'sub/below')\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', sub], check=True); wait(b'sub')\n"
        "open(sub + b'/above', 'w').close(); wait(b'sub/above')\n"
        "os.mkdir(sub + b'/d'); wait(b'sub/d')\n"
        "subprocess.run(['umount', sub], check=True); wait(b'sub')\n"
        "open(sub + b'/below', 'w').close(); wait(b'sub/below')\n"
        "watcher.stop()\n"
        "print('done')\n"
    )
    (area.root / "sub").mkdir()
    command = ["unshare", "--mount", sys.executable, "-c", script, str(area.root), str(area.cookies)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    if "unshare" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()[-200:]}")
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_events_are_decoded() -> None:
    """Several events in one read, with and without a name, padded as the kernel pads them."""
    header = inotify._EVENT.pack
    data = header(1, inotify.MODIFY, 0, 16) + b"name".ljust(16, b"\0") + header(-1, inotify.OVERFLOW, 0, 0)
    assert inotify.decode(data) == [(1, inotify.MODIFY, b"name"), (-1, inotify.OVERFLOW, b"")]


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
