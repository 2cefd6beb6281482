"""``reprod export``: write a version for other tools. No daemon is needed.

Rule: the export goes to --output or to standard output, all talk to standard error; what a format leaves out is said.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from reprod.cli import codes, render
from reprod.cli.output import ended_by_signals
from reprod.cli.place import Place, locate
from reprod.cli.screen import ProgressLine, Screen
from reprod.config import Config, load
from reprod.core.manifest import rfc3339
from reprod.errors import StateError, UsageError

if TYPE_CHECKING:
    from reprod.ops.export_set import Source


def run(args: argparse.Namespace) -> int:
    """Export; return 0, or 5 where the set is not complete (only json can hold such a set)."""
    from reprod.ops import export

    output = _output(args)
    place = locate(args)
    place.close()
    screen = Screen(sys.stderr)
    request = export.Request(args.ref, args.format, args.dataset, args.data, args.link)
    with ended_by_signals(), ProgressLine(render.safe(args.ref)) as line:
        report = export.export(
            place.state,
            request,
            output,
            config=lambda: _with_server(place),
            # A line that is rewritten would run through data on the same terminal.
            progress=line.show if isinstance(output, Path) or not sys.stdout.isatty() else lambda _: None,
            begin=lambda source: None if args.json else _say_which(screen, args.ref, source),
        )
    if args.json:
        print(render.to_json("export", report))
    else:
        _say_what(screen, report)
    return codes.FINE if report["complete"] else codes.INCOMPLETE


def _output(args: argparse.Namespace) -> Path | BinaryIO:
    """Return where the export goes. Raises UsageError for what can only be a mistake."""
    if args.output == "":
        raise UsageError("--output '' is no path", hint="name the file to write, or '-' for standard output")
    if args.output not in {None, "-"}:
        return Path(args.output)
    if args.json:
        raise UsageError("--json reports on an export that goes to a file", hint="add --output PATH")
    if args.format == "bagit":
        raise UsageError("a bag is a folder", hint="name a new one: --output DIR")
    if sys.stdout is None:
        raise StateError("there is no standard output", hint="name a file: --output PATH")
    if args.format == "parquet" and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal", hint="name a file: --output PATH")
    return sys.stdout.buffer


def _with_server(place: Place) -> Config:
    """Return the configuration with the tracking server that a client of this account has."""
    config = place.config()
    if config.mlflow.tracking_uri:
        return config
    return replace(config, mlflow=load(place.config_path).mlflow)


def _say_which(screen: Screen, ref: str, source: "Source") -> None:
    if source.title != ref:
        sealed = f"sealed {render.ago(rfc3339(source.frozen_ns))}, " if source.seq is not None else ""
        screen.prose(f"exporting {render.safe(source.title)}, {sealed}{render.digest(source.digest)}")


def _say_what(screen: Screen, report: dict[str, Any]) -> None:
    if report["output"] is not None:
        said = [render.plural(report["files"], "file")]
        said += [render.size(report["bytes"])] if report["bytes"] is not None else []
        said += [render.digest(report["digest"])] if report["digest"] else []
        screen.prose(f"wrote {render.safe(report['output'])}: {', '.join(said)}")
    for note in _notes(report):
        screen.prose(note, colour="yellow")
    if not report["complete"]:
        screen.prose(f"warning: it is not complete: {render.safe(report['missing'])}", colour="yellow")


def _notes(report: dict[str, Any]) -> list[str]:
    """Return what the format does not hold."""
    notes, form = [], report["format"]
    if report["symlinks"] and form in {"sha256sums", "croissant"}:
        notes.append(f"note: {render.plural(report['symlinks'], 'symlink')} left out: {form} lists regular files only")
    if report["symlinks"] and form == "bagit":
        notes.append(f"note: {render.plural(report['symlinks'], 'symlink')} in symlinks.jsonl: a bag holds files only")
    if report.get("linked_files"):
        linked = render.plural(report["linked_files"], "file is", "files are")
        notes.append(f"note: {linked} the dataset's own: a later write into the dataset changes the bag")
    if form == "croissant":
        notes.append("note: license, creator, url and datePublished are not known here: add them before you publish")
    return notes
