"""What kind of disk a file system is on, as far as several readers at once are concerned."""

import os
from pathlib import Path

from reprod.fs import mounts

_BLOCK_DEVICES = Path("/sys/dev/block")

#: Names of paravirtual disks.
_VIRTUAL = ("vd", "xvd")

#: Crypt on volume on array is three; a loop cannot be, but a limit costs nothing.
_MOST_LAYERS = 8


def gains_from_readers(fs_type: str, device: int, block_devices: Path = _BLOCK_DEVICES) -> bool:
    """Whether as many readers as there are processors surely do no harm.

    False for a disk that seeks (threads took hashdeep from 160 to 25 MB/s there) and for another host's, where some
    gain by it and some do not: there one reader begins and more are tried.

    :param device: ``st_dev`` of the root.
    """
    return not mounts.is_network(fs_type) and not _seeks(device, block_devices)


def _seeks(device: int, block_devices: Path) -> bool:
    """Whether a device has heads that move. Unknown: no.

    The kernel calls a disk rotational unless it says otherwise, and those of virtual machines (virtio, Xen) never say:
    they do not count. A partition has that from its disk; so has a mapped device from what it maps.
    """
    entry = (block_devices / f"{os.major(device)}:{os.minor(device)}").resolve()
    return any(_is_rotational(disk) for disk in _disks(entry))


def _disks(entry: Path, depth: int = 0) -> list[Path]:
    """Return the disks below a block device: itself, its parent if it is a partition, or what it is mapped to."""
    if (entry / "partition").exists():
        entry = entry.parent
    try:
        mapped = [(entry / "slaves" / name).resolve() for name in os.listdir(entry / "slaves")]
    except OSError:
        mapped = []
    if not mapped or depth > _MOST_LAYERS:
        return [entry]
    return [disk for below in mapped for disk in _disks(below, depth + 1)]


def _is_rotational(disk: Path) -> bool:
    if disk.name.startswith(_VIRTUAL):
        return False
    try:
        return (disk / "queue" / "rotational").read_text("ascii").strip() == "1"
    except (OSError, UnicodeDecodeError):
        return False
