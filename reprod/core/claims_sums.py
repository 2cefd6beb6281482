r"""Reads SHA256SUMS and its like as ``sha256sum --check --strict`` does: a line that is not well-formed is an error.

The algorithm follows from the length of the digests, the same on every line: md5, sha1, sha256 or sha512, also those of
b2sum and b3sum where the file is called so. A leading ``\`` says that ``\\``, ``\n``, ``\r`` in the name are escapes;
``*`` marks binary and means nothing; CR before LF is dropped; ``#`` begins a comment, ``#L `` our line of a link.
"""

import re
from collections.abc import Iterable, Iterator

from reprod.core.claims import Claims, ClaimsBuilder, Refused, parse_digest, shorten
from reprod.core.claims_document import HINT
from reprod.core.entry import Kind
from reprod.errors import DamagedError

#: A line: the longest path that Linux opens is 4096 bytes; with openat there is no limit.
MAX_LINE = 1 << 20

#: Lines that are comments; a packed file of nothing else would keep us busy for minutes.
MAX_COMMENTS = 10_000

_BY_LENGTH = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
_BY_NAME = {"b2sum": {128: "blake2b"}, "blake2b": {128: "blake2b"}, "b3sum": {64: "blake3"}, "blake3": {64: "blake3"}}

_LINE = re.compile(rb"(\\?)([0-9A-Fa-f]{32,128}) [ *](.+)", re.DOTALL)
_LINK = re.compile(rb"#L (\\?)([0-9A-Fa-f]{64})  (.+)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(.?)", re.DOTALL)
_ESCAPED = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


def parse_sums(chunks: Iterable[bytes], name: str) -> Claims:
    """Return the claims of a file that comes in pieces. ``name`` is the file's: messages call it so.

    :raises DamagedError: a line is malformed, or there is none.
    """
    builder = ClaimsBuilder()
    add_sums(builder, chunks, name)
    if not builder.packed:
        raise DamagedError(f"{name}: it lists nothing", hint=HINT)
    try:
        builder.check_parents()
    except Refused as error:
        raise DamagedError(f"{name}: {error}", hint=HINT) from None
    return Claims(builder.entries(), builder.algorithms(), weak=builder.is_weak(), links=builder.links())


def add_sums(builder: ClaimsBuilder, chunks: Iterable[bytes], name: str, *, exact: bool = False) -> None:
    """Put what the lines claim into ``builder``; raises as ``parse_sums`` does."""
    algorithm, number = "", 0
    hints = next((found for start, found in _BY_NAME.items() if name.lower().startswith(start)), {})
    try:
        for line in _lines(chunks):
            number += 1
            found = _LINE.fullmatch(line)
            if found is None:
                _no_file(builder, line, exact=exact)
                continue
            flag, text, path = found.groups()
            of_line = hints.get(len(text)) or _BY_LENGTH.get(len(text), "")
            if of_line != algorithm or not of_line:
                if algorithm or not of_line:
                    raise Refused(_other_length(len(text), algorithm))
                algorithm = of_line
            if flag:
                path = _unescape(path)
            builder.add(path, Kind.FILE, None, {algorithm: parse_digest(algorithm, text.decode())}, exact=exact)
    except Refused as error:
        raise DamagedError(f"{name}: line {number}: {error}", hint=HINT) from None


def _no_file(builder: ClaimsBuilder, line: bytes, *, exact: bool) -> None:
    """Take a line that is none of a file: a symlink's or a comment."""
    if line.startswith(b"#L "):
        found = _LINK.fullmatch(line)
        if found is None:
            raise Refused("not a line for a symlink")
        flag, text, path = found.groups()
        hashes = {"sha256": parse_digest("sha256", text.decode())}
        builder.add(_unescape(path) if flag else path, Kind.LINK, None, hashes, exact=exact)
    elif not line.startswith(b"#"):
        raise Refused(f"{shorten(line.decode('latin-1'), 40)} is not a digest, two spaces and a path")
    else:
        builder.passed_over += 1
        if builder.passed_over > MAX_COMMENTS:
            raise Refused(f"there are more than {MAX_COMMENTS:,} comments")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line[:-1] if line.endswith(b"\r") else line
        if len(rest) > MAX_LINE:
            raise Refused(f"the line after the last one that ended has more than {MAX_LINE:,} bytes")
    if rest:
        yield rest[:-1] if rest.endswith(b"\r") else rest


def _unescape(name: bytes) -> bytes:
    if b"\\" not in name:
        return name

    def plain(found: re.Match[bytes]) -> bytes:
        try:
            return _ESCAPED[found[1]]
        except KeyError:
            raise Refused("an escape other than \\\\, \\n and \\r") from None

    return _ESCAPE.sub(plain, name)


def _other_length(digits: int, algorithm: str) -> str:
    if algorithm:
        return f"a digest of {digits} digits among those of {algorithm}"
    return f"a digest of {digits} digits: of none of {', '.join(_BY_LENGTH.values())}"
