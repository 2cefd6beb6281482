"""Which file system a directory is on, and whether it still is the same one.

Owns reading ``/proc/self/mountinfo`` and the identity of a dataset's root. Rule (law 4): within one walk a root is the
same if mount id, device and inode are; across reboots and remounts if file system type, source and mount root are.
Paths are bytes; type and source are text that can always be stored (bytes that are not UTF-8 appear as ``\\xNN``).
Times are wall-clock nanoseconds. Where ``/proc`` is missing the answer is None or ``unknown``, never a guess.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reprod.fs.read import LARGEST, WRITE_BACK_NS

UNKNOWN = "unknown"

# Kernel file systems whose stamps carry (multigrain or tick) sub-10-ms resolution. ext2 and ext3 are not among them:
# their inodes of 128 bytes have no room for anything below a second.
_FINE_STAMPS = frozenset({"ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs", "bcachefs"})

# Another host, or the hypervisor's, can change these without an event here, and attributes may be cached for seconds.
# fmt: off
_NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs",
    "vmhgfs", "wekafs",
})

# FUSE file systems that only re-arrange local disks; any other may be a network in disguise (sshfs, s3fs, gcsfuse).
_LOCAL_FUSE = frozenset({
    "bindfs", "encfs", "ext2", "fuse-overlayfs", "gocryptfs", "lxcfs", "mergerfs", "ntfs", "ntfs-3g",
    "squashfuse", "unionfs", "zfs",
})
# fmt: on

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: ``root`` is the directory of the file system that is mounted at ``mount_point``."""

    mount_id: int
    parent_id: int
    fs_type: str
    source: str
    root: bytes
    mount_point: bytes


@dataclass(frozen=True, slots=True)
class RootIdentity:
    """What a root was when it was seen; ``mount_id`` -1 and names ``unknown`` where the kernel does not say."""

    fs_type: str
    source: str
    mount_root: bytes
    mount_id: int
    device: int
    inode: int
    mount_point: bytes = b""  # empty: not known

    def same_filesystem(self, other: "RootIdentity") -> bool:
        """Whether both are the same place across a remount, where mount ids, devices and inodes may differ.

        A source that names no device, as ``tmpfs`` and ``overlay``, is told from another only by where it is mounted:
        without that, one that is unmounted uncovers one of the same name, and all that it held would look deleted.
        """
        named = any(sign in self.source for sign in "/:") or not (self.mount_point and other.mount_point)
        same = (self.fs_type, self.source, self.mount_root) == (other.fs_type, other.source, other.mount_root)
        return same and (named or self.mount_point == other.mount_point)

    def identical(self, other: "RootIdentity") -> bool:
        """Whether nothing at all changed: required from the beginning to the end of one walk."""
        return self == other


def parse_mountinfo(text: bytes) -> list[Mount]:
    """Parse the bytes of a mountinfo file; lines that are not understood are skipped."""
    parsed = []
    for line in text.split(b"\n"):  # not splitlines: the kernel does not escape a carriage return
        left, dash, right = line.partition(b" - ")
        fields, tail = left.split(b" "), right.split(b" ")
        if not dash or len(fields) < 6 or len(tail) < 2 or not (fields[0].isdigit() and fields[1].isdigit()):
            continue
        parsed.append(
            Mount(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                fs_type=_text(tail[0]),
                source=_text(tail[1]),
                root=_unescape(fields[3]),
                mount_point=_unescape(fields[4]),
            )
        )
    return parsed


def parse_mount_id(fdinfo: str) -> int | None:
    """Return the number behind ``mnt_id:`` in the text of ``/proc/self/fdinfo/FD``, None if there is none."""
    for line in fdinfo.splitlines():
        key, _, value = line.partition(":")
        if key == "mnt_id" and value.strip().isdigit():
            return int(value)
    return None


def mounts() -> list[Mount]:
    """Return all mounts of this process's mount namespace, in mount order; empty where the kernel does not tell."""
    try:
        return parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return []


def mount_of(fd: int) -> Mount | None:
    """Return the mount that the open file ``fd`` is on; None where the kernel does not tell."""
    try:
        wanted = parse_mount_id(Path(f"/proc/self/fdinfo/{fd}").read_text("ascii", "replace"))
    except OSError:
        return None
    return find_mount(mounts(), wanted)


def find_mount(known: Iterable[Mount], mount_id: int | None) -> Mount | None:
    """Return the mount with this id, or None."""
    return next((mount for mount in known if mount.mount_id == mount_id), None)


def root_identity(fd: int) -> RootIdentity:
    """Return the identity of the open directory ``fd``. Raises ``OSError`` if it cannot be examined."""
    status = os.fstat(fd)
    mount = mount_of(fd) or Mount(-1, -1, UNKNOWN, UNKNOWN, b"", b"")
    return RootIdentity(
        mount.fs_type, mount.source, mount.root, mount.mount_id, status.st_dev, status.st_ino, mount.mount_point
    )


def is_network(fs_type: str) -> bool:
    """Whether another host may change this file system without an event here; unknown FUSE types count as such."""
    kind, _, below = fs_type.partition(".")
    if kind == "fuse":
        return below not in _LOCAL_FUSE
    return kind in _NETWORK


def settle_slack_ns(fs_type: str) -> int:
    """How long after a ctime a read must begin (or end before it) to be believed, in nanoseconds, by the stamps'
    resolution.

    20 ms where stamps are fine, 3 s on network file systems (their server's clock and cached attributes), else 2 s,
    FAT's resolution.
    """
    if is_network(fs_type):
        return 3_000_000_000
    return 20_000_000 if fs_type in _FINE_STAMPS else 2_000_000_000


def unseen_writes_ns(fs_type: str) -> int:
    """Return for how long after its ctime a mapped file may be written without a trace (``reprod.fs.read``)."""
    return LARGEST if fs_type in {"tmpfs", "ramfs", "hugetlbfs"} else WRITE_BACK_NS


def parse_init_started(kernel_stat: str, init_stat: str, ticks_per_second: int) -> int | None:
    """Return when pid 1 started, in wall-clock nanoseconds, from ``/proc/stat`` and ``/proc/1/stat``; None if they do
    not say.

    ``btime`` is whole seconds, so the result is good to about a second either way.
    """
    booted = next((line.split()[1] for line in kernel_stat.splitlines() if line.startswith("btime ")), None)
    # The command's name may hold spaces and brackets; the fields after the last bracket begin with the third.
    fields = init_stat.rpartition(")")[2].split()
    if booted is None or len(fields) < 20 or ticks_per_second <= 0:
        return None
    return int(booted) * 1_000_000_000 + int(fields[19]) * 1_000_000_000 // ticks_per_second


def init_started_ns() -> int | None:
    """Return when pid 1 of our pid namespace started, to about a second: ``/`` is mounted at least since then."""
    try:
        kernel, init = Path("/proc/stat").read_text("ascii"), Path("/proc/1/stat").read_text("utf-8", "replace")
        return parse_init_started(kernel, init, os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError):
        return None


def _unescape(field: bytes) -> bytes:
    # The kernel writes space, tab, newline, backslash (and a few more) as three octal digits.
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)


def _text(field: bytes) -> str:
    return _unescape(field).decode("utf-8", "backslashreplace")
