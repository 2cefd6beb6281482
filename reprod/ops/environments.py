"""The verb that lists the environments that the state knows: what each is, who had it and when, and for how many runs.

Read-only and without a daemon. Times are RFC 3339 UTC; a digest is written with its prefix.
"""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reprod.capture.process.identity import host_name
from reprod.core.environment import PREFIX
from reprod.core.execution import Subject
from reprod.core.manifest import rfc3339
from reprod.errors import NotFoundError
from reprod.store import environments, files

#: How the timer's sample of the machine is called.
HOST = "host"


@dataclass(slots=True)
class _Seen:
    """What the sightings of one environment say together."""

    first_ns: int
    last_ns: int
    runs: set[str] = field(default_factory=set)
    subjects: dict[tuple[str, str, str | None], set[tuple[str, int | None, int | None]]] = field(default_factory=dict)

    def take(self, sighting: environments.Sighting) -> None:
        self.first_ns = min(self.first_ns, sighting.first_ns)
        self.last_ns = max(self.last_ns, sighting.last_ns)
        if sighting.run_id is not None:
            self.runs.add(sighting.run_id)
        subject = _subject(sighting)
        if subject is not None:
            processes = self.subjects.setdefault((subject.kind, subject.host, subject.prefix), set())
            if subject.kind == "process":
                processes.add((subject.boot_id, subject.pid, subject.start_ticks))


def list_environments(state: Path) -> list[dict[str, Any]]:
    """Return every environment, the one that was seen last first; none where no daemon ever ran."""
    try:
        records = files.open_registry_readonly(state)
    except NotFoundError:
        return []
    with closing(records):
        kept = records.read(environments.kept)
        seen = {each.digest: _Seen(each.kept_ns, each.kept_ns) for each in kept}
        for sighting in records.read(lambda c: list(environments.sightings(c))):
            if sighting.digest in seen:
                seen[sighting.digest].take(sighting)
    rows = [_row(each, seen[each.digest]) for each in kept]
    return sorted(rows, key=lambda row: (row["last_seen_at"], row["digest"]), reverse=True)


def _row(kept: environments.Kept, seen: _Seen) -> dict[str, Any]:
    return {
        "digest": PREFIX + kept.digest,
        "python": kept.python,
        "packages": kept.packages,
        "subjects": [
            {"kind": kind, "host": host, "prefix": prefix, "processes": len(processes)}
            for (kind, host, prefix), processes in seen.subjects.items()
        ],
        "first_seen_at": rfc3339(seen.first_ns),
        "last_seen_at": rfc3339(seen.last_ns),
        "runs": len(seen.runs),
    }


def _subject(sighting: environments.Sighting) -> Subject | None:
    if sighting.sampled is not None:
        return sampled_subject(sighting.sampled, "")
    return sighting.execution.subject if sighting.execution is not None else None


def sampled_subject(sampled: str, how: str) -> Subject:
    """Return what the timer sampled on this machine: the host, or an interpreter by its prefix."""
    if sampled == HOST:
        return Subject("host", host_name(), "", how)
    return Subject("interpreter", host_name(), "", how, prefix=sampled)
