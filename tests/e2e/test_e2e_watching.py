"""What can befall the watch of a real daemon: each test ends with the digest of what is there, and status said what
happened.

Nothing here is found by a timer: the daemons walk on their own once an hour.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import QUICKER, Daemon, dt1, eventually, make_data, running_daemon

from reprod.client import Client

#: Says on the log when a refresh begins, also one that finds nothing, which the daemon itself does not log.
COUNTING = (
    QUICKER + "import json, os, sys; from reprod.daemon import work; real = work.refresh\n"
    "def refresh(db, dataset, *arguments, **keys):\n"
    "    os.write(2, json.dumps({'event': 'test.refresh', 'dataset': dataset.name}).encode() + b'\\n')\n"
    "    return real(db, dataset, *arguments, **keys)\n"
    "work.refresh = refresh; sys.argv = ['reprod', 'daemon']\n"
    "from reprod.__main__ import main; main()"
)

#: What part of the time that something large takes an answer may take meanwhile: a hundredth was measured, and a loop
#: that does nothing else for most of it is what must not be.
LONGEST_ANSWER = 0.4


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Yield one daemon for all tests that leave it as it was; its backend is the one of a default installation."""
    with running_daemon(tmp_path_factory.mktemp("auto"), program=("-c", COUNTING)) as daemon:
        yield daemon


@pytest.fixture(scope="module", params=["inotify", "watchfiles"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Yield one daemon of each backend."""
    with running_daemon(tmp_path_factory.mktemp(request.param), watch={"backend": request.param}) as daemon:
        yield daemon


def backend_of(daemon: Daemon) -> str:
    watch = daemon.place.settings.get("watch", {})
    return str(watch.get("backend", "inotify"))


@contextmanager
def registered(daemon: Daemon, name: str, path: Path, watch: str | None = None) -> Iterator[dict[str, Any]]:
    """Add a dataset to the running daemon for the time of the block; yields its status once it is watched."""
    daemon.place.register(name, path)
    try:
        daemon.call("reload")
        shown = becomes(daemon, name, oracle(path))
        assert shown["watch"] == (watch or backend_of(daemon))
        yield shown
    finally:
        (daemon.place.folder / f"{name}.toml").unlink()
        daemon.call("reload", timeout_s=30)


def oracle(path: Path) -> str:
    """Return the digest of what is there; a single file is a directory that holds only that file."""
    if not path.is_file():
        return dt1(path)
    path = path.resolve()  # a link to a file stands for the file
    alone = path.parent.with_name(f"{path.name}.alone")
    alone.mkdir()
    shutil.copy(path, alone)
    digest = dt1(alone)
    shutil.rmtree(alone)
    return digest


def becomes(daemon: Daemon, name: str, digest: str, timeout_s: float = 20) -> dict[str, Any]:
    """Wait until the dataset is current with this digest; return its status."""
    last: dict[str, Any] = {}

    def there() -> bool:
        last.update(daemon.dataset(name))
        return (last["state"], last["digest"]) == ("current", digest)

    eventually(there, timeout_s, lambda: f"{name} is current with {digest}: {last}; {daemon.tail()}")
    return last


def is_unavailable(daemon: Daemon, name: str, before: dict[str, Any]) -> None:
    """Within ten seconds status says so and why, still shows what was known, and asks for a person's attention."""

    def said() -> dict[str, Any] | None:
        shown = daemon.dataset(name)
        return shown if shown["state"] == "unavailable" else None

    shown = eventually(said, 10, lambda: f"{name} is unavailable: {daemon.tail()}")
    assert shown is not None
    assert shown["reason"]
    assert shown["hint"]
    kept = ("version", "digest", "files")
    assert [shown[key] for key in kept] == [before[key] for key in kept]
    assert any(need.get("dataset") == name for need in daemon.status()["attention"])


def count(daemon: Daemon, event: str, name: str) -> int:
    return sum(1 for seen in daemon.events(event) if seen["dataset"] == name)


def make_tree(root: Path, folders: int, files: int) -> Path:
    """Make ``folders`` directories, nested by tens, with ``files`` small files in each."""
    for number in range(folders):
        folder = root / f"{number // 100}" / f"{number // 10}" / f"{number}"
        folder.mkdir(parents=True)
        for n in range(files):
            (folder / f"{n}").write_bytes(b"%d/%d" % (number, n))
    return root


# --- with both backends ----------------------------------------------------------------------------------------------


@pytest.fixture
def wary(either: Daemon, tmp_path: Path) -> Iterator[Daemon]:
    """Yield a daemon of either backend that takes few events at once for a loss: what watchfiles hands over of a queue
    that overflowed comes in pieces, smaller ones on a busy machine."""
    if backend_of(either) == "inotify":
        yield either
        return
    code = QUICKER + "from reprod.fs import watch_files; watch_files.max_queued_events = lambda: 400; "
    code += "import sys; from reprod.__main__ import main; sys.exit(main(['daemon']))"
    with running_daemon(tmp_path / "wary", program=("-c", code), watch={"backend": "watchfiles"}) as daemon:
        yield daemon


def test_silent_overflow(wary: Daemon, data: Path, name: str) -> None:
    """8,000 files that are made while the daemon is stopped are all in the next version, the loss of events is said,
    and a directory that was made among them is watched."""
    either = wary
    with registered(either, name, data):
        os.kill(either.pid, signal.SIGSTOP)
        try:
            for number in range(8_000):  # three events each; the queue holds 16,384 unless somebody raised it
                (data / f"{number}").write_bytes(b"%d" % (number % 100))
            (data / "late/deep").mkdir(parents=True)
        finally:
            os.kill(either.pid, signal.SIGCONT)
        if int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) < 24_000:
            assert either.wait_event("watch.overflow", dataset=name)["level"] == "warning"
        either.call("scan", name=name)  # no walk is under way after it that would find what comes now
        (data / "late/deep/after").write_bytes(b"seen")
        shown = becomes(either, name, dt1(data))
        assert (shown["watch"], shown["unannounced_changes"]) == (backend_of(either), 0)
    shutil.rmtree(data)


def test_cp_r_into_new_directories(either: Daemon, data: Path, name: str, tmp_path: Path) -> None:
    """Trees that ``cp -r`` makes in directories that are not watched yet are recorded whole, each time, and what is
    written there later too."""
    source = make_tree(tmp_path / "source", 60, 5)
    with registered(either, name, data):
        for number in range(2):
            subprocess.run(["cp", "-r", source, data / f"copy-{number}"], check=True)
            becomes(either, name, dt1(data))
        (data / "copy-1/0/5/59/4").write_bytes(b"later")
        shown = becomes(either, name, dt1(data))
        assert (shown["watch"], shown["unannounced_changes"]) == (backend_of(either), 0)


def test_renames_in_and_out(either: Daemon, data: Path, name: str, tmp_path: Path) -> None:
    """Directories that are moved in, out and onto each other's names, and changed at once, are recorded where they end;
    what was moved out is none of the dataset's business any more."""
    outside = tmp_path / "outside"
    make_tree(outside / "a", 20, 2)
    make_tree(outside / "b", 10, 3)
    with registered(either, name, data):
        (outside / "a").rename(data / "a")
        (data / "a/0/0/5/0").write_bytes(b"changed at once")
        (outside / "b").rename(data / "sub/b")
        becomes(either, name, dt1(data))
        (data / "a").rename(data / "t")
        (data / "sub/b").rename(data / "a")
        (data / "t").rename(data / "sub/b")
        (data / "a/0/0/5/0").write_bytes(b"where b was")
        (data / "sub/b/0/1/15/1").write_bytes(b"where a was")
        becomes(either, name, dt1(data))
        (data / "a/0").rename(outside / "0")
        (data / "sub/b/0/1").rename(data / "1")
        (outside / "0/0/5/0").write_bytes(b"outside")
        (data / "part-0.csv").rename(data / "latest.csv")
        (data / "1/15/1").write_bytes(b"inside")
        shown = becomes(either, name, dt1(data))
        (outside / "0/0/6/0").write_bytes(b"not ours")
        answer = either.call("scan", name=name)["datasets"][0]
        assert (answer["changed"], answer["version"]) == (False, shown["version"])
        assert shown["watch"] == backend_of(either)


def test_names_that_are_not_utf_8(either: Daemon, data: Path, name: str) -> None:
    """Names of any bytes are data like others; inotify sees them, watchfiles says that it cannot and is replaced by
    polling."""
    with registered(either, name, data):
        folder = os.fsencode(data) + b"/\xff\xfe"
        os.mkdir(folder)
        for path in (folder + b"/\x80\n", os.fsencode(data) + b"/tab\t\xfd", folder + b"/" + b"n" * 255):
            Path(os.fsdecode(path)).write_bytes(b"content")
        os.symlink(b"\xff\xfe/\x80\n", folder + b"/link\xfc")
        if backend_of(either) == "watchfiles":
            either.wait_event("watch.polling", dataset=name, kind="undecodable")
            either.call("scan", name=name)
        becomes(either, name, dt1(data))
        Path(os.fsdecode(folder + b"/\x80\n")).write_bytes(b"another")
        if backend_of(either) == "watchfiles":
            either.call("scan", name=name)
        shown = becomes(either, name, dt1(data))
        if backend_of(either) == "watchfiles":
            assert (shown["watch"], "UTF-8" in shown["watch_reason"]) == ("poll", True)
            assert any("is polled, not watched" in need["what"] for need in either.status()["attention"])
        else:
            assert (shown["watch"], shown["unannounced_changes"]) == ("inotify", 0)


# --- where the root goes ---------------------------------------------------------------------------------------------


def test_root_deleted_and_recreated(daemon: Daemon, data: Path, name: str) -> None:
    """A deleted root is unavailable and nothing is forgotten; one that comes back with other content is current and
    watched."""
    with registered(daemon, name, data) as before:
        shutil.rmtree(data)
        is_unavailable(daemon, name, before)
        make_data(data.with_name("made"), 6).rename(data)  # at once: half of it would be a version of its own
        shown = becomes(daemon, name, dt1(data))
        assert shown["version"] == before["version"] + 1
        eventually(lambda: daemon.dataset(name)["watch"] == "inotify", 10, "it is watched again")
        (data / "sub/new").write_bytes(b"seen")
        becomes(daemon, name, dt1(data))


def test_root_replaced_between_two_looks(daemon: Daemon, data: Path, name: str) -> None:
    """A root that is deleted and made anew at once, or has another directory moved in its place, is recorded as it is
    now and watched."""
    with registered(daemon, name, data):
        for number in range(2):
            other = make_data(data.with_name("other"), 5 + number)
            data.rename(data.with_name(f"old-{number}"))
            other.rename(data)
            (data / "sub/at-once").write_bytes(b"%d" % number)
            becomes(daemon, name, dt1(data))
            (data.with_name(f"old-{number}") / "sub/not-ours").write_bytes(b"")
        eventually(lambda: daemon.dataset(name)["watch"] == "inotify", 10, "it is watched again")
        (data / "sub/new").write_bytes(b"seen")
        becomes(daemon, name, dt1(data))


@pytest.mark.parametrize("which", ["root", "parent"])
def test_root_renamed(daemon: Daemon, tmp_path: Path, name: str, which: str) -> None:
    """A root that was renamed, or whose parent was, is unavailable; what is written to it under its new name is not
    recorded until it is back."""
    data = make_data(tmp_path / "parent/data")
    gone, new = (data, data.with_name("renamed")) if which == "root" else (data.parent, tmp_path / "renamed")
    with registered(daemon, name, data) as before:
        gone.rename(new)
        moved = new if which == "root" else new / "data"
        (moved / "part-0.csv").write_text("under another name")
        is_unavailable(daemon, name, before)
        new.rename(gone)
        shown = becomes(daemon, name, dt1(data))
        assert shown["version"] == before["version"] + 1
        eventually(lambda: daemon.dataset(name)["watch"] == "inotify", 10, "it is watched again")
        (data / "sub/new").write_bytes(b"seen")
        becomes(daemon, name, dt1(data))


@pytest.mark.parametrize("where", ["root", "above"])
def test_symlink_retargeted(daemon: Daemon, tmp_path: Path, name: str, where: str) -> None:
    """When the symlink that is the root, or one above it, leads elsewhere, that is recorded within ten seconds; from
    then on the new place is watched and the old one is not."""
    one, two = (make_data(tmp_path / place / "data", 4 + n) for n, place in enumerate(("one", "two")))
    link = tmp_path / "current"
    link.symlink_to(one if where == "root" else one.parent)
    root = link if where == "root" else link / "data"
    with registered(daemon, name, root):
        beside = tmp_path / "beside"
        beside.symlink_to(two if where == "root" else two.parent)
        beside.rename(link)  # as ``ln -sfn`` and deployments do: at no moment there is none
        becomes(daemon, name, dt1(two), 10)
        assert "not the directory that was watched" in daemon.wait_event("watch.lost", dataset=name)["reason"]
        (one / "sub/old-place").write_bytes(b"not ours")
        eventually(lambda: daemon.dataset(name)["watch"] == "inotify", 10, "it is watched again")
        (two / "sub/new").write_bytes(b"seen")
        shown = becomes(daemon, name, dt1(two))
        assert (shown["files"], shown["path"]) == (sum(len(files) for _, _, files in os.walk(two)) - 1, str(root))


def test_single_file_replaced_and_appended_to(daemon: Daemon, data: Path, name: str) -> None:
    """Of a dataset that is one file every replacement and then every appended line is seen, and its neighbours are
    none of its business."""
    target = data / "part-0.csv"
    with registered(daemon, name, target) as before:
        assert before["files"] == 1
        for number in range(2):
            (data / "tmp").write_text(f"replacement {number}\n")
            (data / "tmp").rename(target)
            becomes(daemon, name, oracle(target))
        with target.open("a") as file:
            file.write("a line\n")
        shown = becomes(daemon, name, oracle(target))
        refreshes = count(daemon, "test.refresh", name)
        (data / "sub/part-0.csv").write_text("a namesake")
        (data / "empty.txt").write_text("a neighbour")
        target.unlink()
        is_unavailable(daemon, name, shown)
        assert count(daemon, "test.refresh", name) - refreshes <= 4
        target.write_text("back")
        shown = becomes(daemon, name, oracle(target))
        assert shown["version"] == before["version"] + 4


def test_a_symlink_to_one_file_is_retargeted(daemon: Daemon, data: Path, tmp_path: Path, name: str) -> None:
    """The dataset is the file that the link leads to, before and after, and changes of either are seen while it is."""
    (data / "other.csv").write_text("other")
    link = tmp_path / "current.csv"
    link.symlink_to(data / "part-0.csv")
    with registered(daemon, name, link):
        (data / "part-0.csv").write_text("changed behind the link")
        becomes(daemon, name, oracle(data / "part-0.csv"))
        link.unlink()
        link.symlink_to(data / "other.csv")
        becomes(daemon, name, oracle(data / "other.csv"))
        eventually(lambda: daemon.dataset(name)["watch"] == "inotify", 10, "the other file is watched")
        (data / "other.csv").write_text("changed behind the link again")
        becomes(daemon, name, oracle(data / "other.csv"))


def test_a_path_becomes_a_file_and_then_a_directory(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """A dataset whose path is missing at first, then a file, then a directory is recorded as what it is, and
    watched as what it is."""
    path = tmp_path / "data"
    daemon.place.register(name, path)
    daemon.call("reload")
    try:
        eventually(lambda: daemon.dataset(name)["state"] == "unavailable", 10, "it is missing")
        for made in (1, 0):
            if made:
                path.write_text("a file")
            else:
                make_data(path)
            becomes(daemon, name, oracle(path))
            eventually(lambda: daemon.dataset(name)["watch"] == "inotify", 10, "it is watched")
            (path if made else path / "sub/new").write_text("seen")
            becomes(daemon, name, oracle(path))
            if made:
                path.unlink()
            else:
                shutil.rmtree(path)
    finally:
        (daemon.place.folder / f"{name}.toml").unlink()
        daemon.call("reload")


# --- many and large --------------------------------------------------------------------------------------------------


class Prober(threading.Thread):
    """Asks for the status every 10 ms on one connection, and keeps how long each answer took, in seconds."""

    def __init__(self, socket: Path) -> None:
        super().__init__(daemon=True)
        self.ending = threading.Event()
        self.took: list[float] = []
        self._socket = socket

    @property
    def worst_s(self) -> float:
        return max(self.took)

    def run(self) -> None:
        with Client(self._socket, timeout_s=30) as client:
            while not self.ending.wait(0.01):
                began = time.monotonic()
                client.call("status")
                self.took.append(time.monotonic() - began)


@contextmanager
def probing(daemon: Daemon) -> Iterator[Prober]:
    """Ask all the time during the block; an exception of the asking thread fails the test."""
    prober = Prober(daemon.place.socket)
    prober.start()
    try:
        yield prober
    finally:
        prober.ending.set()
        prober.join(60)


def test_20_000_directories_do_not_freeze_the_loop(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """While 20,000 directories are armed and walked for the first time, and 2,000 more when they are moved in, every
    answer comes within ``LONGEST_ANSWER`` of that time; then each of them is watched."""
    data, outside = tmp_path / "data", tmp_path / "outside"
    for number in range(11_000):
        folder = (data if number < 10_000 else outside) / f"{number // 100}" / f"{number}" / "sub"
        folder.mkdir(parents=True)
        if number % 100 == 99:
            (folder / "file").write_bytes(b"%d" % number)
    began = time.monotonic()
    with probing(daemon) as prober, registered(daemon, name, data) as before:
        took, first = time.monotonic() - began, prober.worst_s
        outside.rename(data / "in")
        daemon.sealed(name, before["version"] + 1)
        worst = f"worst {prober.worst_s:.3f} s, {first:.3f} s in {took:.1f} s of a first walk"
        print(f"{len(prober.took)} answers, {worst}")
        assert prober.worst_s < LONGEST_ANSWER * took
        for path in ("in/109/10999/sub/file", "0/99/sub/file", "50/5001/new"):
            (data / path).write_bytes(b"seen")
        shown = becomes(daemon, name, dt1(data))
        assert (shown["watch"], shown["unannounced_changes"]) == ("inotify", 0)
    shutil.rmtree(data)


def test_45_datasets(tmp_path: Path) -> None:
    """45 datasets that all walk for the first time, and slowly, fail nobody and keep no thread from anybody: status
    answers. Then a scan with its barrier is answered, and there is one inotify instance for each and nothing else."""
    roots = {f"d{number:02}": make_data(tmp_path / f"{number:02}", 4) for number in range(45)}
    with running_daemon(tmp_path / "d", "", roots, scan={"stats_per_second": 120}) as daemon:
        began = time.monotonic()
        with probing(daemon) as prober:
            eventually(lambda: len(daemon.status()["datasets"]) == 45, 10, "they are taken in")
            for name, root in roots.items():
                becomes(daemon, name, dt1(root))
        walked = time.monotonic() - began
        assert not daemon.events("dataset.failed")
        began = time.monotonic()
        answer = daemon.call("scan", name="d44")["datasets"][0]
        took = time.monotonic() - began
        threads, instances = psutil.Process(daemon.pid).num_threads(), inotify_instances(daemon.pid)
        print(f"worst answer {prober.worst_s:.3f} s, scan {took:.3f} s, {threads} threads, {instances} instances")
        assert (answer["complete"], answer["changed"]) == (True, False)
        assert instances == 45
        assert prober.worst_s < LONGEST_ANSWER * walked
        assert {shown["watch"] for shown in daemon.status()["datasets"]} == {"inotify"}
        changed = [f"d{number:02}" for number in (0, 20, 44)]
        for name in changed:
            (roots[name] / "new").write_bytes(b"seen")
        for name in changed:
            becomes(daemon, name, dt1(roots[name]))


def inotify_instances(pid: int) -> int:
    """Return how many a process has."""
    folder = Path(f"/proc/{pid}/fd")
    return sum(1 for fd in folder.iterdir() if os.path.islink(fd) and os.readlink(fd) == "anon_inode:inotify")


def test_a_dataset_added_while_another_is_written(daemon: Daemon, data: Path, name: str, tmp_path: Path) -> None:
    """Adding and removing datasets at run time costs one that is being written no event, and does not arm it anew."""
    ending = threading.Event()

    def write() -> None:
        number = 0
        while not ending.wait(0.001):
            number += 1
            (data / "sub" / f"{number % 200}").write_bytes(b"%d" % number)
            if number % 50 == 0:
                (data / f"folder-{number}").mkdir()
                (data / f"folder-{number}" / "file").write_bytes(b"")

    with registered(daemon, name, data):
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        try:
            for number in range(2):
                other = make_data(tmp_path / f"other-{number}")
                with registered(daemon, f"{name}-{number}", other):
                    (other / "sub/new").write_bytes(b"seen")
                    becomes(daemon, f"{name}-{number}", dt1(other))
        finally:
            ending.set()
            thread.join(10)
        shown = becomes(daemon, name, dt1(data))
        assert shown["unannounced_changes"] == 0
        answer = daemon.call("scan", name=name)["datasets"][0]
        assert (answer["changed"], answer["hashed_files"]) == (False, 0)
        assert count(daemon, "watch.armed", name) == 1


# --- what the watch cannot or must not see ---------------------------------------------------------------------------


def test_no_feedback_from_our_own_reads(daemon: Daemon, data: Path, name: str) -> None:
    """Reading every one of some thousand files again is one refresh, and no further one follows from it."""
    make_tree(data, 300, 10)
    with registered(daemon, name, data) as before:
        refreshes = count(daemon, "test.refresh", name)
        answer = daemon.call("scan", name=name, full=True)["datasets"][0]
        assert answer["hashed_files"] == before["files"] >= 3_000
        until = time.monotonic() + 1  # four times the spacing of seals here: what was to come has come
        eventually(lambda: time.monotonic() > until, 5, "a second passes")
        assert count(daemon, "test.refresh", name) == refreshes + 1
        shown = daemon.dataset(name)
        assert (shown["state"], shown["version"], shown["digest"]) == ("current", before["version"], dt1(data))


def test_a_change_that_no_event_announced(daemon: Daemon, data: Path, name: str, tmp_path: Path) -> None:
    """A write through a hard link outside the root makes no event: the walk that finds it raises the counter in status
    and says so on the log; one that was announced does not."""
    outside = tmp_path / "outside.csv"
    os.link(data / "part-0.csv", outside)
    with registered(daemon, name, data) as before:
        outside.write_text("another content")
        daemon.call("scan", name=name)
        shown = becomes(daemon, name, dt1(data))
        assert shown["version"] == before["version"] + 1
        assert shown["unannounced_changes"] == 1
        said = daemon.wait_event("dataset.change_unannounced", dataset=name)
        assert (said["level"], said["version"], said["total"]) == ("warning", shown["version"], 1)
        (data / "part-0.csv").write_text("announced")
        daemon.call("scan", name=name)
        shown = becomes(daemon, name, dt1(data))
        assert shown["unannounced_changes"] == 1
        assert count(daemon, "dataset.change_unannounced", name) == 1
