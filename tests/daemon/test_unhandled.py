"""What the event loop reports: a woken reader that was cancelled is nothing, everything else is an error."""

import asyncio
import logging
import socket
from importlib.metadata import version

import anyio
import pytest
from anyio.abc import SocketStream

from reprod.daemon.unhandled import say_unhandled


async def test_a_reader_that_is_cancelled_when_its_data_comes_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Data and cancellation in the same turn of the loop leave nothing in the log; a callback that fails does."""
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        seen.append(str(context["message"]))
        say_unhandled(loop, context)

    loop.set_exception_handler(handle)
    try:
        with caplog.at_level(logging.ERROR, "asyncio"):
            await cancel_at_the_moment_of_data(loop)
            if not seen:
                pytest.skip(f"anyio {version('anyio')} wakes no cancelled reader")
            assert caplog.records == []
            loop.call_soon(lambda: 1 / 0)
            await anyio.sleep(0.01)
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
    finally:
        loop.set_exception_handler(None)


async def cancel_at_the_moment_of_data(loop: asyncio.AbstractEventLoop) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream: SocketStream = await anyio.abc.UNIXSocketStream.from_socket(ours)
    async with anyio.create_task_group() as group:
        group.start_soon(stream.receive)
        await anyio.sleep(0.01)
        loop.call_soon(group.cancel_scope.cancel)
        theirs.send(b"x")
        await anyio.sleep_forever()
    await anyio.sleep(0.01)
    theirs.close()
    await stream.aclose()
