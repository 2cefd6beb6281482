"""``reprod report run:ID``: the page of a run, made anew from the tracking server, as a file for a browser."""

import argparse
import os
import sys
from pathlib import Path

from reprod.cli import codes, render
from reprod.cli.run_server import asked
from reprod.cli.screen import ProgressLine, Screen
from reprod.errors import UsageError

#: Characters of a run id in the name of the file.
_RUN_ID = 8

STDOUT = "-"


def run(args: argparse.Namespace) -> int:
    """Write the page; 5 if something of the run is not known any more."""
    from reprod.ops.generate import save
    from reprod.ops.run_page import make_page

    if args.output == "":
        raise UsageError("--output '' is no file", hint="name one, or '-' for standard output")
    with asked(args) as (child, _), ProgressLine("report") as line:
        found, page = make_page(child, args.run_ref, line.show)
    code = codes.INCOMPLETE if found.problems else codes.FINE
    if args.output == STDOUT:
        sys.stdout.buffer.write(page)
        return code
    path = Path(args.output or f"report-{found.run_id[:_RUN_ID]}.html")
    save([page], path)
    if args.json:
        told = {"run_id": found.run_id, "file": os.fspath(path.absolute()), "bytes": len(page)}
        print(render.to_json("report", {**told, "problems": list(found.problems)}))
        return code
    screen = Screen(sys.stdout)
    screen.prose(f"wrote {render.file_name(os.fspath(path))} ({render.size(len(page))}): open it in a browser")
    for problem in found.problems:
        screen.prose(f"{screen.mark('warn')} {render.safe(problem)}", 2, "yellow")
    return code
