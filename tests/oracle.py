"""An independent second opinion: dt1 and a full scan, written from docs (contract.md), never importing the product.

Contents are ``{path: (kind, size, digest)}`` with kind ``"file"`` or ``"link"``, raw byte paths and 32 raw bytes.
"""

import hashlib
import os
import stat

Contents = dict[bytes, tuple[str, int, bytes]]


def scan(root: bytes) -> Contents:
    """Read everything below ``root`` and return what is in the set: regular files and symlinks."""
    found: Contents = {}
    for folder, folders, names in os.walk(root):
        for name in names + folders:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, root)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(path)
                found[relative] = ("link", len(target), hashlib.sha256(target).digest())
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    data = file.read()
                found[relative] = ("file", len(data), hashlib.sha256(data).digest())
    return found


def dt1(contents: Contents) -> str:
    """Return the dataset digest of contents, by the definition, over the whole tree at once."""
    tree: dict[bytes, object] = {}
    for path, content in contents.items():
        *folders, name = path.split(b"/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})  # type: ignore[assignment]
        place[name] = content
    return "dt1:" + _node(tree)


def flat_sums(contents: Contents) -> bytes:
    """Return SHA256SUMS: regular files by path bytes."""
    return b"".join(
        _record(digest.hex().encode(), path) + b"\n"
        for path, (kind, _, digest) in sorted(contents.items())
        if kind == "file"
    )


def _node(tree: dict[bytes, object]) -> str:
    lines: dict[bytes, bytes] = {}
    for name, child in tree.items():
        if isinstance(child, dict):
            lines[name + b"/"] = _record(_node(child).encode(), name) + b"/\n"
        else:
            kind, _, digest = child  # type: ignore[misc]
            record = _record(digest.hex().encode(), name) + b"\n"
            lines[name] = b"#L " + record if kind == "link" else record
    return hashlib.sha256(b"".join(lines[key] for key in sorted(lines))).hexdigest()


def _record(digest: bytes, name: bytes) -> bytes:
    escaped = b"".join({0x5C: b"\\\\", 0x0A: b"\\n", 0x0D: b"\\r"}.get(byte, bytes([byte])) for byte in name)
    return (b"\\" if escaped != name else b"") + digest + b"  " + escaped
