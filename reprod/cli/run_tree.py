"""The flags of ``reprod run``; everything from the first word that is no flag of its own on is the command's."""

import argparse

from reprod.cli.commands import Commands


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
