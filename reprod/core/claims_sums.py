r"""Reads SHA256SUMS and its like as ``sha256sum --check --strict`` does: a line that is not well-formed is an error.

The algorithm follows from the length of the digests, the same on every line: md5, sha1, sha256 or sha512, also those of
b2sum and b3sum where the file is called so. A leading ``\`` says that ``\\``, ``\n``, ``\r`` in the name are escapes;
``*`` marks binary and means nothing; CR before LF is dropped; ``#`` begins a comment, ``#L `` our line of a link.
"""

import re
from collections.abc import Iterable, Iterator

from reprod.core.claims import DIGEST_SIZES, Claims, ClaimsBuilder, Refused, parse_digest, shorten
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


def check_sums(chunks: Iterable[bytes], name: str, *, exact: bool = False) -> None:
    """Judge each line by itself and keep none, so that a bad one is found before those above it take memory.

    Many lines at once: 3,000,000 in a second, where taking them costs ten and 600 MB. What two lines say together (a
    path twice, one below another) is not seen. Raises as ``parse_sums`` does.
    """
    lines = _Lines(name, exact)
    many: re.Pattern[bytes] | None = None
    for block in _blocks(chunks, lines):
        at = 0
        while at < len(block):
            found = many.match(block, at) if many is not None else None
            if found is not None and found.end() > at:
                lines.number += block.count(b"\n", at, found.end())
                at = found.end()
                continue
            end = block.find(b"\n", at) + 1 or len(block)
            lines.take(lines.scratch, block[at:end])
            lines.scratch.packed.clear()
            at = end
            if many is None and lines.algorithm:
                many = _many(2 * DIGEST_SIZES[lines.algorithm])


def add_sums(builder: ClaimsBuilder, chunks: Iterable[bytes], name: str, *, exact: bool = False) -> None:
    """Put what the lines claim into ``builder``; raises as ``parse_sums`` does."""
    lines = _Lines(name, exact)
    for block in _blocks(chunks, lines):
        lines.take(builder, block)


class _Lines:
    """Takes lines, all of the algorithm of the first one. Every fault is raised as DamagedError with its number."""

    def __init__(self, name: str, exact: bool) -> None:
        self.name, self.exact = name, exact
        self.number, self.algorithm = 0, ""
        self.scratch = ClaimsBuilder()
        self._hints = next((found for start, found in _BY_NAME.items() if name.lower().startswith(start)), {})

    def take(self, builder: ClaimsBuilder, block: bytes) -> None:
        """Put what whole lines claim into ``builder``."""
        exact, algorithm = self.exact, self.algorithm
        try:
            for raw in block.removesuffix(b"\n").split(b"\n"):
                self.number += 1
                line = raw[:-1] if raw.endswith(b"\r") else raw
                found = _LINE.fullmatch(line)
                if found is None:
                    _no_file(builder, line, exact=exact)
                    continue
                flag, text, path = found.groups()
                of_line = self._hints.get(len(text)) or _BY_LENGTH.get(len(text), "")
                if of_line != algorithm or not of_line:
                    if algorithm or not of_line:
                        raise Refused(_other_length(len(text), algorithm))
                    algorithm = self.algorithm = of_line
                if flag:
                    path = _unescape(path)
                builder.add(path, Kind.FILE, None, {algorithm: parse_digest(algorithm, text.decode())}, exact=exact)
        except Refused as error:
            raise self.damaged(error) from None

    def damaged(self, error: Refused) -> DamagedError:
        """Return the error for a fault in the present line."""
        return DamagedError(f"{self.name}: line {self.number}: {error}", hint=HINT)


def _many(digits: int) -> re.Pattern[bytes]:
    """Return an expression for as many lines as follow each other that nothing can be said against.

    It does not know all of these: a comment, for one, is judged as a line of its own.
    """
    path = rb"(?!/|BACK|[A-Za-z]:(?:/|BACK))(?>(?:(?!\.{0,2}/)NAME/)*)(?!\.{0,2}\r?\n)NAME\n"
    plain = path.replace(b"BACK", rb"\\").replace(b"NAME", rb"[^/\n\0]++")
    escaped = path.replace(b"BACK", rb"\\\\").replace(b"NAME", rb"(?>(?:[^/\n\0\\]++|\\[\\nr])+)")
    digest, link = rb"[0-9A-Fa-f]{%d} [ *]" % digits, rb"[0-9A-Fa-f]{64}  "
    lines = [digest + plain, rb"\\" + digest + escaped, b"#L " + link + plain, rb"#L \\" + link + escaped]
    return re.compile(rb"(?>(?:" + b"|".join(lines) + rb")*)")


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


def _blocks(chunks: Iterable[bytes], lines: _Lines) -> Iterator[bytes]:
    """Yield pieces of whole lines; the last line of all may lack its end."""
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        end = text.rfind(b"\n") + 1
        if end:
            yield text[:end]
        rest = text[end:]
        if len(rest) > MAX_LINE:
            raise lines.damaged(Refused(f"the line after the last one that ended has more than {MAX_LINE:,} bytes"))
    if rest:
        yield rest


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
