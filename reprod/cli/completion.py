"""``reprod completion``: what may follow in a command line, for bash, zsh and fish.

Rule: somebody has pressed a key and waits: whatever goes wrong, nothing is said and the code is 0; a daemon gets
``ANSWER_S``, then the registry is read. Commands and flags are those of the parser itself. Answers are lines of a word
and, after a tab, what it is; ``:files`` says that names of files are good as well.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from reprod.cli import codes, render
from reprod.cli.completion_scripts import SCRIPTS

ANSWER_S = 0.2
FILES = ":files"

_LONGEST_HELP = 60

_ALGORITHMS = ("md5", "sha1", "sha256", "sha512", "blake2b", "blake3")
_FILE_METAVARS = frozenset({"PATH", "NEWPATH", "F", "DIR", "FOLDER"})

Word = tuple[str, str]


def run(args: argparse.Namespace) -> int:
    """Print the script of a shell; with words, what may follow them."""
    if not args.words:
        print(SCRIPTS[args.shell], end="")
        return codes.FINE
    words = args.words[1:] if args.words[0] == "--" else args.words
    try:
        lines = _lines(args.shell, words)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except Exception:  # noqa: BLE001 - there is a half-written command line on the screen
        return codes.FINE
    return codes.FINE


def _lines(shell: str, words: list[str]) -> list[str]:
    breaks = ""
    if shell == "bash":  # it says where the cursor is, and at which characters it begins a new word
        breaks, words = words[1] if len(words) > 1 else "", split(words[0] if words else "")
    prefix = words[-1] if words else ""
    # bash puts what is offered after the last of those characters that stand in the word; of @ in its place.
    done = max((prefix.rfind(each) + (each != "@") for each in ":@=" if each in breaks and each in prefix), default=0)
    found = dict.fromkeys(offer(words or [""]))
    return [
        word if word == FILES else f"{word[done:]}\t{_short(about)}"
        for word, about in found
        if word == FILES or (word.startswith(prefix) and word.isprintable())
    ]


def _short(text: str) -> str:
    shown = render.safe(text)
    return shown if len(shown) <= _LONGEST_HELP else f"{shown[: _LONGEST_HELP - 3]}..."


def split(line: str) -> list[str]:
    """Return the words of a command line up to the cursor, without the command; the last one is being written."""
    for close in ("", '"', "'"):  # a quotation may still be open
        try:
            words = shlex.split(line + close)
        except ValueError:
            continue
        ended = line != line.rstrip() and not close
        return [*words[1:], ""] if ended or len(words) < 2 else words[1:]
    return [""]


def offer(words: Sequence[str]) -> Iterator[Word]:
    """Yield what the last of ``words`` may become, after the ones before it."""
    from reprod.cli.tree import build_parser

    place = _Place(build_parser())
    for word in words[:-1]:
        place.step(word)
    yield from place.offer(words[-1])


class _Place:
    """Where in the tree of commands a command line has come to."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._enter(parser)

    def _enter(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._options = {text: action for action in parser._actions for text in action.option_strings}
        self._positionals = [action for action in parser._actions if not action.option_strings]
        self._wants: argparse.Action | None = None  # a flag whose value comes next
        self._only_positionals = False

    def step(self, word: str) -> None:
        """Take one whole word."""
        if word == "--":
            self._only_positionals, self._wants = True, None
        elif self._is_flag(word):
            option = self._options.get(word.partition("=")[0])
            takes = option is not None and option.nargs != 0 and "=" not in word
            self._wants = option if takes else None
        elif self._wants is not None:
            if self._wants.nargs not in {"+", "*"}:
                self._wants = None
        elif self._positionals:
            action = self._positionals[0]
            if isinstance(action, argparse._SubParsersAction):
                if word in action.choices:
                    self._enter(action.choices[word])
            elif action.nargs not in {"+", "*", argparse.REMAINDER}:
                self._positionals.pop(0)

    def _is_flag(self, word: str) -> bool:
        return word.startswith("-") and word != "-" and not self._only_positionals

    def offer(self, prefix: str) -> Iterator[Word]:
        """Yield what may stand here."""
        if self._is_flag(prefix):
            flag, equals, value = prefix.partition("=")
            option = self._options.get(flag)
            if equals and option is not None:
                yield from ((f"{flag}={word}", about) for word, about in self._values(option, value) if word != FILES)
            else:
                yield from ((text, a.help or "") for text, a in self._options.items() if text.startswith("--"))
        elif self._wants is not None:
            yield from self._values(self._wants, prefix)
        elif self._positionals:
            yield from self._values(self._positionals[0], prefix)

    def _values(self, action: argparse.Action, prefix: str) -> Iterator[Word]:
        """Yield values for a flag or a positional, by what its help calls them."""
        metavar = str(action.metavar or "")
        if isinstance(action, argparse._SubParsersAction):
            yield from ((each.dest, each.help or "") for each in action._choices_actions)
        elif action.choices is not None:
            yield from ((str(choice), "") for choice in action.choices)
        elif action.dest == "algorithm":
            yield from ((each, "") for each in _ALGORITHMS)
        elif metavar in {"REF", "A", "B"} and self._parser.prog.startswith("reprod env "):
            yield from _environments(prefix)
        elif metavar == "REF" or (metavar in {"A", "B"} and not action.option_strings):
            yield from _references(prefix)
        elif metavar == "run:ID":
            yield from _runs("run:")
        elif metavar == "RUN_ID":
            yield from _runs("")
        elif metavar in {"NAME", "OLD"} and not self._parser.prog.endswith("dataset add"):
            yield from _ask("datasets")
        elif metavar in _FILE_METAVARS:
            yield FILES, ""


def _references(prefix: str) -> Iterator[Word]:
    name, at, _ = prefix.partition("@")
    if prefix.startswith("run:"):
        yield from _runs("run:")
    elif at:
        yield from ((f"{name}@{version}", about) for version, about in _ask("versions", name))
    else:
        yield from _ask("datasets")
        yield "run:", "the version that a run started on"
        yield FILES, ""


def _environments(prefix: str) -> Iterator[Word]:
    if prefix.startswith("run:"):
        yield from _runs("run:")
        return
    yield from _ask("environments")
    yield from (("now", "this interpreter"), ("host", "this machine"), ("run:", "the environment of a run"))
    yield FILES, ""


def _runs(before: str) -> Iterator[Word]:
    yield from ((f"{before}{run}", about) for run, about in _ask("runs"))


def _ask(kind: str, name: str = "") -> list[Word]:
    """Ask the daemon, within ``ANSWER_S``, else the registry."""
    from reprod.client import connect
    from reprod.errors import ReprodError

    try:
        with connect(timeout_s=ANSWER_S, retry_s=0) as client:
            found: Any = client.call("complete", {"kind": kind, "name": name}).get("words")
        return [(str(word), str(about)) for word, about in found]
    except ReprodError:
        from reprod.config.places import known_state_dir
        from reprod.ops.words import words

        return words(known_state_dir(), kind, name)  # type: ignore[arg-type]
