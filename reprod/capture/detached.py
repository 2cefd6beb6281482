"""Owns how a training process starts a child that outlives it, in a few milliseconds and with nothing left behind.

The child is ``python -I -S`` with the parent's path appended, so that neither a ``.pth`` file nor a module of the
user's directory runs in it, and belongs to init, so that the user's own ``os.wait()`` never meets it. Standard library
only.
"""

import json
import os
import subprocess
import sys
from typing import Any

#: The shell that detaches the child ends in 2 ms; one that does not is left alone.
SHELL_S = 0.020

_CHILD = (
    "import json,sys;i=json.load(sys.stdin);sys.path+=[p for p in i['sys_path'] if p not in sys.path];"
    "from reprod.integrations import recorder;recorder.{}(i)"
)
# A shell puts the child into the background and ends, so that init reaps it: a zombie of ours would turn up in the
# user's own os.wait(). The redirection is explicit because a background command otherwise reads /dev/null.
_DETACH = 'exec 3<&0; "$@" <&3 3<&- &'

# Kept so that no ResourceWarning is raised where there is no shell and the child is a direct one.
_children: list["subprocess.Popen[bytes]"] = []


def is_possible() -> bool:
    """Return whether starting ``sys.executable`` starts a Python: in a frozen application it starts the application."""
    if not sys.executable or getattr(sys, "frozen", False):
        return False
    return os.path.basename(sys.executable).startswith(("python", "pypy"))


def start(function: str, given: dict[str, Any], *, at_end: bool = False) -> bool:
    """Start ``function`` of the recorder with ``given`` (JSON); return whether it was started. Raises OSError.

    ``at_end``: the caller ends now, and does not wait for the shell that detaches the child.
    """
    if not is_possible():
        return False
    # A file in memory instead of a pipe: a long path would fill a pipe, and writing to it would block.
    fd = os.memfd_create("reprod-identity", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w+b") as file:
        file.write(json.dumps({**given, "sys_path": _path()}).encode())
        file.flush()
        file.seek(0)
        command = [sys.executable, "-I", "-S", "-c", _CHILD.format(function)]
        try:
            child = _spawn(["/bin/sh", "-c", _DETACH, "reprod", *command], file.fileno())
        except FileNotFoundError:
            _children.append(_spawn(command, file.fileno()))
            return True
    if at_end:
        child.returncode = 0  # or Python would warn of it, should it get to that
        return True
    try:
        child.wait(SHELL_S)
    except subprocess.TimeoutExpired:
        _children.append(child)
    return True


def _path() -> list[str]:
    """Return where the child finds reprod and what it needs: where this process did, the user's own code last."""
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = "/"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [os.path.join(cwd, entry) for entry in sys.path if isinstance(entry, str)]
    return [root, *sorted(paths, key=lambda path: os.path.basename(path) not in {"site-packages", "dist-packages"})]


def _spawn(command: list[str], stdin: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
