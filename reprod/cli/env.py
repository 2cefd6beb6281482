"""``reprod env``: capture the environment of this interpreter, list and show those that are known, compare two.

No daemon is needed. Data goes to standard output, progress to standard error.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprod.cli import codes, render
from reprod.cli.place import Place, locate
from reprod.cli.screen import ProgressLine, Screen
from reprod.config import Config, load
from reprod.errors import UsageError

if TYPE_CHECKING:
    from reprod.core.environment import Record
    from reprod.core.environment_diff import Class, Comparison
    from reprod.ops.environment_ref import Named

#: From which class on a comparison fails.
FAIL_ON: dict[str, frozenset[str]] = {
    "numeric": frozenset({"numeric", "semantic"}),
    "semantic": frozenset({"semantic"}),
}


def capture(args: argparse.Namespace) -> int:
    """Capture this interpreter's environment into files, and onto a run if one is named; 5 if packages are unknown."""
    from reprod.ops import capture_here
    from reprod.ops.write_environment import log_artifacts, write_artifacts

    run_id = _run(args.mlflow_run)
    if args.output_dir == "":
        raise UsageError("--output-dir '' is no folder", hint="name one, or leave the flag out: ./env_artifacts")
    directory = Path(args.output_dir)
    place = locate(args)
    place.close()
    with ProgressLine("environment") as line:
        measured = None
        if args.benchmark:
            line.show({"phase": "measuring this machine, 5 s at most"})
            measured = capture_here.measure(place.state, directory)
        record = capture_here.capture(deep=args.deep, benchmark=measured, report=line.show)
        if run_id is not None:
            line.show({"phase": f"looking for run {run_id}"})
            _find_run(place, run_id)
        written = write_artifacts(record, directory)
        if run_id is not None:
            line.show({"phase": f"logging to run {run_id}"})
            log_artifacts(record, written, run_id)
    _tell_captured(args, record, {name: str(path) for name, path in written.items()}, run_id)
    return codes.FINE if record.environment.packages is not None else codes.INCOMPLETE


def _run(asked: str | None) -> str | None:
    """Return the run to log to: the one that is named, MLFLOW_RUN_ID's for the bare flag, None without it."""
    if asked is None:
        return None
    run_id = asked.removeprefix("run:") or os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        raise UsageError("no MLflow run is named", hint="--mlflow-run RUN_ID, or set MLFLOW_RUN_ID")
    return run_id


def _find_run(place: Place, run_id: str) -> None:
    """Make sure that the run is there, on the server that MLflow is set to here, else on the configured one."""
    from reprod.sinks import inprocess
    from reprod.sinks.environment import set_client_defaults

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        uri = _server(_with_server(place))
        if uri:
            os.environ["MLFLOW_TRACKING_URI"] = uri
    set_client_defaults(os.environ)
    inprocess.find_run(run_id)


def _server(config: Config) -> str:
    if config.mlflow.tracking_uri != "local":
        return config.mlflow.tracking_uri
    from reprod.sinks.server import remembered_url

    return remembered_url(config.state_dir) or ""


def _with_server(place: Place) -> Config:
    """Return the configuration with the tracking server that a client of this account has."""
    config = place.config()
    return config if config.mlflow.tracking_uri else replace(config, mlflow=load(place.config_path).mlflow)


def _tell_captured(args: argparse.Namespace, record: "Record", written: dict[str, str], run_id: str | None) -> None:
    from reprod.cli import env_view

    if args.json:
        print(render.to_json("env.capture", {**_document(record), "files": written, "run_id": run_id}))
        return
    screen = Screen(sys.stdout)
    env_view.show_captured(screen, record, written, args.output_dir, run_id)
    active = record.environment.variables.get("VIRTUAL_ENV") or record.environment.variables.get("CONDA_PREFIX")
    if active and os.path.realpath(active) != os.path.realpath(sys.prefix):
        screen.prose(
            f"note: this is the environment that reprod is installed in, not the active one {render.safe(active)}: "
            "install reprod there and call that one",
            0,
            "yellow",
        )


def list_known(args: argparse.Namespace) -> int:
    """List the environments that the state knows."""
    from reprod.cli import env_view
    from reprod.ops.environments import list_environments

    place = locate(args)
    place.close()
    rows = list_environments(place.state)
    if args.json:
        print(render.to_json("env.list", {"environments": rows}))
    elif rows:
        env_view.show_list(Screen(sys.stdout), rows)
    else:
        Screen(sys.stdout).prose(
            "no environment is known yet: the daemon keeps those of runs, and samples this machine"
        )
    return codes.FINE


def show(args: argparse.Namespace) -> int:
    """Show one environment."""
    from reprod.cli import env_view

    found = _resolve(args, args.ref)
    if args.json:
        print(render.to_json("env.show", {**found.document(), **_document(found.record, whole=True)}))
    else:
        env_view.show_whole(Screen(sys.stdout), found.record, found.digest, found.about)
    return codes.FINE


def diff(args: argparse.Namespace) -> int:
    """Compare two environments; 1 from the class of --fail-on on, 5 if something grave is not known."""
    from reprod.cli import env_diff_view
    from reprod.core.environment_diff import compare

    left, right = _resolve(args, args.a), _resolve(args, args.b)
    found = compare(left.record, right.record)
    if args.json:
        print(render.to_json("env.diff", _difference_document(left, right, found)))
    else:
        env_diff_view.show(Screen(sys.stdout), left, right, found, verbose=args.verbose)
    return exit_code(found, args.fail_on)


def exit_code(found: "Comparison", fail_on: str) -> int:
    """Return 1 for a difference that counts, else 5 for one that is not known, else 0."""
    grades: set[Class] = {each.grade for each in found.differences}
    differs = codes.DIFFERS if grades & FAIL_ON[fail_on] else codes.FINE
    return codes.worst(differs, codes.INCOMPLETE if "unknown" in grades else codes.FINE)


def _resolve(args: argparse.Namespace, ref: str | None) -> "Named":
    from reprod.ops.environment_ref import NOW, resolve

    if ref == "":
        raise UsageError("'' is no environment", hint="reprod env list")
    place = locate(args)
    place.close()
    with ProgressLine("environment") as line:
        if ref in {None, NOW}:
            line.show({"phase": "reading this interpreter"})

        def config() -> Config:
            line.show({"phase": f"asking the tracking server for {ref}"})
            return _with_server(place)

        return resolve(place.state, ref, config)


def _document(record: "Record", *, whole: bool = False) -> dict[str, Any]:
    """Return a record for JSON; not ``whole``: without its sections, which are in the files."""
    import msgspec

    from reprod.core.environment import PREFIX
    from reprod.core.environment_files import rebuildable
    from reprod.core.manifest import rfc3339

    env, verdict = record.environment, rebuildable(record.environment)
    document: dict[str, Any] = {
        "digest": PREFIX + env.digest(),
        "subject": msgspec.to_builtins(record.execution.subject),
        "taken_at": rfc3339(record.execution.taken_ns),
        "python": env.python.version if env.python else None,
        "packages": len(env.packages.packages) if env.packages else None,
        "gpus": len(env.accelerators.gpus) if env.accelerators else None,
        "rebuildable": verdict.verdict,
        "not_rebuildable": list(verdict.reasons),
        "unknown": {**env.unknown, **record.execution.unknown},
    }
    if whole:
        document["environment"] = msgspec.to_builtins(env)
        document["execution"] = msgspec.to_builtins(record.execution)
    return document


def _difference_document(left: "Named", right: "Named", found: "Comparison") -> dict[str, Any]:
    from reprod.core.environment_diff import ORDER

    return {
        "a": left.document(),
        "b": right.document(),
        "verdict": found.verdict,
        "counts": {grade: sum(each.grade == grade for each in found.differences) for grade in ORDER[1:]},
        "differences": [
            {"class": each.grade, "what": each.fact, "left": each.left, "right": each.right, "why": each.why}
            for each in found.differences
        ],
    }
