"""The signals that the daemon obeys, from its first line to its last: none is lost, and none ends it half-way.

The kernel's handler only writes the number into a pipe; a thread of this module reads it, so that a signal is heard
while the event loop, or an import, or a long call of the database is stuck. What nobody answers yet is remembered until
somebody does: a SIGHUP that comes during the start is a reload after it. Until ``hold`` a SIGTERM unwinds the start as
an exception; afterwards it is a call like the others. Whatever hangs then, the process ends at a deadline. Standard
library only, and quick to import: what comes before ``arm`` still ends the process. Times are seconds.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

#: A thread that hangs in the kernel (a dead mount) must not keep the process: everything worth keeping is committed.
STOP_DEADLINE_S = 1.8

#: What can be answered. SIGINT, of a terminal, is a stop like the other.
STOP, RELOAD, DUMP = signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2
STOPS = (STOP, signal.SIGINT)

_PIECE = 64


class Signals:
    """The signals of this process. One at a time, made in the main thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[int, Callable[[], object]] = {}
        self._waiting: set[int] = set()
        self._unwinds = True
        self._told, self._tell = -1, -1

    def arm(self) -> None:
        """Take the signals, which would end the process otherwise."""
        self._told, self._tell = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._tell, False)
        signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)  # as many as a pipe holds are as good as more
        for number in (*STOPS, RELOAD, DUMP):
            signal.signal(number, self._take)
        threading.Thread(target=self._serve, name="signals", daemon=True).start()

    def answer(self, number: int, call: Callable[[], object]) -> None:
        """Have ``call`` done for each such signal from now on, by any thread; at once if one came before."""
        with self._lock:
            self._answers[number] = call
            came = number in self._waiting
            self._waiting.discard(number)
        if came:
            call()

    def hold(self) -> None:
        """Let no signal unwind what is done from here on: somebody will answer."""
        self._unwinds = False

    def ignore(self) -> None:
        """At the end: nobody reads any more, and a signal has nothing to say."""
        for number in (*STOPS, RELOAD, DUMP):
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        """In the main thread, between two steps of Python; the thread hears of the signal by the pipe."""
        if self._unwinds and number in STOPS:
            self._unwinds = False  # once: a second one must not cut short what the first has the blocks clean up
            raise SystemExit(0)

    def _serve(self) -> None:
        stopping = False
        while True:
            for number in os.read(self._told, _PIECE):
                if number not in STOPS:
                    self._hear(number)
                elif not stopping:
                    stopping = True
                    deadline = threading.Timer(STOP_DEADLINE_S, _leave)
                    deadline.daemon = True
                    deadline.start()
                    self._hear(STOP)

    def _hear(self, number: int) -> None:
        with self._lock:
            call = self._answers.get(number)
            if call is None:
                self._waiting.add(number)
                return
        with suppress(RuntimeError):  # a loop that has ended: so has all that could answer
            call()


def _leave() -> None:
    with suppress(OSError, ValueError, AttributeError):  # a reader that went away, a closed stream, none at all
        sys.stderr.flush()
    os._exit(0)
