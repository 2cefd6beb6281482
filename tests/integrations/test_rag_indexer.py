"""What an index holds after each call, and what a hit says: counts, digests, skipped documents, refusals."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

import reprod.integrations.rag.indexer as indexer_module
from reprod.errors import (
    AlreadyRunningError,
    DamagedError,
    DatasetUnavailableError,
    NotFoundError,
    ReprodError,
    StateError,
    UsageError,
)
from reprod.integrations.rag import Chunker, HashingEmbedder, Identity, Indexed, RAGIndexer, store
from reprod.integrations.rag.chunking import Chunk
from reprod.integrations.rag.documents import MAX_BYTES

pytest.importorskip("duckdb", reason="DuckDB is not installed (extra rag)")

TEXTS = {
    "apples.md": "# Apples\n\nApples grow on trees and are red.\n",
    "boats.md": "# Boats\n\nA boat floats on water.\n\n## Sails\n\nSails catch the wind.\n",
    "deep/clocks.txt": "Clocks tell the time.\n",
}


class Watched(HashingEmbedder):
    """The real embedder, which also writes down what it was given, and can be held in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside, self.go_on = anyio.Event(), anyio.Event()
        self.go_on.set()

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self.texts += texts
        self.inside.set()
        await self.go_on.wait()
        return await super().embed(texts)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    for name, text in TEXTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def index_dir(tmp_path: Path) -> Path:
    return tmp_path / "index"


def new(index_dir: Path, **options: object) -> RAGIndexer:
    return RAGIndexer(index_dir=index_dir, **{"embedder": HashingEmbedder(), **options})


def counts(indexed: Indexed) -> tuple[int, int, int, int]:
    return indexed.documents, indexed.embedded, indexed.unchanged, indexed.removed


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_only_what_is_new_is_embedded(corpus: Path, index_dir: Path) -> None:
    """Unchanged, renamed and copied documents embed nothing, after a restart too; a changed one only what changed."""
    assert counts(await new(index_dir).index_documents(corpus)) == (3, 3, 0, 0)
    again = Watched()
    indexer = new(index_dir, embedder=again)
    assert counts(await indexer.index_documents(corpus)) == (3, 0, 3, 0)
    (corpus / "boats.md").rename(corpus / "deep" / "ships.md")
    (corpus / "copy.md").write_text(TEXTS["apples.md"])
    assert counts(await indexer.index_documents([corpus])) == (4, 0, 4, 1)
    assert again.texts == []

    (corpus / "deep" / "ships.md").write_text(TEXTS["boats.md"].replace("wind", "breeze"))
    (corpus / "deep" / "clocks.txt").unlink()
    indexed = await indexer.index_documents(corpus)
    assert (counts(indexed), indexed.passages, indexed.chunks) == ((3, 1, 2, 1), 1, 3)
    assert [text.splitlines()[-1] for text in again.texts] == ["Sails catch the breeze."]
    assert {hit.path for hit in await indexer.search("tell the time", 10)} == {
        str(corpus / name) for name in ("apples.md", "deep/ships.md")
    }


async def test_a_hit_is_bytes_of_a_file_that_can_be_checked(corpus: Path, index_dir: Path) -> None:
    """The best hit is in the right document; its digest is the file's, its text the bytes that it names."""
    indexer = new(index_dir)
    await indexer.index_documents(corpus)
    hits = await indexer.search("What catches the wind?", 2)
    assert Path(hits[0].path).name == "boats.md"
    assert hits[0].heading == "Boats > Sails"
    for hit in hits:
        data = Path(hit.path).read_bytes()
        assert hit.digest == hashlib.sha256(data).hexdigest()
        assert data[hit.start : hit.end].decode() == hit.text
    assert 1 >= hits[0].score >= hits[1].score
    assert hits == await new(index_dir).search("What catches the wind?", 2)


async def test_files_can_be_named_one_by_one_whatever_they_are_called(tmp_path: Path, index_dir: Path) -> None:
    """A named file is taken with any suffix, its neighbours are not; names that look like patterns are names."""
    names = ["[a]*.py", "!not.md", "#hash ", "with space.md", "back\\slash", "ünïcode.rst"]
    for name in (*names, "a.py", "other.md"):
        (tmp_path / name).write_text(f"text of {name}")
    (tmp_path / "ignored.md").write_text("no")
    (tmp_path / ".reprodignore").write_text("ignored.md\n")
    indexer = new(index_dir)
    indexed = await indexer.index_documents([tmp_path / name for name in (*names, "ignored.md")])
    assert [each.reason for each in indexed.skipped] == ["gone, or left out by a .reprodignore"]
    assert {Path(hit.path).name for hit in await indexer.search("text", 20)} == set(names)


async def test_another_embedder_or_chunker_embeds_all_anew_and_says_so(corpus: Path, index_dir: Path) -> None:
    """Vectors of two models are never compared: the old index is refused until all is embedded, then it is gone."""
    await new(index_dir).index_documents(corpus)
    for other in ({"embedder": HashingEmbedder(512)}, {"chunker": Chunker(300, 0)}):
        indexer = new(index_dir, **other)
        with pytest.raises(NotFoundError, match=r"was made with reprod-hashing 1 \(\d+\), passages/1 size="):
            await indexer.search("apples")
        indexed = await indexer.index_documents(corpus)
        assert (counts(indexed)[:3], bool(indexed.anew)) == ((3, 3, 0), True)
        assert (await indexer.search("apples"))[0].path.endswith("apples.md")
        assert len(list(index_dir.glob("*.duckdb"))) == 1
        assert (await indexer.index_documents(corpus)).anew is None


async def test_what_is_no_text_is_skipped_with_a_reason(corpus: Path, index_dir: Path) -> None:
    """Binary, foreign, huge and special documents are named; one that turned into such is not searched any more."""
    indexer = new(index_dir)
    await indexer.index_documents(corpus)
    (corpus / "apples.md").write_bytes(b"apples \xff")
    (corpus / "nul.txt").write_bytes(b"a\0b")
    (corpus / "link.md").symlink_to("boats.md")
    os.mkfifo(corpus / "pipe.md")
    with open(corpus / "huge.md", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    (corpus / "empty.md").touch()
    (corpus / "image.png").write_bytes(b"not asked for")
    indexed = await indexer.index_documents(corpus)
    assert {Path(each.path).name: each.reason for each in indexed.skipped} == {
        "apples.md": "not UTF-8 at byte 7",
        "huge.md": "larger than 16 MiB",
        "link.md": "a symlink: give what it points to",
        "nul.txt": "not text: it holds a NUL",
        "pipe.md": "not a regular file",
    }
    assert counts(indexed) == (3, 1, 2, 1)
    assert not [hit for hit in await indexer.search("apples", 10) if hit.path.endswith("apples.md")]


async def test_a_document_that_changes_while_it_is_read_is_read_again(
    corpus: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is indexed is what the manifest says, of the same moment; what never holds still is left out, and said."""
    real, manifests, changes = indexer_module.take_stock, [], iter(["one\n"])

    def then_change(*args: object) -> object:
        found = real(*args)
        manifests.append(found.manifests)
        for text in changes:
            (corpus / "apples.md").write_text(text)
            break
        return found

    monkeypatch.setattr(indexer_module, "take_stock", then_change)
    indexer = new(index_dir)
    indexed = await indexer.index_documents(corpus)
    assert (len(manifests), indexed.skipped) == (2, ())
    (hit,) = [hit for hit in await indexer.search("one", 10) if hit.path.endswith("apples.md")]
    assert (hit.text, hit.digest) == ("one", digest(corpus / "apples.md"))
    (file,) = [file for file in manifests[-1]["corpus"]["files"] if file["path"] == hit.path]
    assert file["hashes"]["sha256"] == hit.digest

    changes = iter([f"{i}\n" for i in range(9)])
    (corpus / "apples.md").write_text("and on it goes")
    indexed = await indexer.index_documents(corpus)
    assert [each.reason for each in indexed.skipped] == ["changed while it was read"]
    assert counts(indexed)[:1] == (2,)


async def test_one_call_at_a_time_and_the_old_corpus_is_searched_meanwhile(corpus: Path, index_dir: Path) -> None:
    """A second call is refused with the process that is at it; searching goes on in the old corpus."""
    held = Watched()
    indexer = new(index_dir, embedder=held)
    await indexer.index_documents(corpus)
    (corpus / "deep" / "clocks.txt").write_text("Zebras have stripes.\n")
    other = new(index_dir)
    held.inside, held.go_on = anyio.Event(), anyio.Event()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(indexer.index_documents, corpus)
            await held.inside.wait()
            with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} is indexing"):
                await other.index_documents(corpus)
            code = (
                f"import asyncio\nfrom reprod.integrations.rag import *\nx = RAGIndexer(index_dir={str(index_dir)!r}, "
            )
            code += f"embedder=HashingEmbedder())\nasyncio.run(x.index_documents({str(corpus)!r}))"
            done = await anyio.run_process([sys.executable, "-c", code], check=False)
            assert f"process {os.getpid()} is indexing".encode() in done.stderr
            assert (await other.search("time"))[0].text == "Clocks tell the time."
            held.go_on.set()
    assert (await other.search("stripes"))[0].text == "Zebras have stripes."


async def test_a_cancelled_call_leaves_the_old_corpus_and_the_next_one_goes_on(corpus: Path, index_dir: Path) -> None:
    """Cancelled while embedding: nothing is half there, no lock is left."""
    held = Watched()
    indexer = new(index_dir, embedder=held)
    await indexer.index_documents(corpus)
    (corpus / "deep" / "clocks.txt").write_text("Zebras have stripes.\n")
    held.inside, held.go_on = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(indexer.index_documents, corpus)
        await held.inside.wait()
        tasks.cancel_scope.cancel()
    held.go_on.set()
    assert (await indexer.search("time"))[0].text == "Clocks tell the time."
    assert counts(await indexer.index_documents(corpus)) == (3, 1, 2, 0)


async def test_what_cannot_be_listed_is_kept_for_later_but_not_searched(corpus: Path, index_dir: Path) -> None:
    """Where absence is not proven the vectors stay, and nothing is embedded again when the documents are back."""
    indexer = new(index_dir)
    await indexer.index_documents(corpus)
    identity = await HashingEmbedder().identify()
    index = indexer_module.Index(index_dir, identity, Chunker().name)
    (row,) = index.search([1.0] + [0.0] * 1023, 1)
    index.publish([(row.path, row.content)], forget=False)
    assert {hit.path for hit in await indexer.search("apples boats clocks", 10)} == {os.fsdecode(row.path)}
    assert counts(await indexer.index_documents(corpus)) == (3, 0, 3, 0)


HOLD = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


async def test_an_index_that_is_open_elsewhere_is_waited_for(
    corpus: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another process or in this one: the call goes on when it is closed, and gives up after a time."""
    await new(index_dir).index_documents(corpus)
    identity = await HashingEmbedder().identify()
    (file,) = index_dir.glob("*.duckdb")
    waited = []

    def let_go() -> None:
        waited.append(True)
        process.communicate()

    with subprocess.Popen([sys.executable, "-c", HOLD, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(store.Index(index_dir, identity, Chunker().name, let_go).search([1.0] * 1024, 9)) == 4
    held = store.load_duckdb().connect(str(file))
    assert len(store.Index(index_dir, identity, Chunker().name, held.close).known()[0]) == 3
    assert waited
    with store.load_duckdb().connect(str(file)):
        monkeypatch.setattr(store, "BUSY_S", -1.0)
        with pytest.raises(StateError, match="is in use"):
            store.Index(index_dir, identity, Chunker().name).known()


async def test_calls_that_cannot_be_right_are_refused_and_change_nothing(corpus: Path, index_dir: Path) -> None:
    """Nothing to index, no such path, no question, no index: each says what and what to do."""
    indexer = new(index_dir)
    with pytest.raises(NotFoundError, match="holds no index"):
        await indexer.search("apples")
    await indexer.index_documents(corpus)
    empty = corpus.parent / "empty"
    empty.mkdir()
    for documents, error in (
        (empty, UsageError),
        ([], UsageError),
        (corpus / "no.md", DatasetUnavailableError),
        ([corpus, empty / "no"], DatasetUnavailableError),
        (index_dir, UsageError),
        (b"bytes", UsageError),
        ([7], UsageError),
    ):
        with pytest.raises(error):
            await indexer.index_documents(documents)
    for query, limit in (("", 5), (" \n", 5), ("apples", 0)):
        with pytest.raises(UsageError, match="is no question"):
            await indexer.search(query, limit)
    assert len(await indexer.search("apples", 10)) == 4


class Broken(HashingEmbedder):
    def __init__(self, answer: list[list[float]]) -> None:
        super().__init__()
        self.answer = answer

    async def identify(self) -> Identity:
        return Identity("broken", "1", 2)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [self.answer[0] for _ in texts] if self.answer else []


async def test_a_broken_embedder_is_named_and_stores_nothing(corpus: Path, index_dir: Path) -> None:
    """Too few vectors, of another size, or not finite; a vector of zeros is like nothing, and no error."""
    for answer in ([], [[1.0]], [[1.0, float("nan")]]):
        with pytest.raises(ReprodError, match="the embedder broken 1"):
            await new(index_dir, embedder=Broken(answer)).index_documents(corpus)
    indexer = new(index_dir, embedder=Broken([[0.0, 0.0]]))
    assert counts(await indexer.index_documents(corpus)) == (3, 3, 0, 0)
    assert {hit.score for hit in await indexer.search("apples", 10)} == {0.0}


async def test_a_damaged_or_foreign_index_says_so(corpus: Path, index_dir: Path) -> None:
    """A file that is no index is never taken for an empty one; removing the folder, as the hint says, mends it."""
    indexer = new(index_dir)
    await indexer.index_documents(corpus)
    (file,) = index_dir.glob("*.duckdb")
    file.write_bytes(b"\0" * 9000)
    for call in (indexer.search("apples"), indexer.index_documents(corpus)):
        with pytest.raises(DamagedError, match="is damaged"):
            await call
    (index_dir / "index.json").write_text("{")
    with pytest.raises(DamagedError, match=r"index\.json"):
        await indexer.search("apples")
    for path in index_dir.iterdir():
        path.unlink()
    assert counts(await indexer.index_documents(corpus)) == (3, 3, 0, 0)
    with pytest.raises(StateError, match="cannot be written"):
        await new(corpus / "apples.md" / "index").index_documents(corpus)


async def test_an_index_beside_its_documents_is_no_document(corpus: Path) -> None:
    """The folder of the index may lie in the corpus, with any patterns."""
    indexer = new(corpus / "my [index]", patterns=["*"])
    await indexer.index_documents(corpus)
    assert counts(await indexer.index_documents(corpus)) == (3, 0, 3, 0)


QUIET = """
import asyncio, os, sys, threading, time
from reprod.integrations.rag import HashingEmbedder, RAGIndexer
loop_thread, seen, armed = threading.get_ident(), [], False
WATCHED = ("open", "os.", "fcntl.", "import", "socket.", "subprocess.", "shutil.", "tempfile.", "time.sleep")
def hook(event, args):
    if armed and threading.get_ident() == loop_thread and event.startswith(WATCHED):
        seen.append((event, str(args)[:80]))
async def main(corpus, index):
    global armed
    indexer = RAGIndexer(index_dir=index, embedder=HashingEmbedder())
    await indexer.index_documents(corpus + "/apples.md")     # imports what is imported on first use
    await indexer.search("boats")
    longest, done = 0.0, False
    async def watch():
        nonlocal longest
        while not done:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)
            await asyncio.sleep(0.001)
    sys.addaudithook(hook)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        armed = True
        await indexer.index_documents(corpus)
        await indexer.index_documents(corpus)
        await indexer.search("boats")
        armed, done = False, True
    print(seen, longest < 0.05, longest)
asyncio.run(main(*sys.argv[1:]))
"""


def test_the_event_loop_is_never_made_to_wait(corpus: Path, index_dir: Path) -> None:
    """Its thread opens no file, database or process, and computes for less than 50 ms (of CPU) in one go."""
    for i in range(300):
        (corpus / f"{i}.md").write_text(f"# Number {i}\n\n" + f"Sentence {i} of many. " * 200)
    done = subprocess.run(
        [sys.executable, "-c", QUIET, corpus, index_dir], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.startswith("[] True"), (done.stdout, done.stderr[-2000:])


def test_nothing_of_it_is_imported_unasked() -> None:
    """``import reprod`` brings none of it; the integration itself brings neither DuckDB nor a model nor MLflow."""
    code = "import sys, reprod; before = 'reprod.integrations.rag' in sys.modules\nimport reprod.integrations.rag\n"
    code += "print(before, [m for m in ('duckdb', 'torch', 'sentence_transformers', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False []"


def test_a_chunk_of_two_documents_is_one_passage() -> None:
    """The digest of a passage is that of its text and titles, not of where it stands."""
    assert Chunk(0, 4, "T", "text").digest == Chunk(10, 14, "T", "text").digest != Chunk(0, 4, "", "text").digest
