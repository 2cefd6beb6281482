"""How commands are described: one group of them side by side, each with its help, its examples and who runs it.

What every command says of itself, and the flags that every command takes, are the same by construction.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from reprod.cli import render


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments without obeying them: a shell's ``*`` may have put a file's name there."""

    #: What a wrong command line ends with; `reprod run` has codes of its own.
    usage_exit = 2

    def error(self, message: str) -> NoReturn:
        """Exit with ``usage_exit``."""
        self.print_usage(sys.stderr)
        self.exit(self.usage_exit, f"{self.prog}: error: {render.safe(message)}\n")


class Commands:
    """The commands of a parser, one of which is required; each takes the flags of ``shared`` too."""

    def __init__(self, parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
        self._parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
        self._shared = shared

    def add(self, name: str, run: str, text: str, examples: Sequence[str]) -> argparse.ArgumentParser:
        """Add one command; ``run`` is ``module:function`` below reprod.cli, ``examples`` close its --help."""
        parser = self._parsers.add_parser(
            name,
            help=text,
            description=_sentence(text),
            epilog=_listed(examples),
            parents=[self._shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.set_defaults(run=run)
        return parser

    def add_group(self, name: str, text: str, examples: Sequence[str]) -> "Commands":
        """Add a command that has commands of its own, and return those."""
        parser = self._parsers.add_parser(
            name,
            help=text,
            description=_sentence(text),
            epilog=_listed(examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return Commands(parser, self._shared)


def json_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flags for how an answer is written: for programs, and with or without colour."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal, the default"
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _listed(examples: Sequence[str]) -> str:
    return "\n  ".join(["examples:" if len(examples) > 1 else "example:", *examples])
