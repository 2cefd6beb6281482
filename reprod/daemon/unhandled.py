"""What the event loop reports because nobody handled it, without what is nothing: an error in the log has to mean one.

A socket that has something to read in the very turn of the loop in which its reader is cancelled (a client that asks
while the daemon stops) makes anyio 4.16 wake a future that is cancelled already. Nothing is lost by that.
"""

import asyncio
from typing import Any


def say_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Have the loop log what it reports, unless a cancelled future was woken."""
    woken = str(context.get("message", "")).startswith("Exception in callback Future.set_result")
    if not (woken and isinstance(context.get("exception"), asyncio.InvalidStateError)):
        loop.default_exception_handler(context)
