"""``reprod diff run:A run:B``: what differs between two runs, and which of it could explain other results.

Everything comes from the tracking server. Where it cannot be reached, or none is configured, and this host's state
knows both runs, their data alone is compared, and that is said. Other metrics are a result, and never a difference.
"""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from reprod.cli import codes, render
from reprod.cli.run_server import asked
from reprod.cli.screen import ProgressLine, Screen
from reprod.errors import ConfigError, ReprodError, TrackingError

if TYPE_CHECKING:
    from reprod.core.explain import Cause
    from reprod.core.run_differences import DatasetDifference, RunDifferences


def run(args: argparse.Namespace) -> int:
    """Compare two runs; 1 if anything differs that can be part of a result, 5 if something is not known, else 0."""
    try:
        found = _compared(args)
    except (TrackingError, ConfigError) as error:
        return _from_state(args, error)
    from reprod.core.explain import explain, not_recorded

    causes, missing = explain(found), not_recorded(found)
    if args.json:
        print(render.to_json("diff.runs", document(found, causes, missing)))
    else:
        from reprod.cli import run_diff_view

        run_diff_view.show(Screen(sys.stdout), found, causes, missing)
    return exit_code(causes)


def exit_code(causes: "tuple[Cause, ...]") -> int:
    """Return 1, 5 or 0."""
    from reprod.core.explain import DIFFERENT

    ranks = {cause.rank for cause in causes}
    differs = codes.DIFFERS if ranks & DIFFERENT else codes.FINE
    return codes.worst(differs, codes.INCOMPLETE if "unknown" in ranks else codes.FINE)


def _compared(args: argparse.Namespace) -> "RunDifferences":
    from reprod.ops.run_diff import diff_runs

    with asked(args) as (child, _), ProgressLine("diff") as line:
        return diff_runs(child, args.a, args.b, line.show)


def _from_state(args: argparse.Namespace, error: ReprodError) -> int:
    """Compare the data of both runs by this host's own versions, where it knows them; else raise ``error``."""
    from reprod.cli import state_diff

    try:
        code = state_diff.run(args)
    except ReprodError:
        raise error from None
    Screen(sys.stderr).prose(
        f"only the data was compared, from this host's own history, not code, environment or params: "
        f"{render.safe(error.message)}",
        0,
        "yellow",
    )
    return codes.worst(code, codes.INCOMPLETE)


def document(found: "RunDifferences", causes: "tuple[Cause, ...]", missing: tuple[str, ...]) -> dict[str, Any]:
    """Return all of it for JSON, as docs/answers.md describes it."""
    from reprod.cli.show import document as run_document

    code = found.code
    return {
        "a": run_document(found.a),
        "b": run_document(found.b),
        "different": exit_code(causes) == codes.DIFFERS,
        "complete": exit_code(tuple(c for c in causes if c.rank == "unknown")) == codes.FINE,
        "explanations": [{"rank": each.rank, "what": each.what, "sentence": each.sentence} for each in causes],
        "not_recorded": list(missing),
        "data": [_data(each) for each in found.data],
        "code": {
            "relation": code.relation,
            "sentence": code.sentence,
            "commit_a": code.commits[0],
            "commit_b": code.commits[1],
            "dirty_a": code.dirty[0],
            "dirty_b": code.dirty[1],
        },
        "environment": _environment(found),
        "params": [{"name": each.name, "a": each.a, "b": each.b} for each in found.params],
        "equal_params": found.equal_params,
        "metrics": [{"name": each.name, "a": _number(each.a), "b": _number(each.b)} for each in found.metrics],
    }


def _data(each: "DatasetDifference") -> dict[str, Any]:
    return {
        "name": each.name,
        "relation": each.relation,
        "digest_a": each.a.digest if each.a else None,
        "digest_b": each.b.digest if each.b else None,
        "reason": each.reason or None,
        "difference": each.listing,
    }


def _environment(found: "RunDifferences") -> dict[str, Any]:
    if found.environment is None:
        return {"verdict": "unknown", "reason": found.environment_unknown, "differences": []}
    listed = [
        {"class": each.grade, "what": each.fact, "left": each.left, "right": each.right, "why": each.why}
        for each in found.environment.differences
    ]
    return {"verdict": found.environment.verdict, "reason": None, "differences": listed}


def _number(value: object) -> object:
    """Return a number as JSON has it; what it has no word for, as text."""
    return repr(value) if isinstance(value, float) and value - value != 0 else value
