"""What is written into a bag: the lines of its manifests and tag files (BagIt 1.0 is RFC 8493).

Paths come as raw bytes relative to the payload folder and leave as UTF-8 lines. A path goes in only if both the
standard and its reference reader, bagit-python, read back the very path that was written; what cannot is refused by
name, because a bag that its readers call damaged is none. Both agree on CR and LF (percent-encoded) in BagIt 1.0, and
on a percent sign only in BagIt 0.97, which encodes nothing.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from reprod.core.entry import display

#: The folder of the payload, as it begins each path of a manifest.
PAYLOAD = b"data/"

#: Algorithms for which bagit-python reads a manifest. It says nothing of others, so blake3 would only seem checked.
ALGORITHMS = frozenset({"md5", "sha1", "sha256", "sha512", "blake2b"})

#: Symlinks are no payload (a bag holds files), but they are part of the digest: their targets are kept here.
LINKS_FILE = "symlinks.jsonl"

#: Names shown of those that are refused; the count says the rest.
MAX_REFUSED = 10

#: bagit-python passes re.IGNORECASE as the number of replacements, so it decodes two of each kind in a name.
_DECODED_BY_READER = 2


@dataclass(slots=True)
class PathCheck:
    """Looks at every path of a payload, and knows at the end which BagIt version can name them all."""

    refused: list[str] = field(default_factory=list)
    count: int = 0
    _percent: bytes | None = None
    _break: bytes | None = None
    _normal: dict[str, str] = field(default_factory=dict)

    def look(self, path: bytes) -> None:
        """Take one path into account."""
        why = self._why_not(path)
        if why:
            self._refuse(path, why)
        elif b"%" in path:
            self._percent = self._percent or path
        elif b"\r" in path or b"\n" in path:
            self._break = self._break or path

    def version(self) -> str:
        """Return the version of the format that names every path so that every reader finds it."""
        if self._percent and self._break:
            why = f"has a line break, and '{display(self._percent)}' a percent sign: no version of BagIt can hold both"
            self._refuse(self._break, why)
        return "0.97" if self._percent else "1.0"

    def _why_not(self, path: bytes) -> str:
        try:
            text = path.decode("utf-8")
        except UnicodeDecodeError:
            return "is not UTF-8"
        if _as_read(encoded(path).decode("utf-8")) != text:
            return "would not be read back as it is (a space at its end, a rare line break, or an encoded one)"
        if not text.isascii():
            normal = unicodedata.normalize("NFC", text)
            if self._normal.setdefault(normal, text) != text:
                return "is another spelling of a name in the same bag (Unicode normalisation)"
        return ""

    def _refuse(self, path: bytes, why: str) -> None:
        self.count += 1
        if len(self.refused) < MAX_REFUSED:
            self.refused.append(f"'{display(path)}' {why}")


def encoded(path: bytes) -> bytes:
    """Return a path as a manifest writes it: line breaks percent-encoded, nothing else."""
    return path.replace(b"\r", b"%0D").replace(b"\n", b"%0A")


def manifest_line(digest: bytes, path: bytes) -> bytes:
    """Return one line of a payload manifest."""
    return b"%b  %b%b\n" % (digest.hex().encode(), PAYLOAD, encoded(path))


def read_manifest(lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``(digest, path)`` of the lines that ``manifest_line`` wrote."""
    for line in lines:
        digest, _, name = line.rstrip(b"\n").partition(b"  ")
        # Only encoded() made these: PathCheck refuses names that have one by themselves.
        yield bytes.fromhex(digest.decode()), name[len(PAYLOAD) :].replace(b"%0D", b"\r").replace(b"%0A", b"\n")


def declaration(version: str) -> bytes:
    """Return ``bagit.txt``."""
    return f"BagIt-Version: {version}\nTag-File-Character-Encoding: UTF-8\n".encode()


def info(fields: Iterable[tuple[str, object]]) -> bytes:
    """Return ``bag-info.txt``: one line for each field that is not None; whatever a value holds, it stays one line."""
    lines = [f"{key}: {' '.join(str(value).split())}\n" for key, value in fields if value is not None]
    return "".join(lines).encode("utf-8", "backslashreplace")


def _as_read(name: str) -> str | None:
    """Return what bagit-python makes of a name in a manifest; None if it does not see one line there."""
    lines = f"digest  data/{name}\n".splitlines()
    if len(lines) != 1:
        return None
    read = lines[0].strip().split(None, 1)[1].removeprefix("data/")
    return read.replace("%0D", "\r", _DECODED_BY_READER).replace("%0A", "\n", _DECODED_BY_READER)
