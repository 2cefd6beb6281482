"""Owns how git is run: as a child that no repository can make run anything, bounded in time and in what it may print.

Two kinds of place. In the user's repository only commands that read settings and names of references are run; hooks,
fsmonitor and every transport are off, also where an object of a partial clone is missing. All else is run in a private
git directory (git_private.py), which has none of the repository's settings. Times are seconds, sizes bytes.
"""

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO

from reprod.core.redact import plain, redact_text
from reprod.errors import IncompleteError

#: A list of paths or references: 64 MiB are some 700,000 names.
MAX_OUTPUT = 64 << 20

#: What git says of a failure; only its first line is used.
MAX_COMPLAINT = 1 << 16

_HARDENED = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false")

#: Which files git reads its settings from; every other GIT_ variable (GIT_DIR, GIT_INDEX_FILE) would lead elsewhere.
_KEPT = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES"})

#: "none" is no transport, so none is allowed. Without it a missing object of a partial clone is fetched, and
#: ``core.sshCommand`` of the repository is what fetches it.
_FIXED = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "LC_ALL": "C",
}


class FailedError(IncompleteError):
    """Raised when git ends with an exit code other than 0, which is ``code``; ``said`` is what it had printed."""

    code = 0
    said = b""


class LateError(IncompleteError):
    """Raised when git took longer than it had."""


class LongError(IncompleteError):
    """Raised when git printed more than it might."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a capture may cost: ``seconds`` in all, and bytes for one untracked file, the patch and the bundle."""

    seconds: float = 3.0
    file_bytes: int = 1 << 20
    patch_bytes: int = 4 << 20
    bundle_bytes: int = 4 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where git is run, with which variables and options, and until when (``ends``, seconds of the monotonic clock)."""

    directory: str
    environ: Mapping[str, str]
    options: tuple[str, ...]
    ends: float

    def within(self, seconds: float) -> "Place":
        """Return the same place with at most ``seconds`` left."""
        return replace(self, ends=min(self.ends, time.monotonic() + seconds))

    def using(self, **variables: str) -> "Place":
        """Return the same place with further variables."""
        return replace(self, environ={**self.environ, **variables})


def user_place(directory: str, ends: float) -> Place:
    """Return the place that is the user's own repository, for commands that only read settings and references."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return Place(directory, environ | _FIXED, _HARDENED, ends)


def run(place: Place, arguments: Sequence[str], *, stdin: bytes = b"", limit: int = MAX_OUTPUT) -> bytes:
    """Return what git prints.

    Raises FailedError, LateError or LongError (over ``limit`` bytes), IncompleteError if it cannot be started.
    """
    data, end = _converse(place, arguments, stdin, limit)
    if isinstance(end, IncompleteError):
        raise end
    return data


def run_some(place: Place, arguments: Sequence[str], *, limit: int = MAX_OUTPUT) -> tuple[bytes, bool]:
    """Return what git prints until its time or ``limit`` is over, and whether that is all of it."""
    data, end = _converse(place, arguments, b"", limit)
    if isinstance(end, LateError | LongError):
        return data, False
    if isinstance(end, IncompleteError):
        raise end
    return data, True


def _converse(place: Place, arguments: Sequence[str], stdin: bytes, limit: int) -> tuple[bytes, IncompleteError | None]:
    started = time.monotonic()
    name = f"git {arguments[0]}"
    if started >= place.ends:
        return b"", LateError(f"there was no time left for {name}")
    with tempfile.TemporaryFile() if stdin else open(os.devnull, "rb") as feed:
        if stdin:
            feed.write(stdin)
            feed.seek(0)
        process = _start(place, arguments, feed)
        try:
            out, err, end = _drain(process, place.ends, limit)
            if end is None:
                process.wait(max(0.0, place.ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            end = "late"
        finally:
            _stop(process)
    if end == "late":
        return out, LateError(f"{name} did not end in time")
    if end == "long":
        return out, LongError(f"{name} printed over {limit} bytes")
    if process.returncode != 0:
        said = (err.decode("utf-8", "backslashreplace").strip() or "no message").splitlines()[0]
        failure = FailedError(f"{name}: {redact_text(said)}")
        failure.code, failure.said = process.returncode, out
        return out, failure
    return out, None


def _start(place: Place, arguments: Sequence[str], feed: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["git", *place.options, *arguments],
            cwd=place.directory,
            env=place.environ,
            stdin=feed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a process group of its own can be ended whole, with what git has started
        )
    except FileNotFoundError as error:
        what = "git is not installed" if error.filename == "git" else f"{plain(place.directory)} does not exist"
        raise IncompleteError(what) from error
    except OSError as error:
        raise IncompleteError(f"git could not be started: {error.strerror}") from error


def _drain(process: subprocess.Popen[bytes], ends: float, limit: int) -> tuple[bytes, bytes, str | None]:
    """Return stdout, stderr and why reading them ended: None at their end, else ``late`` or ``long``."""
    assert process.stdout is not None  # noqa: S101 - both were asked for as pipes
    assert process.stderr is not None  # noqa: S101
    read: dict[int, list[bytes]] = {process.stdout.fileno(): [], process.stderr.fileno(): []}
    out, err = read
    size = 0
    end = None
    with selectors.DefaultSelector() as selector:
        for fd in read:
            selector.register(fd, selectors.EVENT_READ)
        while end is None and selector.get_map():
            left = ends - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                end = "late" if time.monotonic() >= ends else None
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 18)
                if not chunk:
                    selector.unregister(key.fd)
                elif key.fd == out:
                    size += len(chunk)
                    read[out].append(chunk)
                elif sum(map(len, read[err])) < MAX_COMPLAINT:
                    read[err].append(chunk)
            if size > limit:
                end = "long"
    return b"".join(read[out]), b"".join(read[err]), end


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process group if its leader has not ended by itself, and let go of the pipes."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
