"""Owns what turns text into vectors: the protocol, and an embedder that needs nothing but Python.

Rule: an embedder says who it is before it is asked for vectors, and two that say the same give the same vectors; on
that an index relies when it embeds only what is new. Vectors are numbers without a unit; the index brings each to
length 1.
"""

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

import anyio.to_thread

from reprod.errors import ReprodError, UsageError


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an embedder is. ``version`` must change whenever the same text would get another vector."""

    name: str
    version: str
    dimensions: int

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.dimensions})"


class Embedder(Protocol):
    """What RAGIndexer asks for vectors. Both calls must not block the event loop; texts are never empty."""

    async def identify(self) -> Identity:
        """Return who this is; a model may be loaded for it."""
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return one vector of ``dimensions`` finite numbers for each text, in their order."""
        ...


#: With 512 the words of one chunk (some 130, each with a handful of parts) begin to share places; 2048 find no more.
DIMENSIONS = 1024
#: Counted little, because they are in every passage of English: what a question shares with a text must be its nouns.
_COMMON_WORDS = (
    "a an and are as at be but by can do does for from has have how i if in into is it its no not of on one or our so "
    "than that the their them then there these they this to was we were what when where which who why will with would "
    "you your"
)
COMMON = frozenset(_COMMON_WORDS.split())
_TOKEN = re.compile(r"\w+")
#: Parts of words bring ``index`` and ``indexing`` together; whole words must still count for more than look-alikes.
_PART, _PART_WEIGHT, _COMMON_WEIGHT = 4, 0.35, 0.05


class HashingEmbedder:
    """Vectors by hashing words and parts of four characters: no model, no download, the same on every machine.

    It finds passages that share words, or stems of words, with the question. It knows no synonyms and no other
    language: for that take a model. Some 2 ms for a chunk.
    """

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        if dimensions < 1:
            raise UsageError(f"{dimensions} dimensions are none", hint=f"the usual number is {DIMENSIONS}")
        self._dimensions = dimensions

    async def identify(self) -> Identity:
        """Return who this is."""
        return Identity("reprod-hashing", "1", self._dimensions)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text, made in a thread."""
        return await anyio.to_thread.run_sync(lambda: [self._vector(text) for text in texts])

    def _vector(self, text: str) -> Sequence[float]:
        vector = array("f", bytes(4 * self._dimensions))
        for feature, weight in _features(text):
            place = crc32(feature.encode("utf-8", "surrogatepass"))
            # The highest bit is the sign: what falls on one place by chance cancels out instead of adding up.
            vector[place % self._dimensions] += weight if place >> 31 else -weight
        return vector


def _features(text: str) -> Iterator[tuple[str, float]]:
    """Yield what a text has with its weight, which grows with the logarithm of how often."""
    for word, count in Counter(_TOKEN.findall(text.casefold())).items():
        weight = 1 + math.log(count)
        if word in COMMON:
            yield word, weight * _COMMON_WEIGHT
            continue
        yield word, weight
        padded = f"<{word}>"
        for i in range(len(padded) - _PART + 1):
            yield padded[i : i + _PART], weight * _PART_WEIGHT


def checked(identity: Identity, vectors: Sequence[Sequence[float]], count: int) -> list[list[float]]:
    """Return vectors of length 1, as lists; one of zeros stays so and is like nothing.

    :raises ReprodError: not as many, of another size, or not finite: a broken embedder, whose vectors rank by chance.
    """
    if len(vectors) != count:
        raise _broken(identity, f"returned {len(vectors)} vectors for {count} texts")
    found = []
    for vector in vectors:
        numbers = vector.tolist() if hasattr(vector, "tolist") else [float(number) for number in vector]
        if len(numbers) != identity.dimensions:
            raise _broken(identity, f"returned a vector of {len(numbers)} numbers")
        length = math.hypot(*numbers)
        if not math.isfinite(length):
            raise _broken(identity, "returned a vector that is not finite")
        found.append([number / length for number in numbers] if length else numbers)
    return found


def _broken(identity: Identity, what: str) -> ReprodError:
    return ReprodError(f"the embedder {identity} {what}", hint="mend the embedder; nothing of this was stored")
