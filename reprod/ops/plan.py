"""What the state of a dataset makes of an order: the same root as before? the same selection? must all be looked at?"""

import os
from dataclasses import dataclass

import msgspec

from reprod.capture.process.identity import boot_id
from reprod.config import DatasetConfig
from reprod.core.described import described
from reprod.core.entry import display
from reprod.core.pattern import Selection
from reprod.errors import ConfigError, DatasetUnavailableError
from reprod.fs.mounts import RootIdentity
from reprod.fs.root import Root, known_since_ns
from reprod.store import meta, versions
from reprod.store.connection import Database


@dataclass(frozen=True, slots=True)
class Order:
    """What to do: look at ``paths``, None for everything.

    ``rehash`` reads all files again; ``accept_root`` takes a root on another file system.
    """

    paths: frozenset[bytes] | None = None
    rehash: bool = False
    accept_root: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What the state of the dataset makes of the order."""

    full: bool
    rehash: bool
    reason: str
    root_since_ns: int
    born_now: bool  # the root or the selection is another: what is seen now is born now


def select(dataset: DatasetConfig, root: Root) -> Selection:
    """Return what the dataset takes from its root, its .reprodignore as it is now included.

    :raises ConfigError: a line of it is no pattern.
    """
    selection = Selection(
        include=dataset.include,
        exclude=dataset.exclude,
        ignore=root.ignore_lines() if root.only is None else (),
        symlinks=dataset.symlinks,
        only=root.only,
        algorithms=dataset.algorithms,
        until=dataset.until,
    )
    try:
        selection.takes_file(b"x")  # compiles the patterns
    except ValueError as error:  # those of the configuration were tried when it was read
        raise ConfigError(f"{root.path}/.reprodignore: {error}", hint="mend or remove that line") from None
    return selection


def make_plan(db: Database, root: Root, selection: Selection, order: Order, now_ns: int, name: str) -> Plan:
    """Compare root and selection with what they were, and remember what they are now."""
    known = db.read(meta.read)
    first = db.read(versions.newest) is None
    ordered = known.moving == "ordered"  # a person said so: this is where the data is from now on
    same_root = _same_root(root, known, name, accept=order.accept_root or ordered)
    boot = boot_id()
    continued = same_root and known.boot_id == boot and known.identity is not None and not ordered
    continued = continued and _identity(known.identity).identical(root.identity)
    since = known.root_since_ns if continued and known.root_since_ns else known_since_ns(root, now_ns)
    since = max(min(since, now_ns), known.epoch_ns or 0)  # a moment to come is of before the clock was set back
    moved = known.identity is not None and not continued
    if moved and known.boot_id != boot and same_root and not ordered:
        moved = False  # ids change over a reboot; since when it is this one is counted afresh, that is all
    record = selection.record()
    reselected = known.selection is not None and known.selection != record
    moved = moved or known.pending_root
    rehash = order.rehash or (known.algorithms is not None and known.algorithms != list(selection.algorithms))
    unfinished = known.pending_selection
    moving = ordered or (known.moving == "seen" and known.pending_root)
    db.write(
        lambda c: meta.write(
            c,
            identity=msgspec.json.encode(root.identity),
            boot_id=boot,
            root_since_ns=since,
            pending_root=moved,
            pending_selection=reselected or unfinished,
            moving="seen" if moving else None,
            root=os.fsencode(root.path),
        )
    )
    reason = "first" if first else "selection" if reselected or unfinished else "moved" if moving else "change"
    return Plan(order.paths is None or first or reason != "change" or moved or rehash, rehash, reason, since, moved)


def _same_root(root: Root, known: meta.Meta, name: str, *, accept: bool) -> bool:
    """Whether the root is on the file system that it was on (law 4). Raises unless so, or accepted."""
    if known.identity is None:
        return True
    if accept and not _identity(known.identity).same_filesystem(root.identity):
        return False
    require_same_filesystem(root, known.identity, name)
    return True


def require_same_filesystem(root: Root, identity: bytes, name: str = "NAME") -> None:
    """Raise DatasetUnavailableError if the root is on another file system than its stored ``identity`` says."""
    was = _identity(identity)
    if was.same_filesystem(root.identity):
        return
    raise DatasetUnavailableError(
        f"{root.path} is on another file system than it was ({_told(was, root.identity)} then, "
        f"{_told(root.identity, was)} now)",
        hint=f"mount what belongs there; if the new one is right: reprod scan {name} --accept-root",
    )


def _told(one: RootIdentity, other: RootIdentity) -> str:
    """Return what a file system is called, with as much more as tells it from the other."""
    told = f"{one.fs_type} {one.source}"
    if (one.fs_type, one.source) != (other.fs_type, other.source):
        return told
    if one.mount_point != other.mount_point:
        return f"{told} mounted at {display(one.mount_point)}"
    return f"{told}, its folder {display(one.mount_root)},"


def _identity(stored: bytes | None) -> RootIdentity:
    return msgspec.json.decode(stored or b"{}", type=described(RootIdentity))
