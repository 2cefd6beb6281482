"""Which names on a run are the user's: asked once each, before our first use of it, and frozen in the outbox."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from reprod.core.described import described
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import Taken
from reprod.store import outbox
from reprod.store.connection import Database


@dataclass(frozen=True, slots=True)
class Asked:
    """The names that were looked up on a run before we wrote to it, and which of them it had by then."""

    artifacts: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    taken: Taken = field(default_factory=Taken)


def known_taken(delivery: outbox.Delivery) -> Asked:
    """Return what was found so far."""
    return msgspec.json.decode(delivery.prepared, type=described(Asked)) if delivery.prepared is not None else Asked()


def ask_taken(
    records: Database, delivery: outbox.Delivery, child: MlflowChild, files: Iterable[str], metrics: Iterable[str]
) -> Taken:
    """Return which of these names are the user's: asked once each, before our first use of it, and frozen.

    Later our own things are there too. A second capture of the run may have names that the first had not.
    """
    known = known_taken(delivery)
    ask = Asked(
        artifacts=tuple(path for path in files if path not in known.artifacts),
        metrics=tuple(key for key in metrics if key not in known.metrics),
    )
    if not ask.artifacts and not ask.metrics:
        return known.taken
    found = child.prepare(delivery.run_id, ask.artifacts, ask.metrics)
    taken = Taken(
        artifacts_taken=known.taken.artifacts_taken + found.artifacts_taken,
        metrics_taken=known.taken.metrics_taken + found.metrics_taken,
    )
    asked = Asked(known.artifacts + ask.artifacts, known.metrics + ask.metrics, taken)
    records.write(lambda c: outbox.prepared(c, delivery.id, msgspec.json.encode(asked)))
    return taken
