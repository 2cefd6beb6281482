"""Run a look in a child process: with an end to its patience, and as another user if need be.

A mount whose server is gone holds a process in the kernel for ever, so everything that touches a file or a network of
somebody else is looked at in a child that can be left behind. The child answers one JSON value, holds none of the
parent's streams, and is killed when its time is over. Only for processes with one thread (the command line): it forks.
Times are seconds.
"""

import ctypes
import json
import os
import pwd
import select
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprod.errors import NotFoundError

#: Answers are findings: some hundred lines of text.
MAX_ANSWER_BYTES = 8 << 20

CAP_DAC_READ_SEARCH = 2  # reads and lists everything, whatever the permissions say (capabilities(7))
_KEEP_CAPS = 8  # prctl(PR_SET_KEEPCAPS)
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Person:
    """Whose permissions count. ``reads_all``: the process has CAP_DAC_READ_SEARCH."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    reads_all: bool = False

    @property
    def is_me(self) -> bool:
        """Whether this process has these permissions already."""
        return (self.uid, self.gid, set(self.groups) | {self.gid}) == (
            os.geteuid(),
            os.getegid(),
            set(os.getgroups()) | {os.getegid()},
        )


def user_name(uid: int) -> str:
    """Return the name of a user, or its number as text."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def myself() -> Person:
    """Return who runs this process."""
    uid = os.geteuid()
    return Person(user_name(uid), uid, os.getegid(), tuple(os.getgroups()), reads_all=uid == 0)


def person_named(name: str) -> Person:
    """Return a user of this machine with its groups. Raises NotFoundError."""
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError) as error:
        raise NotFoundError(f"there is no user {name!r}", hint="getent passwd lists them") from error
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Person(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, reads_all=entry.pw_uid == 0)


def anybody() -> Person:
    """Return a user who owns nothing and is in no group: what a service user is who does not exist yet."""
    return Person("any other user", 65534, 65534, ())


def person_of(pid: int) -> Person | None:
    """Return with which permissions a process runs, None if it is gone or hidden."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
        fields = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        uid, gid = int(fields["Uid"][1]), int(fields["Gid"][1])
        reads_all = bool(int(fields["CapEff"][0], 16) >> CAP_DAC_READ_SEARCH & 1)
        return Person(user_name(uid), uid, gid, tuple(int(group) for group in fields["Groups"]), reads_all)
    except (OSError, KeyError, IndexError, ValueError):
        return None


def become(person: Person) -> None:
    """Give this process the permissions of ``person``, for good: for a child of root's. Raises OSError."""
    if person.is_me:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if person.reads_all and libc.prctl(_KEEP_CAPS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.setgroups(person.groups)
    os.setresgid(person.gid, person.gid, person.gid)
    os.setresuid(person.uid, person.uid, person.uid)
    if person.reads_all and person.uid != 0:
        kept = 1 << CAP_DAC_READ_SEARCH
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        data = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
        if libc.capset(header, data):
            raise OSError(ctypes.get_errno(), "capset")


class Probe:
    """A look that is under way in a child."""

    def __init__(self, look: Callable[[], Any], person: Person | None = None) -> None:
        self._pipe, out = os.pipe()
        self._answer = bytearray()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._pipe)
            _look(look, person, out)
        os.close(out)

    def wait(self, until_s: float) -> Any:
        """Return the answer, None if there is none until ``until_s`` (of ``time.monotonic``); ends the child."""
        try:
            while len(self._answer) < MAX_ANSWER_BYTES:
                if not select.select([self._pipe], [], [], max(0.0, until_s - time.monotonic()))[0]:
                    return None
                piece = os.read(self._pipe, 1 << 16)
                if not piece:
                    break
                self._answer += piece
            return json.loads(self._answer)
        except (OSError, ValueError):
            return None
        finally:
            self._end()

    def _end(self) -> None:
        os.close(self._pipe)
        os.kill(self._pid, signal.SIGKILL)
        for _ in range(10):  # one that hangs in the kernel is left to the kernel
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                return
            time.sleep(0.001)


def ask_as(person: Person | None, look: Callable[[], Any], timeout_s: float) -> Any:
    """Return what ``look`` returns (JSON) as ``person`` sees it; None if that takes longer or fails."""
    return Probe(look, person).wait(time.monotonic() + timeout_s)


def gather(looks: Mapping[str, tuple[Callable[[], Any], Person | None]], timeout_s: float) -> dict[str, Any]:
    """Run all looks at once and return their answers by name; None for one that took longer or failed."""
    until_s = time.monotonic() + timeout_s
    probes = {name: Probe(look, person) for name, (look, person) in looks.items()}
    return {name: probe.wait(until_s) for name, probe in probes.items()}


def _look(look: Callable[[], Any], person: Person | None, out: int) -> None:
    """In the child: look, answer, end. Nothing of the parent's is flushed, closed in order or held open."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # a child that hangs must not keep the reader of our output waiting
            os.dup2(null, stream)
        if person is not None:
            become(person)
        data = memoryview(json.dumps(look()).encode())
        while data:
            data = data[os.write(out, data) :]
        code = 0
    except BaseException:  # noqa: BLE001, S110 - the parent sees that there is no answer
        pass
    finally:
        os._exit(code)
