"""Hash many files at once: worker processes for small files, threads for large ones, in-line when there are few.

A pool belongs to one refresh and dies with it: workers are spawned at the first full batch (some 60 ms) and inherit the
open root. What is in flight is bounded, so memory does not grow with the tree. Batches come back in any order.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from reprod.errors import ReprodError
from reprod.fs.hash import Hashed, Outcome, hash_at
from reprod.fs.ladder import Ladder
from reprod.fs.worker import LARGE, Batch, hash_batch, receive, send

BATCH_FILES = 256  # a hop costs about 0.1 ms: 0.4 us a file
BATCH_BYTES = 8 << 20
MAX_WORKERS = 8

#: How long a worker may take for one batch of at most 8 MiB before it is given up: a hung mount, not a slow disk.
BATCH_TIMEOUT_S = 600.0


#: What a caller hangs on a file and gets back with its result.
Tag = Any

#: A file with its result: ``(directory, name, tag, hashed)``.
Row = tuple[bytes, bytes, Tag, Hashed]


@dataclass(slots=True)
class _Open:
    """The batch being filled: directories, each with names and tags."""

    groups: list[tuple[bytes, list[bytes], list[Tag]]] = field(default_factory=list)
    files: int = 0
    size: int = 0

    def rows(self, results: Iterable[Hashed]) -> list[Row]:
        """Put results, in the order of the batch, beside what they are of."""
        result = iter(results)
        return [
            (path, name, tag, next(result))
            for path, names, tags in self.groups
            for name, tag in zip(names, tags, strict=True)
        ]


class HashPool:
    """Feeds files to workers and yields their results in batches.

    :param root: descriptor of the dataset's root, the caller's.
    :param workers: 0 means as many as there are processors, at most 8.
    """

    def __init__(self, root: int, *, slack_ns: int, extra: tuple[str, ...] = (), workers: int = 0) -> None:
        self._root, self._slack_ns, self._extra = root, slack_ns, extra
        self.workers = workers or min(MAX_WORKERS, len(os.sched_getaffinity(0)))
        self._small: ThreadPoolExecutor | None = None
        self._large: ThreadPoolExecutor | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._mine = threading.local()
        self._stopping = threading.Event()
        self._open = _Open()
        self._pending: set[Future[list[Row]]] = set()

    def add(self, directory: bytes, name: bytes, size: int, tag: Tag = None) -> None:
        """Take one file; ``tag`` comes back with its result.

        Where the size is not known give 0: a large file then comes back as LARGE, with its size, to be added again.
        """
        if size >= LARGE:
            self._pending.add(self._threads().submit(self._hash_large, directory, name, tag))
            return
        batch = self._open
        if not batch.groups or batch.groups[-1][0] != directory:
            batch.groups.append((directory, [], []))
        _, names, tags = batch.groups[-1]
        names.append(name)
        tags.append(tag)
        batch.files += 1
        batch.size += size
        if batch.files >= BATCH_FILES or batch.size >= BATCH_BYTES:
            self._submit_small()

    def collect(self, checkpoint: Callable[[], None], *, everything: bool = False) -> Iterator[list[Row]]:
        """Yield finished batches: whatever is needed to keep the window bounded, or all that is left.

        ``checkpoint`` is called at least every 100 ms while waiting; it raises to stop.
        """
        if everything:
            yield from self._last_batch()
        window = 0 if everything else 3 * self.workers
        while self._pending:
            done, _ = wait(
                self._pending, timeout=0.1 if len(self._pending) > window else 0, return_when=FIRST_COMPLETED
            )
            checkpoint()
            self._pending -= done
            for future in done:
                yield future.result()
            if not done and len(self._pending) <= window:
                return

    def close(self) -> None:
        """Stop at once: running reads end at their next chunk, workers are killed."""
        self._stopping.set()
        for process in self._processes:
            process.kill()
        for executor in (self._small, self._large):
            if executor is not None:
                executor.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        pass  # what it had not read yet is not needed any more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _last_batch(self) -> Iterator[list[Row]]:
        """Hash what is left of the open batch: here, if it is all there ever was, else in a worker."""
        if self._small is not None:
            self._submit_small()
        elif self._open.files:
            batch, self._open = self._open, _Open()
            with Ladder(self._root) as ladder:
                for group in batch.groups:
                    if self._stopping.is_set():
                        return
                    results = hash_batch(ladder, [group[:2]], self._slack_ns, self._extra)
                    yield _Open([group]).rows(results)

    def _threads(self) -> ThreadPoolExecutor:
        if self._large is None:
            self._large = ThreadPoolExecutor(self.workers, thread_name_prefix="reprod-hash")
        return self._large

    def _submit_small(self) -> None:
        if not self._open.files:
            return
        if self._small is None:
            self._small = ThreadPoolExecutor(self.workers, thread_name_prefix="reprod-feed")
        batch, self._open = self._open, _Open()
        self._pending.add(self._small.submit(self._feed, batch))

    def _hash_large(self, directory: bytes, name: bytes, tag: Tag) -> list[Row]:
        try:
            with Ladder(self._root) as ladder:
                fd = ladder.open(directory) if directory else self._root
                hashed = hash_at(fd, name, self._slack_ns, self._extra, self._stopping.is_set)
        except (FileNotFoundError, NotADirectoryError):
            hashed = Hashed(Outcome.VANISHED)
        except OSError as error:
            hashed = Hashed(Outcome.UNREADABLE, error=error.errno or 5)
        return [(directory, name, tag, hashed)]

    def _feed(self, batch: _Open) -> list[Row]:
        """Have this thread's worker hash a batch. A worker that dies is replaced once; then the batch is done here."""
        asked: Batch = [group[:2] for group in batch.groups]
        for _ in range(2):
            if self._stopping.is_set():
                raise ReprodError("hashing was stopped")
            try:
                return batch.rows(self._ask(asked))
            except (OSError, ValueError):
                self._mine.worker = None  # killed from outside (out of memory?): another one takes the batch
        with Ladder(self._root) as ladder:
            return batch.rows(hash_batch(ladder, asked, self._slack_ns, self._extra))

    def _ask(self, batch: Batch) -> list[Hashed]:
        worker = getattr(self._mine, "worker", None) or self._spawn()
        timer = threading.Timer(BATCH_TIMEOUT_S, worker.kill)
        timer.daemon = True
        timer.start()
        try:
            send(cast("BinaryIO", worker.stdin), batch)
            reply = receive(cast("BinaryIO", worker.stdout), list[Hashed])
        finally:
            timer.cancel()
        if reply is None:
            raise OSError("the worker ended")
        return cast("list[Hashed]", reply)

    def _spawn(self) -> subprocess.Popen[bytes]:
        package = str(Path(__file__).parents[2])  # found even where reprod is only on the parent's sys.path
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        }
        worker = subprocess.Popen(
            [sys.executable, "-m", "reprod.fs.worker", str(self._root), str(self._slack_ns), ",".join(self._extra)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._root,),
            env=environment,
            cwd="/",
        )
        self._processes.append(worker)
        self._mine.worker = worker
        if self._stopping.is_set():
            worker.kill()
        return worker


def wait_until_settled(ctime_ns: int, slack_ns: int) -> None:
    """Sleep until a read of a file with this ctime can be clean; at most the slack, nothing for a ctime to come."""
    left = ctime_ns + slack_ns - time.time_ns()
    if 0 < left <= slack_ns:
        time.sleep(left / 1e9 + 0.001)
