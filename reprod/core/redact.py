"""Owns the one redaction point (law 10): what leaves a process as text passes here before disk, log or network.

Four layers: an allow-list of environment variables (everything else never enters a record), the secrets that are known
by value (``Redactor``), the structure of a secret (addresses, headers, ``name=value`` with a secret name), and the
shapes of known tokens. A word that only may be secret (``key``, ``token``) is judged with its value, so that
``--use_cls_token True`` stays. Nothing here raises, and redacting twice is redacting once. Standard library only.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from reprod.core.plain import plain
from reprod.core.redact_names import HARD, is_secret, name_spans, tier
from reprod.core.redact_shapes import shape_spans
from reprod.core.redact_taint import Taint
from reprod.core.redact_url import header_spans, url_spans, user_spans
from reprod.core.redact_values import MASK, Span

__all__ = [
    "MASK",
    "Redactor",
    "allowed_variables",
    "execution_variables",
    "is_secret",
    "other_variables",
    "plain",
    "redact_arguments",
    "redact_text",
    "redact_url",
    "secrets_in",
]

#: Longer values are cut and say so: a variable is a setting, not a document.
MAX_VALUE = 4096

#: Taking one thing out may show another; a text that is not clean after so many rounds is hidden whole.
ROUNDS = 8

#: Most strings of a record; shorter than any token, and with none of the characters that every other rule needs.
_SHORT_WORD = re.compile(r"[A-Za-z0-9_.+/-]{0,17}")

#: Rules look over the end of a line for so many characters at most; a line before and after is looked at whole.
AROUND = 200

#: Deeper values than any record has are hidden.
MAX_DEPTH = 64

#: Settings that change results. No variable that holds a URL, an account or a credential, and none that a library sets
#: in its own process when it is imported (scikit-learn does two): equal environments would differ by the moment.
_ALLOWED = re.compile(
    r"""(?x)
    (?! KMP_DUPLICATE_LIB_OK | KMP_INIT_AT_FORK )
    (?: CUDA | CUDNN | CUBLAS | CUBLASLT | NCCL | RCCL | MIOPEN | HIPBLASLT | PYTORCH | TORCH | TORCHINDUCTOR
      | TORCHDYNAMO | TRITON | NVTE | TF_CUDNN | TF_XLA | JAX | XLA | OMP | GOMP | KMP | MKL | OPENBLAS | GOTO | BLIS
      | NUMEXPR | NUMBA | VECLIB | NPY | MALLOC | LC )_[A-Za-z0-9_]+
    | ATEN_CPU_CAPABILITY | HSA_OVERRIDE_GFX_VERSION | (?:NVIDIA|HIP|ROCR|GPU|ZE)_(?:VISIBLE_DEVICES|DEVICE_ORDINAL)
    | NVIDIA_TF32_OVERRIDE | TF_DETERMINISTIC_OPS | TF_ENABLE_ONEDNN_OPTS | TF_FORCE_GPU_ALLOW_GROWTH
    | TF_GPU_ALLOCATOR | TF_USE_LEGACY_KERAS | KERAS_BACKEND | USE_(?:TORCH|TF|FLAX) | TOKENIZERS_PARALLELISM
    | CONDA_DEFAULT_ENV | CONDA_PREFIX | VIRTUAL_ENV | HF_HOME | HF_HUB_OFFLINE | HF_DATASETS_OFFLINE
    | TRANSFORMERS_OFFLINE | LANG | LANGUAGE | TZ | LD_LIBRARY_PATH | LD_PRELOAD | GLIBC_TUNABLES | SOURCE_DATE_EPOCH
    | PYTHON(?:DONTWRITEBYTECODE|HASHSEED|NOUSERSITE|OPTIMIZE|PATH|UTF8|DEVMODE|SAFEPATH|_GIL|MALLOC|INTMAXSTRDIGITS)
    | MLFLOW_(?:EXPERIMENT_NAME|ENABLE_ASYNC_LOGGING|ENABLE_SYSTEM_METRICS_LOGGING)
    """
)
#: Where and as which part of a job one process ran; equal environments differ in these.
_OF_EXECUTION = re.compile(
    r"""(?x)
      LOCAL_RANK | RANK | GROUP_RANK | LOCAL_WORLD_SIZE | WORLD_SIZE | NODE_RANK | MASTER_PORT | TORCHELASTIC_RUN_ID
    | RAY_JOB_ID | SLURM_(?: JOB_ID | JOB_NAME | ARRAY_JOB_ID | ARRAY_TASK_ID | STEP_ID | JOB_NODELIST | NNODES | NTASKS
      | CPUS_PER_TASK | JOB_PARTITION | JOB_GPUS | GPUS_ON_NODE | LOCALID | PROCID | CLUSTER_NAME )
    | LSB_(?:JOBID|JOBINDEX|QUEUE|HOSTS) | PBS_(?:JOBID|ARRAY_INDEX|QUEUE) | MLFLOW_(?:RUN_ID|EXPERIMENT_ID)
    """
)
#: Variables that may matter and whose values stay where they are: only their names are told.
_RELEVANT = re.compile(
    r"(?:AWS|AZURE|ARM|GOOGLE|GCLOUD|GCP|CLOUDSDK|S3|MINIO|HF|HUGGING_?FACE\w*|TRANSFORMERS|DIFFUSERS|DATASETS|WANDB|MLFLOW"
    r"|COMET|NEPTUNE|CLEARML|KAGGLE|OPENAI|ANTHROPIC|DATABRICKS|SLURM|LSB|PBS|RAY|TF|KERAS|ACCELERATE|DEEPSPEED|FSDP"
    r"|NVIDIA|ROCM|HIP|HSA|GIT|PIP|UV|CONDA|MAMBA|PYTHON|HYDRA|DVC|OMPI|MPI|UCX|FI|GLOO|KUBERNETES|DOCKER)"
    r"_?[A-Z0-9_]{0,100}|[A-Z0-9_]{0,100}(?:_SEED|_THREADS|_DETERMINISTIC)"
)


def redact_text(text: str) -> str:
    """Return ``text`` with every secret that can be recognised replaced by ``***``, fit for UTF-8."""
    return _settled(plain(text), None)


def redact_url(url: str) -> str:
    """Return ``url`` without user information and with ``***`` for the values of secret query keys.

    ``ssh://git@host/path`` and ``git@host:path`` keep their user: it names the account, it proves nothing.
    """
    return _settled(plain(url), None, is_url=True)


def redact_arguments(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments of a command with every secret replaced, also where its option is the argument before."""
    return Redactor().arguments(argv)


class Redactor:
    """All layers with the secrets that one process is known to hold: the way out for everything it tells.

    :param tainted: values (of at least 8 characters) that are replaced wherever they stand, also quoted for a URL, in
        base64, and escaped as in JSON. They are kept in memory and not shown by ``repr``.
    """

    __slots__ = ("_taint",)

    def __init__(self, tainted: Collection[str] = ()) -> None:
        self._taint = Taint([plain(value) for value in tainted])

    def __repr__(self) -> str:
        return f"Redactor({self._taint!r})"

    def text(self, text: str) -> str:
        """Return ``text`` without any secret, fit for UTF-8."""
        return _settled(plain(text), self._taint)

    def is_clean(self, text: str) -> bool:
        """Return whether ``text`` holds no secret: it would pass unchanged but for its encoding."""
        return not _spans(plain(text), self._taint, is_url=False)

    def arguments(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return the arguments of a command without any secret."""
        found: list[str] = []
        name, is_list = "", False
        for argument in argv:
            # Behind "--password" a word with one hyphen is the password; "-x" is an option everywhere.
            words = r"-[A-Za-z]" if name and tier(name) == HARD else r"-[A-Za-z]\w*"
            is_option = argument.startswith("--") or re.fullmatch(words, argument) is not None
            if name and not is_option and is_secret(name, argument):
                found.append(MASK)
            else:
                found.append(self.text(argument))
            if is_option:
                name = argument if "=" not in argument and tier(argument) else ""
                is_list = name.endswith("s") and tier(name) == HARD
            elif not is_list:
                name = ""
        return tuple(found)

    def value(self, tree: Any) -> Any:
        """Return a tree of builtins (dict, list, tuple, str, bytes, numbers) without any secret, of the same shape.

        A string below a secret name goes whole. Bytes are searched as they are; what is no builtin becomes text.
        """
        return self._value(tree, "", 0)

    def _value(self, tree: Any, name: str, depth: int) -> Any:
        if tree is None or isinstance(tree, (bool, int, float)):
            return tree
        if isinstance(tree, str):
            return MASK if name and is_secret(name, tree) else self.text(tree)
        if depth > MAX_DEPTH:
            return MASK
        if isinstance(tree, Mapping):
            return {
                self.text(key) if isinstance(key, str) else key: self._value(item, str(key), depth + 1)
                for key, item in tree.items()
            }
        if isinstance(tree, (list, tuple, set, frozenset)):
            found = [self._value(item, name, depth + 1) for item in tree]
            if all(isinstance(item, str) for item in found):
                found = list(self.arguments(found))  # they may be a command, where the item before says what one is
            return tuple(found) if isinstance(tree, tuple) else found
        if isinstance(tree, (bytes, bytearray)):
            return _settled(tree.decode("latin-1"), self._taint).encode("latin-1")
        return self.text(str(tree))


def allowed_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that describe an environment, sorted, values redacted; all others are left out entirely."""
    return _listed(environ, _ALLOWED)


def execution_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say which part of which job a process was, sorted, values redacted."""
    return _listed(environ, _OF_EXECUTION)


def other_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names, sorted, of other variables that are set and may matter; their values are not recorded."""
    names = {name for name in environ if _RELEVANT.fullmatch(name) is not None}
    return tuple(sorted(n for n in names if _ALLOWED.fullmatch(n) is None and _OF_EXECUTION.fullmatch(n) is None))


def secrets_in(text: str) -> list[str]:
    """Return what ``redact_text`` takes out of ``text``, to be held, never shown; user information ends with ``@``."""
    text = plain(text)
    return [text[start:end] for start, end, _ in _spans(text, None, is_url=False)]


def _listed(environ: Mapping[str, str], names: re.Pattern[str]) -> dict[str, str]:
    found = {}
    for name in sorted(environ):
        if names.fullmatch(name) is None:
            continue
        value = environ[name]
        shown = MASK if is_secret(name, value) else redact_text(value)
        found[name] = f"{shown[:MAX_VALUE]}... ({len(value)} characters)" if len(shown) > MAX_VALUE else shown
    return found


def _settled(text: str, taint: Taint | None, *, is_url: bool = False) -> str:
    """Return ``text`` without what is found in it, and without what is found after that, around what was taken out."""
    spans = _spans(text, taint, is_url=is_url)
    for _ in range(ROUNDS):
        if not spans:
            return text
        text, places = _replaced(text, spans)
        spans = []
        for start, end in [(0, len(text))] if is_url else _around(text, places):
            more = _spans(text[start:end], taint, is_url=is_url)
            spans += [(first + start, last + start, shown) for first, last, shown in more]
    return MASK


def _around(text: str, places: Iterable[int]) -> list[tuple[int, int]]:
    """Return the stretches of ``text`` in which a change at ``places`` can show something new: whole lines and more."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and place < found[-1][1] - AROUND:
            continue
        start = text.rfind("\n", 0, max(0, place - AROUND)) + 1
        end = text.find("\n", place + AROUND)
        end = len(text) if end < 0 else end
        if found and start <= found[-1][1]:
            start = found.pop()[0]
        found.append((start, end))
    return found


def _spans(text: str, taint: Taint | None, *, is_url: bool) -> list[Span]:
    found: list[Span] = []
    if _SHORT_WORD.fullmatch(text) is None:
        lowered = _lowered(text)
        found += [*url_spans(text, whole=is_url), *header_spans(text, lowered)]
        found += [*name_spans(text, lowered), *shape_spans(text), *user_spans(text)]
    if taint:
        found += taint.spans(text)
    # Nothing may be taken out for ever: a mask stays.
    return [span for span in found if text[span[0] : span[1]] != span[2]]


_ASCII_LOWER = {upper: upper + 32 for upper in range(65, 91)}


def _lowered(text: str) -> str:
    """Return ``text`` in lower case, character by character: a few letters of other scripts would become two."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else text.translate(_ASCII_LOWER)


def _replaced(text: str, spans: Iterable[Span]) -> tuple[str, list[int]]:
    """Return ``text`` with the spans replaced, and where: two that overlap are replaced as one."""
    parts: list[str] = []
    places: list[int] = []
    done, open_end, open_with, size = 0, -1, "", 0
    for start, end, replacement in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start < open_end:
            if end > open_end:
                open_end, open_with = end, MASK
            continue
        if open_end >= 0:
            parts.append(open_with)
            done = open_end
            size += len(open_with)
        parts.append(text[done:start])
        size += start - done
        places.append(size)
        open_end, open_with = end, replacement
    parts += [open_with, text[open_end:]]
    return "".join(parts), places
