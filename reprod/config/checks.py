"""What a value in a TOML file may be: one small check per kind of value.

A check takes what tomllib returned and gives back the value to keep, or raises ``UnfitError`` with what was
expected. It knows neither file nor key: parse.py adds those, so every message has the same form.
"""

import os
import re
import sys
from collections.abc import Callable

Check = Callable[[object], object]

#: Hash algorithms that every Python has; blake3 counts too where the package is installed.
ALGORITHMS = ("md5", "sha1", "sha256", "sha512", "blake2b")

_SERVE = "mlflow server --backend-store-uri sqlite:///mlflow.db"


class UnfitError(Exception):
    """Raised by a check: ``expected`` completes the sentence "expected ...", ``hint`` says what to write instead."""

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint


def number(low: float, high: float, what: str) -> Check:
    """Return a check for a finite number in ``low`` to ``high``; the result is a float."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UnfitError(f"{what}, a number from {low:g} to {high:g}")
        if not low <= value <= high:  # nan is in no range
            raise UnfitError(f"{what} from {low:g} to {high:g}")
        return float(value)

    return check


def integer(low: int, high: int, what: str) -> Check:
    """Return a check for a whole number in ``low`` to ``high``."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UnfitError(f"{what}, a whole number from {low} to {high}")
        return value

    return check


def choice(*words: str) -> Check:
    """Return a check for one of ``words``."""
    listed = " or ".join(f'"{word}"' for word in words)

    def check(value: object) -> str:
        if value not in words:
            from reprod.errors import did_you_mean

            raise UnfitError(listed, did_you_mean(value, words) if isinstance(value, str) else "")
        return str(value)

    return check


def texts(what: str) -> Callable[[object], tuple[str, ...]]:
    """Return a check for a list of non-empty strings; the result is a tuple."""

    def check(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            raise UnfitError(f"a list of {what}", f'write it in brackets: ["{value}"]')
        if not isinstance(value, list):
            raise UnfitError(f"a list of {what}")
        for item in value:
            if not isinstance(item, str) or not item.strip() or "\0" in item:
                raise UnfitError(f"a list of {what}, each a non-empty string")
        return tuple(value)

    return check


def patterns(value: object) -> tuple[str, ...]:
    """Return gitignore patterns, each compiled once to see that it can be."""
    lines = texts("patterns")(value)
    from reprod.core.pattern import Selection

    for line in lines:
        if line.lstrip().startswith("#"):
            raise UnfitError(
                "patterns in gitignore syntax", f"{line!r} is a comment; a name that begins so is '\\#...'"
            )
        try:
            Selection(include=(line,)).takes_file(b"x")
        except ValueError as error:
            raise UnfitError("patterns in gitignore syntax", f"{line!r}: {error}") from None
    return lines


def path(value: object) -> str:
    """Return an absolute path: ``~`` is expanded, a relative path is refused with the absolute one to write."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise UnfitError("an absolute path, a string")
    expanded = os.path.expanduser(value)
    if not expanded.startswith("/"):
        raise UnfitError("an absolute path", f'a daemon has no current folder; perhaps "{os.path.abspath(expanded)}"')
    return expanded.rstrip("/") or "/"


def paths(value: object) -> tuple[str, ...]:
    """Return a tuple of absolute paths (see ``path``)."""
    return tuple(path(item) for item in texts("absolute paths")(value))


def algorithms(value: object) -> tuple[str, ...]:
    """Return known hash algorithms without repeats; sha256 is put first if it was left out."""
    known = [*ALGORITHMS, *(["blake3"] if _has_blake3() else [])]
    names = texts("hash algorithms")(value)
    for name in names:
        if name == "blake3" and name not in known:
            raise UnfitError("an installed hash algorithm", "install it for the daemon: pip install blake3")
        if name not in known:
            from reprod.errors import did_you_mean

            raise UnfitError(f"hash algorithms out of {', '.join(known)}", did_you_mean(name, known))
    return tuple(dict.fromkeys(names if "sha256" in names else ("sha256", *names)))


def tracking_uri(value: object) -> str:
    """Return a tracking URI that the daemon can use, "local", or "" (see ``MlflowConfig``)."""
    if not isinstance(value, str):
        raise UnfitError('a URI, "local" or ""')
    text = value.strip()
    if text in {"", "local"} or re.match(r"https?://[^/\s?#]+", text):
        return text
    if text.startswith("sqlite:"):
        if re.match(r"sqlite:////[^/]", text):
            return text
        name = text.removeprefix("sqlite:").lstrip("/") or "mlflow.db"
        raise UnfitError("an absolute sqlite URI, with four slashes", f'perhaps "sqlite:///{os.path.abspath(name)}"')
    if text.startswith("file:") or ("://" not in text and text != "databricks"):
        raise UnfitError(
            'http://..., https://..., sqlite:////absolute/path or "local" (no server notices runs in a folder)',
            f'start one: {_SERVE}   then: tracking_uri = "http://127.0.0.1:5000"',
        )
    raise UnfitError('http://..., https://..., sqlite:////absolute/path or "local"')


def listen(value: object) -> str:
    """Return ``HOST:PORT``, or "" for no TCP at all. The host is not looked up here: that may wait for a network."""
    expected = '"HOST:PORT", such as "127.0.0.1:9464" or "[::1]:9464", or ""'
    if not isinstance(value, str):
        raise UnfitError(expected)
    text = value.strip()
    host, _, port = text.rpartition(":")
    if text and not re.fullmatch(r"\[[0-9A-Fa-f:.]+(%[\w.]+)?\]|[A-Za-z0-9]([A-Za-z0-9._-]{0,252})", host):
        port = text if text.isdecimal() else port if port.isdecimal() else "9464"
        raise UnfitError(expected, f'for this machine alone: "127.0.0.1:{port}"; for all networks: "0.0.0.0:{port}"')
    if text and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise UnfitError(expected, "a port is a number from 1 to 65535")
    return text


def experiment(value: object) -> str:
    """Return a shell pattern for the names of experiments."""
    if not isinstance(value, str) or not value.strip():
        raise UnfitError('the name of an experiment, or a pattern such as "vision-*"')
    return value


def named(value: object) -> str:
    """Return what a run's tag ``reprod.dataset`` may say: ``NAME`` or ``NAME/SUB``, several joined by commas."""
    from reprod.core.run import dataset_names, unfit_names

    names = dataset_names(value) if isinstance(value, str) else []
    if not isinstance(value, str) or not names or unfit_names(value):
        raise UnfitError('a dataset, "NAME" or "NAME/SUB", or several joined by commas')
    return ",".join(names)


def _has_blake3() -> bool:
    if "blake3" in sys.modules:
        return True
    from importlib.util import find_spec

    return find_spec("blake3") is not None
