"""File systems: which one a path is on, what of its options and source is kept, and what kind of disk is below."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from machine_tree import link, mountinfo, plant

from reprod.capture.machine.disk import read_disk
from reprod.core.machine import Disk
from reprod.errors import IncompleteError


def disk_of(root: Path, kind: str, source: str, options: str = "rw", device: str = "0:25") -> Disk:
    """Describe ``root`` on a machine whose only mount is this one."""
    text = mountinfo([("/", "/", kind, source.replace(" ", "\\040"), options)]).replace("0:25", device)
    return read_disk(str(root), root=plant(root, {"proc/self/mountinfo": text}))


def test_this_machine(tmp_path) -> None:
    """Mount point and type are those that psutil lists together, sizes are statvfs's, nothing is negative."""
    disk, usage = read_disk(str(tmp_path)), shutil.disk_usage(tmp_path)
    listed = {(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)}
    assert (disk.mount_point, disk.fs_type) in listed
    assert str(tmp_path).startswith(disk.mount_point)
    assert disk.total_bytes in {None, usage.total}
    assert disk.free_bytes is not None
    assert 0 <= disk.free_bytes <= usage.total


def test_no_such_path(tmp_path) -> None:
    """A path that is not there is unknown with its name and the reason."""
    with pytest.raises(IncompleteError, match=r"gone.*No such file"):
        read_disk(str(tmp_path / "gone"))


IN_NAMESPACE = """
import sys
from reprod.capture.machine.disk import read_disk
for path in sys.argv[1:]:
    disk = read_disk(path)
    print(disk.path, disk.mount_point, disk.fs_type, disk.source, ",".join(disk.options), disk.total_bytes)
"""


def test_real_mounts(tmp_path) -> None:
    """One mount hides another, one was moved over others, a bind mount, a link into one: the kernel's own answer."""
    outer, hidden, alias = tmp_path / "outer", tmp_path / "outer/hidden", tmp_path / "alias"
    for name in ("alias", "moved", "place"):
        (tmp_path / name).mkdir()
    # The list has the moved one where it was first mounted, before those that it hides now.
    move = (
        "mount -t tmpfs moved moved && mkdir moved/in && mount -t tmpfs lower place && mkdir place/in && "
        "mount -t tmpfs lowest place/in && mount --move moved place"
    )
    script = (
        f"mkdir -p {hidden} && mount -t tmpfs -o size=64k below {hidden} && "
        f"mount -t tmpfs -o size=1m,ro above {outer} && "
        f"mount --bind {tmp_path} {alias} && ln -s outer {tmp_path}/name && cd {tmp_path} && {move} && cd / && "
        f'exec {sys.executable} -c "$1" {tmp_path}/name {alias} {tmp_path}/place/in'
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", IN_NAMESPACE]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()[-200:]}")
    by_link, bound, moved = (line.split(" ") for line in done.stdout.splitlines())
    assert by_link[1:4] == [str(outer), "tmpfs", "above"]
    assert {"ro", "size=1024k"} <= set(by_link[4].split(","))
    assert by_link[5] == str(1 << 20)
    assert moved[1:4] == [str(tmp_path / "place"), "tmpfs", "moved"]
    assert bound[1] == str(alias)
    assert bound[2] == read_disk(str(tmp_path)).fs_type


@pytest.mark.parametrize(
    ("kind", "source", "kept"),
    [
        ("ext4", "/dev/sda1", "/dev/sda1"),
        ("nfs4", "filer:/export/data", "filer:/export/data"),
        ("cifs", "//server/share name", "//server/share name"),
        ("cifs", "//bob:CANARY@server/share", "//server/share"),
        ("cifs", "//dom;bob:CA/NARY@server/share", "//server/share"),
        ("fuse.sshfs", "bob@host:/data", "host:/data"),
        ("fuse.sshfs", "bob:CANARY@host:/data", "host:/data"),
        ("fuse.davfs", "https://bob:CANARY@host/dav?token=CANARYCANARY", "https://host/dav?token=***"),
        ("fuse.s3fs", "bucket", "bucket"),
        ("ceph", "admin@b3acfc0d.cephfs=/", "b3acfc0d.cephfs=/"),
        ("zfs", "tank/data@auto:00", "tank/data@auto:00"),
        ("zfs", "tank@auto:00", "tank@auto:00"),
        ("fuse.rclone", ":s3,secret_access_key=c4n4ryC4N4RYc4n4ry:bucket", ":s3,secret_access_key=***"),
    ],
)
def test_sources(tmp_path, kind, source, kept) -> None:
    """A source keeps its host and path and loses user and password; what only looks like a user stays."""
    assert disk_of(tmp_path, kind, source).source == kept


def test_options_are_listed_ones(tmp_path) -> None:
    """Options that name people, addresses, paths or secrets do not come out, nor one whose value is strange."""
    options = (
        "rw,vers=4.2,rsize=1048576,hard,proto=tcp,addr=10.1.2.3,clientaddr=10.1.2.4,username=bob,password=CANARY,"
        "credentials=/root/.smb,uid=1000,gid=1000,domain=CORP,lowerdir=/var/lib/a:/b,secret=CANARY,CANARY,size=../../x,"
        "sec=krb5p,compress=zstd:3"
    )
    disk = disk_of(tmp_path, "nfs4", "filer:/x", options)
    kept = ("compress=zstd:3", "hard", "proto=tcp", "relatime", "rsize=1048576", "rw", "sec=krb5p", "vers=4.2")
    assert disk.options == kept


@pytest.mark.parametrize(("kind", "known"), [("ext4", True), ("xfs", True), ("zfs", False), ("nfs4", False)])
def test_size_is_told_where_it_stays(tmp_path, kind, known) -> None:
    """A pool's or a server's total changes by itself: it is no property of the environment, and None there."""
    total = disk_of(tmp_path, kind, "source").total_bytes
    assert total == (shutil.disk_usage(tmp_path).total if known else None)


def block(root: Path, name: str, number: str, parent: str = "devices/pci0", **files: str) -> None:
    """Make a block device in sysfs."""
    directory = f"sys/{parent}/{name}"
    plant(root, {f"{directory}/{file.replace('__', '/')}": text for file, text in {"dev": number, **files}.items()})
    link(root, f"sys/class/block/{name}", f"../../{parent}/{name}")
    link(root, f"sys/dev/block/{number}", f"../../{parent}/{name}")


@pytest.fixture
def machine(tmp_path) -> Path:
    """A machine with a disk that turns, one that does not, a virtual one, and volumes on them."""
    block(tmp_path, "sda", "8:0", queue__rotational="1\n")
    block(tmp_path, "sda1", "8:1", parent="devices/pci0/sda", partition="1\n")
    block(tmp_path, "nvme0n1", "259:0", queue__rotational="0\n")
    block(tmp_path, "vda", "254:0", queue__rotational="1\n")
    block(tmp_path, "vdb", "254:16", queue__rotational="0\n")
    block(tmp_path, "dm-0", "253:0", parent="devices/virtual/block", queue__rotational="0\n")
    block(tmp_path, "dm-1", "253:1", parent="devices/virtual/block", queue__rotational="0\n")
    link(tmp_path, "sys/devices/virtual/block/dm-0/slaves/sda1", "../../../../pci0/sda/sda1")
    link(tmp_path, "sys/devices/virtual/block/dm-0/slaves/nvme0n1", "../../../../pci0/nvme0n1")
    link(tmp_path, "sys/devices/virtual/block/dm-1/slaves/dm-0", "../../dm-0")
    block(tmp_path, "loop0", "7:0", parent="devices/virtual/block")
    return tmp_path


@pytest.mark.parametrize(
    ("number", "device", "rotational"),
    [
        ("8:0", "sda", True),
        ("8:1", "sda1", True),
        ("259:0", "nvme0n1", False),
        ("254:0", "vda", None),
        ("254:16", "vdb", False),
        ("253:0", "dm-0", True),
        ("253:1", "dm-1", True),
        ("7:0", "loop0", None),
        ("0:45", None, None),
    ],
)
def test_disks(machine, number, device, rotational) -> None:
    """A partition and a volume are as their disks; a virtual disk that says nothing of itself is unknown."""
    disk = disk_of(machine, "ext4", "x", device=number)
    assert (disk.device, disk.rotational) == (device, rotational)


def test_a_device_by_its_name(machine) -> None:
    """btrfs has a number of its own: the device is the one that its source names, through links of /dev/mapper."""
    link(machine, "dev/mapper/data", "../dm-1")
    plant(machine, {"dev/dm-1": "", "dev/sda1": ""})
    assert disk_of(machine, "btrfs", "/dev/mapper/data", device="0:61").device == "dm-1"
    disk = disk_of(machine, "btrfs", "/dev/sda1", device="0:61")
    assert (disk.device, disk.rotational) == ("sda1", True)
    assert disk_of(machine, "btrfs", "/dev/gone", device="0:61").device is None


def test_mounts_by_name_where_the_kernel_gives_no_number(tmp_path) -> None:
    """Without the kernel's number the last mount above the path counts: it hides what was mounted before."""
    lines = [
        ("/", "/", "ext4", "/dev/sda1", "rw"),
        ("/", str(tmp_path / "a/b"), "tmpfs", "hidden", "rw"),
        ("/", str(tmp_path / "a"), "tmpfs", "over", "rw"),
        ("/", str(tmp_path / "a/c"), "tmpfs", "beside", "rw"),
    ]
    for name in ("a/b", "a/cd"):
        (tmp_path / name).mkdir(parents=True)
    link(tmp_path, "name", "a")
    root = plant(tmp_path, {"proc/self/mountinfo": mountinfo(lines)})
    assert read_disk(str(tmp_path / "a/b"), root=root).source == "over"
    assert read_disk(str(tmp_path / "a/cd"), root=root).source == "over"
    assert read_disk(str(tmp_path / "name"), root=root).source == "over"
    assert read_disk(str(tmp_path), root=root).source == "/dev/sda1"


def test_strange_names(tmp_path) -> None:
    """Blanks and bytes that are no UTF-8 in a mount point can be read and recorded."""
    name = tmp_path / "a b\udce9"
    name.mkdir()
    text = mountinfo([("/", str(name).replace(" ", "\\040"), "tmpfs", "x", "rw")])
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_bytes(os.fsencode(text))
    disk = read_disk(str(name), root=str(tmp_path))
    assert disk.path == disk.mount_point == f"{tmp_path}/a b\\xe9"
