"""``reprod snapshot``: pin what a dataset holds now, and deliver it to a run if one is named."""

import argparse
import sys

from reprod.cli import codes, render
from reprod.cli.scan import SILENCE_S
from reprod.cli.screen import ProgressLine, Screen
from reprod.client import connect


def run(args: argparse.Namespace) -> int:
    """Take a snapshot; return 0, or 5 if the set is incomplete and therefore has no digest."""
    params = {"name": args.name, "run_id": args.run_id}
    with connect() as client, ProgressLine(render.safe(args.name)) as progress:
        answer = client.call("snapshot", params, timeout_s=SILENCE_S, on_progress=progress.show, patient=True)
    incomplete = answer.get("complete") is False
    if args.json:
        print(render.to_json("snapshot", answer))
        return codes.INCOMPLETE if incomplete else codes.FINE
    screen = Screen(sys.stdout)
    name = screen.paint(render.safe(answer.get("name")), "bold")
    screen.prose(
        f"{name}  @{answer.get('version', '-')}  {render.safe(answer.get('digest') or 'no digest')}   "
        f"{render.plural(answer.get('files') or 0, 'file')}, {render.size(answer.get('bytes'))}"
    )
    screen.prose(f"sealed {render.ago(answer.get('sealed_at'))} · assurance {render.safe(answer.get('assurance'))}", 2)
    if answer.get("run_id"):
        state = " (waiting for the tracking server)" if answer.get("delivery") == "waiting" else ""
        screen.prose(f"for run {render.safe(answer['run_id'])}{state}", 2)
    if incomplete:
        screen.prose(f"incomplete: which files and why: reprod status {render.safe(answer.get('name'))}", 2, "yellow")
    return codes.INCOMPLETE if incomplete else codes.FINE
