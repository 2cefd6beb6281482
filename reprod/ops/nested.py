"""What of a run is a delivery's to write: not what its parent has, nor what the run got for what it named first.

A child on its parent's data and environment has nothing of its own to say of either: a sweep of a thousand children
would else carry a thousand manifests. Such a child gets tags and the dataset input, and a tag that names the parent,
where the rest is.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from reprod.core.described import described
from reprod.core.run import PendingRun
from reprod.core.snapshot import Snapshot
from reprod.store import asked, outbox
from reprod.store.connection import Database

#: The tag on a child that says on which run what it shares is recorded.
SAME_AS = "reprod.same_as"


@dataclass(frozen=True, slots=True)
class Part:
    """A delivery's part of its run. ``place``: how many times the run had named datasets by then, from 1.

    ``parent`` is the run that holds all that this one shares with it, None where it shares less than all.
    """

    place: int
    parent: str | None

    @property
    def has_params(self) -> bool:
        """Whether params and metrics are this delivery's to write: once written they stay those of the first."""
        return self.place == 1 and self.parent is None

    def path_of(self, path: str) -> str:
        """Return where a file goes on the run so that it does not cover what was recorded of other datasets."""
        return path if self.place == 1 else f"reprod/{self.place}/{path.removeprefix('reprod/')}"


def part_of(records: Database, delivery: outbox.Delivery, snapshot: Snapshot) -> Part:
    """Return which part of its run a delivery writes."""
    return Part(records.read(lambda c: asked.place_of(c, delivery.id)), shared_with(records, delivery, snapshot))


def shared_with(records: Database, delivery: outbox.Delivery, snapshot: Snapshot) -> str | None:
    """Return the parent's run id if all that a run used is what was recorded of its parent, else None."""
    parent = msgspec.json.decode(delivery.run, type=described(PendingRun)).parent
    stored = records.read(lambda c: asked.snapshot_of(c, delivery.tracking_uri, parent)) if parent else None
    if stored is None or snapshot.state != "captured":
        return None
    theirs = msgspec.json.decode(stored, type=described(Snapshot))
    same = theirs.state == "captured" and theirs.environment == snapshot.environment
    return parent if same and _used(theirs) == _used(snapshot) else None


def count_children(records: Database, tracking_uri: str, run_id: str) -> dict[str, int]:
    """Return how many runs within a run used which version: ``{"imagenet@41": 197, "imagenet@42": 3}``."""
    stored = records.read(lambda c: asked.snapshots_of_children(c, tracking_uri, run_id))
    counts = Counter(_said(msgspec.json.decode(each, type=described(Snapshot))) for each in stored)
    return dict(counts.most_common())


def _used(snapshot: Snapshot) -> list[tuple[str, str | None]]:
    return [(each.named, each.digest) for each in snapshot.datasets]


def _said(snapshot: Snapshot) -> str:
    known: Iterable[str] = (
        f"{each.named}@{each.seq}" if each.digest else f"{each.named}: {each.bound or 'unknown'}"
        for each in snapshot.datasets
    )
    return ", ".join(known)
