"""``reprod verify run:ID [PATH]`` for a run that no state here knows: its manifest is that of the tracking server.

PATH, or --root, is then where the files are, as for a manifest file; left out, they are looked for where they were.
"""

import argparse

from reprod.cli import render
from reprod.cli.flags import depth_of
from reprod.cli.run_server import asked
from reprod.cli.screen import ProgressLine
from reprod.cli.verify_view import tell
from reprod.errors import UsageError


def run(args: argparse.Namespace, root: str | None) -> int:
    """Verify the files below ``root``; exit codes as for any verification."""
    from reprod.ops.run_verify import verify_run

    if args.chain:
        raise UsageError("--chain is about the records, no file is looked at", hint=f"reprod verify {args.ref} --chain")
    if args.root is not None and args.path is not None:
        raise UsageError("both PATH and --root say where the files are", hint="give one of them")
    mode, sample = depth_of(args)
    with asked(args) as (child, config), ProgressLine(render.safe(args.ref)) as line:
        answer = verify_run(
            child, config, args.ref, name=args.dataset, root=root, mode=mode, sample=sample, progress=line.show
        )
    return tell(answer, as_json=args.json)
