"""The messages by which hosts tell each other what they have, and what the nodes of a run found: see ``protocol``.

What other hosts wrote is plain text here, and believed nowhere.
"""

from dataclasses import dataclass
from typing import Literal

#: Something was missing and is written now; all of it stands there, and the run is recorded, or is not yet.
Compared = Literal["written", "settled", "unrecorded"]


@dataclass(frozen=True, slots=True)
class Node:
    """``node``: say what a node of a run found on its own copy; a `Compared`.

    ``found`` is ``{name: "dt1:..." or, in a word, why not}``.
    """

    run_id: str
    host_id: str
    found: dict[str, str]


@dataclass(frozen=True, slots=True)
class Advertise:
    """``advertise``: the id of the run that holds what this host says of itself, ``run_id`` if it still is that.

    ``tags`` are all of it, ``name`` is for people.
    """

    name: str
    tags: dict[str, str]
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Hosts:
    """``hosts``: what all hosts say of themselves, as a tuple of `HostTags`."""


@dataclass(frozen=True, slots=True)
class HostTags:
    """The tags ``reprod.host.*`` of one host's run."""

    run_id: str
    tags: dict[str, str]
