"""Mounts that come and go under a real daemon, and limits of the kernel: daemons in namespaces of their own.

The daemon runs in a mount (or user) namespace that ends with it. What it sees is looked at through ``/proc/PID/root``,
and mounted by ``nsenter``: nothing of it is to be seen outside.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, dt1, eventually, make_data, running_daemon

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def program_in(namespace: list[str], before: str = "") -> tuple[str, ...]:
    """Return what runs the daemon in a namespace, as this very process, after the Python line ``before``."""
    daemon = "import sys; sys.argv = ['reprod', 'daemon']; from reprod.__main__ import main; main()"
    inner = [*namespace, sys.executable, "-c", f"{before}\n{daemon}"]
    return ("-c", f"import os; os.execvp({inner[0]!r}, {inner!r})")


def skip_unless(namespace: list[str]) -> None:
    """Skip where such a namespace cannot be made."""
    done = subprocess.run([*namespace, "true"], capture_output=True, text=True, timeout=10)
    if done.returncode:
        pytest.skip(f"{' '.join(namespace)} is not possible here: {done.stderr.strip()}")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Yield one daemon in a mount namespace of its own."""
    namespace = ["unshare", "--mount"]
    skip_unless(namespace)
    with running_daemon(tmp_path_factory.mktemp("mounts"), program=program_in(namespace)) as daemon:
        yield daemon


def inside(daemon: Daemon, *command: str | Path) -> None:
    """Run a command in the daemon's mount namespace."""
    entered = ["nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt", *command]
    done = subprocess.run(entered, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def seen(daemon: Daemon, path: Path) -> Path:
    """Return where a path of the daemon's namespace can be reached from here."""
    return Path(f"/proc/{daemon.pid}/root{path}")


def unmount(daemon: Daemon, path: Path) -> None:
    """Unmount as a person does, not lazily: nothing of ours may keep it busy for longer than one look takes."""
    inside(daemon, "sh", "-c", 'for i in $(seq 50); do umount "$0" && exit; sleep 0.2; done; exit 1', path)


@contextmanager
def registered(daemon: Daemon, name: str, path: Path) -> Iterator[dict[str, Any]]:
    """Add a dataset to the running daemon for the time of the block; yields its status once it is watched."""
    daemon.place.register(name, path)
    try:
        daemon.call("reload")
        shown = becomes(daemon, name, dt1(seen(daemon, path)))
        assert shown["watch"] == "inotify"
        yield shown
    finally:
        (daemon.place.folder / f"{name}.toml").unlink()
        daemon.call("reload", timeout_s=30)


def becomes(daemon: Daemon, name: str, digest: str, watch: str | None = None) -> dict[str, Any]:
    """Wait until the dataset is current with this digest, and watched so; return its status."""
    last: dict[str, Any] = {}

    def there() -> bool:
        last.update(daemon.dataset(name))
        right = (last["state"], last["digest"]) == ("current", digest)
        return right and (watch is None or last["watch"] == watch)

    eventually(there, 20, lambda: f"{name} is current with {digest}: {last}; {daemon.tail()}")
    return last


def is_unavailable(daemon: Daemon, name: str, before: dict[str, Any]) -> dict[str, Any]:
    """Within ten seconds status says so, and nothing was recorded as deleted; returns the status."""
    eventually(
        lambda: daemon.dataset(name)["state"] == "unavailable", 10, lambda: f"{name} is unavailable: {daemon.tail()}"
    )
    shown = daemon.dataset(name)
    kept = ("version", "digest", "files")
    assert [shown[key] for key in kept] == [before[key] for key in kept]
    assert any(need.get("dataset") == name for need in daemon.status()["attention"])
    return shown


def removed(daemon: Daemon, name: str) -> int:
    """How many entries were ever recorded as deleted."""
    return sum(event["removed"] for event in daemon.events("dataset.refreshed") if event["dataset"] == name)


@needs_root
@pytest.mark.root
def test_root_mount_vanishes(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """A root whose mount vanishes is unavailable though an empty directory is left in its place; nothing is forgotten,
    and when it is mounted again the dataset is current with what is there, and watched."""
    disk, root = tmp_path / "disk", tmp_path / "root"
    disk.mkdir()
    root.mkdir()
    inside(daemon, "mount", "-t", "tmpfs", "-o", "size=1m", "reprod-disk", disk)
    make_data(seen(daemon, disk) / "data")
    inside(daemon, "mount", "--bind", disk / "data", root)
    with registered(daemon, name, root) as before:
        unmount(daemon, root)
        shown = is_unavailable(daemon, name, before)
        assert "another file system" in shown["reason"]
        assert "mount what belongs there" in shown["hint"]
        (seen(daemon, disk) / "data/part-0.csv").write_text("changed while it was away")
        inside(daemon, "mount", "--bind", disk / "data", root)
        becomes(daemon, name, dt1(seen(daemon, root)), "inotify")
        (seen(daemon, root) / "sub/new").write_bytes(b"seen")
        becomes(daemon, name, dt1(seen(daemon, root)))
        assert removed(daemon, name) == 0
        unmount(daemon, root)


@needs_root
@pytest.mark.root
def test_a_mount_covers_the_root(daemon: Daemon, data: Path, name: str) -> None:
    """What is mounted over the root is not the dataset: it is unavailable, nothing of the other is recorded, and the
    dataset is current when the other is unmounted."""
    with registered(daemon, name, data) as before:
        inside(daemon, "mount", "-t", "tmpfs", "-o", "size=1m", "reprod-cover", data)
        (seen(daemon, data) / "foreign").write_bytes(b"not ours")
        is_unavailable(daemon, name, before)
        (data / "sub/meanwhile").write_bytes(b"written below, seen from outside")
        unmount(daemon, data)
        shown = becomes(daemon, name, dt1(data), "inotify")
        assert shown["version"] == before["version"] + 1
        (data / "sub/new").write_bytes(b"seen")
        becomes(daemon, name, dt1(data))
        assert removed(daemon, name) == 0


@needs_root
@pytest.mark.root
def test_a_mount_covers_a_subdirectory(daemon: Daemon, data: Path, name: str) -> None:
    """What is mounted over a directory inside the dataset is part of it at once, is watched, and what it covered is
    back, and watched, when it is unmounted."""
    with registered(daemon, name, data) as before:
        inside(daemon, "mount", "-t", "tmpfs", "-o", "size=1m", "reprod-sub", data / "sub")
        becomes(daemon, name, dt1(seen(daemon, data)))
        (seen(daemon, data) / "sub/deep").mkdir()
        (seen(daemon, data) / "sub/deep/above").write_bytes(b"in the mount")
        becomes(daemon, name, dt1(seen(daemon, data)))
        (data / "sub/below").write_bytes(b"under the mount, seen from outside")
        unmount(daemon, data / "sub")
        becomes(daemon, name, dt1(data))
        (data / "sub/part-1.csv").write_text("changed")
        shown = becomes(daemon, name, dt1(data))
        assert (shown["files"], shown["watch"]) == (before["files"] + 1, "inotify")
        assert shown["unannounced_changes"] == 0


@needs_root
@pytest.mark.root
def test_a_vanished_mount_uncovers_one_of_the_same_name(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """A root on a tmpfs in a tmpfs, both called ``tmpfs`` as they usually are, that is unmounted is unavailable: the
    directory that is left in its place is not it."""
    outer = tmp_path / "outer"
    outer.mkdir()
    inside(daemon, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", outer)
    root = outer / "root"
    seen(daemon, root).mkdir()
    inside(daemon, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root)
    make_data(seen(daemon, root) / "data")
    with registered(daemon, name, root) as before:
        unmount(daemon, root)
        is_unavailable(daemon, name, before)
        assert removed(daemon, name) == 0


# --- limits ----------------------------------------------------------------------------------------------------------

USER = ["unshare", "--user", "--map-root-user"]


@contextmanager
def limited(base: Path, setting: str, value: int) -> Iterator[Daemon]:
    """Yield a daemon in a user namespace with a limit of inotify, which walks every second what is not watched."""
    skip_unless(USER)
    before = f"open('/proc/sys/user/max_inotify_{setting}', 'w').write('{value}')"
    with running_daemon(base, program=program_in(USER, before), watch={"reconcile_seconds": 1}) as daemon:
        yield daemon


def is_polled(daemon: Daemon, name: str, root: Path, setting: str) -> None:
    """Status says so and how to cure it, and changes are found by walking."""
    shown = becomes(daemon, name, dt1(root), "poll")
    assert f"sysctl -w fs.inotify.{setting}=" in shown["watch_reason"]
    needs = [need["what"] for need in daemon.status()["attention"] if need.get("dataset") == name]
    assert any("polled, not watched" in what and f"sysctl -w fs.inotify.{setting}=" in what for what in needs)
    deepest = max((Path(folder) for folder, _, _ in os.walk(root)), key=lambda path: len(path.parts))
    (deepest / "found").write_bytes(b"by walking")
    shown = becomes(daemon, name, dt1(root))
    assert (shown["watch"], shown["unannounced_changes"]) == ("poll", 0)


def test_watch_limit(tmp_path: Path) -> None:
    """Datasets with more directories than may be watched, from the start or by growing, are polled; one that fits is
    watched all the while."""
    small, large, growing = (make_data(tmp_path / folder) for folder in ("small", "large", "growing"))
    for number in range(60):
        (large / f"{number}/deep").mkdir(parents=True)
    with limited(tmp_path / "d", "watches", 40) as daemon:
        for name, root in {"small": small, "growing": growing, "large": large}.items():
            daemon.place.register(name, root)
            daemon.call("reload")
            becomes(daemon, name, dt1(root), "poll" if name == "large" else "inotify")
        is_polled(daemon, "large", large, "max_user_watches")
        for number in range(60):
            (growing / f"{number}/deep").mkdir(parents=True)
            (growing / f"{number}/deep/file").write_bytes(b"%d" % number)
        is_polled(daemon, "growing", growing, "max_user_watches")
        (small / "sub/new").write_bytes(b"seen")
        becomes(daemon, "small", dt1(small), "inotify")


def test_instance_limit(tmp_path: Path) -> None:
    """Datasets for which there is no inotify instance are polled; the others are watched."""
    roots = {f"d{number}": make_data(tmp_path / f"{number}") for number in range(3)}
    with limited(tmp_path / "d", "instances", 2) as daemon:
        for name, root in roots.items():
            daemon.place.register(name, root)
            daemon.call("reload")
            becomes(daemon, name, dt1(root), "poll" if name == "d2" else "inotify")
        is_polled(daemon, "d2", roots["d2"], "max_user_instances")
