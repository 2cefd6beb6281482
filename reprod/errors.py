"""Every error that reprod raises on purpose: what happened, the exit code, and a hint of what to do.

    ReprodError                  70
    ├── UsageError                2   the command or call itself is wrong
    ├── DaemonUnavailableError    3   a live daemon is needed and none answers
    ├── VersionsDifferError       3   one answers, but it is of another version
    ├── NotFoundError             4   no such dataset, version or run
    ├── IncompleteError           5   something is unreadable, unstable or unknown
    ├── DatasetUnavailableError   6   the root is missing, or is not what it was
    ├── DamagedError             65   a damaged database or manifest, a broken chain
    ├── TrackingError            69   the tracking server cannot be reached
    ├── AlreadyRunningError      75   another daemon holds the state directory
    ├── StateError               77   state, socket or data may not be written or read
    └── ConfigError              78   the configuration is wrong

The message says what happened, with the values; the hint says what to do. Raise sites pass both.
"""

from collections.abc import Iterable


class ReprodError(Exception):
    """Raised for any expected failure; ``exit_code`` is what the command line returns for it."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ReprodError):
    """Raised when a command or call contradicts itself or lacks something."""

    exit_code = 2


class DaemonUnavailableError(ReprodError):
    """Raised when only a live daemon could answer and none does."""

    exit_code = 3


class VersionsDifferError(ReprodError):
    """Raised when the daemon that answers is of another version, and what was asked needs the same.

    Its code is that of "none answers", but one does: what can be done without a daemon must not be done under one.
    """

    exit_code = 3


class NotFoundError(ReprodError):
    """Raised when a dataset, version or run is not known."""

    exit_code = 4


class IncompleteError(ReprodError):
    """Raised when an answer would need something that is unreadable, unstable or unknown."""

    exit_code = 5


class DatasetUnavailableError(ReprodError):
    """Raised when a dataset's root is missing, or is another file system than it was."""

    exit_code = 6


class DamagedError(ReprodError):
    """Raised when a database, a manifest or a hash chain is not what was written."""

    exit_code = 65


class TrackingError(ReprodError):
    """Raised when the tracking server cannot be reached or refuses."""

    exit_code = 69


class AlreadyRunningError(ReprodError):
    """Raised when another daemon holds the state directory."""

    exit_code = 75


class StateError(ReprodError):
    """Raised when the state directory or the socket cannot be used (permission, read-only, full)."""

    exit_code = 77


class ConfigError(ReprodError):
    """Raised when the configuration is wrong: the message names file, key, value and what was expected."""

    exit_code = 78


ALL: tuple[type[ReprodError], ...] = (
    ReprodError,
    UsageError,
    DaemonUnavailableError,
    NotFoundError,
    IncompleteError,
    DatasetUnavailableError,
    DamagedError,
    TrackingError,
    AlreadyRunningError,
    StateError,
    ConfigError,
)


def from_code(exit_code: int, message: str, hint: str = "") -> ReprodError:
    """Return the error class of ``exit_code`` with this message: how the socket's errors come back to a caller."""
    for cls in ALL:
        if cls.exit_code == exit_code:
            return cls(message, hint=hint)
    return ReprodError(message, hint=hint)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean X?`` for the nearest known word, or an empty string."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""
