"""List a dataset's directories with the stat of every entry. Nothing is opened but directories.

The walk goes through descriptors (openat, fstatat), so it never leaves the root through a symlink and knows no
PATH_MAX. A directory that cannot be listed completely is said as such: what was known of it must be kept, not deleted.
Order is depth first; within a directory it is the file system's.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from reprod.core.pattern import Selection
from reprod.fs.ladder import Ladder

#: What os.fsencode does, at half its cost: there is one call for each file of a walk.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

#: ``(mode, size, mtime_ns, ctime_ns, inode)``: a Fingerprint as a plain tuple, because a walk makes millions of them.
Stat = tuple[int, int, int, int, int]

#: What SQLite holds. An mtime can be set beyond it (the year 2262), and some file systems number inodes beyond it.
LARGEST = (1 << 63) - 1


@dataclass(slots=True)
class Listing:
    """One directory as it was listed. ``fd`` is valid until the walk goes on.

    ``files`` are the selected regular files, symlinks and special files; a None means that it is a regular file nobody
    has stat'ed yet, because the directory is new and all of it is going to be opened anyway. ``directories`` are the
    selected subdirectories. With ``error`` the listing is incomplete: absence from it proves nothing. ``foreign``: it
    is on another device than the root, so something was mounted there, and no ctime tells when.
    """

    path: bytes
    fd: int
    stat: Stat | None
    files: dict[bytes, Stat | None] = field(default_factory=dict)
    directories: list[bytes] = field(default_factory=list)
    error: OSError | None = None
    foreign: bool = False


def stat_tuple(st: os.stat_result) -> Stat:
    """Return the five numbers that make a fingerprint."""
    return (st.st_mode, st.st_size, min(st.st_mtime_ns, LARGEST), st.st_ctime_ns, st.st_ino & LARGEST)


def lstat_at(fd: int, name: bytes) -> Stat | None:
    """Return the stat of ``name`` in the directory ``fd``, None if it is not there. Other errors raise OSError."""
    try:
        return stat_tuple(os.stat(name, dir_fd=fd, follow_symlinks=False))
    except FileNotFoundError:
        return None


def join(directory: bytes, name: bytes) -> bytes:
    """Join a directory's path and a child's name; the root is ``b""``."""
    return directory + b"/" + name if directory else name


def walk(
    root: int,
    selection: Selection,
    *,
    top: bytes = b"",
    skip: frozenset[tuple[int, int]] = frozenset(),
    checkpoint: Callable[[], None] = lambda: None,
    is_new: Callable[[bytes], bool] = lambda _: False,
) -> Iterator[Listing]:
    """Yield a Listing for ``top`` and every selected directory below it.

    :param root: open descriptor of the dataset's root.
    :param skip: ``(device, inode)`` of directories that are never entered (reprod's own state).
    :param checkpoint: called once a directory; raises to stop.
    :param is_new: whether the regular files of a directory need no stat (see Listing).
    """
    device = os.fstat(root).st_dev
    with Ladder(root) as ladder:
        pending = [top]
        while pending:
            checkpoint()
            path = pending.pop()
            try:
                fd = ladder.open(path) if path else root
                st = os.fstat(fd)
            except OSError as error:
                yield Listing(path, -1, None, error=error)
                continue
            if (st.st_dev, st.st_ino) in skip:
                continue
            listing = Listing(path, fd, stat_tuple(st), foreign=st.st_dev != device)
            _list(listing, selection, stat_files=not is_new(path))
            yield listing
            pending.extend(join(path, name) for name in listing.directories)


def _list(listing: Listing, selection: Selection, *, stat_files: bool) -> None:
    """Fill in a listing. An entry that vanishes between readdir and stat is left out; another error is kept."""
    everything, path = selection.everything, listing.path
    files, directories = listing.files, listing.directories
    try:
        with os.scandir(listing.fd) as entries:
            for entry in entries:
                name = entry.name.encode(_ENCODING, _ERRORS)
                if entry.is_dir(follow_symlinks=False):
                    if everything or selection.takes_directory(join(path, name)):
                        directories.append(name)
                    continue
                if not everything and not selection.takes_file(join(path, name)):
                    continue
                if not stat_files and entry.is_file(follow_symlinks=False):
                    files[name] = None
                    continue
                try:
                    st = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                mode = st.st_mode
                if selection.symlinks == "skip" and stat.S_ISLNK(mode):
                    continue
                mtime, inode = min(st.st_mtime_ns, LARGEST), st.st_ino & LARGEST
                files[name] = (mode, st.st_size, mtime, st.st_ctime_ns, inode)
    except OSError as error:
        listing.error = error
