"""What may stand in a command line: names of datasets, versions, runs, environments, each with a few words on it.

Rule: only what a shell takes as it is: another daemon's or server's text must never be run. Read-only, newest first,
and bounded, because somebody has pressed a key and waits.
"""

import re
from contextlib import closing
from pathlib import Path
from typing import Literal

from reprod.core import digest
from reprod.core.entry import display
from reprod.core.environment import PREFIX
from reprod.core.manifest import rfc3339
from reprod.core.run import DATASET_NAME
from reprod.ops.environments import list_environments
from reprod.ops.runs import runs
from reprod.store import files, registry, versions

Kind = Literal["datasets", "versions", "runs", "environments"]

#: More than a screen of them helps nobody.
MOST = 100

#: Digits of an environment's digest.
_SHOWN = 12

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def words(state: Path, kind: Kind, name: str = "") -> list[tuple[str, str]]:
    """Return ``(word, what it is)``; versions are of the dataset ``name``. Raises ReprodError."""
    if kind == "versions":
        return _versions(state, name)
    if kind == "environments":
        return _environments(state)
    with closing(files.open_registry_readonly(state)) as records:
        if kind == "runs":
            return [
                (row["run_id"], f"{row['name'] or ''} {row['state']}".strip())
                for row in runs(records, "all", MOST)["runs"]
                if _PLAIN.match(row["run_id"])
            ]
        known = records.read(registry.datasets)
    return [(d.name, display(d.root)) for d in known if d.removed_ns is None and DATASET_NAME.match(d.name)]


def _versions(state: Path, name: str) -> list[tuple[str, str]]:
    if not DATASET_NAME.match(name):
        return []
    db, _ = files.open_dataset_readonly(state, name)
    with closing(db):
        kept = [version for version in db.read(versions.versions) if not version.pruned]
    told = [
        (str(v.seq), f"{rfc3339(v.sealed_ns)[:19]}Z {digest.text(v.digest)[:16] if v.digest else 'incomplete'}")
        for v in kept[-MOST:]
    ]
    return told[::-1]


def _environments(state: Path) -> list[tuple[str, str]]:
    return [
        (
            row["digest"].removeprefix(PREFIX)[:_SHOWN],
            f"Python {row['python'] or 'unknown'}, runs: {row['runs']}, last seen {row['last_seen_at'][:10]}",
        )
        for row in list_environments(state)[:MOST]
    ]
