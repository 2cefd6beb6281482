"""How far apart two moments must be to be told apart: the host's clock, or the file system's stamps."""

import dataclasses

import msgspec
from ops_place import Place

from reprod.fs.mounts import RootIdentity
from reprod.ops.publish import _fs_type, _stamp_slack_ns
from reprod.store import meta


def test_coarse_stamps_widen_the_slack(place: Place) -> None:
    """On FAT or a network file system a change after the start may carry a time before it."""
    assert _stamp_slack_ns(place.db, _fs_type(place.db)) == 0
    place.write("a", "a")
    place.refresh()
    assert _stamp_slack_ns(place.db, _fs_type(place.db)) <= 2_000_000_000
    stored = place.db.read(meta.read).identity
    assert stored is not None
    identity = msgspec.json.decode(stored, type=RootIdentity)
    for fs_type, least in (("vfat", 2_000_000_000), ("nfs4", 3_000_000_000)):
        other = msgspec.json.encode(dataclasses.replace(identity, fs_type=fs_type))
        place.db.write(lambda c, other=other: meta.write(c, identity=other))
        assert _stamp_slack_ns(place.db, _fs_type(place.db)) >= least
