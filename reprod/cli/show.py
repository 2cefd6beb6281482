"""``reprod show run:ID``: all that is recorded of a run, what differs from it here now, and what can be had again.

Everything comes from the tracking server; a daemon or its state is not needed. 0 if all of it is known, 5 if not.
"""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from reprod.cli import codes, render
from reprod.cli.run_server import asked
from reprod.cli.screen import ProgressLine, Screen

if TYPE_CHECKING:
    from reprod.core.run_record import RunRecord, UsedDataset
    from reprod.ops.run_here import Here


def run(args: argparse.Namespace) -> int:
    """Show one run."""
    from reprod.ops.fetch_run import fetch_run, find_run
    from reprod.ops.run_here import compare_here

    with asked(args) as (child, config), ProgressLine("show") as line:
        line.show({"phase": f"asking the tracking server for {args.run_ref}"})
        found = fetch_run(child, find_run(child, args.run_ref).run_id)
        here = compare_here(child, config, found, line.show)
    if args.json:
        print(render.to_json("show", document(found, here)))
    else:
        from reprod.cli import run_view

        run_view.show_run(Screen(sys.stdout), found, here)
    return exit_code(found)


def exit_code(found: "RunRecord") -> int:
    """Return 5 where something was not recorded, or is not there any more; what differs here is no fault of the run."""
    known = found.state == "captured" and not found.problems and found.environment is not None
    return codes.FINE if known else codes.INCOMPLETE


def document(found: "RunRecord", here: "Here | None" = None) -> dict[str, Any]:
    """Return a run for JSON, as docs/answers.md describes it."""
    import msgspec

    from reprod.core.manifest import rfc3339

    return {
        "run_id": found.run_id,
        "name": found.name,
        "experiment": found.experiment,
        "status": found.status,
        "started_at": rfc3339(found.start_ns),
        "ended_at": rfc3339(found.end_ns) if found.end_ns is not None else None,
        "state": found.state,
        "recorded_at": rfc3339(found.recorded_ns) if found.recorded_ns else None,
        "host": found.host,
        "assurance": found.assurance,
        "error": found.error,
        "datasets": [_dataset(each) for each in found.datasets],
        "drift": msgspec.to_builtins(found.drift) if found.drift is not None else found.tags.get("reprod.drift"),
        "environment": _environment(found),
        "code": _code(found),
        "params": found.params,
        "metrics": {key: _number(value) for key, value in found.metrics.items()},
        "tags": found.tags,
        "problems": list(found.problems),
        "here": msgspec.to_builtins(here),
    }


def _dataset(used: "UsedDataset") -> dict[str, Any]:
    from reprod.core.manifest import rfc3339

    return {
        "name": used.name,
        "digest": used.digest,
        "version": used.version,
        "bound": used.bound,
        "root": used.root,
        "files": used.files,
        "bytes": used.bytes,
        "sealed_at": rfc3339(used.sealed_ns) if used.sealed_ns is not None else None,
        "error": used.error,
        "candidates": [{"version": version, "digest": digest} for version, digest in used.candidates],
        "selection": used.selection,
        "manifest_run": used.manifest_run,
    }


def _environment(found: "RunRecord") -> dict[str, Any]:
    from reprod.core.environment import PREFIX
    from reprod.core.environment_files import rebuildable
    from reprod.core.manifest import rfc3339

    if found.environment is None:
        return {"digest": None, "unknown": found.environment_unknown}
    env, seen = found.environment.environment, found.environment.execution
    verdict = rebuildable(env)
    return {
        "digest": PREFIX + env.digest(),
        "taken_at": rfc3339(seen.taken_ns),
        "python": env.python.version if env.python else None,
        "packages": len(env.packages.packages) if env.packages else None,
        "gpus": len(env.accelerators.gpus) if env.accelerators else None,
        "rebuildable": verdict.verdict,
        "not_rebuildable": list(verdict.reasons),
        "unknown": {**env.unknown, **seen.unknown},
    }


def _code(found: "RunRecord") -> dict[str, Any] | None:
    import msgspec

    git = found.environment.environment.git if found.environment is not None else None
    return msgspec.to_builtins(git) if git is not None else None


def _number(value: float) -> float | str:
    """Return a number as JSON has it; what it has no word for, as text."""
    return value if value - value == 0 else repr(value)
