"""Reads ``data_manifest.json``, ours or the seed's, from whoever wrote it: strictly, in bounded memory.

The lists are taken one element at a time, so a document of any length needs a window of text and the packed claims.
Refused are what JSON readers disagree about (duplicate keys, NaN, numbers beyond a double, lone surrogates, byte order
marks), and anything after the end. The absolute paths in it (``data_path``, ``path``) are never looked at.
"""

import codecs
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from reprod.core.claims import Claims, Refused, shorten
from reprod.core.claims_document import HINT, LISTS, DocumentReader
from reprod.errors import DamagedError

#: Characters of one file's entry; the longest path that Linux opens takes 25 thousand when every byte is escaped.
MAX_ELEMENT = 1 << 20

#: Characters of any other member of the document, above all the user's own ``metadata``. So many of ``{"":0},`` take
#: 80 MB and half a second.
MAX_MEMBER = 2 << 20

#: Bytes that a piece should have: the window grows by whole pieces.
CHUNK = 256 << 10

#: Members of the document itself.
MAX_MEMBERS = 1000

_NO_SPACE = re.compile(r"[^ \t\n\r]")

#: A half of a character, or of what looks like one: a whole one is two of them.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")

#: What may be left of a number, true, false or null where a text was cut.
_CUT = re.compile(r"[-+.\w]*\s*")


def parse_document(chunks: Iterable[bytes], name: str) -> Claims:
    """Return the claims of a document that comes in pieces. ``name`` is what messages call it.

    :raises DamagedError: anything in it is not what a manifest holds; the message says what and where.
    """
    return read_document(chunks, name).finish()


def read_document(chunks: Iterable[bytes], name: str) -> DocumentReader:
    """Read a whole document without judging its totals yet: a header's files may come from elsewhere."""
    window = _Window(chunks, name)
    reader = DocumentReader(name)
    if window.next() != "{":
        raise window.damaged("a manifest is a JSON object, this begins with something else")
    window.at += 1
    seen: set[str] = set()
    while window.next() != "}":
        if seen:
            window.expect(",")
        key = window.value(MAX_ELEMENT)
        if not isinstance(key, str):
            raise window.damaged("a key is no text")
        if key in seen or len(seen) >= MAX_MEMBERS:
            raise window.damaged(f"the key {shorten(key)} comes twice" if key in seen else "there are too many members")
        seen.add(key)
        window.expect(":")
        if key in LISTS and window.next() == "[":
            reader.begin(key)
            _elements(window, key, reader.element)
        else:
            reader.member(key, window.value(MAX_MEMBER))
    window.at += 1
    if window.next():
        raise window.damaged("something follows the end of the document")
    return reader


def _elements(window: "_Window", key: str, take: Callable[[str, int, Any], None]) -> None:
    """Hand over the elements of a list one by one."""
    window.at += 1
    number = 0
    while window.next() != "]":
        if number:
            window.expect(",")
            window.next()
        take(key, number, window.value(MAX_ELEMENT))
        number += 1
    window.at += 1


class _Window:
    """The part of a text that is being read; ``at`` is where in it."""

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self.text, self.at = "", 0
        self._chunks, self._name = iter(chunks), name
        self._decode = codecs.getincrementaldecoder("utf-8")("strict").decode
        self._before = 0
        self._ended = False
        self._scan = json.JSONDecoder(
            object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        ).raw_decode
        self._more()
        if self.text.startswith("\ufeff"):
            raise self.damaged("it begins with a byte order mark", hint="save it as UTF-8 without one")

    def next(self) -> str:
        """Skip white space and return the next character without taking it; "" at the end."""
        skipped = 0
        while True:
            found = _NO_SPACE.search(self.text, self.at)
            if found is not None:
                self.at = found.start()
                return found[0]
            skipped += len(self.text) - self.at
            self.at = len(self.text)
            if skipped > MAX_ELEMENT:
                raise self.damaged(f"more than {MAX_ELEMENT:,} blanks in one place")
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        """Take a character that must come now."""
        found = self.next()
        if not found:
            raise self._truncated()
        if found != character:
            raise self.damaged(f"{shorten(found)} where {shorten(character)} should be")
        self.at += 1
        self.next()

    def value(self, limit: int) -> Any:
        """Take the next value, of at most ``limit`` characters."""
        while True:
            try:
                found, end = self._scan(self.text, self.at)
            except json.JSONDecodeError as error:
                place = error.pos - self.at
                if len(self.text) - self.at < limit and self._more(limit):
                    continue  # perhaps it was only cut; the window is at its limit now, so this happens once
                if not self._ended and (error.msg.startswith("Unterminated") or place > limit - CHUNK):
                    raise self.damaged(f"one value has more than {limit:,} characters") from None
                if self._ended and (error.msg.startswith("Unterminated") or _CUT.fullmatch(self.text, self.at + place)):
                    raise self._truncated() from None
                raise self.damaged(f"not JSON: {error.msg}", self.at + place) from None
            except RecursionError:
                raise self.damaged("it is nested too deeply") from None
            except Refused as error:
                raise self.damaged(str(error)) from None
            except ValueError:  # int(): more digits than it converts
                raise self.damaged("a number has too many digits") from None
            if end < len(self.text) or not self._more(limit):
                if end - self.at > limit:
                    raise self.damaged(f"one value has more than {limit:,} characters")
                if _HALF.search(self.text, self.at, end) and not _is_text(found):
                    raise self.damaged("half a character (a lone surrogate)")
                self.at = end
                return found

    def damaged(self, message: str, at: int | None = None, hint: str = "") -> DamagedError:
        """Return the error for what is wrong here."""
        place = self._before + (self.at if at is None else at)
        return DamagedError(f"{self._name}: {message} (at character {place:,})", hint=hint or HINT)

    def _truncated(self) -> DamagedError:
        return self.damaged("it ends in the middle", len(self.text), hint="get a whole copy; this one is truncated")

    def _more(self, limit: int = MAX_ELEMENT) -> bool:
        """Drop what is read and fill the window up to ``limit`` characters, by one piece at least; False at the end."""
        wanted = max(1, limit - (len(self.text) - self.at))
        parts = [self.text[self.at :]]
        self._before += self.at
        self.at = 0
        got = 0
        while got < wanted and not self._ended:
            chunk = next(self._chunks, b"")
            self._ended = not chunk
            try:
                part = self._decode(chunk, self._ended)
            except UnicodeDecodeError as error:
                raise self._no_utf8(chunk, error) from None
            parts.append(part)
            got += len(part)
        self.text = "".join(parts)
        return got > 0

    def _no_utf8(self, chunk: bytes, error: UnicodeDecodeError) -> DamagedError:
        if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return self.damaged("it is UTF-16", hint="save it as UTF-8")
        if self._ended:
            return self._truncated()
        return self.damaged(f"it is not UTF-8: {error.reason}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(f"the key {shorten(twice)} comes twice in one object")
    return found


def _is_text(value: Any) -> bool:
    """Whether every text in a value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(text: str) -> Any:
    raise Refused(f"{text} is no JSON number")


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise Refused(f"the number {shorten(text, 20)} is too large")
    return found


def document_claims(document: Mapping[str, Any], name: str = "the manifest") -> Claims:
    """Return the claims of a document in memory, checked as one from a file. :raises DamagedError: as there."""
    reader = DocumentReader(name)
    for key, value in document.items():
        if key in LISTS and isinstance(value, (list, tuple)):
            reader.begin(key)
            for number, element in enumerate(value):
                reader.element(key, number, element)
        else:
            reader.member(key, value)
    if reader.files_omitted:
        raise reader.damaged("it lists no files", hint="give its file, with SHA256SUMS.gz beside it")
    return reader.finish()
