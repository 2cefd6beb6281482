"""A process that is killed while it indexes leaves an index that answers, and is not made to do its work twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reprod.integrations.rag import HashingEmbedder, RAGIndexer

pytest.importorskip("duckdb", reason="DuckDB is not installed (extra rag)")

#: Ends itself where the second argument says, as SIGKILL would; documents come in groups of four.
VICTIM = """
import asyncio, os, signal, sys
from reprod.integrations.rag import HashingEmbedder, RAGIndexer, indexer, store
corpus, index, where = sys.argv[1:]
indexer.GROUP_DOCUMENTS = 4
def die(*args, **more):
    os.kill(os.getpid(), signal.SIGKILL)
class Embedder(HashingEmbedder):
    calls = 0
    async def embed(self, texts):
        self.calls += 1
        if where == "embedding" and self.calls == 2:
            die()
        return await super().embed(texts)
insert = store._insert
def dying(connection, table, *args):
    insert(connection, table, *args)
    if table == where:
        die()
store._insert = dying
if where == "before the name":
    store.write_atomic = die
if where == "no database yet":
    store.load_duckdb().connect = lambda path, **more: (open(path, "wb").close(), die())
asyncio.run(RAGIndexer(index_dir=index, embedder=Embedder()).index_documents(corpus))
"""


def write(corpus: Path, word: str) -> None:
    corpus.mkdir(exist_ok=True)
    for i in range(8):
        (corpus / f"{i}.md").write_text(f"# Number {i}\n\nThe {word} of chapter {i}.\n")


@pytest.mark.parametrize(
    ("where", "left"),
    [("embedding", 4), ("vector", 8), ("document", 0), ("before the name", 0), ("no database yet", 8)],
)
async def test_killed_anywhere_it_answers_and_goes_on(tmp_path: Path, where: str, left: int) -> None:
    """Until the end the old corpus is searched; the next call embeds only the ``left`` that were not committed."""
    corpus, index = tmp_path / "corpus", tmp_path / "index"
    write(corpus, "herring")
    indexer = RAGIndexer(index_dir=index, embedder=HashingEmbedder())
    old = where != "no database yet"
    if old:
        await indexer.index_documents(corpus)
    write(corpus, "walrus")
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, corpus, index, where],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    if old:
        word = "walrus" if where == "before the name" else "herring"
        assert {f"The {word} of chapter" in hit.text for hit in await indexer.search("chapter", 8)} == {True}

    indexed = await indexer.index_documents(corpus)
    assert (indexed.documents, indexed.embedded, indexed.unchanged, indexed.chunks) == (8, left, 8 - left, 8)
    hits = await indexer.search("walrus chapter", 20)
    assert sorted(Path(hit.path).name for hit in hits) == [f"{i}.md" for i in range(8)]
    assert {"walrus" in hit.text for hit in hits} == {True}
