"""The verb that says which runs had a certain file in their data: by its content, and by its name in the dataset.

Everything comes from the tracking server: the runs on the dataset by their tags, what they held by the manifests of
their digests, each of which is read once. What could not be looked at is told, never passed over.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from reprod.config import Config
from reprod.core.entry import Kind, named
from reprod.core.manifest import rfc3339
from reprod.core.run import dataset_names, key_of, split_name
from reprod.errors import DamagedError, IncompleteError, NotFoundError, StateError, UsageError
from reprod.ops.fetch import fetch_manifest
from reprod.sinks.child import MlflowChild
from reprod.sinks.run_messages import RunHead

Report = Callable[[dict[str, Any]], None]

#: Instead of a PATH: the content itself.
BY_DIGEST = "sha256:"

#: Paths that are told of one version: the same content may lie at thousands, as empty files do.
MOST_PATHS = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for. ``sha256`` None: only the name is known. ``inside`` are its possible paths in the dataset."""

    text: str
    sha256: bytes | None
    file: str | None
    inside: tuple[bytes, ...]


@dataclass(slots=True)
class _Held:
    """What one version held: the paths of the content (``more`` beyond those), and what was at the name."""

    paths: list[bytes] = field(default_factory=list)
    more: int = 0
    at_name: dict[bytes, bytes] = field(default_factory=dict)
    problem: str | None = None


def who(child: MlflowChild, config: Config, name: str, path: str, report: Report = lambda _: None) -> dict[str, Any]:
    """Return the runs whose version of dataset ``name`` held a file, the newest first, as docs/answers.md says.

    :param path: a file on this machine, a path inside the dataset (of ``NAME/SUB``: below SUB), or ``sha256:`` and its
        hex digest. Paths in the answer are from the dataset's root.
    :raises NotFoundError: no run used the dataset. :raises UsageError: PATH is a folder. :raises TrackingError: the
    server cannot be reached.
    """
    wanted = _wanted(config, name, path)
    used = list(_runs(child, name, report))
    if not used:
        raise NotFoundError(f"no run on the tracking server used {name}", hint="reprod runs; reprod status")
    held: dict[tuple[str, str], _Held] = {}
    for head, mine, digest in used:
        if digest is not None and (mine, digest) not in held:
            report({"phase": f"reading manifest {len(held) + 1} of {name}"})
            held[mine, digest] = _look(child, head.run_id, mine, wanted)
    used.sort(key=lambda each: -each[0].start_ms)
    rows = [_row(head, mine, digest, held.get((mine, digest or "")), wanted) for head, mine, digest in used]
    return {
        "name": name,
        "path": path,
        "file": wanted.file,
        "sha256": wanted.sha256.hex() if wanted.sha256 else None,
        "paths": [named(each) for each in wanted.inside],
        "runs": [row for row in rows if row["held"] or row["at_path"]],
        "without": sum(not (row["held"] or row["at_path"] or row["unknown"]) for row in rows),
        "unknown": [row for row in rows if row["unknown"]],
        "complete": not any(row["unknown"] for row in rows),
    }


def _wanted(config: Config, name: str, path: str) -> Wanted:
    if path.startswith(BY_DIGEST):
        try:
            digest = bytes.fromhex(path.removeprefix(BY_DIGEST))
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise UsageError(f"{path!r} is no sha256", hint="sha256: and 64 hexadecimal digits, or a path")
        return Wanted(path, digest, None, ())
    dataset, below = split_name(name)
    root = next((each.path for each in config.datasets if each.name == dataset), None)
    written = tuple(_written(path, below))
    for place in (path, *(os.path.join(root, each) for each in written if root is not None)):
        if os.path.lexists(place):
            inside = tuple(map(os.fsencode, _inside(path, place, root, written)))
            return Wanted(path, _content(place), os.path.abspath(place), inside)
    return Wanted(path, None, None, tuple(map(os.fsencode, written)))


def _written(path: str, below: str | None) -> Iterator[str]:
    """Yield what a path inside ``NAME/SUB`` may mean from the dataset's root: below SUB, or as it is written."""
    plain = os.path.normpath(path)
    if below is not None and not os.path.isabs(plain):
        yield f"{below}/{plain}"
    if below is None or plain.startswith(f"{below}/"):
        yield plain


def _content(place: str) -> bytes:
    """Return the sha256 of a file on this machine."""
    try:
        mode = os.stat(place).st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{place} is a folder", hint="name one file, or a dataset's own versions: reprod log NAME")
        if not stat.S_ISREG(mode):
            raise UsageError(f"{place} is no regular file", hint="name one file")
        with open(place, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise StateError(f"{place} cannot be read: {error.strerror}", hint="check its permissions") from error


def _inside(path: str, place: str, root: str | None, written: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths inside the dataset that may be meant: below its root here, else as it was written."""
    full = os.path.abspath(place)
    top = os.path.abspath(root) if root is not None else None
    if top is not None and full.startswith(top.rstrip("/") + "/"):
        return (os.path.relpath(full, top),)
    return () if os.path.isabs(path) else written


def _runs(child: MlflowChild, name: str, report: Report) -> Iterator[tuple[RunHead, str, str | None]]:
    """Yield each run on the dataset or a folder of it, with the name it used and the digest that was recorded."""
    page: str | None = ""
    count = 0
    while page is not None:
        report({"phase": f"asking for the runs on {name}", "files": None})
        answer = child.runs_on(name, page)
        for head, tags in answer.runs:
            for mine in dataset_names(tags.get("reprod.recorded", "")):
                if mine == name or split_name(mine)[0] == name:
                    count += 1
                    yield head, mine, tags.get(f"reprod.digest.{key_of(mine)}")
        page = answer.next


def _look(child: MlflowChild, run_id: str, name: str, wanted: Wanted) -> _Held:
    """Return what a version held of it, by the manifest of one of its runs."""
    held = _Held()
    below = split_name(name)[1]
    prefix = os.fsencode(below) + b"/" if below else b""
    try:
        with fetch_manifest(child, run_id, name) as fetched:
            for entry in fetched.entries():
                content, path = entry.content, prefix + entry.path
                if content.kind is not Kind.FILE or content.sha256 is None:
                    continue
                if content.sha256 == wanted.sha256:
                    held.more += len(held.paths) >= MOST_PATHS
                    held.paths += [path] if len(held.paths) < MOST_PATHS else []
                if path in wanted.inside:
                    held.at_name[path] = content.sha256
    except (DamagedError, IncompleteError, NotFoundError) as error:
        held.problem = error.message
    return held


def _row(head: RunHead, name: str, digest: str | None, held: _Held | None, wanted: Wanted) -> dict[str, Any]:
    unknown = "no digest was recorded" if held is None else held.problem
    return {
        "run_id": head.run_id,
        "run_name": head.name,
        "experiment": head.experiment,
        "status": head.status,
        "started_at": rfc3339(head.start_ms * 1_000_000),
        "dataset": name,
        "digest": digest,
        "held": [named(path) for path in held.paths] if held else [],
        "held_more": held.more if held else 0,
        "at_path": [
            {**named(path), "sha256": sha256.hex(), "same": None if wanted.sha256 is None else sha256 == wanted.sha256}
            for path, sha256 in (held.at_name if held else {}).items()
        ],
        "unknown": unknown,
    }
