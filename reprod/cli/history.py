"""``reprod log``: the versions of a dataset, and which runs used them. No daemon needed."""

import argparse
import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.place import locate
from reprod.cli.scan import change_counts
from reprod.cli.screen import Column, Screen, table
from reprod.config import Config
from reprod.core.run import SHOWN_ID
from reprod.errors import NotFoundError

#: Runs that are told beside a version.
_RUNS = 2


def log(args: argparse.Namespace) -> int:
    """List the versions of one dataset, the newest first."""
    from reprod.ops import history

    place = locate(args)
    place.close()
    try:
        rows = history.log(place.state, args.name)
    except NotFoundError as error:
        raise unscanned(place.config(), args.name, error) from error
    if args.json:
        print(render.to_json("log", {"name": args.name, "versions": rows}))
        return codes.FINE
    screen = Screen(sys.stdout)
    if not rows:
        screen.prose(f"{render.safe(args.name)} has no version yet")
        return codes.FINE
    shown = screen.listed(rows)
    lines = iter(table(screen, _HEADS, [_log_row(row) for row in shown], indent=0))
    screen.line(next(lines))
    newest = rows[0].get("epoch")
    for row, line in zip(shown, lines, strict=True):
        if row.get("epoch") != newest:
            newest = row.get("epoch")
            root = render.file_name(row.get("root") or "?")
            screen.prose(f"before, at another root: {root} (nothing is compared across)", 0, "dim")
        screen.line(line)
    if len(rows) > len(shown):
        screen.prose(render.rest(len(rows) - len(shown), "version"), 0, "dim")
    return codes.FINE


_HEADS = [
    Column("VERSION"),
    Column("SEALED"),
    Column("CHANGES", drop=2),
    Column("FILES", right=True, drop=4),
    Column("SIZE", right=True, drop=3),
    Column("DIGEST"),
    Column("WHY AND FOR WHOM", drop=1, least=16),
]


def _log_row(row: dict[str, Any]) -> list[tuple[str, str]]:
    runs = [render.safe(run)[:SHOWN_ID] for run in row.get("runs") or []]
    shown = ", ".join(runs[:_RUNS]) + (f" and {len(runs) - _RUNS} more" if len(runs) > _RUNS else "")
    why = [_reason(row), "forgotten" if row.get("pruned") else "", f"run {shown}" if runs else ""]
    complete = row.get("complete", True)
    return [
        (f"@{row.get('version')}", "dim" if row.get("pruned") else "bold"),
        (render.ago(row.get("sealed_at")), ""),
        (change_counts(row), ""),
        (render.number(row.get("files")), ""),
        (render.size(row.get("bytes")), ""),
        (render.digest(row.get("digest")) if complete else "incomplete", "" if complete else "yellow"),
        (" → ".join(part for part in why if part), ""),
    ]


def _reason(row: dict[str, Any]) -> str:
    """Return why a version was sealed; a change of the selection with what is selected since, a move with where to."""
    reason = render.safe(row.get("reason") or "")
    if reason == "moved":
        return f"moved to {render.file_name(row.get('root'))}"
    selection = row.get("selection")
    if reason != "selection" or not isinstance(selection, dict):
        return reason
    told = [
        f"{key} {' '.join(render.safe(pattern) for pattern in selection[key])}"
        for key in ("include", "exclude", "ignore")
        if selection.get(key)
    ]
    return f"selection: {', '.join(told) or 'everything'}"


def unscanned(config: Config, ref: str | None, error: NotFoundError) -> NotFoundError:
    """Return what to say where nothing is known of a dataset: one that is registered only waits for its first scan."""
    name = (ref or "").partition("@")[0]
    known = any(item.name == name for item in config.datasets)
    if not known or (f"dataset named {name!r}" not in error.message and "registry.sqlite" not in error.message):
        return error
    return NotFoundError(f"{name} is not scanned yet", hint="start the daemon: reprod daemon")
