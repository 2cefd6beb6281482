"""The processes that ``reprod demo`` starts beside its daemon: commands, which are waited for, and trainings.

Rule: every wait has a bound, and whoever starts one of them ends it. Times are seconds.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprod.errors import ReprodError

#: Measured on two cores: the longest command takes 3 s, most of it MLflow's import. The rest is for busy machines.
COMMAND_S = 90.0
#: A killed process is gone in milliseconds.
GONE_S = 5.0


class StepFailedError(ReprodError):
    """Raised when a step of the demo did not happen."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended: exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object that the command printed. Raises StepFailedError if it printed something else."""
        try:
            return dict(json.loads(self.out))
        except ValueError as error:
            raise StepFailedError(f"no JSON came, exit code {self.code}: {(self.err or self.out).strip()}") from error


class Command:
    """A command that was started; with ``show`` it writes to our own standard output."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, *, show: bool = False
    ) -> None:
        if sys.stdout is not None:
            sys.stdout.flush()
        self._words = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            cwd=folder,
            env=dict(environment),
        )

    def ran(self) -> Ran:
        """Return when it has ended. Raises StepFailedError if that takes too long."""
        try:
            out, err = self._process.communicate(timeout=COMMAND_S)
        except subprocess.TimeoutExpired as error:
            raise StepFailedError(f"it had not ended after {COMMAND_S:g} s: {' '.join(self._words)}") from error
        finally:
            self.kill()
        return Ran(self._process.returncode, out or "", err)

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate(timeout=GONE_S)


class Training:
    """A training that was started: it prints the id of its run at once, and its accuracy after it was told to end.

    Its output goes to ``log`` with the suffixes .out and .err, which can be read while it runs.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=folder, env=dict(environment)
            )

    def run_id(self) -> str:
        """Return the id of its run, "" before that has started. Raises StepFailedError if the training failed."""
        return self._line(0)

    def accuracy(self) -> str:
        """Return its accuracy, "" before it has ended. Raises StepFailedError if the training failed."""
        return "" if self._process.poll() is None else self._line(1)

    def end(self) -> None:
        """Tell it to come to its end."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it has failed: who asks for its accuracy is told how
                self._process.stdin.close()

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(GONE_S)
        self.end()

    def _line(self, number: int) -> str:
        ended = self._process.poll()  # before the output is read: what it wrote last must not be missed
        lines = self._out.read_text("utf-8", "replace").split("\n")[:-1]
        if number < len(lines) and not ended:
            return lines[number].strip()
        if ended is not None:
            said = self._err.read_text("utf-8", "replace").strip() or f"exit code {ended}"
            raise StepFailedError(f"the training failed: {said[-500:]}")
        return ""
