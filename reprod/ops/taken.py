"""Which names on a run are the user's, and where ours go then: asked once each, before our first use, and frozen.

Rule: what we have to say goes to ``NAME``; where that is the user's, to ``reprod/NAME`` (a file) or ``reprod.NAME`` (a
metric); where that is the user's too it is left out, and the run says so. Nothing of the user's is ever overwritten.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from reprod.core.described import described
from reprod.sinks.child import MlflowChild
from reprod.sinks.protocol import Taken
from reprod.store import outbox
from reprod.store.connection import Database

#: How many left out names a note tells: a person reads a sentence.
MOST_TOLD = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """The names that were looked up on a run before we wrote to it, and which of them it had by then.

    A name is looked up together with the other that there is for it; in rows of an earlier reprod, without.
    """

    artifacts: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    taken: Taken = field(default_factory=Taken)

    def place_of(self, path: str) -> str | None:
        """Return where a file of ours goes; None where both places are the user's."""
        return next((each for each in _places(path) if each not in self.taken.artifacts_taken), None)

    def key_of(self, metric: str) -> str | None:
        """Return the name under which a metric of ours goes; None where both are the user's."""
        return next((each for each in _keys(metric) if each not in self.taken.metrics_taken), None)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The files and metrics of ours for which the run has no place."""
        files = (each for each in self.artifacts if self.place_of(each) is None)
        return *files, *(each for each in self.metrics if self.key_of(each) is None)


def _places(path: str) -> tuple[str, str]:
    return path, f"reprod/{path}"


def _keys(metric: str) -> tuple[str, str]:
    return metric, f"reprod.{metric}"


def note_of(left_out: tuple[str, ...]) -> dict[str, str]:
    """Return the tag that says what is not on a run because both of its places are the user's; none if all is."""
    if not left_out:
        return {}
    more = f" and {len(left_out) - MOST_TOLD} more" if len(left_out) > MOST_TOLD else ""
    told = ", ".join(left_out[:MOST_TOLD])
    return {"reprod.note": f"left out: {told}{more} (the run has its own of that name, and under reprod too)"}


def ask_taken(
    records: Database, delivery: outbox.Delivery, child: MlflowChild, files: Iterable[str], metrics: Iterable[str] = ()
) -> Asked:
    """Return which of these names, and of all that were asked before, are the user's.

    Later our own things are there too. A second capture of the run may have names that the first had not.
    """
    known = msgspec.json.decode(delivery.prepared, type=described(Asked)) if delivery.prepared is not None else Asked()
    asked, known_files, known_metrics = known, {*known.artifacts}, {*known.metrics}
    paths = tuple(each for path in files if path not in known_files for each in _places(path))
    keys = tuple(each for key in metrics if key not in known_metrics for each in _keys(key))
    if paths or keys:
        found = child.prepare(delivery.run_id, paths, keys)
        taken = Taken(
            artifacts_taken=known.taken.artifacts_taken + found.artifacts_taken,
            metrics_taken=known.taken.metrics_taken + found.metrics_taken,
        )
        asked = Asked(known.artifacts + paths, known.metrics + keys, taken)
        records.write(lambda c: outbox.prepared(c, delivery.id, msgspec.json.encode(asked)))
    return asked
