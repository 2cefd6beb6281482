"""SIGUSR2: one record in the log with all tasks, where each waits, and the stacks of all threads.

Works while the event loop is stuck, which is when it is needed: ``signals`` hears of the signal without it, and a
thread of its own, which sleeps until then, writes the record. Only what never gives up the interpreter lock keeps it
silent; for that the watchdog's SIGABRT ends the process with its stacks. On purpose no signal handler looks at the
stacks: faulthandler's, while threads were ending, ended one process in eight with a SIGSEGV (measured). Rule: nothing
here raises, or waits for long, and what cannot be told is left out. Stacks are shown without lines of source, which may
lie on a dead mount.
"""

import asyncio
import faulthandler
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any

ANSWER_S = 1.0  # a loop that has not answered within this is called stuck; the daemon's own work never takes so long
MOST_TASKS, MOST_FRAMES = 200, 40


class Dumps:
    """Writes a record when asked, from ``arm`` on and for the whole life of the process."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = threading.Event()

    def arm(self) -> None:
        """Be ready to be asked."""
        threading.Thread(target=self._serve, name="dump", daemon=True).start()

    def ask(self) -> None:
        """Have a record written soon. From any thread; more that come meanwhile are one."""
        self._asked.set()

    async def around(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run ``main``, whose loop is the one to tell of."""
        self._loop = asyncio.get_running_loop()
        await main()

    def _serve(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            try:
                self._write()
            except Exception as error:  # noqa: BLE001 - the stacks are to be had without Python's help too
                with suppress(Exception):
                    self._log.warning("daemon.dump", error=repr(error), dump=_bare_stacks())

    def _write(self) -> None:
        threads = _threads()
        tasks = _tasks(self._loop) if self._loop is not None else []
        shown = tasks[:MOST_TASKS] + (
            [f"task ... and {len(tasks) - MOST_TASKS} more"] if len(tasks) > MOST_TASKS else []
        )
        self._log.info(
            "daemon.dump",
            tasks=len(tasks),
            threads=len(threads),
            loop_answers=self._answers(),
            dump="\n".join([*threads, *shown]),
        )

    def _answers(self) -> bool:
        """Return whether the loop runs a callback soon."""
        answered = threading.Event()
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(answered.set)
        except RuntimeError:  # it has ended
            return False
        return answered.wait(ANSWER_S)


def _bare_stacks() -> str:
    """Return all stacks as faulthandler writes them in C."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode("utf-8", "replace")


def _threads() -> list[str]:
    """Return each thread with its stack, newest frame first, as faulthandler has it; that of the dump is left out."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    stacks = sys._current_frames()
    return [
        _block(f"thread {names.get(ident, '?')} ({ident})", _frames(frame))
        for ident, frame in sorted(stacks.items(), key=lambda item: names.get(item[0]) != "MainThread")
        if ident != own
    ]


def _frames(frame: FrameType | None) -> list[str]:
    lines: list[str] = []
    while frame is not None and len(lines) < MOST_FRAMES:
        lines.append(_place(frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return lines


def _tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return each task with what it waits in, innermost first."""
    blocks = []
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        lines = _awaited(task.get_coro())
        blocks.append(_block(f"task {task.get_name()}", lines[::-1]))
    return blocks


def _awaited(waiting: Any) -> list[str]:
    """Return where a coroutine is, what it awaits, and so on; the last may be a future, which has no place."""
    lines: list[str] = []
    while waiting is not None and len(lines) < MOST_FRAMES:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(waiting, f"{kind}_frame")), None)
        if kind is None:
            break
        frame = getattr(waiting, f"{kind}_frame")
        if frame is not None:
            lines.append(_place(frame.f_code, frame.f_lineno))
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return lines


def _place(code: CodeType, line: int | None) -> str:
    return f'  File "{code.co_filename}", line {line} in {code.co_qualname}'


def _block(head: str, lines: list[str]) -> str:
    return "\n".join([head, *(lines or ["  (no stack)"])])
