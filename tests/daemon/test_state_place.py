"""Where a daemon may keep its state: a local disk, a directory that is its user's alone; else 78 with the cure."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprod.daemon.lock import locked
from reprod.errors import ConfigError
from reprod.fs import mounts

#: As the kernel writes an NFS mount, with the id of the mount that the test's directory is on.
NFS_LINE = "{mount_id} 1 0:52 /exports /mnt/home rw,relatime - nfs4 filer:/exports rw,vers=4.2\n"


def start(base: Path, state: Path) -> "subprocess.CompletedProcess[str]":
    """Run a daemon that is expected to refuse; one that does not is ended after 20 s."""
    (base / "reprod.toml").touch()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REPROD_", "MLFLOW_", "XDG_"))}
    places = {"REPROD_CONFIG": base / "reprod.toml", "REPROD_STATE_DIR": state, "REPROD_SOCKET": base / "sock"}
    return subprocess.run(
        [sys.executable, "-m", "reprod", "daemon"],
        env=kept | {name: str(path) for name, path in places.items()},
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Path]:
    """A directory on what the kernel calls fuse.sshfs; the disk behind it is this one."""
    if shutil.which("bindfs") is None:
        pytest.skip("needs bindfs")
    source, target = tmp_path / "source", tmp_path / "remote"
    source.mkdir()
    target.mkdir()
    command = ["bindfs", "-o", "subtype=sshfs", str(source), str(target)]
    mounted = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if mounted.returncode:
        pytest.skip(f"cannot mount FUSE here: {mounted.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", target] if os.geteuid() == 0 else ["fusermount", "-u", target], timeout=30)


@pytest.mark.parametrize("there", [False, True], ids=["to be made", "there"])
def test_a_state_on_a_network_file_system_is_refused(tmp_path: Path, remote: Path, there: bool) -> None:
    """Exit 78, which file system it is and what to do; nothing is made there."""
    state = remote / "home" / "state"
    if there:
        state.mkdir(parents=True, mode=0o700)
    done = start(tmp_path, state)
    assert done.returncode == 78, done.stderr
    assert f"{state} is on a network file system (fuse.sshfs, {tmp_path}/source at {remote})" in done.stderr
    assert "hint: set REPROD_STATE_DIR to a directory on a local disk" in done.stderr
    assert list(remote.rglob("*")) == ([state.parent, state] if there else [])


def test_a_link_to_a_network_file_system_is_refused(tmp_path: Path, remote: Path) -> None:
    """What counts is where the files would lie, not what the path is called."""
    (tmp_path / "state").symlink_to(remote)
    done = start(tmp_path, tmp_path / "state")
    assert done.returncode == 78, done.stderr
    assert "network file system" in done.stderr


def test_nfs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what the kernel's mountinfo calls nfs4; a file system that it does not know is let be."""
    fd = os.open(tmp_path, os.O_PATH)
    mount_id = mounts.parse_mount_id(Path(f"/proc/self/fdinfo/{fd}").read_text())
    os.close(fd)
    known = mounts.parse_mountinfo(NFS_LINE.format(mount_id=mount_id).encode())
    monkeypatch.setattr(mounts, "mounts", lambda: known)
    with (
        pytest.raises(ConfigError, match=r"network file system \(nfs4, filer:/exports at /mnt/home\)"),
        locked(tmp_path),
    ):
        pytest.fail("it was taken")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(mounts, "mounts", list)
    with locked(tmp_path / "state"):
        assert (tmp_path / "state" / "lock").exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777, 0o2770])
def test_a_state_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Exit 78 with the mode and the line that mends it, which does mend it."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)
    done = start(tmp_path, state)
    assert done.returncode == 78, done.stderr
    assert f"others may write in the state directory {state} (its mode is {mode:04o})" in done.stderr
    assert f"hint: chmod 700 {state}\n" in done.stderr
    assert list(state.iterdir()) == []
    subprocess.run(["chmod", "700", state], check=True)
    with locked(state):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_another_users_state_is_refused(tmp_path: Path) -> None:
    """Whoever owns the directory could replace what is in it: exit 78 with both users."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    done = start(tmp_path, state)
    assert done.returncode == 78, done.stderr
    assert f"{state} belongs to uid 65534, this daemon runs as uid 0" in done.stderr
    assert "hint: " in done.stderr
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_reprod_makes_is_for_its_user_alone(tmp_path: Path, umask: int) -> None:
    """Mode 0700 under any umask; who may only read is let be, as the service's group is."""
    state = tmp_path / "state"
    before = os.umask(umask)
    try:
        with locked(state):
            assert stat.S_IMODE(state.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    state.chmod(0o755)
    with locked(state):
        pass
