"""Owns how a document becomes passages. Rule: the same text and settings always give the same chunks, each of which is
an unbroken stretch of the document's own bytes, so that a hit can be found again in the file.

A heading (``#``, or underlined) begins a chunk, a fenced code block and a paragraph stay whole where they fit. What
does not fit is cut after a sentence, a line or a word, in this order. A chunk that goes on in a section begins with the
end of the one before it. Positions in a text are characters, in a ``Chunk`` bytes of UTF-8.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from reprod.errors import UsageError

#: The default model reads 256 tokens, which are some 1,000 characters of English; more would be cut off unseen.
SIZE = 800
#: A sentence or two: what is said across the border of two chunks is found in one of them.
OVERLAP = 120
#: Below, a character with all that combines with it might not fit.
SMALLEST = 50
#: A heading is also put before the text that is embedded; a whole paragraph marked as one must not crowd it out.
TITLE = 120

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r"\ufeff? {0,3}(#{1,6})[ \t]")
_UNDERLINE = re.compile(r"(=+|-+|~+|\^+)\Z")
_WORD = re.compile(r"\w")
#: Where a long text may be cut, the best first: after a sentence, a line, a word.
_SENTENCE, _NEWLINE, _BLANK = (
    re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])"),
    re.compile(r"\n+"),
    re.compile(r"\s+"),
)
_BORDERS = (_SENTENCE, _NEWLINE, _BLANK)
#: What begins so, a table or code, is made of lines.
_LINED = ("|", "```", "~~~")
#: Joins the characters around it to one.
_JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class Chunk:
    """``text`` is bytes ``start`` to ``end`` of the document; ``heading`` the titles above it, joined by `` > ``."""

    start: int
    end: int
    heading: str
    text: str

    @property
    def passage(self) -> str:
        """What is embedded: the text with the titles that it stands under."""
        return f"{self.heading}\n\n{self.text}" if self.heading else self.text

    @property
    def digest(self) -> bytes:
        """The sha256 of the passage: equal passages are embedded once, in whatever documents they are."""
        return hashlib.sha256(self.passage.encode()).digest()


class _Block(NamedTuple):
    """A stretch that stays whole if it fits: characters, and for a heading its level and title."""

    start: int
    end: int
    level: int = 0
    title: str = ""


class _Span(NamedTuple):
    start: int
    end: int
    heading: str


@dataclass(frozen=True, slots=True)
class Chunker:
    """Cuts texts into chunks of at most ``size`` characters, and up to ``overlap`` more from the chunk before.

    :raises UsageError: the sizes are none.
    """

    size: int = SIZE
    overlap: int = OVERLAP

    def __post_init__(self) -> None:
        if not (0 <= self.overlap < self.size and self.size >= SMALLEST):
            raise UsageError(
                f"chunks of {self.size} characters with an overlap of {self.overlap} cannot be",
                hint=f"usual are {SIZE} and {OVERLAP}; a chunk has {SMALLEST} at least, and more than its overlap",
            )

    @property
    def name(self) -> str:
        """What tells one way of cutting from another; the number is raised when the same text gives other chunks."""
        return f"passages/1 size={self.size} overlap={self.overlap}"

    def split(self, text: str) -> list[Chunk]:
        """Return the chunks of a document in its order; none for a text without a word."""
        chunks: list[Chunk] = []
        character = byte = 0
        for span in self._spans(text):
            start, end = _trimmed(text, span.start, span.end)
            if not _WORD.search(text, start, end):
                continue
            byte += len(text[character:start].encode())
            character = start
            taken = text[start:end]
            chunks.append(Chunk(byte, byte + len(taken.encode()), span.heading, taken))
        return chunks

    def _spans(self, text: str) -> Iterator[_Span]:
        """Pack blocks into spans: a heading closes one that has a body, a block that does not fit closes it too."""
        titles: list[tuple[int, str]] = []
        start = end = -1
        has_body = False
        for block in self._fitting(text):
            # Titles alone are no passage: what comes next goes with them, as long as a chunk is no longer than others.
            fits = block.end - start <= self.size + (0 if has_body else self.overlap)
            if start >= 0 and ((block.level and has_body) or not fits):
                yield _Span(start, end, _path(titles))
                start = block.start if block.level else self._overlapping(text, start, end)
                has_body = False
            if block.level:
                titles = [above for above in titles if above[0] < block.level] + [(block.level, block.title)]
            start = block.start if start < 0 else start
            end = block.end
            has_body = has_body or not block.level
        if start >= 0:
            yield _Span(start, end, _path(titles))

    def _fitting(self, text: str) -> Iterator[_Block]:
        """Yield the blocks of a text, those that are too long in pieces."""
        for block in _blocks(text):
            start = block.start
            lined = text.startswith(_LINED, block.start)
            while block.end - start > self.size:
                cut = _cut(text, start, start + self.size, lined=lined)
                yield block._replace(start=start, end=cut)
                start = cut
            yield block._replace(start=start)

    def _overlapping(self, text: str, start: int, end: int) -> int:
        """Return where the chunk after ``start`` to ``end`` begins: at a border within the overlap, else at its end."""
        earliest = max(start + 1, end - self.overlap)
        for border in _BORDERS:
            found = border.search(text, earliest, end)
            if found is not None and found.end() < end:
                return found.end()
        return end


def _blocks(text: str) -> Iterator[_Block]:
    """Yield headings, fenced code and paragraphs, in their order; blank lines lie between them."""
    start = end = -1  # of the block that is open
    lines = 0
    fence = ""
    for found in _LINE.finditer(text):
        line, stripped = found[0], found[0].strip(" \t\r\n\f\v\ufeff")
        if fence:
            end = found.end()
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                yield _Block(start, end)
                start, fence = -1, ""
            continue
        opening, heading = _FENCE.match(line), _ATX.match(line)
        title = _title(line[heading.end() :]) if heading else ""
        underlined = lines == 1 and start >= 0 and len(stripped) > 1 and _UNDERLINE.match(stripped)
        if underlined:
            yield _Block(start, found.end(), 1 if stripped[0] == "=" else 2, _title(text[start:end]))
            start = -1
            continue
        if start >= 0 and (opening or title or not stripped):
            yield _Block(start, end)
            start = -1
        if heading and title:
            yield _Block(found.start(), found.end(), len(heading[1]), title)
        elif stripped:
            lines = 1 if start < 0 else lines + 1
            start = found.start() if start < 0 else start
            end = found.end()
            fence = opening[1] if opening else ""
    if start >= 0:
        yield _Block(start, end)


def _title(line: str) -> str:
    """Return the title in a heading's line, without the ``#`` that may close it."""
    title = line.strip(" \t\r\n\ufeff")
    bare = title.rstrip("#")
    return (bare.rstrip() if not bare or bare[-1] in " \t" else title)[:TITLE]


def _cut(text: str, start: int, end: int, *, lined: bool) -> int:
    """Return the best place to cut before ``end``: in the second half, so that no sliver is left."""
    half = (start + end) // 2
    for border in (_NEWLINE, _SENTENCE, _BLANK) if lined else _BORDERS:
        cuts = [found.end() for found in border.finditer(text, half, end) if found.end() < end]
        if cuts:
            return cuts[-1]
    cut = end
    while cut > half and (unicodedata.combining(text[cut]) or _JOINER in text[cut - 1 : cut + 1]):
        cut -= 1
    return cut


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the white space at its ends; indentation of its first line stays."""
    taken = text[start:end]
    blank = len(taken) - len(taken.lstrip())
    return start + taken.rfind("\n", 0, blank) + 1, end - len(taken) + len(taken.rstrip())


def _path(titles: list[tuple[int, str]]) -> str:
    return " > ".join(title for _, title in titles)
