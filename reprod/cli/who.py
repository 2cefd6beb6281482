"""``reprod who NAME PATH``: which runs had this file in their data, by its content and by its name.

Everything comes from the tracking server. 0 if a run had it, 4 if none, 5 if not every run could be looked at.
"""

import argparse
import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.run_server import asked
from reprod.cli.screen import Column, ProgressLine, Screen, table
from reprod.core.run import DATASET_NAME, is_subdirectory, split_name
from reprod.errors import NotFoundError, UsageError

#: Characters of a run id: ``run:`` takes any that are unique.
_RUN_ID = 8


def run(args: argparse.Namespace) -> int:
    """List the runs, the newest first."""
    from reprod.ops.run_who import who

    name, below = split_name(args.name)
    if not DATASET_NAME.match(name) or (below is not None and not is_subdirectory(below)):
        raise UsageError(f"{args.name!r} is no name of a dataset", hint="reprod dataset list")
    if not args.path:
        raise UsageError("the PATH is empty", hint="a file here, a path inside the dataset, or sha256:HEX")
    with asked(args) as (child, config), ProgressLine(render.safe(args.name)) as line:
        answer = who(child, config, args.name, args.path, line.show)
    if args.json:
        print(render.to_json("who", answer))
    else:
        _show(Screen(sys.stdout), answer)
    if not answer["complete"]:
        return codes.INCOMPLETE
    return codes.FINE if answer["runs"] else NotFoundError.exit_code


_HEADS = [
    Column("RUN"),
    Column("NAME", drop=2),
    Column("EXPERIMENT", drop=4),
    Column("STARTED", drop=1),
    Column("DIGEST", drop=3),
    Column("IT HELD"),
]


def _show(screen: Screen, answer: dict[str, Any]) -> None:
    what = render.safe(answer["path"])
    if answer["sha256"]:
        what += f" (sha256 {answer['sha256'][:12]})"
    held = [row for row in answer["runs"] if row["held"]]
    rows = answer["runs"]
    if not rows:
        said = f"no run on {render.safe(answer['name'])} held {what}"
        if answer["unknown"]:
            said = f"whether a run on {render.safe(answer['name'])} held {what} is not known"
        screen.prose(f"{screen.mark('warn')} {said}", 0, "yellow")
    else:
        by_content = f"{render.plural(len(held), 'run')} held this content" if answer["sha256"] else ""
        by_name = [row for row in rows if row["at_path"] and not row["held"]]
        other = "another content at that name" if answer["sha256"] else "something at that name"
        told = [by_content, f"{render.plural(len(by_name), 'run')} held {other}" if by_name else ""]
        screen.prose(f"{what}: {', '.join(part for part in told if part)}")
        shown = screen.listed(rows)
        for line in table(screen, _HEADS, [_row(row) for row in shown], indent=0):
            screen.line(line)
        if len(rows) > len(shown):
            screen.prose(render.rest(len(rows) - len(shown), "run"), 0, "dim")
    if answer["without"]:
        others = render.plural(answer["without"], "other run" if rows else "run")
        screen.prose(f"{others} on it did not hold it", 0, "dim")
    for row in screen.listed(answer["unknown"]):
        told_why = f"run {row['run_id'][:_RUN_ID]} could not be looked at: {row['unknown']}"
        screen.prose(f"{screen.mark('warn')} {render.safe(told_why)}", 0, "yellow")


def _row(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (render.safe(row["run_id"])[:_RUN_ID], "bold"),
        (render.safe(row["run_name"] or "-"), ""),
        (render.safe(row["experiment"] or "-"), ""),
        (render.ago(row["started_at"]), ""),
        (render.digest(row["digest"]), ""),
        _held(row),
    ]


def _held(row: dict[str, Any]) -> tuple[str, str]:
    """Return what a version held: this content and where, or what was at the name."""
    if row["held"]:
        first, *rest = [render.file_name(each) for each in row["held"]]
        more = len(rest) + row["held_more"]
        return f"{first}" + (f" and {more:,} more" if more else ""), "green"
    first, *_ = row["at_path"]
    known = first["same"] is None
    return f"{render.file_name(first)} {first['sha256'][:12]}", "" if known else "yellow"
