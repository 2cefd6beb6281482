"""Retrieval over documents whose bytes are known: index text files, ask, and trace an answer to a digest.

Needs the extra `rag`; with another embedder than the default one DuckDB is enough. See docs/rag.md.
"""

from reprod.integrations.rag.chunking import Chunker
from reprod.integrations.rag.documents import Skipped
from reprod.integrations.rag.embedding import Embedder, HashingEmbedder, Identity
from reprod.integrations.rag.indexer import RAGIndexer
from reprod.integrations.rag.model import SentenceTransformersEmbedder
from reprod.integrations.rag.results import Hit, Indexed

__all__ = [
    "Chunker",
    "Embedder",
    "HashingEmbedder",
    "Hit",
    "Identity",
    "Indexed",
    "RAGIndexer",
    "SentenceTransformersEmbedder",
    "Skipped",
]
