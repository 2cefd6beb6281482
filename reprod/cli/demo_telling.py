"""How ``reprod demo`` tells what it does: numbered steps, the commands in them, and what came of each.

Rule: a step says what it will do, does it, and says what happened; one that did not happen ends the demo, and says
where the logs are. A command writes to the demo's own output as it would on a user's terminal, and is judged by its
exit code and by its JSON, never by that text. Times are seconds.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from reprod.cli import codes, render
from reprod.cli.demo_process import Ran, StepFailedError
from reprod.cli.demo_stage import Stage
from reprod.cli.main import BROKEN_PIPE
from reprod.cli.screen import Screen
from reprod.cli.width import wrapped
from reprod.errors import ReprodError

_LABEL = 19
_INDENT = 4


class Telling:
    """The screen of the demo; ``steps`` counts those that were told."""

    def __init__(self, stage: Stage) -> None:
        self.screen = Screen(sys.stdout)
        self.steps = 0
        self._stage = stage
        self._began = time.monotonic()

    def step(self, what: str, act: Callable[[], str], shown: str = "") -> None:
        """Do one step: say what, ``act``, say what it returned and how long it took.

        Raises StepFailedError with the place of the logs if it did not happen.
        """
        self.steps += 1
        self.screen.line()
        width = self.screen.width
        for i, line in enumerate(wrapped(what, max(20, width - _INDENT)) if width else [what]):
            number = f"{self.steps:2}" if i == 0 else ""
            self.screen.line(self.screen.paint(f"{number:{_INDENT}}{line}", "bold"))
        for line in shown.splitlines():
            self.screen.line(f"    {line}".rstrip())
        began = time.monotonic()
        try:
            happened = act()
        except (ReprodError, OSError) as error:
            _require_reader(error)
            self._fail(error)
        took = render.duration(time.monotonic() - began)
        self.screen.prose(f"{self._sign('good')} {happened} ({took})", _INDENT, "green")

    def end(self) -> None:
        """Say that all of it happened."""
        self.screen.line()
        took = render.duration(time.monotonic() - self._began)
        self.screen.prose(f"All {self.steps} steps happened, in {took}.", colour="bold")

    def command(self, *arguments: str, quiet: bool = False, code: int = codes.FINE) -> None:
        """Run a command on this terminal; ``quiet`` shows only that it was run."""
        self.typed("reprod", *arguments)
        expect_code(self._stage.reprod(*arguments, show=not quiet), code)

    def answer(self, *arguments: str, code: int, alone: bool = False) -> dict[str, Any]:
        """Run a command on this terminal and return what it says with --json; ``alone``: see Stage.begin."""
        self.typed(*(["MLFLOW_TRACKING_URI=" + self._stage.server.url] if alone else []), "reprod", *arguments)
        asked = self._stage.begin(*arguments, "--json", alone=alone)  # beside the other: most of both is one import
        try:
            expect_code(self._stage.begin(*arguments, show=True, alone=alone).ran(), code)
            ran = asked.ran()
        finally:
            asked.kill()
        expect_code(ran, code)
        return ran.document

    def typed(self, *words: str) -> None:
        """Show a command line, as it would be typed in the demo's folder."""
        quoted = (f'"{word}"' if "*" in word else word for word in words)
        self.screen.prose(render.safe("$ " + " ".join(quoted)), colour="cyan")

    def facts(self, facts: list[tuple[str, str]]) -> None:
        """Show values beside their names."""
        for key, value in facts:
            self.screen.line(f"    {key:{_LABEL}} {render.safe(value)}")

    def _fail(self, error: ReprodError | OSError) -> NoReturn:
        message, hint = (error.message, error.hint) if isinstance(error, ReprodError) else (str(error), "")
        logs = f"the logs are kept: {self._stage.daemon_log} {self._stage.folder}/training-* {self._stage.state}/*.log"
        self.screen.prose(f"{self._sign('bad')} {render.safe(message)}", _INDENT, "red")
        raise StepFailedError(
            f"step {self.steps} of the demo did not happen: {message}", hint=f"{hint}; {logs}" if hint else logs
        ) from error

    def _sign(self, kind: str) -> str:
        signs = {"good": ("✓", "ok"), "bad": ("✗", "failed:")}
        return signs[kind][0 if self.screen.unicode else 1]


def expect(fact: bool, otherwise: str) -> None:
    """Raise StepFailedError unless ``fact``."""
    if not fact:
        raise StepFailedError(otherwise)


def expect_code(ran: Ran, code: int) -> None:
    """Raise StepFailedError unless a command ended with ``code``; BrokenPipeError if nobody read what it wrote."""
    said = (ran.err or ran.out).strip()
    if ran.code == BROKEN_PIPE:
        raise BrokenPipeError
    expect(ran.code == code, f"exit code {ran.code} where {code} was due: {said[-500:]}")


def _require_reader(error: Exception) -> None:
    """Raise the OSError of our own output, if that is what ended a step: then nothing failed but the showing."""
    if isinstance(error, BrokenPipeError):
        raise error
    if sys.stdout is not None:
        sys.stdout.flush()
