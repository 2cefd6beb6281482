"""Running one command, and what every error looks like from outside.

Rule: an expected error is one line of what happened and one ``hint:`` of what to do, on standard error, with the exit
code of its class; anything else is a bug and says so with 70. Only the module of the called command is imported.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import cast

from reprod.cli import render
from reprod.cli.screen import Screen
from reprod.cli.tree import build_parser
from reprod.errors import ReprodError, StateError

INTERRUPTED = 130
BUG = 70
# What a shell reports for a process that SIGPIPE ended: `reprod log x | head -1` is no failure worth words.
BROKEN_PIPE = 141
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing but SystemExit from argparse (2, or 0 for help) is raised."""
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        # A name that this terminal's encoding lacks must be shown escaped, not end the listing.
        sys.stdout.reconfigure(errors="backslashreplace")
    elif sys.stdout is None:  # closed by the shell: no file of ours may get its number
        _silence_stdout()
    args = build_parser().parse_args(argv)
    Screen.colours = {"always": True, "never": False}.get(getattr(args, "color", "auto"))
    try:
        code = _handler(args.run)(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ReprodError as error:
        _say(error.message, error.hint)
        _unwritable()
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except OSError as error:
        # Our own files are written by who says which one it was; what is left without a name is standard output.
        if _unwritable() is None and (error.filename is not None or error.errno not in _NO_ROOM):
            return _bug(error)
        _say(f"standard output cannot be written: {error.strerror}", "make room where it leads")
        return StateError.exit_code
    except Exception as error:  # noqa: BLE001 - the outermost door: a traceback helps developers, one line helps users
        return _bug(error)
    return code


def _handler(run: str) -> Callable[[argparse.Namespace], int]:
    from importlib import import_module

    module, _, function = run.partition(":")
    return cast("Callable[[argparse.Namespace], int]", getattr(import_module(f"reprod.cli.{module}"), function))


def _say(message: str, hint: str) -> None:
    from reprod.core.redact import redact_text

    lines = "".join(
        f"{what}: {render.safe(redact_text(text))}\n" for what, text in (("error", message), ("hint", hint)) if text
    )
    try:
        sys.stderr.write(lines)
    except (OSError, ValueError, AttributeError):  # nobody listens; the exit code still tells
        pass


def _bug(error: Exception) -> int:
    from reprod.capture.taint import read_taint
    from reprod.core.redact import Redactor

    debug = os.environ.get("REPROD_DEBUG", "") not in {"", "0"}
    # Nobody knows what an exception that nobody expected says: nothing that this process knows to be secret.
    known = Redactor(read_taint(os.environ, home=os.path.expanduser("~"), prefix=sys.prefix))
    if debug:
        import traceback

        sys.stderr.write(known.text("".join(traceback.format_exception(error))))
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f" at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else ""
    hint = "please report it with the traceback" if debug else "REPROD_DEBUG=1 and the same command print the traceback"
    _say(known.text(f"a bug in reprod: {type(error).__name__}: {error}{where}"), hint)
    return BUG


def _unwritable() -> OSError | None:
    """Return why standard output cannot be written, if so; nothing is written there any more then."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _silence_stdout()
        return error
    except ValueError:  # closed
        pass
    return None


def _silence_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not complain."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError:
        pass
