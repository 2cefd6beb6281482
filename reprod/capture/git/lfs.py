"""Owns files that pass through a filter on their way into the repository, whose program is never run here.

For Git LFS the program is not needed: what it puts in is a pointer, the digest and size of the content. Such a file is
recorded as its pointer; its content is not. Through any other filter (git-crypt, which encrypts; nbstripout, which
cuts) the content that lies on disk is not what its owner would have in the repository, so it stays out.
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from reprod.capture.bounded import read_bounded
from reprod.capture.git.changes import Changes
from reprod.capture.git.command import Place, run
from reprod.capture.git.private import Checkout
from reprod.errors import IncompleteError

#: A pointer has three or four lines; git-lfs reads no file as one that has 1024 bytes or more.
MAX_POINTER = 1024

#: sha256 goes at about 1 GB/s, so this much is well within the time of a capture.
MAX_HASHED = 1 << 30

#: Looking whether a file is a pointer costs an open.
MAX_LOOKED_AT = 5000

_MARK = b"version https://git-lfs.github.com/spec/v1\n"

LFS = "its content is in Git LFS, only its pointer is recorded"
NOT_HASHED = "it is in Git LFS and too large to be hashed here"
FILTERED = "it passes through the filter {}, which is not run"


@dataclass(frozen=True, slots=True)
class Filtered:
    """What filters mean for the changes.

    ``pointers`` are blobs to record in place of the content; ``withheld`` gives a reason for each path that stays out.
    """

    changes: Changes
    pointers: dict[bytes, bytes]
    withheld: dict[bytes, str]


def settle(place: Place, checkout: Checkout, changes: Changes) -> Filtered:
    """Return the changes without those LFS files whose content is that of their pointer, and the rest of it.

    Git without the filter takes an LFS file for changed as soon as it was touched.
    """
    active = {
        key[len("filter.") : key.rindex(".")]
        for key in checkout.config
        if key.startswith("filter.") and key.endswith((".clean", ".process")) and checkout.setting(key)
    }
    found = _filters(place, [*changes.tracked, *changes.untracked], active) if active else {}
    tracked = dict(changes.tracked)
    pointers: dict[bytes, bytes] = {}
    withheld: dict[bytes, str] = {}
    left = MAX_HASHED
    for path, name in found.items():
        if name != "lfs":
            withheld[path] = FILTERED.format(name)
            continue
        full = os.path.join(os.fsencode(place.directory), path)
        try:
            pointer, size = _pointer(full, left, place.ends)
        except OSError:
            continue  # gone, or not a file any more: no filter has a part in that
        left -= size
        if pointer is None:
            withheld[path] = NOT_HASHED
        elif _is_blob(pointer, changes, path) and tracked.get(path) == "unstaged":
            del tracked[path]
        elif pointer:
            pointers[path] = pointer
    return Filtered(replace(changes, tracked=tracked), pointers, withheld)


def count_pointers(place: Place, changes: Changes) -> tuple[int, int] | None:
    """Return how many tracked files are in LFS, and how many of them lie there as a mere pointer; None: not known."""
    if not changes.has_attributes():
        return 0, 0
    try:
        paths = run(place, ["ls-files", "-z", "--", ":(attr:filter=lfs)"]).split(b"\0")[:-1]
    except IncompleteError:
        return None
    root = os.fsencode(place.directory)
    if len(paths) > MAX_LOOKED_AT:
        return None
    return len(paths), sum(_is_pointer(os.path.join(root, path)) for path in paths)


def _filters(place: Place, paths: Iterable[bytes], active: set[str]) -> dict[bytes, str]:
    """Return the filter of each path that passes through one which is configured."""
    asked = b"".join(path + b"\0" for path in paths)
    fields = run(place, ["check-attr", "-z", "--stdin", "filter"], stdin=asked).split(b"\0")
    pairs = zip(fields[0::3], fields[2::3], strict=False)
    return {path: os.fsdecode(name) for path, name in pairs if os.fsdecode(name) in active}


def _pointer(path: bytes, limit: int, ends: float) -> tuple[bytes | None, int]:
    """Return the pointer for a file and the bytes that were hashed; None if that is too much, b"" if it needs none."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return b"", 0
    if _is_pointer(path):
        return b"", 0
    if status.st_size > limit:
        return None, 0
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
            if size > limit or time.monotonic() > ends:
                return None, size
    return _MARK + f"oid sha256:{digest.hexdigest()}\nsize {size}\n".encode(), size


def _is_pointer(path: bytes) -> bool:
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size >= MAX_POINTER:
            return False
        return read_bounded(os.fsdecode(path), MAX_POINTER).startswith(_MARK)
    except OSError:
        return False


def _is_blob(pointer: bytes, changes: Changes, path: bytes) -> bool:
    """Return whether the index has this very pointer for the path."""
    entry = changes.index.get(path)
    if entry is None or not pointer:
        return False
    blob = b"blob %d\0" % len(pointer) + pointer
    digest = hashlib.sha256(blob) if len(entry.oid) == 64 else hashlib.sha1(blob, usedforsecurity=False)
    return digest.hexdigest().encode() == entry.oid
