"""Open a dataset's root and say which directory it is, and since when it must have been that one.

The descriptor is opened once and the whole walk goes through it, so a root that is renamed, unmounted or replaced in
the middle cannot mix two trees. A dataset that is a single file is opened as its directory, restricted to that name.
"""

import os
import stat
from dataclasses import dataclass
from typing import Self

from reprod.core.pattern import IGNORE_FILE
from reprod.errors import DatasetUnavailableError
from reprod.fs import mounts
from reprod.fs.mounts import RootIdentity

#: A .reprodignore larger than this is not one.
MAX_IGNORE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Root:
    """An open root. ``only`` is the file's name if the dataset is a single file."""

    path: str
    fd: int
    only: bytes | None
    identity: RootIdentity

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_still_there(self) -> bool:
        """Whether the path still leads to this very directory (mount, device and inode)."""
        try:
            with open_root(self.path) as again:
                return again.identity.identical(self.identity)
        except DatasetUnavailableError:
            return False

    def ignore_lines(self) -> tuple[bytes, ...]:
        """Return the lines of ``.reprodignore`` at the root; a link or a special file of that name is not one."""
        try:
            fd = os.open(IGNORE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return ()
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return ()
        with open(fd, "rb") as file:
            return tuple(file.read(MAX_IGNORE_BYTES).splitlines())


def split_root(path: str) -> tuple[str, str | None]:
    """Return the folder of a root, and the name in it if the root is one file; a symlink to a file stands for that."""
    if not os.path.isfile(path):
        return path, None
    folder, name = os.path.split(os.path.realpath(path) if os.path.islink(path) else path)
    return folder, name


def open_root(path: str) -> Root:
    """Open a root; symlinks on the way to it are followed, as the user wrote them.

    :raises DatasetUnavailableError: it is missing, may not be entered, or is neither directory nor regular file.
    """
    try:
        mode = os.stat(path).st_mode
        folder, name = split_root(path)
        only = os.fsencode(name) if name is not None else None
        if only is None and not stat.S_ISDIR(mode):
            raise DatasetUnavailableError(
                f"{path} is neither a directory nor a regular file", hint="register another path"
            )
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise DatasetUnavailableError(
            f"{path} does not exist",
            hint="nothing was forgotten; it is taken up again as soon as it is there (is a disk not mounted?)",
        ) from error
    except PermissionError as error:
        raise DatasetUnavailableError(
            f"{path} may not be read by this user", hint=f"let uid {os.geteuid()} list and read it"
        ) from error
    except OSError as error:
        raise DatasetUnavailableError(
            f"{path} cannot be opened: {error.strerror}", hint="check the file system"
        ) from error
    try:
        return Root(path, fd, only, mounts.root_identity(fd))
    except BaseException:
        os.close(fd)
        raise


def known_since_ns(root: Root, now_ns: int) -> int:
    """Return a moment since which the path surely leads to this directory; ``now_ns`` if nothing older can be proven.

    On the file system that is mounted at ``/`` that is: since the first process started, and since the youngest ctime
    of the directories above it (a rename of one of them changes its ctime). Symlinks on the way prove nothing.
    """
    real = os.path.realpath(root.path)
    mount = mounts.mount_of(root.fd)
    started = mounts.init_started_ns()
    if real != os.path.abspath(root.path) or mount is None or mount.mount_point != b"/" or started is None:
        return now_ns
    youngest, folder = started, os.path.dirname(real)
    while True:
        youngest = max(youngest, os.stat(folder).st_ctime_ns)
        if folder == "/":
            return min(youngest, now_ns)
        folder = os.path.dirname(folder)
