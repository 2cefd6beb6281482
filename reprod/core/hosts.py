"""Hosts: which daemon records a run, and what each tells the others of what it has.

A run says in ``reprod.context`` on which boot of which machine it ran; the daemon that has seen that boot records it. A
run that says nothing is recorded by the one host that has the name. Where several have it nobody can know, and nobody
guesses. Data of scope ``shared`` is the same everywhere, so whoever has it records it. Times are Unix nanoseconds.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reprod.core.process import ProcessContext
from reprod.core.run import TAG_LIMIT, split_name

Scope = Literal["host", "shared"]

#: What a daemon does with a name: record it, leave it to another host, say that nobody can know; or it has none such.
Verdict = Literal["answer", "leave", "contested", "unknown"]

#: A host that was not seen for 30 days is taken for gone: a reinstalled machine must not contest names for ever.
FORGOTTEN_NS = 30 * 86_400_000_000_000

#: Hosts named in one sentence: of hundreds a person needs a few.
MOST_NAMED = 5

HOST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
DATASET_TAG = "reprod.host.dataset."


@dataclass(frozen=True, slots=True)
class Host:
    """A daemon's host: ``id`` is minted once for each state directory on each machine, ``name`` is for people."""

    id: str
    name: str

    @property
    def short(self) -> str:
        """The first 8 hex digits of the id: HOST8."""
        return self.id[:8]

    def __str__(self) -> str:
        return f"{self.name} ({self.short})"


@dataclass(frozen=True, slots=True)
class Offer:
    """A dataset that a host has. ``digest`` (``dt1:...``) and ``version`` are those of now; None: not known yet."""

    scope: Scope
    root: str | None = None
    digest: str | None = None
    version: int | None = None
    files: int | None = None


@dataclass(frozen=True, slots=True)
class Advertised:
    """What a host says of itself; ``seen_ns`` is when it said so last, by its own clock.

    ``machine`` tells the state directories of one machine from those of two: it outlives the host id.
    """

    host: Host
    seen_ns: int
    offers: Mapping[str, Offer] = field(default_factory=dict)
    machine: str | None = None

    def is_rival(self, other: "Advertised", name: str) -> bool:
        """Whether the other host has data of this name for itself that need not be ours.

        The same root on the same machine is the same data: another state directory, or one that was removed since.
        """
        theirs, ours = other.offers.get(name), self.offers.get(name)
        if theirs is None or theirs.scope != "host" or other.host.id == self.host.id:
            return False
        same = self.machine == other.machine and (self.machine is not None or self.host.name == other.host.name)
        return not (same and ours is not None and ours.root is not None and ours.root == theirs.root)


@dataclass(frozen=True, slots=True)
class Parts:
    """A run's names: those that are recorded here, ``{name: why not}`` of the contested ones, and all others.

    ``rivals``: another host may record the run too, and write to it at the same time.
    """

    ours: tuple[str, ...]
    contested: dict[str, str]
    unknown: tuple[str, ...]
    rivals: bool


def verdict(
    named: str,
    context: ProcessContext | None,
    scopes: Mapping[str, Scope],
    boots: Collection[str],
    rivals: Collection[str],
) -> Verdict:
    """Return what this host does with ``NAME`` or ``NAME/SUB`` of a run.

    ``scopes`` are its own datasets, ``boots`` the boots that it has seen of itself, ``rivals`` the names that other
    hosts have for themselves (`rival_names`).
    """
    name, _ = split_name(named)
    scope = scopes.get(name)
    if scope is None:
        return "unknown"
    if scope == "shared":
        return "answer"
    if context is not None:
        return "answer" if context.boot_id in boots else "leave"
    return "contested" if name in rivals else "answer"


def present(hosts: Iterable[Advertised], own_id: str, now_ns: int) -> tuple[Advertised, ...]:
    """Return the other hosts that were seen lately, by name."""
    found = [each for each in hosts if each.host.id != own_id and now_ns - each.seen_ns < FORGOTTEN_NS]
    return tuple(sorted(found, key=lambda each: (each.host.name, each.host.id)))


def rival_names(own: Advertised, others: Collection[Advertised]) -> frozenset[str]:
    """Return those of this host's names that other hosts have for themselves too."""
    return frozenset(name for name in own.offers if any(own.is_rival(other, name) for other in others))


def contested(named: str, own: Advertised, others: Iterable[Advertised]) -> str:
    """Say that nobody can know whose data a run used, and what to do: the same words from each of the hosts."""
    name, _ = split_name(named)
    having = [other.host for other in others if own.is_rival(other, name)]
    hosts = sorted({own.host, *having}, key=lambda host: (host.name, host.id))
    shown = ", ".join(map(str, hosts[:MOST_NAMED]))
    more = f" and {len(hosts) - MOST_NAMED} more" if len(hosts) > MOST_NAMED else ""
    return (
        f"{named}: {shown}{more} each have a dataset of this name, and the run does not say where it ran: run "
        f"reprod snapshot {name} --run RUN_ID on that host; later ones call reprod.tag_dataset while they train or "
        f'start with reprod run --dataset {named}; if the data is the same set scope = "shared" on every host, else '
        f"rename one (reprod dataset rename)"
    )


# --- as tags of a run of `reprod-datasets` ----------------------------------------------------------------------------


def to_tags(said: Advertised, seen: str) -> dict[str, str]:
    """Return what a host says of itself as tags; ``seen`` is its time as text (RFC 3339), for people."""
    tags = {
        "reprod.host.id": said.host.id,
        "reprod.host.name": said.host.name,
        "reprod.host.seen": seen,
        "reprod.host.seen_ns": str(said.seen_ns),
    }
    if said.machine is not None:
        tags["reprod.host.machine"] = said.machine
    for name, offer in sorted(said.offers.items()):
        known = {
            "scope": offer.scope,
            "root": offer.root,
            "digest": offer.digest,
            "version": offer.version,
            "files": offer.files,
        }
        text = json.dumps({key: value for key, value in known.items() if value is not None})
        if len(text) > TAG_LIMIT:  # a path of 4,096 characters may take six for each
            text = json.dumps({"scope": offer.scope, "digest": offer.digest, "version": offer.version})
        tags[DATASET_TAG + name] = text
    return tags


def from_tags(tags: Mapping[str, str]) -> Advertised | None:
    """Return what the tags of a run say of a host; None if they say nothing of one. What is odd in them is left out."""
    host_id, seen = tags.get("reprod.host.id", ""), tags.get("reprod.host.seen_ns", "")
    if not HOST_ID.match(host_id) or not (seen.isascii() and seen.isdigit() and len(seen) < 20):
        return None
    offers = {
        key.removeprefix(DATASET_TAG): offer
        for key, value in tags.items()
        if key.startswith(DATASET_TAG) and (offer := _offer(value)) is not None
    }
    host = Host(host_id, tags.get("reprod.host.name", "")[:255] or host_id[:8])
    return Advertised(host, int(seen), offers, tags.get("reprod.host.machine"))


def newest(rows: Iterable[Mapping[str, str]]) -> list[Advertised]:
    """Return the hosts in the tags of several runs, of each what it said last."""
    found: dict[str, Advertised] = {}
    for tags in rows:
        said = from_tags(tags)
        if said is not None and (said.host.id not in found or found[said.host.id].seen_ns < said.seen_ns):
            found[said.host.id] = said
    return list(found.values())


def _offer(text: str) -> Offer | None:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("scope") not in {"host", "shared"}:
        return None
    root, digest, version, files = (value.get(key) for key in ("root", "digest", "version", "files"))
    return Offer(
        scope=value["scope"],
        root=root if isinstance(root, str) else None,
        digest=digest if isinstance(digest, str) else None,
        version=version if type(version) is int else None,
        files=files if type(files) is int else None,
    )
