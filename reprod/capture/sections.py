"""Owns what one collector may take, and what its failure becomes: a reason under its section's name, no exception.

Each runs in a thread of its own for at most its budget, in seconds; one that hangs, as a file of a dead server does, is
left behind and costs no other section. A thread takes 0.1 ms.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from reprod.core.redact import plain
from reprod.errors import IncompleteError

#: Collectors take milliseconds; a machine that swaps, or a cold cache, takes longer.
BUDGET_S = 2.0

_T = TypeVar("_T")


class Sections:
    """The sections of one capture: ``unknown`` is why those that gave nothing did not."""

    def __init__(self) -> None:
        self.unknown: dict[str, str] = {}

    def take(self, section: str, read: Callable[[], _T], budget_s: float = BUDGET_S) -> _T | None:
        """Return what ``read`` finds within its budget, or None with the reason noted under ``section``."""
        found: list[_T] = []
        failed: list[str] = []

        def run() -> None:
            try:
                found.append(read())
            except IncompleteError as error:
                failed.append(error.message)
            except Exception as error:  # noqa: BLE001 - an unforeseen failure must not cost the other sections
                failed.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=run, name=f"reprod-{section}", daemon=True)
        thread.start()
        thread.join(budget_s)
        if found:
            return found[0]
        self.unknown[section] = plain(failed[0]) if failed else f"timeout: it took over {budget_s:g} s"
        return None
