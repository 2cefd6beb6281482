"""Hash many files at once: worker processes for small files, threads for large ones, in-line when there are few.

A pool belongs to one refresh and dies with it: workers are spawned at the first full batch and inherit the open root.
Each has a few batches queued in its pipe, so that it never waits for the interpreter lock of the caller, who is busy
writing rows. What is in flight is bounded, so memory does not grow with the tree. Results come in any order.
"""

import errno
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Self

from reprod.fs.batch import BATCH_FILES, GROUP_OVERHEAD, NAME_OVERHEAD, Group, OpenBatch, Results, Tag
from reprod.fs.ladder import Ladder
from reprod.fs.pace import Pace, Readers
from reprod.fs.process import WorkerProcess
from reprod.fs.read import UNREADABLE, VANISHED, WRITE_BACK_NS, Answer, read_at
from reprod.fs.worker import LARGE, answer_batch, pack_answers

MAX_WORKERS = 8
ATTEMPTS = 2  # a batch whose worker died is given to another once, then done here

#: How long a worker may take for one batch of at most 8 MiB before it is given up: a hung mount, not a slow disk.
BATCH_TIMEOUT_S = 600.0


class HashPool:
    """Feeds files to workers and yields their results in batches. Used by one thread.

    :param root: descriptor of the dataset's root, the caller's.
    :param slack_ns: how far from its ctime the read of a file must begin.
    :param unseen_ns: what changed less than this ago must not be open for writing.
    :param extra: algorithms beside sha256.
    :param workers: 0 means as many as there are processors, at most 8.
    :param sync: ask the server for attributes (``reprod.fs.statx``).
    :param slow: the disk may lose by several readers (it seeks, or is another host's): begin with one, try more.
    :param pace: a limit of bytes a second, which other pools may share.
    """

    def __init__(
        self,
        root: int,
        *,
        slack_ns: int,
        unseen_ns: int = WRITE_BACK_NS,
        extra: tuple[str, ...] = (),
        workers: int = 0,
        sync: bool = False,
        slow: bool = False,
        pace: Pace | None = None,
    ) -> None:
        self._root, self._slack_ns, self._unseen_ns, self._extra = root, slack_ns, unseen_ns, extra
        self._sync = sync
        self.workers = workers or min(MAX_WORKERS, len(os.sched_getaffinity(0)))
        self.readers = Readers(self.workers, slow=slow)
        self._pace = pace or Pace(0)
        self._open = OpenBatch()
        self._waiting: deque[OpenBatch] = deque()
        self._large: deque[tuple[bytes, bytes, Tag]] = deque()
        self._ready: list[Results] = []
        self._alive: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()
        self._threads: ThreadPoolExecutor | None = None
        self._reading: set[Future[Results]] = set()
        self._stopping = threading.Event()

    def add(self, directory: bytes, name: bytes, size: int, tag: Tag = None) -> None:
        """Take one file; ``tag`` comes back with its result."""
        if size >= LARGE:
            self._large.append((directory, name, tag))
            self._start_large()
        elif self._open.add(directory, name, size, tag):
            self._close_batch()

    def add_unknown(self, directory: bytes, names: list[bytes], tag: Tag = None) -> None:
        """Take files of one directory whose size nobody knows. A large one comes back as LARGE, to be added again."""
        for i in range(0, len(names), BATCH_FILES):
            some = names[i : i + BATCH_FILES]
            size = sum(map(len, some)) + NAME_OVERHEAD * len(some) + len(directory) + GROUP_OVERHEAD
            if not self._open.has_room_for(len(some), size):
                self._close_batch()
            self._open.add_group(Group(directory, some, None, tag), size)

    def add_stats(self, directory: bytes, names: list[bytes], tag: Tag) -> None:
        """Have names of one directory stat'ed, together and by as many workers as there are: see ``Results.stats``."""
        batch = OpenBatch(read=False)
        batch.add_group(Group(directory, names, None, tag), sum(map(len, names)) + len(names) + len(directory))
        self._waiting.append(batch)
        self._send_waiting()

    def collect(self, checkpoint: Callable[[], None], *, everything: bool = False) -> Iterator[Results]:
        """Yield finished batches: what is needed to keep the window bounded, or all that is left.

        ``checkpoint`` is called at least every 100 ms while waiting; it raises to stop.
        """
        if everything:
            self._take_last()
        while self._in_flight() or (everything and self._take_last()):
            enough = not everything and self._few_wait()
            self._receive_small(0.0 if enough or self._reading or self._ready else 0.1)
            self._receive_large(0.0 if enough or self._ready else 0.1)
            checkpoint()
            found, self._ready = self._ready, []
            for results in found:
                self.readers.note(len(results), results.size(), busy=bool(self._waiting or self._large))
                yield results
            if self._waiting or self._large:
                self._pace.wait(checkpoint)
                self._send_waiting()
                self._start_large()
            if enough and not found:
                return

    def close(self) -> None:
        """Stop at once: running reads end at their next chunk, workers are killed."""
        self._stopping.set()
        for worker in self._alive:
            worker.close()
        self._alive.clear()
        self._selector.close()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _in_flight(self) -> bool:
        waits = self._ready or self._waiting or self._large or self._reading
        return bool(waits or any(worker.queued for worker in self._alive))

    def _few_wait(self) -> bool:
        """Whether little enough waits for the caller to go on adding."""
        large = len(self._large) + len(self._reading)
        return len(self._waiting) <= self.workers and large <= 2 * self.workers and self._pace.wait_s() == 0

    # --- small files -------------------------------------------------------------------------------------------------

    def _take_last(self) -> bool:
        """Hash what is left of the open batch: here, if it is all there ever was, else in a worker; whether any was."""
        batch, self._open = self._open, OpenBatch()
        if self._alive and batch.files:
            self._waiting.append(batch)
            self._send_waiting()
        elif batch.files:
            self._hash_here(batch)
        return batch.files > 0

    def _close_batch(self) -> None:
        if self._open.files:
            self._waiting.append(self._open)
            self._open = OpenBatch()
            self._send_waiting()

    def _hash_here(self, batch: OpenBatch) -> None:
        with Ladder(self._root) as ladder:
            self._pace.charge(batch.size)
            rules = self._slack_ns, self._extra, self._unseen_ns
            answers = answer_batch(ladder, batch.asked(), *rules, read=batch.read, sync=self._sync)
        self._ready.append(self._results(batch, answers))

    def _results(self, batch: OpenBatch, answers: list[Answer]) -> Results:
        return Results(batch, pack_answers(answers, self._extra, read=batch.read), self._extra)

    def _send_waiting(self) -> None:
        """Give waiting batches to the least busy workers, as many as fit; spawn what is missing."""
        while self._waiting and self._pace.wait_s() == 0:
            batch = self._waiting[0]
            allowed = self.readers.allowed if batch.read else self.workers
            if len(self._alive) < min(self.workers, allowed) and all(worker.queued for worker in self._alive):
                self._spawn()
            if not self._alive:  # no process to be had (memory, descriptors): slower, and as right
                self._hash_here(self._waiting.popleft())
                continue
            worker = min(self._alive[:allowed], key=lambda w: len(w.queued))
            if not worker.takes(batch):
                return
            self._waiting.popleft()
            self._pace.charge(batch.size)
            try:
                worker.send(batch)
            except OSError:
                self._bury(worker)

    def _receive_small(self, timeout_s: float) -> None:
        """Take what workers have finished; a worker that died or hangs gives its batches back."""
        if not self._alive:
            return
        for key, _ in self._selector.select(timeout_s):
            worker: WorkerProcess = key.data
            try:
                done = worker.receive()
            except OSError:
                self._bury(worker)
            else:
                self._pace.charge(sum(results.unforeseen() for results in done))
                self._ready += done
        for worker in [w for w in self._alive if w.queued and time.monotonic() - w.since > BATCH_TIMEOUT_S]:
            stuck = worker.queued.popleft()
            self._ready.append(self._results(stuck, [(UNREADABLE, None, None, None, errno.ETIMEDOUT)] * stuck.files))
            self._bury(worker)

    def _bury(self, worker: WorkerProcess) -> None:
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
        try:
            worker = WorkerProcess(self._root, self._slack_ns, self._unseen_ns, self._extra, sync=self._sync)
        except OSError:
            self.workers = len(self._alive)  # what runs must do
            return
        self._alive.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)

    # --- large files -------------------------------------------------------------------------------------------------

    def _start_large(self) -> None:
        while self._large and len(self._reading) < self.readers.allowed:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.workers or 1, thread_name_prefix="reprod-hash")
            self._reading.add(self._threads.submit(self._hash_large, *self._large.popleft()))

    def _receive_large(self, timeout_s: float) -> None:
        if self._reading:
            done, self._reading = wait(self._reading, timeout=timeout_s, return_when=FIRST_COMPLETED)
            self._ready += [future.result() for future in done]

    def _between_chunks(self, size: int) -> bool:
        """Keep to the limit within a large file too; whether to stop."""
        self._pace.charge(size)
        while not self._stopping.is_set() and (left := self._pace.wait_s()) > 0:
            self._stopping.wait(left)
        return self._stopping.is_set()

    def _hash_large(self, directory: bytes, name: bytes, tag: Tag) -> Results:
        answer: Answer
        try:
            with Ladder(self._root) as ladder:
                fd = ladder.open(directory) if directory else self._root
                rules = self._slack_ns, self._extra, self._unseen_ns
                answer = read_at(fd, name, *rules, None, self._between_chunks, sync=self._sync)
        except (FileNotFoundError, NotADirectoryError):
            answer = (VANISHED, None, None, None, 0)
        except OSError as error:
            answer = (UNREADABLE, None, None, None, error.errno or errno.EIO)
        batch = OpenBatch()
        batch.add(directory, name, 0, tag)
        return self._results(batch, [answer])
