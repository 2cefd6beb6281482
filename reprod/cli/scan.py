"""``reprod scan``: have the daemon walk and hash now, show how far it is, and say what changed."""

import argparse
import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.screen import ProgressLine, Screen
from reprod.client import connect
from reprod.errors import UsageError

# Silence after which the client asks a second time whether the daemon lives; a single file may take far longer.
SILENCE_S = 10.0
_PROBLEMS_SHOWN = 10


def run(args: argparse.Namespace) -> int:
    """Scan one dataset or all; return 0, or 5 if one is incomplete."""
    if args.accept_root and not args.name:
        raise UsageError("--accept-root needs the name of one dataset", hint="reprod scan NAME --accept-root")
    params = {"name": args.name, "full": args.full, "accept_root": args.accept_root}
    with connect() as client, ProgressLine() as progress:
        answer = client.call("scan", params, timeout_s=SILENCE_S, on_progress=progress.show, patient=True)
    datasets = answer.get("datasets") or []
    if args.json:
        print(render.to_json("scan", answer))
    else:
        screen = Screen(sys.stdout)
        for dataset in datasets:
            _show(screen, dataset)
        if not datasets:
            screen.prose("there is no dataset to scan")
            screen.prose("hint: reprod dataset add NAME PATH")
    return codes.worst(*(_code(dataset) for dataset in datasets))


def _code(dataset: dict[str, Any]) -> int:
    """Return the code of one dataset's scan; one that could not run may bring the code of its error."""
    if dataset.get("complete") is not False:
        return codes.FINE
    code = dataset.get("exit_code")
    return code if code in {codes.UNAVAILABLE, codes.DAMAGED} else codes.INCOMPLETE


def _show(screen: Screen, dataset: dict[str, Any]) -> None:
    name = screen.paint(render.safe(dataset.get("name")), "bold")
    if dataset.get("error"):
        screen.prose(f"{name}  not scanned: {render.safe(dataset['error'])}")
        if dataset.get("hint"):
            screen.prose(f"hint: {render.safe(dataset['hint'])}", 2, "dim")
        return
    changed = change_counts(dataset) if dataset.get("changed") else "unchanged"
    screen.prose(
        f"{name}  @{dataset.get('version', '-')}  {render.digest(dataset.get('digest'))}  {changed}   "
        f"{render.plural(dataset.get('files') or 0, 'file')}, {render.size(dataset.get('bytes'))}"
    )
    screen.prose(
        f"hashed {render.plural(dataset.get('hashed_files') or 0, 'file')}, "
        f"{render.size(dataset.get('hashed_bytes') or 0)} in {render.duration(dataset.get('seconds'))}",
        2,
        "dim",
    )
    if dataset.get("complete") is False:
        screen.prose("incomplete: no digest until these can be read", 2, "yellow")
    show_problems(screen, dataset, _PROBLEMS_SHOWN)


def change_counts(row: dict[str, Any]) -> str:
    """Return ``+12 −0 ~3`` for added, removed and modified."""
    return f"+{row.get('added') or 0:,} −{row.get('removed') or 0:,} ~{row.get('modified') or 0:,}"


def show_problems(screen: Screen, dataset: dict[str, Any], limit: int) -> None:
    """Write the entries that could not be read, ``limit`` of them, and how many more there are."""
    problems = dataset.get("problems") or []
    for problem in problems[:limit]:
        screen.prose(f"{render.file_name(problem)}: {render.safe(problem.get('problem'))}", 2)
    hidden = max(dataset.get("problem_count") or 0, len(problems)) - min(limit, len(problems))
    if hidden > 0:
        screen.prose(f"and {render.plural(hidden, 'more problem')} (--json lists them)", 2)
