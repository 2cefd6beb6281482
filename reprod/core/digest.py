"""The dataset digest ``dt1``: a Merkle tree whose every node is the SHA-256 of a sha256sum-style listing.

The format is defined in docs/digest.md. A listing holds one line for each included direct child, sorted by its key as
unsigned bytes; a directory's key ends in ``/``, so that a depth-first walk is in full-path byte order (git's rule).
Digests are 32 raw bytes here; text (``dt1:`` and lower-case hex) is made at the edges only. Names are raw bytes.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

PREFIX = "dt1:"
EMPTY = hashlib.sha256(b"").digest()

#: Algorithms that can be asked for beside sha256, which is always computed. blake3 needs the extra of that name.
ALGORITHMS = ("md5", "sha1", "sha256", "sha512", "blake2b", "blake3")


def escape(name: bytes) -> tuple[bytes, bytes]:
    r"""Return ``(flag, escaped)`` as GNU sha256sum 9 prints a name: ``\``, LF and CR become two characters."""
    if b"\\" not in name and b"\n" not in name and b"\r" not in name:
        return b"", name
    return b"\\", name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def file_line(digest: bytes, name: bytes) -> bytes:
    """Return the listing's line for a regular file: exactly the line that sha256sum prints."""
    if b"\\" in name or b"\n" in name or b"\r" in name:
        return b"\\%b  %b\n" % (digest.hex().encode(), escape(name)[1])
    return b"%b  %b\n" % (digest.hex().encode(), name)


def file_lines(names: Sequence[bytes], digests: Sequence[bytes]) -> list[bytes]:
    """Return what ``file_line`` gives for each of many, at half its cost."""
    together = b"".join(names)
    if b"\\" in together or b"\n" in together or b"\r" in together:
        return [file_line(sha256, name) for name, sha256 in zip(names, digests, strict=True)]
    text = b"".join(digests).hex().encode()
    return [b"%b  %b\n" % (text[64 * i : 64 * i + 64], name) for i, name in enumerate(names)]


def directory_line(node: bytes, name: bytes) -> bytes:
    """Return the listing's line for a directory that holds an included entry."""
    flag, escaped = escape(name)
    return b"%b%b  %b/\n" % (flag, node.hex().encode(), escaped)


def link_line(digest: bytes, name: bytes) -> bytes:
    """Return the listing's line for a recorded symlink; ``digest`` is the sha256 of its raw target."""
    return b"#L " + file_line(digest, name)


def node(lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the digest of a directory from its ``(key, line)`` pairs, in any order."""
    return hashlib.sha256(b"".join([line for _, line in sorted(lines)])).digest()


def tree(entries: Mapping[bytes, tuple[bool, bytes]]) -> bytes:
    """Return the root node of a whole set: ``{path: (is a link, sha256)}``, all of it in memory."""
    directories: dict[bytes, list[tuple[bytes, bytes]]] = {b"": []}
    for path, (is_link, sha256) in entries.items():
        directory, _, name = path.rpartition(b"/")
        line = link_line(sha256, name) if is_link else file_line(sha256, name)
        directories.setdefault(directory, []).append((name, line))
        while directory and (parent := directory.rpartition(b"/")[0]) not in directories:
            directories[parent] = []
            directory = parent
    for directory in sorted(directories, key=len, reverse=True):  # children before their parents
        if directory:
            parent, _, name = directory.rpartition(b"/")
            directories[parent].append((name + b"/", directory_line(node(directories[directory]), name)))
    return node(directories[b""])


def text(digest: bytes) -> str:
    """Return ``dt1:`` and the hex form of a root node."""
    return PREFIX + digest.hex()


def short(digest: str) -> str:
    """Return what people see of a digest: its first 12 hex digits, without the prefix."""
    return digest.removeprefix(PREFIX)[:12]
