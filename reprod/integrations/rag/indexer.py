"""Owns ``RAGIndexer``: from documents to an index, and from a question to passages of documents whose bytes are known.

Rule: after ``index_documents`` the index holds exactly the documents of that call, each at the digest that the manifest
of the same call names, and only what was not there before was embedded. Nothing is logged, printed or left open. All
that blocks runs in threads; times are seconds, sizes bytes.
"""

import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread

from reprod.core.entry import display
from reprod.errors import UsageError
from reprod.integrations.rag.capture import Capture
from reprod.integrations.rag.chunking import Chunk, Chunker
from reprod.integrations.rag.documents import (
    PATTERNS,
    AnyPath,
    Corpus,
    Document,
    Skipped,
    decode,
    find_sources,
    read_bytes,
    take_stock,
)
from reprod.integrations.rag.embedding import Embedder, Identity, checked
from reprod.integrations.rag.lock import locked
from reprod.integrations.rag.results import Hit, Indexed
from reprod.integrations.rag.store import Addition, Index, load_duckdb

#: A document that changed between the manifest and its reading is described again; one that always does is left out.
ATTEMPTS = 3
#: Read at once and stored in one transaction: enough that opening the file (some 50 ms) does not count, and what a
#: killed process has to embed again stays small.
GROUP_DOCUMENTS, GROUP_BYTES = 64, 8 << 20
READ_AT_ONCE = 16
#: Passages in one call of the embedder.
EMBED_AT_ONCE = 64


@dataclass(slots=True)
class _Work:
    """One call: what the index has, what is not a text, what changed while it was read."""

    index: Index
    identity: Identity
    contents: set[bytes]
    passages: set[bytes]
    unfit: dict[bytes, str] = field(default_factory=dict)
    new: set[bytes] = field(default_factory=set)
    moved: set[bytes] = field(default_factory=set)
    embedded: int = 0


class RAGIndexer:
    """Indexes text files for questions, so that each answer names the exact bytes that it came from.

    :param capture_environment: log this process's environment to the active MLflow run at each indexing.
    :param capture_data_manifest: log the manifest of the documents there, with counts.
    :param index_dir: the folder of the index; made if needed, relative to the current folder when this is called.
    :param embedder: by default ``SentenceTransformersEmbedder()``.
    :param chunker: how documents are cut.
    :param patterns: gitignore patterns of what is taken from a folder.
    :raises UsageError: something that is needed is not installed.
    """

    def __init__(
        self,
        capture_environment: bool = False,
        capture_data_manifest: bool = False,
        *,
        index_dir: AnyPath = "./rag_index",
        embedder: Embedder | None = None,
        chunker: Chunker | None = None,
        patterns: Sequence[str] = PATTERNS,
    ) -> None:
        load_duckdb()  # now, because loading a native library stalls an event loop
        if embedder is None:
            from reprod.integrations.rag.model import SentenceTransformersEmbedder

            embedder = SentenceTransformersEmbedder()
        self.index_dir = Path(os.path.abspath(index_dir))
        self._embedder, self._chunker = embedder, chunker or Chunker()
        self._patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self._capture = Capture(capture_environment, capture_data_manifest)
        self._store = anyio.CapacityLimiter(1)

    async def index_documents(self, documents: AnyPath | Iterable[AnyPath]) -> Indexed:
        """Make the index hold these files, and the text files in these folders, and nothing else.

        Every byte is read, and what has a content that the index knows is not embedded, wherever it lies now. What
        cannot be indexed is in ``skipped``. Until it ends, and if it is cancelled or killed, the old corpus is
        searched.

        :raises UsageError: no document is found, or something is to be captured and there is no MLflow run.
        :raises DatasetUnavailableError: a path is not there. :raises AlreadyRunningError: another call is indexing.
        :raises StateError: the index cannot be written. :raises DamagedError: it is none.
        :raises TrackingError: MLflow fails; after the documents were read, the index is made all the same.
        """
        began = time.monotonic()
        run = await self._capture.begin()
        sources = await _thread(find_sources, documents, self._patterns, self.index_dir)
        async with self._locked():
            work, anew = await self._start()
            told = self._made_with(work.identity)
            for _ in range(ATTEMPTS):
                stock = partial(take_stock, sources, {"rag": told}, anyio.from_thread.check_cancelled)
                corpus = await _thread(stock)
                _require_documents(corpus, self._patterns)
                await self._take_in(work, corpus)
                if not work.moved:
                    break
            indexed = await self._publish(work, corpus, anew, began)
        if run is not None:
            await self._capture.end(run, corpus.manifests, indexed, told)
        return indexed

    async def search(self, query: str, limit: int = 5) -> list[Hit]:
        """Return the passages that are nearest to a question, the best first. Nothing is logged.

        :raises UsageError: the question is empty. :raises NotFoundError: there is no index, or it was made otherwise.
        """
        if not isinstance(query, str) or not query.strip() or limit < 1:
            raise UsageError(f"{query!r} with limit {limit} is no question", hint="give a text, and a limit from 1")
        identity = await self._embedder.identify()
        vectors = await self._embedder.embed([query])
        index = self._index(identity)

        def find() -> list[Hit]:
            (vector,) = checked(identity, vectors, 1)
            rows = index.search(vector, limit)
            return [
                Hit(os.fsdecode(row.path), row.content.hex(), row.text, row.score, row.start, row.end, row.heading)
                for row in rows
            ]

        found: list[Hit] = await _thread(find, limiter=self._store)
        return found

    def _index(self, identity: Identity) -> Index:
        return Index(self.index_dir, identity, self._chunker.name, anyio.from_thread.check_cancelled)

    def _made_with(self, identity: Identity) -> dict[str, str]:
        """Return what the index is made with, as a run and a manifest say it."""
        store = f"duckdb {load_duckdb().__version__}"
        return {"embedder": str(identity), "chunker": self._chunker.name, "store": store}

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        lock = locked(self.index_dir)
        await _thread(lock.__enter__)
        try:
            yield
        finally:
            lock.__exit__(None, None, None)  # closes a file, which does not block

    async def _start(self) -> tuple[_Work, str | None]:
        identity = await self._embedder.identify()
        index = self._index(identity)
        anew = await _thread(index.made_by_another)
        contents, passages = await _thread(index.known, limiter=self._store)
        return _Work(index, identity, contents, passages), anew

    async def _take_in(self, work: _Work, corpus: Corpus) -> None:
        """Read, cut, embed and store every content that the index has not, group by group."""
        work.moved.clear()
        for group in await _thread(_groups, work, corpus):
            await self._add(work, group)

    async def _add(self, work: _Work, group: list[Document]) -> None:
        contents: dict[bytes, list[Chunk]] = {}
        reads = anyio.CapacityLimiter(READ_AT_ONCE)

        async def read(each: Document) -> None:
            async with reads:
                data = await read_bytes(each)
                chunks = None if data is None else await _thread(self._split, work, each, data)
            if chunks is not None:
                contents[each.digest] = chunks
            elif each.digest not in work.unfit:
                work.moved.add(each.digest)

        async with anyio.create_task_group() as tasks:
            for each in group:
                tasks.start_soon(read, each)
        vectors = await self._embed(work, contents)
        await _thread(work.index.add, Addition(contents, vectors), limiter=self._store)
        work.contents |= contents.keys()
        work.new |= contents.keys()
        work.passages |= vectors.keys()
        work.embedded += len(vectors)

    def _split(self, work: _Work, each: Document, data: bytes) -> list[Chunk] | None:
        """Return a document's chunks; None if it changed, or is no text, which is noted."""
        try:
            text = decode(data, each)
        except ValueError as error:
            work.unfit[each.digest] = str(error)
            return None
        return None if text is None else self._chunker.split(text)

    async def _embed(self, work: _Work, contents: dict[bytes, list[Chunk]]) -> dict[bytes, Sequence[float]]:
        """Return the vectors of the passages that have none, by their digest."""
        texts = await _thread(lambda: {chunk.digest: chunk.passage for chunks in contents.values() for chunk in chunks})
        missing = [digest for digest in texts if digest not in work.passages]
        vectors: dict[bytes, Sequence[float]] = {}
        for i in range(0, len(missing), EMBED_AT_ONCE):
            some = missing[i : i + EMBED_AT_ONCE]
            found = await self._embedder.embed([texts[digest] for digest in some])
            vectors |= zip(some, await _thread(checked, work.identity, found, len(some)), strict=True)
        return vectors

    async def _publish(self, work: _Work, corpus: Corpus, anew: str | None, began: float) -> Indexed:
        """Make what was taken in the corpus that is searched."""
        reasons = dict.fromkeys(work.moved, "changed while it was read") | work.unfit

        def publish() -> Indexed:
            there = [each for each in corpus.documents if each.digest in work.contents]
            # A folder that could not be listed proves no absence: what it held is kept for later, but not searched.
            removed, chunks = work.index.publish(((each.path, each.digest) for each in there), forget=corpus.complete)
            embedded = sum(each.digest in work.new for each in there)
            left_out = [each for each in corpus.documents if each.digest not in work.contents]
            return Indexed(
                documents=len(there),
                embedded=embedded,
                unchanged=len(there) - embedded,
                removed=removed,
                chunks=chunks,
                passages=work.embedded,
                seconds=time.monotonic() - began,
                skipped=(*corpus.skipped, *(Skipped(display(each.path), reasons[each.digest]) for each in left_out)),
                anew=anew,
            )

        indexed: Indexed = await _thread(publish, limiter=self._store)
        return indexed


def _groups(work: _Work, corpus: Corpus) -> list[list[Document]]:
    """Return the documents with a content that the index has not, one of each, as they are taken in together."""
    groups: list[list[Document]] = []
    size = 0
    for each in {each.digest: each for each in corpus.documents if each.digest not in work.contents}.values():
        if not groups or len(groups[-1]) == GROUP_DOCUMENTS or size + each.size > GROUP_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += each.size
    return groups


def _require_documents(corpus: Corpus, patterns: Sequence[str]) -> None:
    """Raise UsageError where nothing was found: an empty folder is a missing mount more often than an empty corpus."""
    if not corpus.documents:
        why = "; ".join(f"{each.path}: {each.reason}" for each in corpus.skipped[:3])
        raise UsageError(
            f"no document was found{': ' + why if why else ''}; the index is as it was",
            hint=f"give files, or folders that hold {' '.join(patterns)}; to empty an index remove its folder",
        )


async def _thread(call: Any, *args: Any, limiter: anyio.CapacityLimiter | None = None) -> Any:
    return await anyio.to_thread.run_sync(call, *args, limiter=limiter)
