"""Owns the commit, branch and dirty flag of a user's code, asked of ``git`` in the user's own process.

``git status`` runs what a repository configures (fsmonitor, filters), so the daemon never calls this. Here all that is
switched off too, and the index is not rewritten (GIT_OPTIONAL_LOCKS=0). Every command is bounded in time.
"""

import os
import subprocess
from collections.abc import Sequence

from reprod.core.environment import Git
from reprod.core.redact import plain, redact_text, redact_url
from reprod.errors import IncompleteError

#: ``git status`` took 65 ms on 1705 files; a repository that needs more than this is asked again at the next run.
TIMEOUT_S = 5.0

_HARDENED = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false")

#: Which files git reads its settings from; every other GIT_ variable (GIT_DIR, GIT_INDEX_FILE) would lead elsewhere.
_KEPT = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES"})


def read_git(directory: str) -> Git:
    """Return the state of the repository that holds ``directory``; raises IncompleteError with the reason if none."""
    root = os.fsdecode(_git(directory, ["rev-parse", "--show-toplevel"])).rstrip("\n")
    if not root:
        raise IncompleteError("a bare git repository has no working tree")
    filters, remote = _read_config(root)
    status = _git(root, ["status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal"], config=filters)
    commit = branch = None
    dirty = False
    for record in status.split(b"\0"):
        if record.startswith(b"# branch.oid "):
            commit = _decode(record[13:])
        elif record.startswith(b"# branch.head "):
            branch = _decode(record[14:])
        elif record and not record.startswith(b"#"):
            dirty = True
    if commit is None or commit == "(initial)":
        raise IncompleteError("the git repository has no commit yet")
    return Git(
        commit=commit,
        branch=None if branch in {None, "(detached)"} else branch,
        dirty=dirty,
        root=plain(root),
        remote=remote,
    )


def _read_config(root: str) -> tuple[list[str], str | None]:
    """Return the options that disable every configured filter, and the remote (origin, else the first), redacted."""
    try:
        listing = _git(root, ["config", "-z", "--get-regexp", r"^(filter\..*|remote\..*\.url)$"])
    except _FailedError as failure:
        if failure.code == 1:
            return [], None  # nothing of that kind is configured
        raise
    filters: dict[str, None] = {}
    remotes: dict[str, str] = {}
    for entry in listing.split(b"\0"):
        key, _, value = os.fsdecode(entry).partition("\n")
        section, _, rest = key.partition(".")
        name = rest.rpartition(".")[0]
        if section == "filter":
            filters[name] = None
        elif section == "remote":
            remotes.setdefault(name, value)
    options: list[str] = []
    for name in filters:
        if "=" in name or "\n" in name:
            raise IncompleteError("git has a filter that cannot be switched off, so its status was not asked")
        for setting in ("clean=", "smudge=", "process=", "required=false"):
            options += ["-c", f"filter.{name}.{setting}"]
    url = remotes.get("origin") or next(iter(remotes.values()), None)
    return options, redact_url(url) if url else None


class _FailedError(IncompleteError):
    """Raised when git ends with an exit code other than 0."""

    code = 0


def _git(directory: str, arguments: Sequence[str], *, config: Sequence[str] = ()) -> bytes:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    environ |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(
            ["git", *_HARDENED, *config, *arguments],
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        what = "git is not installed" if error.filename == "git" else f"{plain(directory)} does not exist"
        raise IncompleteError(what) from error
    except subprocess.TimeoutExpired as error:
        raise IncompleteError(f"git {arguments[0]} took over {TIMEOUT_S:g} s") from error
    except OSError as error:
        raise IncompleteError(f"git could not be started: {error.strerror}") from error
    if result.returncode != 0:
        said = (_decode(result.stderr).strip() or "no message").splitlines()[0]
        failure = _FailedError(f"git {arguments[0]}: {redact_text(said)}")
        failure.code = result.returncode
        raise failure
    return result.stdout


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
