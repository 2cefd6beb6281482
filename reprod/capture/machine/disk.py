"""Owns which file system and which kind of disk a path is on, and how full it is. Sizes are bytes.

Options and sources can hold accounts, addresses and passwords: of the options only those listed here are kept, of the
source everything before the host is cut off. A network file system whose server is gone can make each of these calls
wait; the caller bounds that. Measured: 0.2 ms.
"""

import os
import re

from reprod.capture.machine.kernel import read_value
from reprod.capture.machine.mountinfo import Mount, holding, read_mounts
from reprod.core.machine import Disk
from reprod.core.redact import plain, redact_text, redact_url
from reprod.errors import IncompleteError

# What changes how data is read, written or cached; no names, ids, addresses or paths.
# fmt: off
_FLAGS = frozenset({
    "ro", "rw", "sync", "async", "dirsync", "noatime", "nodiratime", "relatime", "strictatime", "lazytime", "nosuid",
    "nodev", "noexec", "dax", "discard", "nodiscard", "nobarrier", "norecovery", "inode32", "inode64", "usrquota",
    "grpquota", "prjquota", "noquota", "ssd", "nossd", "autodefrag", "datacow", "nodatacow", "datasum", "nodatasum",
    "hard", "soft", "softerr", "cto", "nocto", "ac", "noac", "lock", "nolock", "local_lock", "fsc", "nofsc", "tls",
    "default_permissions", "allow_other", "xattr", "noxattr", "posixacl", "flock", "localflock", "noflock",
})
_VALUED = frozenset({
    "vers", "proto", "rsize", "wsize", "nconnect", "sec", "cache", "actimeo", "acregmin", "acregmax", "acdirmin",
    "acdirmax", "timeo", "retrans", "lookupcache", "compress", "compress-force", "space_cache", "data", "commit",
    "errors", "stripe", "sunit", "swidth", "logbufs", "logbsize", "size", "dax", "blksize", "max_read", "msize",
    "redirect_dir", "metacopy", "xino", "index", "volatile", "discard", "local_lock", "atgc", "background_gc",
})
# fmt: on
_VALUE = re.compile(r"[\w.:%+-]{1,32}")

#: Their size is that of their device or mount. ZFS's is what others leave of a pool, a server's may grow at any time.
_FIXED_SIZE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "ntfs3", "tmpfs", "squashfs"})

#: Paravirtual disks, which the kernel calls rotational as long as nobody says otherwise; nobody does.
_VIRTUAL = ("vd", "xvd")

#: Crypt on volume on array is three; a loop cannot be, but a limit costs nothing.
_MOST_LAYERS = 8

#: ``user@host:path``, as sshfs mounts it.
_REMOTE = re.compile(r"[^/]*@([^/@]*:.*)", re.DOTALL)


def read_disk(path: str, *, root: str = "/") -> Disk:
    """Return the file system that ``path`` is on, in the caller's view; raises IncompleteError if it cannot be told."""
    try:
        mounts = read_mounts(os.path.join(root, "proc/self/mountinfo"))
        real = os.path.realpath(path)
        mount = _by_id(mounts, real, root) or holding(mounts, real)
        # Statistics of a directory that is not there would be those of nothing.
        size = os.statvfs(real)
    except OSError as error:
        raise IncompleteError(f"{plain(path)} cannot be examined: {error.strerror or error}") from error
    if mount is None:
        raise IncompleteError(f"no mount is known that {plain(path)} is on")
    device = _block_device(mount, root)
    options = {option for option in (*mount.options, *mount.super_options) if _is_kept(option)}
    return Disk(
        path=plain(path),
        mount_point=plain(mount.point),
        fs_type=plain(mount.fs_type),
        source=redact_text(_without_user(plain(mount.source), mount.fs_type)),
        device=device,
        options=tuple(sorted(options)),
        total_bytes=size.f_blocks * size.f_frsize if mount.fs_type in _FIXED_SIZE else None,
        rotational=_rotational(device, root),
        free_bytes=size.f_bavail * size.f_frsize,
    )


def _by_id(mounts: list[Mount], path: str, root: str) -> Mount | None:
    """Return the mount of ``path`` as the kernel itself says it; None where it does not."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        lines = (read_value(os.path.join(root, f"proc/self/fdinfo/{fd}")) or "").split("\n")
    finally:
        os.close(fd)
    wanted = next((line.partition(":")[2].strip() for line in lines if line.startswith("mnt_id:")), None)
    return next((mount for mount in mounts if str(mount.id) == wanted), None)


def _is_kept(option: str) -> bool:
    name, equals, value = option.partition("=")
    if not equals:
        return option in _FLAGS
    return name in _VALUED and _VALUE.fullmatch(value) is not None


def _without_user(source: str, fs_type: str) -> str:
    """Return a source without the user and password before its host: a URL, ``//u:p@host/share``, ``u@host:path``.

    ``pool/data@snapshot`` has no host and stays.
    """
    if "://" in source:
        return redact_url(source)
    if source.startswith("//"):
        return redact_url(f"smb:{source}").removeprefix("smb:")
    if fs_type == "ceph":
        return source.rpartition("@")[2]
    remote = _REMOTE.fullmatch(source)
    return remote[1] if remote and fs_type != "zfs" else source


def _block_device(mount: Mount, root: str) -> str | None:
    """Return the kernel's name of the device (``nvme0n1p2``, ``dm-0``); None if it is no block device.

    btrfs has a number of its own that no device has, so its source is the second choice.
    """
    blocks = os.path.join(root, "sys/dev/block", mount.device)
    if os.path.lexists(blocks):
        return os.path.basename(os.path.realpath(blocks))
    if mount.source.startswith("/dev/"):
        name = os.path.basename(os.path.realpath(os.path.join(root, mount.source.lstrip("/"))))
        return name if os.path.lexists(os.path.join(root, "sys/class/block", name)) else None
    return None


def _rotational(device: str | None, root: str) -> bool | None:
    """Return whether a disk below the device has heads that move; None where the kernel does not know."""
    if device is None:
        return None
    entry = os.path.realpath(os.path.join(root, "sys/class/block", device))
    found = [_turns(disk) for disk in _disks(entry)]
    return True if True in found else None if None in found else False


def _disks(entry: str, depth: int = 0) -> list[str]:
    """Return the disks below a block device: itself, its parent if it is a partition, or what it is mapped to."""
    if os.path.lexists(os.path.join(entry, "partition")):
        entry = os.path.dirname(entry)
    slaves = os.path.join(entry, "slaves")
    try:
        mapped = [os.path.realpath(os.path.join(slaves, name)) for name in sorted(os.listdir(slaves))]
    except OSError:
        mapped = []
    if not mapped or depth > _MOST_LAYERS:
        return [entry]
    return [disk for below in mapped for disk in _disks(below, depth + 1)]


def _turns(disk: str) -> bool | None:
    value = read_value(os.path.join(disk, "queue/rotational"))
    if value == "1":
        return None if os.path.basename(disk).startswith(_VIRTUAL) else True
    return False if value == "0" else None
