"""Place the files of a version somewhere else, each proven to be what the version says.

Files are opened one path component at a time and never through a symlink; a file is read once, and the same bytes are
digested and written. What does not match ends the export with the name. Permissions are those of ``cp -r``: the
source's less the umask, so what only its owner could read stays so; times of change are kept.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Self

from reprod.errors import IncompleteError
from reprod.fs.ladder import DIRECTORY_FLAGS, Ladder
from reprod.fs.read import new_hash
from reprod.fs.root import Root

#: Read and written at once.
CHUNK = 1 << 20

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: What says that this pair of places cannot be linked; the rest of the files then need no try.
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS})


class _SourceError(Exception):
    """A file of the dataset is not what it should be; the message says how."""


class Placer:
    """Copies or links files from a dataset into ``folder``; ``files``, ``size`` (bytes) and ``linked`` count them.

    ``refuse`` makes the error for a path and what is wrong with it; ``progress`` is called after every chunk.
    """

    def __init__(
        self,
        root: Root,
        folder: Path,
        algorithms: tuple[str, ...],
        refuse: Callable[[bytes, str], IncompleteError],
        progress: Callable[[], None],
        *,
        link: bool,
    ) -> None:
        self._algorithms = algorithms
        self._refuse = refuse
        self._link = link
        self._progress = progress
        self._target = os.open(folder, DIRECTORY_FLAGS)
        self._from, self._to = Ladder(root.fd), Ladder(self._target)
        self._buffer = memoryview(bytearray(CHUNK))
        self.files = 0
        self.size = 0
        self.linked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._from.close()
        self._to.close()
        os.close(self._target)

    def look(self, path: bytes, size: int | None) -> None:
        """Raise IncompleteError if a file can already be seen not to be the one that is wanted; reads nothing."""
        directory, _, name = path.rpartition(b"/")
        try:
            st = os.stat(name, dir_fd=self._open_source(directory), follow_symlinks=False)
        except OSError as error:
            raise self._refuse(path, _why(error)) from error
        except _SourceError as error:
            raise self._refuse(path, str(error)) from error
        if not stat.S_ISREG(st.st_mode):
            raise self._refuse(path, "something of another kind is there")
        if size is not None and st.st_size != size:
            raise self._refuse(path, f"it has {st.st_size} bytes, not {size}")

    def place(self, path: bytes, expected: dict[str, bytes]) -> None:
        """Place one file. Raises IncompleteError if its bytes are not ``expected``, OSError if it cannot be written."""
        directory, _, name = path.rpartition(b"/")
        try:
            target = self._open_target(directory)
            source = self._open_source(directory)
            found = self._linked(source, target, name) if self._link else None
            if found is None:
                found = self._copied(source, target, name)
        except _SourceError as error:
            raise self._refuse(path, str(error)) from error
        if found != expected:
            raise self._refuse(path, "its content is another")
        self.files += 1

    def target_of(self, path: bytes, sha256: bytes) -> bytes:
        """Return where a symlink leads. Raises IncompleteError if it is not the one that is wanted."""
        directory, _, name = path.rpartition(b"/")
        try:
            target = os.readlink(name, dir_fd=self._open_source(directory))
        except OSError as error:
            raise self._refuse(path, _why(error)) from error
        except _SourceError as error:
            raise self._refuse(path, str(error)) from error
        if hashlib.sha256(target).digest() != sha256:
            raise self._refuse(path, "it leads elsewhere")
        return target

    def _open_source(self, directory: bytes) -> int:
        """Return a descriptor of a folder of the dataset, valid until the next call."""
        try:
            return self._from.open(directory)
        except OSError as error:
            raise _SourceError(f"its folder: {_why(error)}") from error

    def _open_target(self, directory: bytes) -> int:
        """Return the folder in the copy; made, as its parents are, with the permissions that the dataset's have."""
        try:
            return self._to.open(directory)
        except FileNotFoundError:
            pass
        names = directory.split(b"/")
        for depth in range(len(names)):
            path = b"/".join(names[: depth + 1])
            mode = os.fstat(self._open_source(path)).st_mode & 0o777
            try:
                os.mkdir(names[depth], mode | 0o700, dir_fd=self._to.open(b"/".join(names[:depth])))
            except FileExistsError:
                pass
        return self._to.open(directory)

    def _linked(self, source: int, target: int, name: bytes) -> dict[str, bytes] | None:
        """Link and digest what is linked; None where these two places cannot be linked."""
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINKS:
                self._link = False
                return None
            if error.errno == errno.EMLINK:
                return None
            raise _SourceError(_why(error)) from error
        fd = _open_regular(name, target)
        try:
            found = self._digest(fd, None)
        finally:
            os.close(fd)
        self.linked += 1
        return found

    def _copied(self, source: int, target: int, name: bytes) -> dict[str, bytes]:
        fd = _open_regular(name, source)
        try:
            st = os.fstat(fd)
            out = os.open(name, _NEW, st.st_mode & 0o777, dir_fd=target)
            try:
                found = self._digest(fd, out)
                os.utime(out, ns=(st.st_atime_ns, st.st_mtime_ns))
            finally:
                os.close(out)
        finally:
            os.close(fd)
        return found

    def _digest(self, fd: int, out: int | None) -> dict[str, bytes]:
        """Read to the end; digest every byte, and write it to ``out``."""
        hashes = {name: new_hash(name) for name in self._algorithms}
        while True:
            try:
                got = os.readv(fd, [self._buffer])
            except OSError as error:
                raise _SourceError(_why(error)) from error
            if not got:
                return {name: each.digest() for name, each in hashes.items()}
            for each in hashes.values():
                each.update(self._buffer[:got])
            written = 0
            while out is not None and written < got:
                written += os.write(out, self._buffer[written:got])
            self.size += got
            self._progress()


def _open_regular(name: bytes, directory: int) -> int:
    try:
        fd = os.open(name, _READ, dir_fd=directory)
    except OSError as error:
        raise _SourceError(_why(error)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _SourceError("something of another kind is there")
    return fd


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is gone"
    if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.ENXIO}:
        return "something of another kind is there"
    return f"it cannot be read ({error.strerror})"
