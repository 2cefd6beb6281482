"""``reprod diff``: of two runs, which is more than their data, or of two states of a dataset."""

import argparse


def run(args: argparse.Namespace) -> int:
    """Compare; return 1 if they differ, 5 if one of them is not wholly known."""
    if args.a.startswith("run:") and (args.b or "").startswith("run:"):
        from reprod.cli import run_diff

        return run_diff.run(args)
    from reprod.cli import state_diff

    return state_diff.run(args)
