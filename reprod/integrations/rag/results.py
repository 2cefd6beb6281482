"""What the calls of ``RAGIndexer`` return. Positions are bytes, times seconds, counts documents if nothing is said."""

from dataclasses import dataclass

from reprod.integrations.rag.documents import Skipped


@dataclass(frozen=True, slots=True)
class Indexed:
    """What an indexing call did, in documents: ``embedded`` had a content that was new, ``unchanged`` had not.

    ``removed`` were there before and are not now. ``passages`` is how many texts the embedder was given: in a document
    that changed only those that did. ``anew`` says with what the index was made before, if that is why all is embedded.
    """

    documents: int
    embedded: int
    unchanged: int
    removed: int
    chunks: int
    passages: int
    seconds: float
    skipped: tuple[Skipped, ...] = ()
    anew: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage: bytes ``start`` to ``end`` of the file at ``path`` whose sha256 is ``digest`` (hex).

    ``score`` is the cosine of its vector and the question's, at most 1. ``heading`` are the titles above it.
    """

    path: str
    digest: str
    text: str
    score: float
    start: int
    end: int
    heading: str
