"""``drift.json``: a run's drift as the document that lies on the run, and back (docs/drift.md).

What comes back may be anybody's file: what is no such document is None, never an error. Times are RFC 3339 UTC there
and Unix nanoseconds here.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from reprod.core.drift import DatasetDrift, Drift, DriftedPath, Verdict, What
from reprod.core.manifest import rfc3339

SCHEMA = "reprod.drift/1"

#: Paths of one dataset that are named; some 150 bytes each.
MOST_PATHS = 10_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_document(drift: Drift) -> dict[str, Any]:
    """Return the drift as JSON values."""
    return {
        "schema": SCHEMA,
        "run_id": drift.run_id,
        "verdict": drift.verdict,
        "started_at": rfc3339(drift.start_ns),
        "ended_at": rfc3339(drift.until_ns),
        "ended": drift.ended,
        "judged_at": rfc3339(drift.judged_ns),
        "datasets": [_dataset(each) for each in drift.datasets],
    }


def _dataset(of: DatasetDrift) -> dict[str, Any]:
    return {
        "name": of.name,
        "verdict": of.verdict,
        "reason": of.why,
        "from_version": of.from_version,
        "to_version": of.to_version,
        "counts": {what: of.counts[what] for what in get_args(What) if of.counts.get(what)},
        "paths": [_path(each) for each in of.paths],
        "paths_left_out": max(0, sum(of.counts.values()) - len(of.paths)),
    }


def _path(of: DriftedPath) -> dict[str, Any]:
    b64 = {"path_b64": of.path_b64} if of.path_b64 is not None else {}
    return {"path": of.path, **b64, "what": of.what, "at": rfc3339(of.at_ns), "version": of.version}


def from_document(document: object) -> Drift | None:
    """Return the drift in a decoded ``drift.json``; None for anything else."""
    try:
        return _drift(document) if isinstance(document, dict) and document.get("schema") == SCHEMA else None
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None


def _drift(found: dict[str, Any]) -> Drift:
    ended = found.get("ended")
    return Drift(
        run_id=_text(found["run_id"]),
        start_ns=_ns(found["started_at"]),
        until_ns=_ns(found["ended_at"]),
        judged_ns=_ns(found["judged_at"]),
        datasets=tuple(_read_dataset(each) for each in found["datasets"]),
        ended=None if ended is None else _text(ended),
    )


def _read_dataset(found: dict[str, Any]) -> DatasetDrift:
    return DatasetDrift(
        name=_text(found["name"]),
        verdict=_verdict(found["verdict"]),
        reason=_text(found["reason"]),
        from_version=_number(found.get("from_version")),
        to_version=_number(found.get("to_version")),
        counts={what: _number(found["counts"].get(what)) or 0 for what in get_args(What) if what in found["counts"]},
        paths=tuple(_read_path(each) for each in found["paths"]),
    )


def _read_path(found: dict[str, Any]) -> DriftedPath:
    b64 = found.get("path_b64")
    return DriftedPath(
        path=_text(found["path"]),
        what=_what(found["what"]),
        at_ns=_ns(found["at"]),
        version=_number(found.get("version")),
        path_b64=None if b64 is None else _text(b64),
    )


def _verdict(value: object) -> Verdict:
    for each in get_args(Verdict):
        if each == value:
            verdict: Verdict = each
            return verdict
    raise ValueError(value)


def _what(value: object) -> What:
    for each in get_args(What):
        if each == value:
            what: What = each
            return what
    raise ValueError(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise TypeError(value)
    return value


def _ns(value: object) -> int:
    return (datetime.fromisoformat(_text(value)) - _EPOCH) // timedelta(microseconds=1) * 1000
