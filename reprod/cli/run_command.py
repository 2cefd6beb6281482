"""``reprod run --dataset NAME -- COMMAND``: become the command, with variables that tag every MLflow run it starts.

The command takes this process's place: pid, terminal, signals, files, process group and exit code are its own. What
keeps reprod from its part is one line on standard error, and the command starts all the same; ``--strict`` turns that
round. Own exit codes are those of env(1) and nohup(1): 125 reprod itself, 126 it cannot be executed, 127 not found.
"""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from reprod.cli import render
from reprod.errors import ReprodError, UsageError

OURS, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127


def run(args: argparse.Namespace) -> int:
    """Become the command; returns only if that failed."""
    command = list(args.command)
    if command[:1] == ["--"]:
        command = command[1:]
    try:
        if not command or not command[0]:
            raise UsageError("there is no command", hint="reprod run --dataset NAME -- python train.py")
        from reprod.integrations.training import prepare

        launch = prepare(args.dataset, command, strict=args.strict)
    except ReprodError as error:
        return _refuse(OURS, error.message, error.hint)
    for warning in launch.warnings:
        _say(f"reprod: warning: {warning}")
    return _become(command, launch.environ)


def _become(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Replace this process; return the exit code if that is not possible."""
    # Python ignores these from its start, and what is ignored stays so in the command.
    for name in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(name, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    try:
        os.execvpe(command[0], list(command), dict(environ))  # noqa: S606 - what the user asked for, no shell
    except (FileNotFoundError, NotADirectoryError):
        from shutil import which

        found = command[0] if "/" in command[0] else which(command[0], path=environ.get("PATH"))
        if found is not None and os.path.isfile(found):
            return _refuse(NOT_EXECUTABLE, f"the interpreter of {command[0]} is not there", "see its first line")
        return _refuse(NOT_FOUND, f"command not found: {command[0]}", "is its environment active?")
    except OSError as error:
        hint = "it needs a first line that begins with #!" if "format" in str(error).lower() else "is it executable?"
        return _refuse(NOT_EXECUTABLE, f"{error.strerror}: {command[0]}", hint)
    except ValueError as error:  # a NUL
        return _refuse(OURS, f"the command cannot be passed on: {error}", "")


def _refuse(code: int, message: str, hint: str) -> int:
    _say(f"error: {message}")
    if hint:
        _say(f"hint: {hint}")
    return code


def _say(line: str) -> None:
    from reprod.core.redact import redact_text

    try:
        sys.stderr.write(f"{render.safe(redact_text(line))}\n")
    except (OSError, ValueError, AttributeError):  # nobody listens; the exit code still tells
        return
