"""Indexing documents again when nothing, or one of them, has changed, and a search. Needs the extra `rag`.

The embedder is the one without a model: what a model takes is the model's, and an unchanged document costs none of it.
"""

import asyncio
from pathlib import Path

from bench import Bench
from measure import in_turn, seconds, shell

from reprod.integrations.rag import HashingEmbedder, RAGIndexer

DOCUMENTS = 1000
SENTENCES = 100  # a document of some 5 KiB, in eight chunks


def rag(bench: Bench) -> None:
    """Measure what an indexing of some documents takes that has little to do, and a search in them."""
    count = min(DOCUMENTS, bench.manifest_files)
    root = bench.folder / "rag" / "documents"
    write_documents(root, count)
    indexer = RAGIndexer(index_dir=bench.folder / "rag" / "index", embedder=HashingEmbedder())
    asyncio.run(indexer.index_documents(root))

    def again() -> float:
        return seconds(lambda: asyncio.run(indexer.index_documents(root)))

    def changed() -> float:
        path = root / "0.md"
        path.write_text(path.read_text() + "\nOne more sentence.\n")
        return again()

    def search() -> float:
        return seconds(lambda: asyncio.run(indexer.search("sentence 17 of document 23")))

    sums = "find . -type f -print0 | xargs -0 -P2 -n 2500 sha256sum"
    unchanged, one, found, yard = in_turn(bench.rounds, again, changed, search, lambda: shell(sums, root))
    what = f"{count:,} documents of 5 KiB"
    bench.table.add(f"`index_documents`, {what}, unchanged", unchanged, yard=yard, by="xargs -P2 sha256sum")
    bench.table.add(f"`index_documents`, {what}, one changed", one)
    bench.table.add(f"`search`, {what} in 8 chunks each", found)


def write_documents(root: Path, count: int) -> None:
    """Write ``count`` documents that all differ."""
    root.mkdir(parents=True)
    for i in range(count):
        sentences = (f"This is sentence {j} of document {i}, no more." for j in range(SENTENCES))
        (root / f"{i}.md").write_text(f"# Document {i}\n\n" + " ".join(sentences) + "\n")
