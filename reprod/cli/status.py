"""``reprod status``: ask the daemon, or read what was last known, and say it in one screen.

Rule: this command must answer in about 40 ms, so it imports next to nothing and reads no configuration. It exits 0
whenever a daemon answered; ``--check`` turns what is not fine into a code; without a daemon the code is 3.
"""

import argparse
import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.screen import Screen
from reprod.client import connect
from reprod.config import places
from reprod.errors import DaemonUnavailableError, ReprodError

# A daemon answers from memory in a millisecond; longer means that it hangs, and then the last known state is shown.
TIMEOUT_S = 2.0

_NEEDS_PERSON = {"failed", "misconfigured"}


def run(args: argparse.Namespace) -> int:
    """Show the status; return 0, with --check 0, 1, 5 or 6, and 3 if no daemon answers."""
    silent = False
    try:
        with connect(timeout_s=TIMEOUT_S) as client:
            silent = True
            if args.watch:
                from reprod.cli import watch

                return watch.follow(args, client)
            answer = client.call("status", {"name": args.name})
    except DaemonUnavailableError as error:
        return _last_known(args, error, silent=silent)
    _show(args, answer)
    return check_code(answer) if args.check else codes.FINE


def check_code(answer: dict[str, Any]) -> int:
    """Return what --check makes of a live status: 1 a person or a tracking server is needed, 6, 5, or 0."""
    found = [codes.FINE]
    if _needs_more(answer) or (answer.get("runs") or {}).get("failed"):
        found.append(codes.DIFFERS)
    if (answer.get("tracking") or {}).get("state") in {"none", "unreachable"}:
        found.append(codes.DIFFERS)
    for dataset in answer.get("datasets") or []:
        state = dataset.get("state")
        if state in _NEEDS_PERSON:
            found.append(codes.DIFFERS)
        elif state == "unavailable":
            found.append(codes.UNAVAILABLE)
        elif state == "incomplete":
            found.append(codes.INCOMPLETE)
    return codes.worst(*found)


def _needs_more(answer: dict[str, Any]) -> bool:
    """Return whether anything needs a person besides datasets whose own state has a code of its own (6, 5)."""
    told = [
        str(item.get("name"))
        for item in answer.get("datasets") or []
        if item.get("state") in {"unavailable", "incomplete"}
    ]
    return any(
        need.get("dataset") not in told and not str(need.get("what")).startswith(tuple(f"{name}:" for name in told))
        for need in answer.get("attention") or []
    )


def _last_known(args: argparse.Namespace, reason: ReprodError, *, silent: bool) -> int:
    """Show what was known last; ``silent``: somebody listens, and does not answer."""
    from reprod.ops import lastknown

    _say(reason)
    try:
        answer = {**lastknown.read(places.known_state_dir()), "silent": silent}
    except ReprodError as error:
        _say(error)
        return codes.NO_DAEMON
    if args.name is not None:
        named = [item for item in answer.get("datasets") or [] if item.get("name") == args.name]
        answer = {**answer, "datasets": named}
    _show(args, answer)
    return codes.NO_DAEMON


def _say(error: ReprodError) -> None:
    screen = Screen(sys.stderr)
    screen.line(f"error: {error.message}")
    screen.line(f"hint: {error.hint}")


def _show(args: argparse.Namespace, answer: dict[str, Any]) -> None:
    if args.json:
        print(render.to_json("status", answer, one_line=args.watch))
        return
    from reprod.cli import dataset_view, status_view

    screen = Screen(sys.stdout)
    if args.name is not None:
        dataset_view.show_one(screen, args.name, answer)
        status_view.show_needs(screen, answer)
    else:
        status_view.show_all(screen, answer)
