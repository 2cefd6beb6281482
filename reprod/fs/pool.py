"""Hash many files at once: worker processes for small files, threads for large ones, in-line when there are few.

A pool belongs to one refresh and dies with it: workers are spawned at the first full batch (some 60 ms) and inherit the
open root. Each has a few batches queued in its pipe, so that it never waits for the interpreter lock of the caller, who
is busy writing rows. What is in flight is bounded, so memory does not grow with the tree. Results come in any order.
"""

import errno
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from reprod.fs.hash import Hashed, Outcome, hash_at
from reprod.fs.ladder import Ladder
from reprod.fs.worker import LARGE, Batch, frame, hash_batch

BATCH_FILES = 256  # some 2 ms of work: small enough to share evenly, large enough that a hop does not count
BATCH_BYTES = 8 << 20
BATCH_NAMES = 16 << 10  # bytes of names and paths as they are sent
QUEUED_NAMES = 48 << 10  # of these in one worker's pipe: it holds 64 KiB, so sending never blocks
QUEUED_BATCHES = 4  # and no more than that, so that the last ones are shared evenly
NAME_OVERHEAD = 3  # MessagePack's head of a name, at most
GROUP_OVERHEAD = 20  # and of a directory with its list, the frame's own head included
MAX_WORKERS = 8
ATTEMPTS = 2  # a batch whose worker died is given to another once, then done here

#: How long a worker may take for one batch of at most 8 MiB before it is given up: a hung mount, not a slow disk.
BATCH_TIMEOUT_S = 600.0

_LENGTH = struct.Struct("<I")

#: What a caller hangs on a file and gets back with its result.
Tag = Any

#: A file with its result: ``(directory, name, tag, hashed)``.
Row = tuple[bytes, bytes, Tag, Hashed]


@dataclass(slots=True)
class _Batch:
    """Directories, each with names and tags; filled here, hashed elsewhere."""

    groups: list[tuple[bytes, list[bytes], list[Tag]]] = field(default_factory=list)
    files: int = 0
    size: int = 0
    names: int = 0
    attempts: int = 0

    def add(self, directory: bytes, name: bytes, size: int, tag: Tag) -> bool:
        """Take one file; whether the batch is full now."""
        if not self.groups or self.groups[-1][0] != directory:
            self.groups.append((directory, [], []))
            self.names += len(directory) + GROUP_OVERHEAD
        _, names, tags = self.groups[-1]
        names.append(name)
        tags.append(tag)
        self.files += 1
        self.size += size
        self.names += len(name) + NAME_OVERHEAD
        return self.files >= BATCH_FILES or self.size >= BATCH_BYTES or self.names >= BATCH_NAMES

    def asked(self) -> Batch:
        """Return what a worker is sent."""
        return [(path, names) for path, names, _ in self.groups]

    def rows(self, results: Iterable[Hashed]) -> list[Row]:
        """Put results, in the order of the batch, beside what they are of."""
        result = iter(results)
        return [
            (path, name, tag, next(result))
            for path, names, tags in self.groups
            for name, tag in zip(names, tags, strict=True)
        ]


class _Worker:
    """A worker process with the batches in its pipe."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a worker needs pipes")
        self.process = process
        self.stdin, self.stdout = process.stdin.fileno(), process.stdout.fileno()
        self.queued: deque[_Batch] = deque()
        self.since = time.monotonic()
        self._read = bytearray()

    def takes(self, batch: _Batch) -> bool:
        """Whether a batch fits into the pipe without blocking."""
        queued = len(self.queued)
        room = QUEUED_NAMES - sum(b.names for b in self.queued)
        return not queued or (queued < QUEUED_BATCHES and batch.names <= room)

    def send(self, batch: _Batch) -> None:
        """Queue a batch. Raises OSError if the process is gone."""
        if not self.queued:
            self.since = time.monotonic()
        self.queued.append(batch)
        data = memoryview(frame(batch.asked()))
        while data:
            data = data[os.write(self.stdin, data) :]

    def receive(self) -> list[list[Row]]:
        """Read what is there and return finished batches. Raises OSError at EOF and for garbage."""
        data = os.read(self.stdout, 1 << 20)
        if not data:
            raise OSError(errno.EPIPE, "the worker ended")
        self._read += data
        done: list[list[Row]] = []
        while len(self._read) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._read)[0]
            if len(self._read) < end:
                break
            try:
                results = msgspec.msgpack.decode(memoryview(self._read)[_LENGTH.size : end], type=list[Hashed])
            except msgspec.MsgspecError as error:
                raise OSError(errno.EPROTO, "the worker sent garbage") from error
            del self._read[:end]
            done.append(self.queued.popleft().rows(results))
            self.since = time.monotonic()
        return done

    def close(self) -> None:
        """Kill the process and reap it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class HashPool:
    """Feeds files to workers and yields their results in batches. Used by one thread.

    :param root: descriptor of the dataset's root, the caller's.
    :param workers: 0 means as many as there are processors, at most 8.
    """

    def __init__(self, root: int, *, slack_ns: int, extra: tuple[str, ...] = (), workers: int = 0) -> None:
        self._root, self._slack_ns, self._extra = root, slack_ns, extra
        self.workers = workers or min(MAX_WORKERS, len(os.sched_getaffinity(0)))
        self._open = _Batch()
        self._waiting: deque[_Batch] = deque()
        self._ready: list[list[Row]] = []
        self._alive: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._large: ThreadPoolExecutor | None = None
        self._reading: set[Future[list[Row]]] = set()
        self._stopping = threading.Event()

    def add(self, directory: bytes, name: bytes, size: int, tag: Tag = None) -> None:
        """Take one file; ``tag`` comes back with its result."""
        if size >= LARGE:
            if self._large is None:
                self._large = ThreadPoolExecutor(self.workers, thread_name_prefix="reprod-hash")
            self._reading.add(self._large.submit(self._hash_large, directory, name, tag))
        elif self._open.add(directory, name, size, tag):
            self._close_batch()

    def add_unknown(self, directory: bytes, names: list[bytes], tag: Tag = None) -> None:
        """Take files of one directory whose size nobody knows. A large one comes back as LARGE, to be added again."""
        for i in range(0, len(names), BATCH_FILES):
            some = names[i : i + BATCH_FILES]
            size = sum(map(len, some)) + NAME_OVERHEAD * len(some) + len(directory) + GROUP_OVERHEAD
            if self._open.files + len(some) > BATCH_FILES or self._open.names + size > BATCH_NAMES:
                self._close_batch()
            self._open.groups.append((directory, some, [tag] * len(some)))
            self._open.files += len(some)
            self._open.names += size

    def collect(self, checkpoint: Callable[[], None], *, everything: bool = False) -> Iterator[list[Row]]:
        """Yield finished batches: what is needed to keep the window bounded, or all that is left.

        ``checkpoint`` is called at least every 100 ms while waiting; it raises to stop.
        """
        if everything:
            self._take_last()
        while self._in_flight():
            enough = not everything and len(self._waiting) <= self.workers and len(self._reading) <= 2 * self.workers
            self._receive_small(0.0 if enough or self._reading or self._ready else 0.1)
            self._receive_large(0.0 if enough or self._ready else 0.1)
            checkpoint()
            found, self._ready = self._ready, []
            yield from found
            self._send_waiting()
            if enough and not found:
                return

    def close(self) -> None:
        """Stop at once: running reads end at their next chunk, workers are killed."""
        self._stopping.set()
        for worker in self._alive:
            worker.close()
        self._alive.clear()
        self._selector.close()
        if self._large is not None:
            self._large.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- small files -------------------------------------------------------------------------------------------------

    def _in_flight(self) -> bool:
        return bool(self._ready or self._waiting or self._reading or any(worker.queued for worker in self._alive))

    def _take_last(self) -> None:
        """Hash what is left of the open batch: here, if it is all there ever was, else in a worker."""
        batch, self._open = self._open, _Batch()
        if self._alive and batch.files:
            self._waiting.append(batch)
            self._send_waiting()
        elif batch.files:
            self._hash_here(batch)

    def _close_batch(self) -> None:
        if self._open.files:
            self._waiting.append(self._open)
            self._open = _Batch()
            self._send_waiting()

    def _hash_here(self, batch: _Batch) -> None:
        with Ladder(self._root) as ladder:
            self._ready.append(batch.rows(hash_batch(ladder, batch.asked(), self._slack_ns, self._extra)))

    def _send_waiting(self) -> None:
        """Give waiting batches to the least busy workers, as many as fit; spawn what is missing."""
        while self._waiting:
            batch = self._waiting[0]
            if len(self._alive) < self.workers and all(worker.queued for worker in self._alive):
                self._spawn()
            if not self._alive:  # no process to be had (memory, descriptors): slower, and as right
                self._hash_here(self._waiting.popleft())
                continue
            worker = min(self._alive, key=lambda w: len(w.queued))
            if not worker.takes(batch):
                return
            self._waiting.popleft()
            try:
                worker.send(batch)
            except OSError:
                self._bury(worker)

    def _receive_small(self, timeout_s: float) -> None:
        """Take what workers have finished; a worker that died or hangs gives its batches back."""
        if not self._alive:
            return
        for key, _ in self._selector.select(timeout_s):
            worker: _Worker = key.data
            try:
                self._ready += worker.receive()
            except OSError:
                self._bury(worker)
        for worker in [w for w in self._alive if w.queued and time.monotonic() - w.since > BATCH_TIMEOUT_S]:
            stuck = worker.queued.popleft()
            self._ready.append(stuck.rows([Hashed(Outcome.UNREADABLE, error=errno.ETIMEDOUT)] * stuck.files))
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """Take the batches of a dead worker back: another gets them; what killed two is done here."""
        self._selector.unregister(worker.stdout)
        self._alive.remove(worker)
        worker.close()
        for batch in worker.queued:
            batch.attempts += 1
            if batch.attempts < ATTEMPTS:
                self._waiting.append(batch)
            else:
                self._hash_here(batch)

    def _spawn(self) -> None:
        package = str(Path(__file__).parents[2])  # found even where reprod is only on the parent's sys.path
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        command = [
            sys.executable,
            "-m",
            "reprod.fs.worker",
            str(self._root),
            str(self._slack_ns),
            ",".join(self._extra),
        ]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=(self._root,),
                env={**os.environ, "PYTHONPATH": paths},
                cwd="/",
            )
        except OSError:
            self.workers = len(self._alive)  # what runs must do
            return
        worker = _Worker(process)
        self._alive.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)

    # --- large files -------------------------------------------------------------------------------------------------

    def _receive_large(self, timeout_s: float) -> None:
        if self._reading:
            done, self._reading = wait(self._reading, timeout=timeout_s, return_when=FIRST_COMPLETED)
            self._ready += [future.result() for future in done]

    def _hash_large(self, directory: bytes, name: bytes, tag: Tag) -> list[Row]:
        try:
            with Ladder(self._root) as ladder:
                fd = ladder.open(directory) if directory else self._root
                hashed = hash_at(fd, name, self._slack_ns, self._extra, self._stopping.is_set)
        except (FileNotFoundError, NotADirectoryError):
            hashed = Hashed(Outcome.VANISHED)
        except OSError as error:
            hashed = Hashed(Outcome.UNREADABLE, error=error.errno or errno.EIO)
        return [(directory, name, tag, hashed)]
