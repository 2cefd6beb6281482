"""The detached companion of ``reprod run``: finds the Python that starts the runs, and hands over its environment.

A Python that starts a run has to import MLflow, which takes it 0.7 s: whoever looks once in a second meets it. So from
outside, with nothing installed there, the environment is that of the first process of the command that has MLflow. Each
other such prefix is handed over too: the daemon then knows that it cannot tell which of them a run had. It lives as
long as the command, as a process of low priority. Nothing is printed. Times are seconds.
"""

import os
import resource
import time
from typing import Any

from reprod.capture.process.command import (
    Interpreter,
    command_line,
    family,
    find_interpreter,
    identify,
    read_interpreter,
)
from reprod.capture.process.identity import is_alive
from reprod.core.process import ProcessContext
from reprod.errors import IncompleteError
from reprod.integrations import recorder

FIRST_S = 0.05
#: Until one was found (a look takes 10 us for each process of the machine), and after that: who trains takes longer.
SEEKING_S, FOUND_S = 1.0, 5.0
SLOWER = 1.15
#: So often is a process looked at whose environment is not clear: it may still be starting.
LOOKS = 20


class Watch:
    """What is known of one command: the processes that need no look any more, and the prefixes that were told."""

    def __init__(self, given: dict[str, Any], context: ProcessContext) -> None:
        self._given, self._context = given, context
        self._launcher = os.fsencode(given["launcher"])
        self._looks: dict[tuple[object, ...], int] = {}
        self._told: set[str] = set()

    def run(self) -> None:
        """Look until the command has ended."""
        pause_s = FIRST_S
        while is_alive(self._context):
            if command_line(self._context.pid) != self._launcher:  # it has become the command
                self.look()
            time.sleep(pause_s)
            pause_s = min(pause_s * SLOWER, FOUND_S if self._told else SEEKING_S)

    def look(self) -> None:
        """Look at each process of the command that was not looked at, and tell what is new."""
        for pid in family(self._context.pid):
            key = identify(pid)
            if key is None or self._looks.get(key, 0) >= LOOKS:
                continue
            try:
                found = find_interpreter(pid)
                if found is None or self._tell(found):
                    self._looks[key] = LOOKS
            except IncompleteError:
                self._looks[key] = self._looks.get(key, 0) + 1

    def _tell(self, found: Interpreter) -> bool:
        """Hand over what can start a run and cannot say so itself; whether that is settled for this process."""
        prefix = found.context.prefix
        if prefix in self._told or not found.has_mlflow or found.has("reprod"):
            return True
        record = read_interpreter(found)
        self._told.add(prefix)
        lines = list(recorder.shorter(self._context, record))
        # Where no daemon answers each is a file of its own: of one process there may be several.
        recorder.hand_over(self._given, self._context, f"record.{len(self._told)}", lines)
        return True


def watch(given: dict[str, Any]) -> None:
    """Watch the command that ``given`` describes to its end: ``context``, ``launcher``, ``found``, ``sockets``."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it reads variables: a crash leaves no file of them
    context = ProcessContext.from_object(given["context"])
    if context is not None:
        Watch(given, context).run()
