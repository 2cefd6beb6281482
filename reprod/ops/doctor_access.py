"""Whether a user can open a path, found out by opening it, and at which folder it ends if not.

Runs in a process that has that user's permissions (``doctor_probe``). Each folder on the way is opened by itself, so
that the first closed one is named; symlinks are followed by hand, below ``root``: that is the root of a service's own
view of the file system where it has one. Never access(2), which does not know of capabilities. Paths are text.
"""

import errno
import grp
import os
import shlex
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reprod.ops.doctor_probe import user_name

_MOST_LINKS = 40  # as the kernel
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

#: What is opened of a dataset to judge it: enough to meet what one person left with other permissions than the rest.
SAMPLED_FOLDERS = 200
SAMPLED_FILES_EACH = 3
SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Closed:
    """Where a way ends. ``needs``: ``x`` (to go through), ``r`` (to list, to read), "" (it is not a permission)."""

    path: str
    needs: str
    reason: str
    owner: str = ""
    mode: int = 0
    group: str = ""
    folder: bool = True

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def described(self) -> str:
        """Return ``/home/alice (mode 0700, alice:alice)``."""
        return f"{self.path} (mode {self.mode:04o}, {self.owner}:{self.group})" if self.owner else self.path


def first_closed(path: str, root: int | None = None, *, itself: bool = False) -> Closed | None:
    """Return the first folder on the way to ``path`` that cannot be gone through, or ``path`` if it is not there.

    None: the way is open, and with ``itself`` the folder or file at its end is too.
    """
    end = _go(path, root)
    if isinstance(end, Closed):
        return end
    try:
        if itself:
            os.close(os.open(f"/proc/self/fd/{end}", _FILE & ~os.O_NOFOLLOW))
    except PermissionError as error:
        return _closed(end, path, "r", error)
    except OSError:  # nothing of permissions
        pass
    finally:
        os.close(end)
    return None


def closed_within(
    path: str,
    root: int | None = None,
    takes: Callable[[bytes], bool] = lambda _: True,
    *,
    budget_s: float = SAMPLE_S,
) -> tuple[list[Closed], int]:
    """Open a root and a bounded sample of what is below it; return what could not be, and how much was opened.

    ``takes`` says whether a path below the root (bytes; a slash at the end of a folder's) belongs to the dataset.
    """
    end = _go(path, root)
    if isinstance(end, Closed):
        return [end], 0
    try:
        if stat.S_ISDIR(os.fstat(end).st_mode):
            return _sample(f"/proc/self/fd/{end}", path, takes, time.monotonic() + budget_s)
        os.close(os.open(f"/proc/self/fd/{end}", _FILE & ~os.O_NOFOLLOW))
    except PermissionError as error:
        return [_closed(end, path, "r", error)], 0
    except OSError:  # nothing of permissions: a device, a file that went
        pass
    finally:
        os.close(end)
    return [], 1


def _go(path: str, root: int | None) -> int | Closed:
    """Return a descriptor (O_PATH) of ``path``, or where the way to it ends."""
    top = os.open("/", os.O_PATH | os.O_DIRECTORY) if root is None else os.dup(root)
    fd, at, links = os.dup(top), "/", 0
    todo = _parts(path)
    try:
        while todo:
            name = todo.pop()
            try:
                found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except OSError as error:
                denied = error.errno == errno.EACCES
                return _closed(fd, at, "x", error) if denied else _missing(_join(at, name), error)
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                os.close(fd)
                fd, at = found, os.path.dirname(at) if name == ".." else _join(at, name)
                continue
            target = os.readlink("", dir_fd=found)
            os.close(found)
            links += 1
            if links > _MOST_LINKS:
                return Closed(_join(at, name), "", "too many symbolic links")
            if target.startswith("/"):
                os.close(fd)
                fd, at = os.dup(top), "/"
            todo += _parts(target)
        return os.dup(fd)
    finally:
        os.close(fd)
        os.close(top)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part and part != "."][::-1]


def _sample(real: str, path: str, takes: Callable[[bytes], bool], until_s: float) -> tuple[list[Closed], int]:
    """Open folders breadth first, some files of each; ``real`` is where ``path`` is reached."""
    found: list[Closed] = []
    opened = 0
    queue = [b""]
    while queue and opened < SAMPLED_FOLDERS and time.monotonic() < until_s:
        folder = queue.pop(0)
        shown = _join(path, os.fsdecode(folder)) if folder else path
        reached = os.path.join(os.fsencode(real), folder) if folder else os.fsencode(real)
        try:
            fd = os.open(reached, _FOLDER if folder else _FOLDER & ~os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.EACCES:
                found.append(_stated(reached, shown, "r", error))
            continue
        opened += 1
        try:
            _look_into(fd, folder, shown, takes, queue, found)
        finally:
            os.close(fd)
    return found, opened


def _look_into(
    fd: int, folder: bytes, shown: str, takes: Callable[[bytes], bool], queue: list[bytes], found: list[Closed]
) -> None:
    """Open some files of an open folder, and put its folders at the end of the queue."""
    files = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            if len(queue) > SAMPLED_FOLDERS and files >= SAMPLED_FILES_EACH:
                return
            path = (folder + b"/" if folder else b"") + os.fsencode(entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    if len(queue) <= SAMPLED_FOLDERS and takes(path + b"/"):
                        queue.append(path)
                elif files < SAMPLED_FILES_EACH and entry.is_file(follow_symlinks=False) and takes(path):
                    files += 1
                    found += _try_file(fd, entry.name, _join(shown, entry.name))
            except PermissionError as error:  # the folder may be listed, and not gone through
                found.append(_closed(fd, shown, "x", error))
                return


def _try_file(folder: int, name: str, shown: str) -> list[Closed]:
    try:
        os.close(os.open(name, _FILE, dir_fd=folder))
    except PermissionError as error:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return [_closed(folder, os.path.dirname(shown), "x", error)]
        return [_from_stat(status, shown, "r", error)]
    except OSError:  # it went, or is a link: no question of permissions
        pass
    return []


def _closed(fd: int, path: str, needs: str, error: OSError) -> Closed:
    return _from_stat(os.fstat(fd), path, needs, error)


def _stated(real: bytes, path: str, needs: str, error: OSError) -> Closed:
    try:
        return _from_stat(os.stat(real), path, needs, error)
    except OSError:
        return Closed(path, needs, error.strerror or str(error))


def _from_stat(status: os.stat_result, path: str, needs: str, error: OSError) -> Closed:
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return Closed(
        path,
        needs,
        error.strerror or str(error),
        user_name(status.st_uid),
        stat.S_IMODE(status.st_mode),
        group,
        stat.S_ISDIR(status.st_mode),
    )


def _missing(path: str, error: OSError) -> Closed:
    return Closed(path, "", error.strerror or str(error))


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def cures(closed: Closed, root: str, user: str, *, sudo: str) -> list[str]:
    """Return the lines that let ``user`` through: by group where the group may, by ACL; for files below ``root``.

    The third way, a drop-in with a capability, is a service's (``doctor_service``).
    """
    folder = shlex.quote(closed.path)
    group_bits = closed.mode >> 3 & 7
    wanted = 1 if closed.needs == "x" else 5 if closed.folder else 4
    lines = []
    if closed.group not in {"", "root", user} and group_bits & wanted == wanted:
        lines.append(f"{sudo}usermod -aG {shlex.quote(closed.group)} {shlex.quote(user)}")
    if closed.needs == "x":
        lines.append(f"{sudo}setfacl -m u:{shlex.quote(user)}:x {folder}")
    else:
        who, below = f"u:{shlex.quote(user)}:rX", shlex.quote(root)
        # The second part is for what comes later.
        lines.append(f"{sudo}setfacl -R -m {who} {below} && {sudo}setfacl -R -d -m {who} {below}")
    return lines
