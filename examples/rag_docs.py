"""Ask a folder of documents, and check that an answer comes from the bytes that it names.

    python examples/rag_docs.py                     # this project's docs, with the default model
    python examples/rag_docs.py --hashing DOCS      # another folder, without a model

Indexes a copy of the folder, asks three questions, changes one document, indexes again (one document is embedded), asks
for what is new, and compares the answer's digest with ``sha256sum``. Needs reprod with its extra ``rag``, for
--hashing ``reprod`` and ``duckdb`` are enough.
"""

import argparse
import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path

from reprod.integrations.rag import HashingEmbedder, Hit, RAGIndexer

DOCS = Path(__file__).resolve().parent.parent / "docs"
QUESTIONS = (
    "How long are old versions of a dataset kept?",
    "How is the dataset digest dt1 made?",
    "How do I upgrade and go back?",
)
NEWS = "\n## The lighthouse\n\nThe backup tapes are stored in the lighthouse keeper's cellar, on the second shelf.\n"
ABOUT_NEWS = "Where are the backup tapes?"


def main() -> None:
    """Ask a copy of the folder, then check the last answer as anybody could."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS)
    parser.add_argument("--hashing", action="store_true", help="no model: find words, not meanings")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rag-docs-") as scratch:
        docs = Path(scratch) / "docs"
        shutil.copytree(args.folder, docs)
        indexer = RAGIndexer(index_dir=Path(scratch) / "index", embedder=HashingEmbedder() if args.hashing else None)
        hit = asyncio.run(ask(indexer, docs))
        done = subprocess.run(["sha256sum", hit.path], capture_output=True, text=True, check=True)
    print(f"\nsha256sum says {'the same' if done.stdout.startswith(hit.digest) else 'something else'}")


async def ask(indexer: RAGIndexer, docs: Path) -> Hit:
    """Index, ask, change a document, index again, ask for what is new; return that answer."""
    print(await index(indexer, docs))
    for question in QUESTIONS:
        show(question, await indexer.search(question, 1), docs)

    changed = min(docs.glob("*.md"))  # noqa: ASYNC240 - a few names, and nothing else runs here
    changed.write_text(changed.read_text() + NEWS)
    print(f"\n{changed.name} was changed\n{await index(indexer, docs)}")
    hits = await indexer.search(ABOUT_NEWS, 1)
    show(ABOUT_NEWS, hits, docs)
    return hits[0]


async def index(indexer: RAGIndexer, docs: Path) -> str:
    """Index the folder and say what that took."""
    done = await indexer.index_documents(docs)
    return f"{done.documents} documents, {done.embedded} embedded, {done.unchanged} unchanged, {done.chunks} chunks"


def show(question: str, hits: list[Hit], docs: Path) -> None:
    """Print an answer: the document, its digest, where in it, and how the passage begins."""
    print(f"\n{question}")
    for hit in hits:
        where = f"{Path(hit.path).relative_to(docs)} sha256:{hit.digest[:12]} bytes {hit.start}-{hit.end}"
        print(f"  {where}  ({hit.heading})")
        print(f"  {' '.join(hit.text.split())[:100]}")


if __name__ == "__main__":
    main()
