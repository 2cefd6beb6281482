"""Owns the work that a hardware benchmark times on processors, memory and disk: the program of a child process.

Each repeat is a fixed amount of work; repeats go on for a slice of time, so that a slow machine gives fewer, not a
longer benchmark. Every result is a line of JSON of its own and written at once: who is stopped has told what it knows.
The disk's file has no name, so nothing is left behind. Standard library, and numpy if it can be imported. Seconds.
"""

import ctypes
import errno
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_MIB = 1 << 20
_HASHED = 4 * _MIB
_ITERATIONS = 100_000
#: Larger than the caches of most processors, small enough for a machine whose memory is in use.
_COPIED = 64 * _MIB
_ROWS = 1024
_BLOCK = _MIB
_CHUNK = 8 * _MIB
_CHUNKS = 4
#: A disk that has less room than this left is not written to.
_ROOM = 40 * _CHUNK
#: What direct reads and writes must be aligned to; 4096 suits every block device in use.
_ALIGNMENT = 4096
_NICENESS = 10


def main(given: dict[str, Any]) -> None:
    """Measure everything, one line of JSON each: a measurement's arguments, or ``name`` and ``skipped``."""
    be_unimportant(int(given["seconds"]) + 1)
    for name, measure in _MEASURES:
        tell(name, measure)
    _measure_disk(given.get("directory"))
    times = os.times()
    _write({"cpu_seconds": times.user + times.system, "niceness": os.getpriority(os.PRIO_PROCESS, 0)})
    os._exit(0)


def be_unimportant(seconds: int) -> None:
    """Make this process yield to every other, be the first to go without memory, and end after ``seconds``."""
    signal.alarm(seconds)
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass


def tell(name: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Write what ``measure`` returns, or why it could not be measured."""
    try:
        result = measure()
    except Exception as error:  # noqa: BLE001 - one measurement that fails must not cost the others
        _write({"name": name, "skipped": _reason(error)})
        return
    _write({"name": name, **result})


def _write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _reason(error: Exception) -> str:
    """Return what went wrong, without a path."""
    said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return said or type(error).__name__


def repeat(work: Callable[[], object], amount: float, slice_s: float, *, most: int = 25) -> list[float]:
    """Return the rates (``amount`` a second) of repeats of ``work`` over ``slice_s``: three at least, after a first."""
    work()
    rates: list[float] = []
    end = time.perf_counter() + slice_s
    while len(rates) < 3 or (len(rates) < most and time.perf_counter() < end):
        start = time.perf_counter()
        work()
        rates.append(amount / (time.perf_counter() - start))
    return rates


def _hash(threads: int) -> dict[str, Any]:
    """hashlib releases the interpreter's lock, so threads use all processors."""
    data = os.urandom(_HASHED)

    def work() -> None:
        workers = [threading.Thread(target=lambda: hashlib.sha256(data).digest()) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    rates = repeat(work, threads * _HASHED, 0.2)
    return {"unit": "B/s", "rates": rates, "work": f"SHA-256 of {threads} times 4 MiB on {threads} threads"}


def _integers() -> dict[str, Any]:
    def work() -> int:
        value = 1
        for _ in range(_ITERATIONS):
            value = (value * 1103515245 + 12345) & 0x7FFFFFFF
        return value

    rates = repeat(work, _ITERATIONS, 0.15)
    return {"unit": "iterations/s", "rates": rates, "work": f"{_ITERATIONS} steps of integer arithmetic in Python"}


def _floats() -> dict[str, Any]:
    def work() -> float:
        value = 1.0
        for _ in range(_ITERATIONS):
            value = value * 0.999999 + 0.5
        return value

    rates = repeat(work, _ITERATIONS, 0.15)
    return {
        "unit": "iterations/s",
        "rates": rates,
        "work": f"{_ITERATIONS} steps of float arithmetic in Python",
    }


def _multiply() -> dict[str, Any]:
    import importlib

    try:
        numpy: Any = importlib.import_module("numpy")
    except ImportError as error:
        raise ValueError("numpy cannot be imported") from error
    left = numpy.random.default_rng(0).random((_ROWS, _ROWS))
    rates = repeat(lambda: left @ left, 2 * _ROWS**3, 0.25)
    work = f"product of two {_ROWS} x {_ROWS} matrices of 64-bit floats, numpy {numpy.__version__}"
    return {"unit": "FLOP/s", "rates": rates, "work": work}


def _copy() -> dict[str, Any]:
    source, target = bytearray(_COPIED), bytearray(_COPIED)
    view = memoryview(target)

    def work() -> None:
        view[:] = source

    rates = repeat(work, _COPIED, 0.2)
    return {"unit": "B/s", "rates": rates, "work": "copy of 64 MiB in memory, read and written counted once"}


#: In this order: the disk comes last, because a slow one may use up the time.
_MEASURES: tuple[tuple[str, Callable[[], dict[str, Any]]], ...] = (
    ("cpu_sha256", lambda: _hash(1)),
    ("cpu_sha256_all", lambda: _hash(len(os.sched_getaffinity(0)))),
    ("cpu_integer", _integers),
    ("cpu_float", _floats),
    ("cpu_matrix", _multiply),
    ("memory_copy", _copy),
)


def _measure_disk(directory: str | None) -> None:
    try:
        if directory is None:
            raise ValueError("no directory was given")
        with _scratch(directory) as file:
            tell("disk_write", file.write)
            tell("disk_read", file.read)
    except (OSError, ValueError) as error:
        for name in ("disk_write", "disk_read"):
            _write({"name": name, "skipped": _reason(error)})


class _Scratch:
    """A file without a name, written and read past the page cache where its file system can."""

    def __init__(self, fd: int, *, direct: bool) -> None:
        self.fd = fd
        self.direct = direct
        self.chunks = 0
        # Direct transfers need an aligned buffer; noise, because some file systems compress.
        self._memory = bytearray(_BLOCK + _ALIGNMENT)
        offset = -ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) % _ALIGNMENT
        self.buffer = memoryview(self._memory)[offset : offset + _BLOCK]
        self.buffer[:] = os.urandom(_BLOCK)

    def write(self) -> dict[str, Any]:
        """Measure chunks that have reached the disk, two at least and no more than a slice of time allows."""
        rates: list[float] = []
        end = time.perf_counter() + 0.4
        while len(rates) < 2 or (len(rates) < _CHUNKS and time.perf_counter() < end):
            rates.append(self._transfer(os.pwritev, len(rates), sync=True))
            self.chunks = len(rates)
        return self._result(rates, "write")

    def read(self) -> dict[str, Any]:
        """Measure the chunks that were written."""
        if not self.chunks:
            raise ValueError("nothing was written")
        if not self.direct:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        rates = [self._transfer(os.preadv, chunk) for chunk in range(self.chunks)]
        return self._result(rates, "read")

    def _transfer(self, call: Callable[..., int], chunk: int, *, sync: bool = False) -> float:
        start = time.perf_counter()
        for offset in range(chunk * _CHUNK, (chunk + 1) * _CHUNK, _BLOCK):
            if call(self.fd, [self.buffer], offset) != _BLOCK:
                raise ValueError("a transfer was cut short")
        if sync:
            os.fdatasync(self.fd)
        return _CHUNK / (time.perf_counter() - start)

    def _result(self, rates: list[float], verb: str) -> dict[str, Any]:
        note = None if self.direct else "not past the page cache: this file system knows no direct transfers"
        return {"unit": "B/s", "rates": rates, "work": f"sequential {verb} of 8 MiB in 1 MiB blocks", "note": note}


@contextmanager
def _scratch(directory: str) -> Iterator[_Scratch]:
    space = os.statvfs(directory)
    if space.f_bavail * space.f_frsize < _ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        fd, direct = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT, 0o600), True
    except OSError:
        fd, direct = _open_nameless(directory), False
    try:
        yield _Scratch(fd, direct=direct)
    finally:
        os.close(fd)


def _open_nameless(directory: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            raise
    # Network file systems have no files without a name from the start.
    fd, path = tempfile.mkstemp(prefix=".reprod-benchmark-", dir=directory)
    os.unlink(path)
    return fd
