"""Which disks begin with one reader."""

import os
from pathlib import Path

from reprod.fs.disk import gains_from_readers


def make_disk(root: Path, rotational: str, name: str = "sda") -> Path:
    """A disk 8:0 with a partition 8:1, and a volume 253:0 that is mapped to the partition, as the kernel has it."""
    disk, volume = root / "devices" / name, root / "devices" / "dm-0"
    for folder in (disk / "queue", disk / f"{name}1", disk / "slaves", volume / "queue", volume / "slaves"):
        folder.mkdir(parents=True)
    (disk / "queue" / "rotational").write_text(rotational + "\n")
    (volume / "queue" / "rotational").write_text("1\n")
    (disk / f"{name}1" / "partition").write_text("1\n")
    (volume / "slaves" / f"{name}1").symlink_to(disk / f"{name}1")
    blocks = root / "block"
    blocks.mkdir()
    for number, target in (("8:0", disk), ("8:1", disk / f"{name}1"), ("253:0", volume)):
        (blocks / number).symlink_to(target)
    return blocks


DEVICES = [os.makedev(8, 0), os.makedev(8, 1), os.makedev(253, 0)]


def test_a_disk_that_seeks_is_told_by_what_is_on_it_too(tmp_path: Path) -> None:
    """A partition has no queue of its own, and a volume is as its disk is."""
    blocks = make_disk(tmp_path, "1")
    assert [gains_from_readers("ext4", device, blocks) for device in DEVICES] == [False] * 3
    assert gains_from_readers("ext4", os.makedev(9, 1), blocks)


def test_a_disk_without_heads_gains(tmp_path: Path) -> None:
    """Rotational 0, whatever a volume on it says, and what the kernel knows nothing of."""
    blocks = make_disk(tmp_path, "0")
    assert [gains_from_readers("ext4", device, blocks) for device in DEVICES] == [True] * 3
    assert gains_from_readers("overlay", os.makedev(0, 33), blocks)


def test_a_virtual_machines_disk_has_no_heads(tmp_path: Path) -> None:
    """It is called rotational because it never said that it is not."""
    blocks = make_disk(tmp_path, "1", "vda")
    assert [gains_from_readers("ext4", device, blocks) for device in DEVICES] == [True] * 3


def test_another_hosts_disk_is_tried_out() -> None:
    """Whether a server gains by several readers, nobody knows before."""
    assert not gains_from_readers("nfs4", os.makedev(0, 44))
