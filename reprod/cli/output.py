"""How a command that writes an output ends: whatever ends it, nothing that is half made stays behind."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as SIGINT does, so that what is temporary goes with the process.

    A signal that is ignored stays so: ``nohup`` means it. A second one does not cut the clearing up short.
    """

    def leave(number: int, _: object) -> NoReturn:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    asked = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in asked}
    for number in asked:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
