"""What a host writes to a run that other hosts write to as well. Nothing of another's is ever overwritten.

The first host to record a run owns its record: the plain keys, artifacts, params, metrics, dataset inputs, the state.
Another that found the same digest only adds itself to ``reprod.nodes.NAME``; one that found another writes its own
beside (``KEY/HOST8``) and ``reprod.conflict.NAME`` says who found what. A record without any digest gives way to one
that has them, and is kept beside it. MLflow knows no exchange of a tag that compares it: so every host looks again
after it wrote, until all that it has to say stands there.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from reprod.core.run import TAG_LIMIT, Payload

OWNER, STATE, RECORDED = "reprod.host_id", "reprod.state", "reprod.recorded"
#: Who is about to write the record, and since when (Unix seconds); gone when it stands there.
WRITING = "reprod.writing"
DIGEST, NODES, CONFLICT = "reprod.digest.", "reprod.nodes.", "reprod.conflict."

#: What there is of each dataset, and what of a whole record goes beside another's if they differ.
_OF_DATASET = ("digest", "version", "bound", "candidates")
_BESIDE = ("reprod.host", "reprod.error", "reprod.assurance", "reprod.chain")
#: What an owner writes later, after the run's end.
_LATER = ("reprod.drift",)

_SUFFIX = re.compile(r"/[0-9a-f]{8}\Z")

#: Hex digits of a digest in ``reprod.nodes.NAME``: as everywhere for people.
SHORT = 12

#: One host in it as JSON: 8 digits, the longest value, quotes, a colon, a comma.
_NODE_CHARACTERS = 8 + SHORT + 8


@dataclass(frozen=True, slots=True)
class Share:
    """What of a payload is to be written. Not ``owns``: tags alone, and the artifacts beside those of the owner.

    ``beside`` says that something differs from what the owner wrote.
    """

    owns: bool
    tags: dict[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    beside: bool = False


def share(existing: Mapping[str, str], payload: Payload) -> Share:
    """Return what this host writes of its payload to a run that has the tags ``existing``.

    ``payload.host_id`` is who writes; without one everything is written, as if there were no other host.
    """
    own = payload.host_id
    if own is None:
        return Share(True, dict(payload.tags), payload.remove_tags)
    names = _names(payload.tags)
    owner = _owner(existing, payload)
    if owner is not None and owner != own and not _gives_way(existing, payload):
        return _second(existing, payload.tags, names, owner, own)
    tags = {**payload.tags, OWNER: own}
    if owner is not None and owner != own:
        tags = _kept_beside(existing, owner) | tags
    remove = set(payload.remove_tags)  # but for what hosts found together, which is among the tags
    for name in names:
        nodes = read_nodes(existing.get(NODES + name, ""))
        if set(nodes) - {own[:8]}:
            tags |= _nodes(name, nodes | {own[:8]: _short(payload.tags, name)}, own)
        remove |= {each for each in (CONFLICT + name,) if each in existing and each not in tags}
    return Share(True, tags, tuple(sorted(remove - tags.keys())))


def node(existing: Mapping[str, str], found: Mapping[str, str], own: str) -> dict[str, str]:
    """Return the tags that say what a node of a run found on its own copy: ``{name: dt1:... or why not}``.

    The run is recorded by the host that it started on, now or later: nothing of its record is touched.
    """
    tags: dict[str, str] = {}
    owner = existing.get(OWNER, "")
    for name, digest in found.items():
        nodes = read_nodes(existing.get(NODES + name, ""))
        theirs = existing.get(DIGEST + name)
        if theirs is not None and owner:
            nodes[owner[:8]] = shortened(theirs)
        nodes[own[:8]] = shortened(digest)
        tags |= _nodes(name, nodes, owner)
        if theirs is not None and digest.startswith("dt1:") and theirs != digest:
            tags[f"{DIGEST}{name}/{own[:8]}"] = digest
    return {key: value for key, value in tags.items() if existing.get(key) != value}


def shortened(digest: str) -> str:
    """Return the first digits of a digest; a word that stands for none stays."""
    return digest.removeprefix("dt1:")[:SHORT] if digest.startswith("dt1:") else digest


def read_nodes(text: str) -> dict[str, str]:
    """Return what ``reprod.nodes.NAME`` says: ``{HOST8: 12 digits or a word}``; nothing for what is not that."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {key: each for key, each in value.items() if isinstance(key, str) and isinstance(each, str)}


def _names(tags: Mapping[str, str]) -> list[str]:
    """Return the datasets that a record is about, as its keys name them."""
    marks = tuple(f"reprod.{kind}." for kind in _OF_DATASET)
    return list(dict.fromkeys(key.removeprefix(mark) for mark in marks for key in tags if key.startswith(mark)))


def _owner(existing: Mapping[str, str], payload: Payload) -> str | None:
    """Return the id of the host whose record is on the run, None if there is none; of an older reprod's its name."""
    if OWNER in existing:
        return existing[OWNER]
    name = existing.get("reprod.host")
    return None if name == payload.tags.get("reprod.host", name) else name


def _gives_way(existing: Mapping[str, str], payload: Payload) -> bool:
    """Whether the record on the run is of other names than it has now, or proves nothing, and ours is better."""
    named = payload.tags.get(RECORDED)
    if named is not None and existing.get(RECORDED, named) != named:
        return existing.get("reprod.dataset", named) == named
    proven = any(key.startswith(DIGEST) and not _SUFFIX.search(key) for key in existing)
    return not proven and STATE in existing and payload.state == "captured"


def _second(existing: Mapping[str, str], ours: Mapping[str, str], names: list[str], owner: str, own: str) -> Share:
    """Return what goes beside another's record."""
    tags: dict[str, str] = {}
    differs = False
    for name in names:
        theirs, digest = existing.get(DIGEST + name), ours.get(DIGEST + name)
        nodes = read_nodes(existing.get(NODES + name, ""))
        if theirs is not None:
            nodes[owner[:8]] = shortened(theirs)
        nodes[own[:8]] = _short(ours, name)
        tags |= _nodes(name, nodes, owner)
        if digest is None or digest != theirs:
            differs = True
            for key in (f"reprod.{kind}.{name}" for kind in _OF_DATASET):
                if key in ours:
                    tags[f"{key}/{own[:8]}"] = ours[key]
    later = {key: ours[key] for key in _LATER if key in ours and existing.get(key) != ours[key]}
    beside = {key: ours[key] for key in _BESIDE if key in ours} if differs else {}
    tags |= {f"{key}/{own[:8]}": value for key, value in (later | beside).items()}
    news = {key: value for key, value in tags.items() if existing.get(key) != value}
    return Share(False, news, (), differs or bool(later))


def _kept_beside(existing: Mapping[str, str], owner: str) -> dict[str, str]:
    """Return what another host wrote, beside the record that takes its place."""
    marks = tuple(f"reprod.{kind}." for kind in _OF_DATASET)
    kept = {key: value for key, value in existing.items() if key.startswith(marks) or key in _BESIDE}
    return {f"{key}/{owner[:8]}": value for key, value in kept.items() if not _SUFFIX.search(key)}


def _short(tags: Mapping[str, str], name: str) -> str:
    """Return what a record says of a dataset in a word: 12 digits, or how it is bound."""
    digest = tags.get(DIGEST + name)
    return shortened(digest) if digest is not None else tags.get(f"reprod.bound.{name}", "unknown")


def _nodes(name: str, nodes: Mapping[str, str], owner: str) -> dict[str, str]:
    """Return the tags for what the hosts found of a dataset; hosts that agree go first where there is no room."""
    tags = {NODES + name: _fitting(nodes, owner[:8])}
    digests = {host: each for host, each in nodes.items() if _is_short(each)}
    if len(set(digests.values())) > 1:
        said = [f"{host}={each}" for host, each in sorted(digests.items())]
        first = f"; the run's record is that of {owner[:8]}" if owner else ""
        tags[CONFLICT + name] = (f"{len(set(digests.values()))} digests: " + ", ".join(said))[: TAG_LIMIT - 60] + first
    return tags


def _fitting(nodes: Mapping[str, str], owner: str) -> str:
    """Return the map as JSON within the limit of a tag: first the owner's, then what differs from it, then the rest."""
    text = json.dumps(dict(sorted(nodes.items())))
    if len(text) <= TAG_LIMIT:
        return text
    order = sorted(nodes, key=lambda host: (host != owner, nodes[host] == nodes.get(owner), host))
    kept = order[: TAG_LIMIT // _NODE_CHARACTERS]
    return json.dumps({host: nodes[host] for host in sorted(kept)})


def _is_short(text: str) -> bool:
    return len(text) == SHORT and all(c in "0123456789abcdef" for c in text)
