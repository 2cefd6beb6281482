"""Runs inside a unit and prints, as one JSON object, what a process there may do. Standard library only.

    python probe.py WATCHED_PID FOLDER...

``WATCHED_PID`` is a process of the test's; the folders are tried for writing.
"""

import ctypes
import errno
import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PER_LINUX32 = 0x0008
WRITE, EXECUTE, PRIVATE, ANONYMOUS = 2, 4, 2, 0x20  # of mmap
IOPRIO_GET, IOPRIO_WHO_PROCESS = 252, 1  # the system call's number on x86_64

libc = ctypes.CDLL(None, use_errno=True)


def attempt(action: Callable[[], object]) -> str:
    """Return "ok", or the name of the error."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def content(path: str) -> str:
    """Return "something" or "nothing" for a file that can be read, else the name of the error."""
    found = b""

    def act() -> None:
        nonlocal found
        found = Path(path).read_bytes()

    outcome = attempt(act)
    return outcome if outcome != "ok" else "something" if found else "nothing"


def call(name: str, *arguments: int) -> Callable[[], None]:
    """Return an action that calls a function of the C library, which says -1 for an error."""

    def act() -> None:
        ctypes.set_errno(0)
        if getattr(libc, name)(*arguments) == -1:
            raise OSError(ctypes.get_errno(), name)

    return act


def write_in(folder: str) -> Callable[[], None]:
    """Return an action that makes a file in a folder and removes it."""

    def act() -> None:
        path = Path(folder, ".probe")
        path.write_text("x")
        path.unlink()

    return act


def make_setuid() -> None:
    path = Path(os.environ.get("PROBE_SCRATCH", "/tmp"), ".suid")
    path.write_text("x")
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


def callback_from_c() -> None:
    """A C function that calls Python: what bindings of libraries need, and writable code may be needed for."""
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    libc.qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), kind(lambda a, b: a[0] - b[0]))
    if list(numbers) != [1, 2, 3]:
        raise OSError(errno.EIO, "not sorted")


def main(watched: str, *folders: str) -> None:
    status = dict(line.partition(":\t")[::2] for line in Path("/proc/self/status").read_text().splitlines())
    print(
        json.dumps(
            {
                "write": {folder: attempt(write_in(folder)) for folder in folders},
                "status": {key: status[key] for key in ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd")},
                "writable_code": attempt(call("mmap", 0, 4096, WRITE | EXECUTE, PRIVATE | ANONYMOUS, -1, 0)),
                "callback": attempt(callback_from_c),
                "user_namespace": attempt(call("unshare", CLONE_NEWUSER)),
                "personality": attempt(call("personality", PER_LINUX32)),
                "packet_socket": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
                "internet_socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()),
                "setuid": attempt(make_setuid),
                "shadow": content("/etc/shadow"),
                "tmp": sorted(os.listdir("/tmp")),
                "home": attempt(lambda: os.listdir("/home")),
                "stat_of_another": attempt(lambda: Path(f"/proc/{watched}/stat").read_bytes()),
                "environ_of_another": attempt(lambda: Path(f"/proc/{watched}/environ").read_bytes()),
                "nice": os.nice(0),
                "idle_io": libc.syscall(IOPRIO_GET, IOPRIO_WHO_PROCESS, 0) >> 13 == 3,
                "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
                "credentials": sorted(os.listdir(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")))
                if "CREDENTIALS_DIRECTORY" in os.environ
                else [],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
