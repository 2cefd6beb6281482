"""Sets that this host has no version of: a manifest file that anybody wrote, and a run that the tracking server knows.

What they say is a claim: its reader refuses what is hostile or does not prove its digest, and no path that they name as
their root is ever opened. Who wants their files in a bag says where those are.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from reprod.config import Config
from reprod.core.claims import Claim
from reprod.core.digest import ALGORITHMS
from reprod.core.entry import Content, Entry, Kind, display
from reprod.errors import IncompleteError
from reprod.ops.export_set import UNKNOWN, Consume, Source, common_algorithms, first_unknown
from reprod.ops.export_stated import Stated, read_stated
from reprod.ops.manifest_file import is_manifest_file, read_claims

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: The form in which reprod writes a time.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z")


def is_manifest(text: str) -> bool:
    """Whether a reference is a manifest file; with a slash it can be nothing else."""
    return not text.startswith("run:") and ("/" in text or is_manifest_file(text))


def of_manifest(path: str) -> Source:
    """Return the set that a manifest file claims; raises as ``read_claims``, and IncompleteError without sha256."""
    claims = read_claims(path)
    held = claims.entries
    paths = sorted(held)
    weak = [p for p in paths if "sha256" not in held[p].hashes]
    if weak:
        raise IncompleteError(
            f"{path} has no sha256 of {len(weak)} entries, '{display(weak[0])}' the first",
            hint="every export needs it; make a manifest that has it: reprod manifest PATH",
        )
    files, size, sized, stated = 0, 0, True, True
    for claim in held.values():
        if claim.kind is Kind.FILE:
            files += 1
            size += claim.size or 0
            sized = sized and claim.size is not None
            stated = stated and None not in (claim.size, claim.mtime_ns, claim.mode)

    said = read_stated(path, claims)

    def stream(consume: Consume) -> Any:
        return consume(_merged(held, paths, said.others))

    return Source(
        title=path,
        name=os.path.basename(path),
        seq=None,
        run_id=None,
        data_path=said.data_path,
        root=None,
        digest=claims.digest,
        # The manifest's own age: the same file makes the same export.
        frozen_ns=os.stat(path).st_mtime_ns,
        selection=claims.selection.record() if claims.selection is not None else None,
        files=files,
        size=size if sized else None,
        why_not=_missing(said, claims.cut),
        more=stream(common_algorithms),
        stated=stated,
        stream=stream,
        unlisted=tuple(said.unlisted),
        max_files=(files if said.cut is True else said.cut) if claims.cut else None,
        metadata=said.metadata,
    )


@contextmanager
def fetched(config: Config, text: str, dataset: str | None) -> Iterator[Source]:
    """Yield the set that a run of the tracking server used; raises as ``fetch_reference``."""
    from reprod.ops.fetch import fetch_reference

    with fetch_reference(config, text, dataset) as manifest:
        header = manifest.header

        def stream(consume: Consume) -> Any:
            return consume(manifest.entries())

        files = [entry.content.size for entry in manifest.entries() if entry.content.kind is Kind.FILE]
        version = header.get("version")
        said = header.get("data_path")
        yield Source(
            title=f"run:{manifest.run_id}",
            name=manifest.name,
            seq=version if isinstance(version, int) else None,
            run_id=manifest.run_id,
            data_path=said if isinstance(said, str) else ".",
            root=None,
            digest=manifest.digest,
            frozen_ns=_nanoseconds(header.get("generated_at")),
            selection=header.get("selection"),
            files=len(files),
            size=sum(files),
            why_not="",
            more=stream(common_algorithms),
            stated=manifest.has_metadata,
            stream=stream,
        )


def _missing(said: Stated, cut: bool) -> str:
    """Say what of a manifest's set is not known, "" if nothing is missing."""
    words = ["it lists only the first files"] if cut else []
    words += first_unknown(said.unlisted, [said.others[path] for path in sorted(said.others)])
    problems = sum(entry.content.problem is not None for entry in said.others.values())
    rest = len(said.unlisted) + problems + int(cut) - len(words)
    if not words and said.complete is False:
        words = ["it says so itself"]
    return ", ".join(words) + (f", and {rest} more" if rest > 0 else "")


def _merged(held: Mapping[bytes, Claim], paths: list[bytes], others: Mapping[bytes, Entry]) -> Iterator[Entry]:
    """Yield what is claimed and what is in no set or was not known, in path order."""
    late = iter(sorted(others))
    other = next(late, None)
    for path in paths:
        while other is not None and other < path:
            yield others[other]
            other = next(late, None)
        yield _entry(held[path])
    while other is not None:
        yield others[other]
        other = next(late, None)


def _entry(claim: Claim) -> Entry:
    more = {name: claim.hashes[name] for name in ALGORITHMS if name != "sha256" and name in claim.hashes}
    size = UNKNOWN if claim.size is None else claim.size
    content = Content(claim.kind, size, claim.hashes["sha256"], None, more)
    return Entry(claim.path, content, claim.mtime_ns or 0, claim.mode or 0)


def _nanoseconds(text: object) -> int:
    """Return a time in the form that reprod writes, in nanoseconds; 0 for anything else."""
    if not isinstance(text, str) or _TIME.fullmatch(text) is None:
        return 0
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except ValueError:  # a month 13
        return 0
    return since // timedelta(microseconds=1) * 1000
