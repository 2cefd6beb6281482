"""What every watcher promises, on real directories: each test runs with inotify and with watchfiles."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from watch_area import Area, inotify_watches, wait_for_no_native_thread

from reprod.fs import watch_files
from reprod.fs.watch import Hint, WatchFailure
from reprod.fs.watch_choice import watcher_factory
from reprod.fs.watch_files import as_failure

watchfiles_only = pytest.mark.parametrize("backend", ["watchfiles"])


@pytest.fixture(params=["inotify", "watchfiles"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def area(tmp_path: Path, backend: str) -> Iterator[Area]:
    made = Area(tmp_path, backend)
    yield made
    for watcher in made.watchers:
        watcher.stop()


def test_create_write_rename_delete(area: Area) -> None:
    """Each kind of change to a file gives a hint with its path and a plausible time."""
    (area.root / "old").write_bytes(b"1")
    (area.root / "gone").write_bytes(b"1")
    before = time.time_ns()
    area.start()
    (area.root / "new").write_bytes(b"1")
    (area.root / "old").rename(area.root / "renamed")
    (area.root / "gone").unlink()
    area.told.wait_paths(b"new", b"old", b"renamed", b"gone")
    assert all(before < hint.seen_ns <= time.time_ns() and not hint.overflow for hint in area.told.told)


def test_new_nested_directories_name_their_top(area: Area) -> None:
    """Of a tree made at once at least the top is hinted, and later changes deep inside are seen."""
    area.start()
    (area.root / "a/b/c").mkdir(parents=True)
    area.told.wait_paths(b"a")
    (area.cookies / "armed").touch()
    area.told.wait(lambda: "armed" in area.told.told)
    (area.root / "a/b/c/later").write_bytes(b"1")
    area.told.wait_paths(b"a/b/c/later")


def test_names_that_the_default_filter_hides_are_seen(area: Area) -> None:
    """Nothing is filtered: .git, caches and editor files are data like any other."""
    (area.root / ".git").mkdir()
    (area.root / "__pycache__").mkdir()
    area.start()
    for name in (".git/x", "__pycache__/y.pyc", "z.swp", "back~", "line\nbreak"):
        (area.root / name).write_bytes(b"")
    area.told.wait_paths(b".git/x", b"__pycache__/y.pyc", b"z.swp", b"back~", b"line\nbreak")


@watchfiles_only
def test_environment_variables_do_not_matter(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    """WATCHFILES_* cannot switch to its poller, which compares whole seconds, nor hide errors."""
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    monkeypatch.setenv("WATCHFILES_POLL_DELAY_MS", "60000")
    monkeypatch.setenv("WATCHFILES_IGNORE_PERMISSION_DENIED", "1")
    area.start()
    (area.root / "x").write_bytes(b"")
    area.told.wait_paths(b"x")


def test_symlinked_root_is_watched_where_it_leads(area: Area) -> None:
    """A root given as a symlink has hints relative to its target; retargeting it ends the watch."""
    link = area.root.parent / "link"
    link.symlink_to(area.root)
    area.start(os.fsencode(link))
    (area.root / "x").write_bytes(b"")
    area.told.wait_paths(b"x")
    other = area.root.parent / "other"
    other.mkdir()
    link.unlink()
    link.symlink_to(other)
    assert area.told.wait_failure().kind == "missing"


@watchfiles_only
def test_symlinks_inside_do_not_rename_what_changed(area: Area) -> None:
    """A directory that also hangs behind a symlink is hinted under its own name; an outside target under the link's."""
    names = [f"real{n}" for n in range(6)]  # several, because which name notify takes depends on the listing's order
    for n, name in enumerate(names):
        (area.root / name).mkdir()
        (area.root / f"{'az'[n % 2]}lias{n}").symlink_to(name)
    outside = area.root.parent / "outside"
    outside.mkdir()
    (area.root / "out").symlink_to(outside)
    area.start()
    for name in names:
        (area.root / name / "x").write_bytes(b"")
    (outside / "y").write_bytes(b"")
    expected = {b"out/y"} | {f"{name}/x".encode() for name in names}
    area.told.wait_paths(*expected)
    assert area.told.paths() == expected


def test_a_change_of_the_root_itself_is_the_whole_tree(area: Area) -> None:
    """chmod of the root gives the hint for everything, without overflow."""
    area.start()
    area.root.chmod(0o700)
    area.told.wait_paths(b"")
    assert not any(hint.overflow for hint in area.told.told)


def test_one_file_dataset(area: Area) -> None:
    """With ``only``, replacing the file is seen again and again and nothing else in its directory is hinted."""
    target = area.root / "data.csv"
    target.write_bytes(b"0")
    (area.root / "sub").mkdir()
    wait_for_no_native_thread()
    area.start(only=b"data.csv")
    assert inotify_watches() == 2  # the directory and the cookies, nothing below
    for round_ in range(3):
        seen = len(area.told.told)
        (area.root / "tmp").write_bytes(b"%d" % round_)
        (area.root / "tmp").rename(target)
        area.told.wait(lambda seen=seen: len(area.told.told) > seen)
    target.unlink()
    (area.root / "sub/data.csv").write_bytes(b"")
    area.root.chmod(0o700)
    (area.cookies / "end").touch()
    area.told.wait(lambda: "end" in area.told.told)
    assert area.told.paths() == {b"data.csv"}


def test_cookies_come_after_the_hints_before_them(area: Area) -> None:
    """200 rounds: a file is written, then a cookie; whenever the cookie is seen, the file's hint was there."""
    area.start()
    for round_ in range(200):
        (area.root / f"f{round_}").write_bytes(b"x")
        (area.cookies / f"c{round_}").touch()
        if round_ % 10 == 9:  # in bursts too, so that batches hold several of each
            area.told.wait(lambda name=f"c{round_}": name in area.told.told)
    seen: set[bytes] = set()
    cookies = 0
    for item in area.told.told:
        if isinstance(item, str):
            cookies += 1
            assert {b"f%d" % n for n in range(int(item[1:]) + 1)} <= seen
        elif isinstance(item, Hint):
            seen.add(item.path)
    assert cookies == 200


def test_cookies_inside_the_root_are_not_hints(area: Area) -> None:
    """A state directory that lies inside the data still serves the barrier, even when reached through a symlink."""
    inside = area.root / "state"
    inside.mkdir()
    link = area.root / "alias"
    link.symlink_to("state")
    area.cookies = link
    area.start()
    (inside / "c").touch()
    area.told.wait(lambda: "c" in area.told.told)
    assert area.told.paths() == set()


@watchfiles_only
def test_undecodable_name_is_a_failure_of_that_kind(area: Area) -> None:
    """A name that is not UTF-8 ends the watch with the kind that says polling is needed, and without a thread."""
    watcher = area.start()
    (area.root / "before").write_bytes(b"")
    area.told.wait_paths(b"before")
    with open(os.fsencode(area.root) + b"/\xff", "wb"):
        pass
    failure = area.told.wait_failure()
    assert failure.kind == "undecodable"
    assert "UTF-8" in failure.message
    assert 0 < watcher.whole_ns <= time.time_ns()


@watchfiles_only
def test_undecodable_root(area: Area) -> None:
    """A root whose own path is not UTF-8 cannot be armed and says which kind of failure that is."""
    root = os.fsencode(area.root) + b"/\xff\xfe"
    os.mkdir(root)
    with pytest.raises(WatchFailure) as caught:
        area.start(root)
    assert caught.value.kind == "undecodable"


def test_missing_root_or_cookies(area: Area) -> None:
    """What is not there cannot be armed; only the root's absence is of the kind missing."""
    with pytest.raises(WatchFailure, match="does not exist") as caught:
        area.start(os.fsencode(area.root / "none"))
    assert caught.value.kind == "missing"
    file = area.root / "file"
    file.touch()
    with pytest.raises(WatchFailure) as caught:
        area.start(os.fsencode(file / "below"))
    assert caught.value.kind == "missing"
    shutil.rmtree(area.cookies)
    with pytest.raises(WatchFailure, match="cookies") as caught:
        area.start()
    assert caught.value.kind == "other"


@pytest.mark.parametrize("how", ["removed", "renamed", "recreated", "parent renamed"])
def test_vanished_root_is_missing(area: Area, how: str) -> None:
    """However the root goes away, also where inotify says nothing, the watch ends by itself."""
    top = area.root
    below = top / "sub/deep"
    below.mkdir(parents=True)
    watcher = area.start(os.fsencode(below.parent))
    (area.cookies / "c").touch()
    area.told.wait(lambda: "c" in area.told.told)
    vanished_ns = time.time_ns()
    if how == "removed":
        shutil.rmtree(below.parent)
    elif how == "renamed":
        below.parent.rename(top / "elsewhere")
    elif how == "recreated":
        below.parent.rename(top / "elsewhere")
        below.parent.mkdir()
    else:
        top.rename(top.with_name("moved"))
    assert area.told.wait_failure().kind == "missing"
    assert watcher.whole_ns < vanished_ns
    watcher.stop()
    assert len(area.told.failures()) == 1


@watchfiles_only
def test_large_batch_is_an_overflow(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    """More changes in a batch than a quarter of the kernel's queue are one hint for everything, marked overflow."""
    monkeypatch.setattr(watch_files, "max_queued_events", lambda: 40)
    told, whole = area.told, []
    watcher = watcher_factory(area.backend)(
        os.fsencode(area.root),
        os.fsencode(area.cookies),
        lambda hints: (whole.append(watcher.whole_ns), told.hints(hints)),
        told.cookie,
        told.failure,
    )
    area.watchers.append(watcher)
    watcher.start()
    started = time.time_ns()
    for n in range(400):  # more than ten at once, also where the machine lets this be done in pieces
        (area.root / f"{n}").touch()
    (area.cookies / "c").touch()
    told.wait(lambda: "c" in told.told)
    flagged = [item for item in told.told if isinstance(item, Hint) and item.overflow]
    assert flagged
    assert {hint.path for hint in flagged} == {b""}
    assert whole[0] <= started


def test_whole_until_reaches_before_a_stall(area: Area) -> None:
    """When a batch is handed over, whole_ns lies before the first of its changes happened."""
    began: list[int] = []
    whole: list[int] = []
    told = area.told
    watcher = watcher_factory(area.backend)(
        os.fsencode(area.root),
        os.fsencode(area.cookies),
        lambda hints: (whole.append(watcher.whole_ns), told.hints(hints)),
        told.cookie,
        told.failure,
    )
    area.watchers.append(watcher)
    watcher.start()
    (area.cookies / "warm").touch()
    told.wait(lambda: "warm" in told.told)
    for n in range(5):
        began.append(time.time_ns())
        (area.root / f"{n}").touch()
        told.wait_paths(b"%d" % n)
    assert all(before <= at for before, at in zip(whole, began, strict=False))


def test_stop_is_quick_final_and_leaves_no_thread(area: Area) -> None:
    """stop() ends the thread also while changes pour in, can be repeated, and nothing is told afterwards."""
    wait_for_no_native_thread()
    watcher = area.start()
    pouring = threading.Event()

    def pour() -> None:
        n = 0
        while not pouring.is_set():
            n += 1
            (area.root / f"{n % 50}").write_bytes(b"x")

    writer = threading.Thread(target=pour)
    writer.start()
    try:
        area.told.wait_paths(b"1")
        watcher.stop()
        left = [thread for thread in threading.enumerate() if thread.name == "reprod-watch"]
        told = len(area.told.told)
        watcher.stop()
    finally:
        pouring.set()
        writer.join()
    assert not left
    assert len(area.told.told) == told
    wait_for_no_native_thread()


def test_stop_without_start(area: Area) -> None:
    """A watcher that was never armed can be stopped."""
    area.make().stop()


@pytest.mark.parametrize("failing", ["hints", "failure"])
def test_exceptions_of_callbacks_stay_inside(area: Area, failing: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A callback that raises is a failure of the watch, and one that raises on that too ends the thread quietly."""
    told = area.told

    def broken(_: object) -> None:
        raise KeyError("no")

    watcher = watcher_factory(area.backend)(
        os.fsencode(area.root),
        os.fsencode(area.cookies),
        broken,
        told.cookie,
        broken if failing == "failure" else told.failure,
    )
    area.watchers.append(watcher)
    watcher.start()
    (area.root / "x").touch()
    if failing == "hints":
        assert "KeyError" in told.wait_failure().message
    deadline = time.monotonic() + 60
    while any(thread.name == "reprod-watch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("setting", "value", "named"), [("watches", "5", "max_user_watches"), ("instances", "0", "max_user_instances")]
)
def test_limits_name_the_sysctl(area: Area, setting: str, value: str, named: str) -> None:
    """Reaching an inotify limit is the kind limit, and the message holds the line to run (in a user namespace)."""
    import subprocess
    import sys

    for n in range(20):
        (area.root / f"{n}").mkdir()
    script = (
        "import sys\n"
        f"open('/proc/sys/user/max_inotify_{setting}', 'w').write('{value}')\n"
        "from reprod.fs.watch import WatchFailure\n"
        "from reprod.fs.watch_choice import watcher_factory\n"
        "none = lambda *_: None\n"
        "try:\n"
        "    watcher_factory(sys.argv[3])(sys.argv[1].encode(), sys.argv[2].encode(), none, none, none).start()\n"
        "except WatchFailure as failure:\n"
        "    print(failure.kind, failure.message)\n"
    )
    arguments = [str(area.root), str(area.cookies), area.backend]
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()[-200:]}")
    assert done.stdout.startswith("limit ")
    assert f"sysctl -w fs.inotify.{named}=" in done.stdout


def test_kinds_of_exceptions() -> None:
    """Every way in which watchfiles and the system report trouble has its kind."""
    assert as_failure(OSError(28, "No space left on device")).kind == "limit"
    assert as_failure(OSError(24, "Too many open files")).kind == "limit"
    assert (
        as_failure(RuntimeError("Error creating recommended watcher: Too many open files (os error 24)")).kind
        == "limit"
    )
    assert as_failure(FileNotFoundError("No path was found.")).kind == "missing"
    assert as_failure(PermissionError("denied")).kind == "other"
    own = WatchFailure("other", "x")
    assert as_failure(own) is own
