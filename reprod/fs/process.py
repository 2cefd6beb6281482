"""A worker process with the batches in its pipe: spawn it, feed it, take its answers, bury it."""

import errno
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from reprod.fs.batch import OpenBatch, Results
from reprod.fs.worker import frame, pack_batch

QUEUED_NAMES = 48 << 10  # bytes of names in one worker's pipe: it holds 64 KiB, so sending never blocks
QUEUED_BATCHES = 12  # 25 ms of work: longer than the caller is away to write a batch of rows

#: Isolated and without `site`, which takes half of the start; the parent's path finds reprod, and blake3 if need be.
_BOOT = (
    "import sys; root, slack_ns, unseen_ns, extra, sync, path = sys.argv[1:]; sys.path[:] = path.split('\\n'); "
    "from reprod.fs.worker import main; "
    "main(int(root), int(slack_ns), int(unseen_ns), tuple(filter(None, extra.split(','))), sync=sync == 'True')"
)


class WorkerProcess:
    """Spawned with a descriptor of the root. Raises OSError if there is no process to be had.

    :param slack_ns: how far from its ctime the read of a file must begin.
    :param unseen_ns: what changed less than this ago must not be open for writing.
    :param extra: algorithms beside sha256.
    :param sync: ask the server for attributes (``reprod.fs.statx``).
    """

    def __init__(self, root: int, slack_ns: int, unseen_ns: int, extra: tuple[str, ...], *, sync: bool = False) -> None:
        package = str(Path(__file__).parents[2])  # found even where an import hook finds reprod for the parent
        path = "\n".join(os.path.abspath(entry) for entry in [package, *sys.path])
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _BOOT),
                str(root),
                str(slack_ns),
                str(unseen_ns),
                ",".join(extra),
                str(sync),
                path,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(root,),
            cwd="/",
            process_group=0,  # Ctrl-C is the parent's to handle; EOF ends this one
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise ValueError("a worker needs pipes")
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.queued: deque[OpenBatch] = deque()
        self.since = time.monotonic()
        self._extra = extra
        self._read = bytearray()

    def takes(self, batch: OpenBatch) -> bool:
        """Whether a batch fits into the pipe without blocking."""
        queued = len(self.queued)
        room = QUEUED_NAMES - sum(b.names for b in self.queued)
        return not queued or (queued < QUEUED_BATCHES and batch.names <= room)

    def send(self, batch: OpenBatch) -> None:
        """Queue a batch. Raises OSError if the process is gone."""
        if not self.queued:
            self.since = time.monotonic()
        self.queued.append(batch)
        data = memoryview(frame(pack_batch(batch.asked(), read=batch.read)))
        while data:
            data = data[os.write(self.stdin, data) :]

    def receive(self) -> list[Results]:
        """Read what is there and return finished batches. Raises OSError at EOF and for garbage."""
        data = os.read(self.stdout, 1 << 20)
        if not data:
            raise OSError(errno.EPIPE, "the worker ended")
        self._read += data
        done: list[Results] = []
        while len(self._read) >= 4:
            end = 4 + int.from_bytes(self._read[:4], "little")
            if len(self._read) < end:
                break
            body = bytes(memoryview(self._read)[4:end])
            del self._read[:end]
            try:
                done.append(Results(self.queued[0], body, self._extra))
            except (IndexError, ValueError) as error:
                raise OSError(errno.EPROTO, "the worker sent garbage") from error
            self.queued.popleft()
            self.since = time.monotonic()
        return done

    def close(self) -> None:
        """Kill the process and reap it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
