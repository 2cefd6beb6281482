"""Flags that several commands have, and what their values may be.

Everything that is wrong with a single value is said by argparse with the flag's name (exit code 2); what depends on two
flags is the command's own matter, but for `depth_of`, which several have.
"""

import argparse
import re
from typing import TYPE_CHECKING

from reprod.errors import UsageError

if TYPE_CHECKING:
    from reprod.ops.sample import Mode, Sample


class Values(argparse.Action):
    """Collects the values of a repeatable flag and remembers who took the last ones: a PATH may be among them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        """Add ``values``, a list."""
        if isinstance(values, list):
            setattr(namespace, self.dest, [*getattr(namespace, self.dest), *values])
            namespace.last_values = (self.dest, len(values))


def depth_flags(parser: argparse.ArgumentParser) -> None:
    """Add how much of the files a verification reads: ``mode`` (None: not said), ``sample`` and ``seed``."""
    # `--sample -1%` is a value that is wrong, no flag that nobody knows: what begins like a negative number is a value.
    parser._negative_number_matcher = re.compile(r"-[\d.]")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_const", const="quick", dest="mode", help="compare sizes and times only")
    mode.add_argument(
        "--sample", metavar="P%", type=_percent, help="read that part of the files, and all whose times changed"
    )
    mode.add_argument("--full", action="store_const", const="full", dest="mode", help="read every byte (the default)")
    mode.add_argument(
        "--uncached", action="store_const", const="uncached", dest="mode",
        help="read every byte from the disk, not from the page cache",
    )  # fmt: skip
    parser.add_argument("--seed", metavar="N", type=_seed, help="with --sample: take the same files again")


def depth_of(args: argparse.Namespace) -> "tuple[Mode, Sample | None]":
    """Return how deep to look. Raises UsageError for a seed without a sample."""
    from reprod.ops.sample import Sample

    if args.sample is None:
        if args.seed is not None:
            raise UsageError("--seed says which files a sample takes, and there is none", hint="--sample 1% --seed 7")
        return args.mode or "full", None
    return "sampled", Sample(args.sample) if args.seed is None else Sample(args.sample, args.seed)


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage from 0% to 100%")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or int(text) >= 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number below 2**64")
    return int(text)
