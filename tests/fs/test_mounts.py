"""Mount identity: fed with text, and against this machine's own /proc."""

import os
import time
from pathlib import Path

import pytest

from reprod.fs import mounts
from reprod.fs.mounts import RootIdentity

SAMPLE = (
    b"22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n"
    b"27 1 254:0 /sub\\040vol / rw,relatime - btrfs /dev/vda rw,space_cache\n"
    b"40 27 0:45 / /mnt/a\\011b\\012c\\134d rw shared:1 master:2 propagate_from:3 - fuse.sshfs me@host:/x\\040y rw\n"
    b"41 27 0:46 / /mnt/\xff\r rw - tmpfs \xfe rw\n"
    b"garbage\n"
    b"42 27 0:47 / /mnt/empty rw - tmpfs  rw\n"
)


def test_parse_unescapes_and_skips_what_it_does_not_know() -> None:
    """Octal escapes, optional fields, bytes that are not text and odd lines are all taken as the kernel means them."""
    parsed = mounts.parse_mountinfo(SAMPLE)
    assert [m.mount_id for m in parsed] == [22, 27, 40, 41, 42]
    assert parsed[1].root == b"/sub vol"
    assert (parsed[1].fs_type, parsed[1].source, parsed[1].parent_id) == ("btrfs", "/dev/vda", 1)
    assert parsed[2].mount_point == b"/mnt/a\tb\nc\\d"
    assert (parsed[2].fs_type, parsed[2].source) == ("fuse.sshfs", "me@host:/x y")
    assert (parsed[3].mount_point, parsed[3].source) == (b"/mnt/\xff\r", "\\xfe")
    assert parsed[4].source == ""


def test_own_mounts_and_descriptor(tmp_path: Path) -> None:
    """The mount found for an open directory is the one that statfs-like facts confirm."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        mount = mounts.mount_of(descriptor)
        identity = mounts.root_identity(descriptor)
    finally:
        os.close(descriptor)
    assert mount is not None
    assert mount in mounts.mounts()
    assert os.fsencode(tmp_path).startswith(mount.mount_point)
    assert os.stat(mount.mount_point).st_dev == identity.device
    status = tmp_path.stat()
    assert identity == RootIdentity(
        mount.fs_type, mount.source, mount.root, mount.mount_id, status.st_dev, status.st_ino, mount.mount_point
    )


def test_proc_is_another_mount() -> None:
    """A descriptor below /proc is told apart from one on the root file system."""
    descriptor = os.open("/proc", os.O_RDONLY)
    try:
        mount = mounts.mount_of(descriptor)
    finally:
        os.close(descriptor)
    assert mount is not None
    assert mount.fs_type == "proc"


def test_unknown_descriptor_and_mount_id() -> None:
    """No answer is None, not an error."""
    assert mounts.mount_of(987_654) is None
    assert mounts.parse_mount_id("pos:\t0\nflags:\t02\nmnt_id:\t27\nino:\t1\n") == 27
    assert mounts.parse_mount_id("pos:\t0\n") is None
    assert mounts.find_mount([], 3) is None


def test_without_proc_identity_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not tell, device and inode remain and the rest says unknown."""
    monkeypatch.setattr(mounts, "mount_of", lambda _fd: None)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        identity = mounts.root_identity(descriptor)
    finally:
        os.close(descriptor)
    assert (identity.fs_type, identity.source, identity.mount_root, identity.mount_id) == (
        "unknown",
        "unknown",
        b"",
        -1,
    )
    assert identity.inode == tmp_path.stat().st_ino


def test_same_across_reboot_but_not_identical() -> None:
    """Mount id, device and inode may change over a reboot; type, source and mount root may not."""
    first = RootIdentity("ext4", "/dev/vda", b"/", 27, 1, 2)
    rebooted = RootIdentity("ext4", "/dev/vda", b"/", 31, 7, 2)
    assert first.same_filesystem(rebooted)
    assert not first.identical(rebooted)
    assert first.identical(RootIdentity("ext4", "/dev/vda", b"/", 27, 1, 2))
    for other in (
        RootIdentity("tmpfs", "/dev/vda", b"/", 27, 1, 2),
        RootIdentity("ext4", "/dev/vdb", b"/", 27, 1, 2),
        RootIdentity("ext4", "/dev/vda", b"/x", 27, 1, 2),
    ):
        assert not first.same_filesystem(other)


@pytest.mark.parametrize(
    ("fs_type", "network", "slack_ms"),
    [
        ("ext4", False, 20),
        ("xfs", False, 20),
        ("overlay", False, 20),
        ("tmpfs", False, 20),
        ("ext2", False, 2000),
        ("vfat", False, 2000),
        ("exfat", False, 2000),
        ("ntfs3", False, 2000),
        ("fuseblk", False, 2000),
        ("unknown", False, 2000),
        ("fuse.mergerfs", False, 2000),
        ("nfs4", True, 3000),
        ("cifs", True, 3000),
        ("9p", True, 3000),
        ("fuse.sshfs", True, 3000),
        ("fuse", True, 3000),
    ],
)
def test_kinds_of_file_systems(fs_type: str, network: bool, slack_ms: int) -> None:
    """A file system that is not known to have fine stamps gets a slack that covers coarse ones."""
    assert mounts.is_network(fs_type) is network
    assert mounts.settle_slack_ns(fs_type) == slack_ms * 1_000_000


def test_init_start() -> None:
    """Pid 1 started in the past, after the kernel did."""
    started = mounts.init_started_ns()
    assert started is not None
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    assert time.time_ns() - (uptime_s + 3) * 1e9 < started < time.time_ns()


def test_init_start_from_text() -> None:
    """A command name with spaces and brackets does not shift the fields; incomplete texts give None."""
    stat = "1 (my (odd) init) S " + " ".join(["0"] * 18) + " 250 0 0\n"
    assert mounts.parse_init_started("cpu 1\nbtime 1000\n", stat, 100) == 1_002_500_000_000
    assert mounts.parse_init_started("cpu 1\n", stat, 100) is None
    assert mounts.parse_init_started("btime 1000\n", "1 (x) S 0", 100) is None
