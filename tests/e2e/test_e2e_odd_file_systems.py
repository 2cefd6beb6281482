"""Odd file systems and files under a real daemon: whole-second stamps, a share behind FUSE, a log that grows.

Mounts are made in the daemon's own mount namespace and looked at through ``/proc/PID/root``; the FUSE process is a
child of the test and ended by it. What is missing here (root, loop devices, FUSE, bindfs) skips its tests.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, dt1, eventually, make_data, running_daemon

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

SECOND_NS = 1_000_000_000


def program_in_own_mounts() -> tuple[str, ...]:
    """Return what runs the daemon in a mount namespace of its own, as this very process."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, timeout=10)
    if done.returncode:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    daemon = "import sys; sys.argv = ['reprod', 'daemon']; from reprod.__main__ import main; main()"
    inner = ["unshare", "--mount", sys.executable, "-c", daemon]
    return ("-c", f"import os; os.execvp({inner[0]!r}, {inner!r})")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Yield a daemon in a mount namespace of its own, that walks every second what it does not watch."""
    with running_daemon(tmp_path / "d", program=program_in_own_mounts(), watch={"reconcile_seconds": 1}) as daemon:
        yield daemon


def entered(daemon: Daemon, *command: str | Path) -> list[str | Path]:
    """Return a command as it runs in the daemon's mount namespace."""
    return ["nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt", *command]


def seen(daemon: Daemon, path: Path) -> Path:
    """Return where a path of the daemon's namespace can be reached from here."""
    return Path(f"/proc/{daemon.pid}/root{path}")


def is_(daemon: Daemon, name: str, digest: str) -> dict[str, Any]:
    """Wait until the dataset is current with this digest; return its status."""
    last: dict[str, Any] = {}

    def there() -> bool:
        last.update(daemon.dataset(name))
        return (last["state"], last["digest"]) == ("current", digest)

    eventually(there, 20, lambda: f"{name} is current with {digest}: {last}; {daemon.tail()}")
    return last


@needs_root
@pytest.mark.root
def test_two_writes_in_one_second_of_whole_second_stamps(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """Contents of one size and one stamp follow each other within a second: what was there in between is never shown
    as the digest, and the last one is."""
    image, root = tmp_path / "image", tmp_path / "root"
    root.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    mkfs = ["mke2fs", "-q", "-t", "ext4", "-I", "128", image]
    for command in (mkfs, entered(daemon, "mount", "-o", "loop", image, root)):
        if shutil.which(str(command[0])) is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"{command[0]} is not installed or not allowed here")
    data = seen(daemon, root)
    (data / "f").write_bytes(b"0000")
    daemon.place.register(name, root)
    daemon.call("reload")
    assert is_(daemon, name, dt1(data))["watch"] == "inotify"
    second = (time.time_ns() // SECOND_NS + 2) * SECOND_NS  # the next seal is not held back for the last one
    eventually(lambda: time.time_ns() > second + 30_000_000, 5, "a second begins")
    passing, shown = set(), set()
    for number in range(1, 8):
        (data / "f").write_bytes(b"%04d" % number)
        passing.add(dt1(data))
        began = time.time_ns()
        while time.time_ns() < began + SECOND_NS // 10:
            shown.add(daemon.dataset(name)["digest"])
    stamp = (data / "f").stat().st_ctime_ns
    is_(daemon, name, dt1(data))
    assert stamp % SECOND_NS == 0
    if stamp == second:  # else a busy machine was too late for one second
        assert not shown & passing


@needs_root
@pytest.mark.root
def test_a_share_that_another_host_changes_is_polled(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """A network file system behind FUSE is polled, and status says why; what its host changes, without an event here,
    is found by walks, and none of it counts as a loss of the watch; its assurance is "network"."""
    below, root = make_data(tmp_path / "below"), tmp_path / "root"
    root.mkdir()
    for path in below.rglob("*"):  # what is young on a network is not read for three seconds
        os.utime(path, (0, 10**9), follow_symlinks=False)
    with bindfs(daemon, below, root):
        daemon.place.register(name, root)
        daemon.call("reload")
        shown = is_(daemon, name, dt1(below))
        assert shown["watch"] == "poll"
        assert "fuse.sshfs" in shown["watch_reason"]
        needs = [need["what"] for need in daemon.status()["attention"] if need.get("dataset") == name]
        assert any("polled, not watched" in what for what in needs), needs
        (below / "sub/part-1.csv").write_text("changed on the host")
        (below / "part-0.csv").unlink()
        (below / "new").mkdir()
        (below / "new/file").write_bytes(b"new")
        shown = is_(daemon, name, dt1(below))
        assert shown["unannounced_changes"] == 0
        assert daemon.call("snapshot", name=name)["assurance"] == "network"
        assert dt1(seen(daemon, root)) == dt1(below)


@contextmanager
def bindfs(daemon: Daemon, below: Path, on: Path) -> Iterator[None]:
    """Mount ``below`` in the daemon's namespace as a share of another host; sshfs tells no change time either."""
    if shutil.which("bindfs") is None or not os.path.exists("/dev/fuse"):
        pytest.skip("bindfs is not installed, or there is no /dev/fuse")
    options = ["--ctime-from-mtime", "-f", "-o", "subtype=sshfs,attr_timeout=1,entry_timeout=1"]
    process = subprocess.Popen(entered(daemon, "bindfs", *options, below, on), stderr=subprocess.PIPE)
    try:
        device = on.parent.stat().st_dev
        eventually(
            lambda: process.poll() is not None or seen(daemon, on).stat().st_dev != device, 10, "bindfs has mounted"
        )
        if process.poll() is not None:
            pytest.skip(f"bindfs cannot mount here: {process.stderr.read().decode() if process.stderr else ''}")
        yield
    finally:
        process.terminate()  # it unmounts
        process.communicate(timeout=60)


def test_a_log_that_grows(tmp_path: Path, data: Path, name: str) -> None:
    """While a process appends the dataset is incomplete and has no digest; soon after its end it is current with the
    digest of all that was written."""
    code = "import select, sys\nfile = open(sys.argv[1], 'ab', buffering=0)\n"
    code += "while not select.select([sys.stdin], [], [], 0.005)[0]: file.write(b'line\\n')"
    with running_daemon(tmp_path / "d", "", {name: data}) as daemon:
        before = is_(daemon, name, dt1(data))
        command = [sys.executable, "-c", code, str(data / "log")]
        writer = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            eventually(lambda: daemon.dataset(name)["state"] == "incomplete", 10, daemon.tail)
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                shown = daemon.dataset(name)
                assert (shown["digest"], shown["problems"][0]["problem"]) == (None, "unstable")
        finally:
            writer.communicate(timeout=60)
        shown = is_(daemon, name, dt1(data))
        assert shown["files"] == before["files"] + 1
