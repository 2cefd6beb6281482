"""A process of ours that answers each line with one line: started, asked, ended.

Nothing blocks longer than told. Lines are bytes with their line feed; timeouts are in seconds.
"""

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

#: How long a killed process may take to disappear before we stop waiting for it (it is then reaped later).
REAP_TIMEOUT_S = 1.0


class GoneError(Exception):
    """Raised when the process closed its end of a pipe."""


class LineProcess:
    """One process, from its start to its end. ``kill`` may be called from any thread, the rest from one at a time.

    Its standard error goes to ``log_path``, which is started again, or nowhere.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log_path: Path | None) -> None:
        stderr: IO[bytes] | int = subprocess.DEVNULL
        if log_path is not None:
            stderr = log_path.open("wb")
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                bufsize=0,
            )
        finally:
            if not isinstance(stderr, int):
                stderr.close()
        for pipe in self._pipes():
            os.set_blocking(pipe.fileno(), False)

    @property
    def pid(self) -> int | None:
        """Its process id, or None once it has ended."""
        return self._process.pid if self._process.poll() is None else None

    def kill(self) -> None:
        """End it now; whoever waits for its answer learns so."""
        self._process.kill()

    def ask(self, line: bytes, timeout_s: float) -> bytes:
        """Write a line and return the one that answers it. Raises TimeoutError, `GoneError`."""
        stdin, stdout = (pipe.fileno() for pipe in self._pipes())
        deadline = time.monotonic() + timeout_s
        rest, reply = memoryview(line), bytearray()
        poller = select.poll()
        poller.register(stdin, select.POLLOUT)
        poller.register(stdout, select.POLLIN)
        while not reply.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            for fd, _ in poller.poll(left_s * 1000):
                try:
                    if fd == stdin:
                        rest = rest[os.write(stdin, rest) :]
                        if not rest:
                            poller.unregister(stdin)
                        continue
                    chunk = os.read(stdout, 1 << 20)
                except BlockingIOError:
                    continue
                except BrokenPipeError as error:
                    raise GoneError from error
                if not chunk:
                    raise GoneError
                reply += chunk
        return bytes(reply)

    def end(self, grace_s: float = 0.0) -> int | None:
        """Kill it if it does not end within the grace, and return its exit code if it is known."""
        try:
            code: int | None = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._reaped()
        for pipe in self._pipes():
            pipe.close()
        return code

    def _reaped(self) -> int | None:
        try:
            return self._process.wait(REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return None  # stuck in the kernel; subprocess reaps it later

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the process was started without pipes")
        return stdin, stdout
