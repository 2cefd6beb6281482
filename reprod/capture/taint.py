"""Owns which secrets a process is known to hold: what its variables, addresses and credential files say.

``read_taint`` feeds ``core.redact.Redactor``, which takes these values out of everything that leaves. They stay in
memory: nothing here logs, no ``repr`` shows them, no exception carries one. Files are read bounded, as their owner; a
file that is missing, hostile or too large adds nothing and raises nothing. Sizes are bytes. Standard library only,
and no library that parses by executing.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from reprod.capture.bounded import read_bounded
from reprod.core.redact_known import secrets_of_text, secrets_of_variables
from reprod.core.redact_taint import is_taintable

#: Credential files are small; what is longer is read to here.
FILE_BYTES = 1 << 18
MAX_VALUES = 1000

#: Folders above the code in which its repository is looked for.
MAX_PARENTS = 64

#: Below the home folder: each is a file that tools keep credentials in.
_HOME_FILES = (
    ".netrc",
    "_netrc",
    ".pypirc",
    ".pip/pip.conf",
    ".git-credentials",
    ".gitconfig",
    ".pgpass",
    ".my.cnf",
    ".condarc",
    ".npmrc",
    ".boto",
    ".s3cfg",
    ".databrickscfg",
    ".comet.config",
    "clearml.conf",
    ".mlflow/credentials",
    ".aws/credentials",
    ".aws/config",
    ".docker/config.json",
    ".kaggle/kaggle.json",
    ".azure/accessTokens.json",
    ".cache/huggingface/token",
    ".cache/huggingface/stored_tokens",
    ".huggingface/token",
    ".config/pip/pip.conf",
    ".config/uv/uv.toml",
    ".config/git/config",
    ".config/git/credentials",
    ".config/gh/hosts.yml",
    ".config/wandb/settings",
    ".config/conda/.condarc",
    ".config/gcloud/application_default_credentials.json",
    ".config/openai/auth.json",
)
_SYSTEM_FILES = ("etc/pip.conf", "etc/uv/uv.toml", "etc/gitconfig", "etc/conda/.condarc")
#: Variables that name a file of credentials.
_FILE_VARIABLES = (
    "PIP_CONFIG_FILE",
    "UV_CONFIG_FILE",
    "NETRC",
    "PGPASSFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GIT_CONFIG_GLOBAL",
    "HF_TOKEN_PATH",
    "CONDARC",
    "KAGGLE_CONFIG_DIR",
    "DOCKER_CONFIG",
    "DATABRICKS_CONFIG_FILE",
    "MLFLOW_TRACKING_AWS_SIGV4_FILE",
)
#: A file that is one token and nothing else.
_BARE = (".cache/huggingface/token", ".huggingface/token")

_NETRC = re.compile(r"\b(?:password|account)\s+(?:\"([^\"\n]{1,4096})\"|(\S{1,4096}))")
_PGPASS = re.compile(r"(?m)^[^#\n:]{1,256}:[\d*]{1,5}:[^\n:]{0,256}:[^\n:]{0,256}:([^\n]{1,4096})$")


class TaintSet(Collection[str]):
    """The values, for ``Redactor(values)``; neither ``repr`` nor ``str`` shows one."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[str]) -> None:
        self._values = tuple(v for v in dict.fromkeys(values) if is_taintable(v))[:MAX_VALUES]

    def __contains__(self, value: object) -> bool:
        return value in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"TaintSet({len(self._values)} values)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("secrets are not serialised")


def read_taint(
    environ: Mapping[str, str],
    *,
    home: str | None = None,
    prefix: str | None = None,
    texts: Iterable[str] = (),
    root: str = "/",
) -> TaintSet:
    """Return the secrets that are known of a process with these variables.

    :param home: its home folder; None reads none of a user's files.
    :param prefix: its interpreter's prefix, for ``pip.conf`` and conda's state file.
    :param texts: more text that may hold addresses or settings with secrets: ``.git/config``, ``.gitmodules``, argv.
    :param root: where the file system begins.
    """
    found = list(secrets_of_variables(environ))
    for path in dict.fromkeys(_files(environ, home, prefix, root)):
        text = _text(path)
        if text:
            found += [*secrets_of_text(text), *_of_lines(text)]
            if path.endswith(_BARE):
                found.append(text.strip())
    for text in texts:
        found += secrets_of_text(text)
    return TaintSet(found)


def repository_texts(directory: str) -> tuple[str, ...]:
    """Return the files of the repository around ``directory`` that hold addresses, as text; none if there is none."""
    for _ in range(MAX_PARENTS):
        if os.path.lexists(os.path.join(directory, ".git")):
            return tuple(_text(os.path.join(directory, name)) for name in (".git/config", ".gitmodules"))
        above = os.path.dirname(directory)
        if above == directory:
            break
        directory = above
    return ()


def _files(environ: Mapping[str, str], home: str | None, prefix: str | None, root: str) -> Iterator[str]:
    yield from (os.path.join(root, path) for path in _SYSTEM_FILES)
    for name in _FILE_VARIABLES:
        path = environ.get(name, "")
        if path.startswith("/"):
            yield path
            if name in {"KAGGLE_CONFIG_DIR", "DOCKER_CONFIG"}:
                yield os.path.join(path, "kaggle.json" if name.startswith("KAGGLE") else "config.json")
    if home:
        yield from (os.path.join(home, path) for path in _HOME_FILES)
        config = environ.get("XDG_CONFIG_HOME", "")
        if config.startswith("/"):
            yield from (
                os.path.join(config, p.removeprefix(".config/")) for p in _HOME_FILES if p.startswith(".config/")
            )
    hub = environ.get("HF_HOME", "")
    if hub.startswith("/"):
        yield os.path.join(hub, "token")
    for place in (prefix, environ.get("VIRTUAL_ENV"), environ.get("CONDA_PREFIX")):
        if place:
            yield from (os.path.join(place, name) for name in ("pip.conf", "conda-meta/state", ".condarc"))


def _text(path: str) -> str:
    try:
        # Many keep their dot files as links; what a link leads to is only held, never told.
        return read_bounded(os.path.realpath(path), FILE_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _of_lines(text: str) -> Iterator[str]:
    yield from (quoted or bare for quoted, bare in _NETRC.findall(text))
    yield from _PGPASS.findall(text)
