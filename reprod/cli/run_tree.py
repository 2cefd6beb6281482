"""The commands about the runs of this host: run, runs, retry; for ``reprod.cli.tree``.

Of ``run`` everything from the first word that is no flag of its own on is the command's.
"""

import argparse

from reprod.cli.commands import Commands, json_flag


def add_run(commands: Commands) -> None:
    """Add ``run``."""
    parser = commands.add(
        "run",
        "run_command:run",
        "start a command whose MLflow runs use a dataset; nothing need be installed where it trains",
        [
            "reprod run --dataset imagenet -- python train.py --epochs 3",
            "reprod run --dataset imagenet --dataset coco -- torchrun --nproc-per-node 4 train.py",
            "srun reprod run --dataset imagenet/train -- python train.py",
        ],
    )
    parser.usage = "%(prog)s [-h] --dataset NAME [--dataset NAME ...] [--strict] -- COMMAND ..."
    # What ends with 2 may have been the command; see `reprod.cli.run_command`.
    vars(parser)["usage_exit"] = 125
    parser.add_argument(
        "--dataset", metavar="NAME", action="append", required=True, help="or NAME/SUB; may be given several times"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit 125 instead of starting without a daemon that knows the dataset"
    )
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="what is started")


def add_runs(commands: Commands) -> None:
    """Add ``runs`` and ``retry``."""
    parser = commands.add(
        "runs",
        "runs:run",
        "list the runs that name a dataset here: recorded, waiting or failed, and why",
        ["reprod runs", "reprod runs --failed", "reprod runs --waiting --json"],
    )
    which = parser.add_mutually_exclusive_group()
    for name, text in (
        ("waiting", "only those that wait for a walk or for the tracking server"),
        ("incomplete", "only those that were recorded without a digest"),
        ("failed", "only those that could not be recorded: a person must act"),
    ):
        which.add_argument(f"--{name}", action="store_const", const=name, dest="which", help=text)
    parser.add_argument("--limit", metavar="N", type=_count, default=50, help="the newest N, at most 1000 (50)")
    json_flag(parser)
    parser = commands.add(
        "retry",
        "runs:retry",
        "try a run that failed, waits or is incomplete again now",
        ["reprod retry run:0a1b2c3d"],
    )
    parser.add_argument("run_ref", metavar="run:ID", help="its id, the first characters of that, or its name")
    json_flag(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1000")
    return int(text)
