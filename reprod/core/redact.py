"""Owns the one redaction point (law 10): what leaves a process as text passes here before disk, log or network.

Three layers: an allow-list of environment variables (everything else never enters a record), the structure of a
secret (URL user information, query keys, ``name=value`` with a secret name, authorization headers), and the shapes of
known tokens. A word that only may be secret (``key``, ``token``) is judged with its value, so that
``--use_cls_token True`` stays. ``redact_text(redact_text(x)) == redact_text(x)``. Standard library only.
"""

import re
from collections.abc import Mapping
from itertools import pairwise

MASK = "***"

#: Longer values are cut and say so: a variable is a setting, not a document.
MAX_VALUE = 4096

#: Settings that change results or say where a job ran. No variable that holds a URL, an account or a credential.
_ALLOWED = re.compile(
    r"""(?x)
    (?: CUDA | CUDNN | NCCL | PYTORCH | TORCH | TF_CUDNN | JAX | OMP | KMP | MKL | OPENBLAS | BLIS | NUMEXPR | VECLIB
      | NPY | MALLOC | LC )_[A-Za-z0-9_]+
    | ATEN_CPU_CAPABILITY | CUBLAS_WORKSPACE_CONFIG | HSA_OVERRIDE_GFX_VERSION | (?:NVIDIA|HIP|ROCR)_VISIBLE_DEVICES
    | NVIDIA_TF32_OVERRIDE | TF_DETERMINISTIC_OPS | TF_ENABLE_ONEDNN_OPTS | TOKENIZERS_PARALLELISM | XLA_FLAGS
    | CONDA_DEFAULT_ENV | CONDA_PREFIX | VIRTUAL_ENV | HF_HOME | HF_HUB_OFFLINE | LANG | TZ | LD_LIBRARY_PATH
    | LD_PRELOAD | PYTHON(?:DONTWRITEBYTECODE|HASHSEED|NOUSERSITE|OPTIMIZE|PATH)
    | LOCAL_RANK | RANK | WORLD_SIZE | MASTER_PORT | TORCHELASTIC_RUN_ID | RAY_JOB_ID
    | SLURM_(?: JOB_ID | JOB_NAME | ARRAY_JOB_ID | ARRAY_TASK_ID | STEP_ID | JOB_NODELIST | NNODES | NTASKS
      | CPUS_PER_TASK | JOB_PARTITION | JOB_GPUS | GPUS_ON_NODE | LOCALID | PROCID | CLUSTER_NAME )
    | LSB_(?:JOBID|JOBINDEX|QUEUE|HOSTS) | PBS_(?:JOBID|ARRAY_INDEX|QUEUE)
    """
)

#: Names with one of these words are secret whatever the value; with a soft word only if the value looks like one.
_HARD = frozenset({"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials", "apikey"})
_HARD |= {"accesskey", "privatekey", "authtoken", "authorization", "jwt", "bearer"}
_HARD_PAIRS = frozenset((first, "key") for first in ("api", "access", "private", "account", "secret"))
_SOFT = frozenset({"token", "key", "auth", "pat", "pass", "pwd", "sig", "signature"})
_QUERY_WORDS = _HARD | _SOFT
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_TOKENS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{30,}"
    r"|ya29\.[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|dapi[a-f0-9]{32}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)",
    re.DOTALL,
)
# Every repeat is bounded: without, a word of 600 KB took longer than a service may take to start.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(.*)\Z", re.DOTALL)
#: ``user:password@host:path``, as scp and git write it; a plain ``git@host:path`` has no colon before the ``@``.
_SCP = re.compile(r"(?<![\w/@:.])[^\s/@:=\"']{1,256}:[^\s/@\"']{1,4096}@(?=[\w.-]{1,255}:)")
#: A user name of this length before ``@host:path`` is a token.
_SCP_LONG_USER = re.compile(r"(?<![\w/@:.-])[\w.-]{20,4096}@(?=[\w.-]{1,255}:)")
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization\s*[:=]\s*(?:(?:bearer|basic|token|digest)\s+)?)([^\s\"',;]+)")
_PAIR = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_.-]{0,80})(?P<gap>=|:?\s+)(?P<value>[^\s\"'&,;]+)")
_QUERY = re.compile(r"([?&#;])([^=&#;?]+)=([^&#;]*)")


def redact_text(text: str) -> str:
    """Return ``text`` with every secret that can be recognised replaced by ``***``, fit for UTF-8."""
    text = plain(text)
    text = _URL.sub(lambda match: redact_url(match.group()), text)
    text = _SCP_LONG_USER.sub("", _SCP.sub("", text))
    text = _HEADER.sub(lambda match: match.group(1) + MASK, text)
    text = _PAIR.sub(_mask_pair, text)
    return _TOKENS.sub(MASK, text)


def redact_url(url: str) -> str:
    """Return ``url`` without user information and with ``***`` for the values of secret query keys.

    ``ssh://git@host/path`` and ``git@host:path`` keep their user: it names the account, it proves nothing.
    """
    url = plain(url)
    match = _SCHEME.match(url)
    if match is None:
        return _TOKENS.sub(MASK, _mask_query(_SCP_LONG_USER.sub("", _SCP.sub("", url))))
    scheme, rest = match.groups()
    return _TOKENS.sub(MASK, scheme + _mask_query(_without_user(scheme, rest)))


def allowed_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that may be recorded, sorted, values redacted; all others are left out entirely."""
    found = {}
    for name in sorted(environ):
        if _ALLOWED.fullmatch(name) is None:
            continue
        value = environ[name]
        if len(value) > MAX_VALUE:
            value = f"{value[:MAX_VALUE]}... ({len(value)} characters)"
        found[plain(name)] = MASK if is_secret(name, value) else redact_text(value)
    return found


def is_secret(name: str, value: str) -> bool:
    """Return whether ``name`` says that ``value`` is a secret: surely, or maybe and the value looks like one."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not _HARD.isdisjoint(words) or not _HARD_PAIRS.isdisjoint(pairwise(words)):
        return value not in {"", MASK}
    return not _SOFT.isdisjoint(words) and _looks_random(value)


def plain(text: str) -> str:
    r"""Return ``text`` fit for UTF-8: bytes that were not (as ``os.fsdecode`` keeps them) become ``\xNN``."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape" if _only_escapes(text) else "replace").decode(
        "utf-8", "backslashreplace"
    )


def _only_escapes(text: str) -> bool:
    return all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in text)


def _without_user(scheme: str, rest: str) -> str:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    cut = authority.rfind("@")
    if cut < 0 and not authority.startswith("[") and re.search(r":(?![0-9]*\Z)", authority):
        # "https://u:p/w@host": what looks like a port is no number, so a password that holds a slash began here.
        cut = rest.rfind("@")
    if cut < 0:
        return rest
    user = rest[:cut]
    if "ssh" in scheme.lower() and ":" not in user and len(user) < 20:
        return rest
    return _without_user(scheme, rest[cut + 1 :])


def _mask_query(text: str) -> str:
    def mask(match: re.Match[str]) -> str:
        words = {word.lower() for word in _WORD.findall(match.group(2))}
        secret = not words.isdisjoint(_QUERY_WORDS) or match.group(2).lower().startswith(("x-amz-", "x-goog-"))
        return f"{match.group(1)}{match.group(2)}={MASK if secret and match.group(3) else match.group(3)}"

    return _QUERY.sub(mask, text)


def _mask_pair(match: re.Match[str]) -> str:
    name, gap, value = match.group("name", "gap", "value")
    # Two words with a blank between are prose unless the first was an option; options are the caller's "--name value".
    if gap.isspace() and (match.start() == 0 or match.string[match.start() - 1] != "-"):
        return match.group()
    if name.lower().endswith("authorization"):
        return match.group()
    return f"{name}{gap}{MASK}" if is_secret(name, value) else match.group()


def _looks_random(value: str) -> bool:
    if value.startswith("<") or MASK in value:
        return False
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return (len(value) >= 12 and mixed) or len(value) >= 32
