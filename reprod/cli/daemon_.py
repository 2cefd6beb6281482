"""``reprod daemon`` and ``reprod reload``: start the daemon in this process, or have the running one read again."""

import argparse
import sys
from typing import Any

from reprod.cli import codes, render
from reprod.cli.screen import Screen
from reprod.client import connect

# A reload parses a few files and may wait for a seal that is being written; systemd gives ExecReload 90 s.
RELOAD_TIMEOUT_S = 30.0


def run(args: argparse.Namespace) -> int:
    """Run the daemon until it is told to stop; return its exit code."""
    from reprod.daemon.signals import Signals

    signals = Signals()
    signals.arm()  # first of all: what comes now takes a second

    from reprod.daemon.app import run as run_daemon

    return run_daemon(args.config, signals)


def reload(args: argparse.Namespace) -> int:
    """Have the daemon read its configuration; 78 if a dataset's file cannot be used."""
    with connect() as client:
        answer = client.call("reload", timeout_s=RELOAD_TIMEOUT_S)
    if args.json:
        print(render.to_json("reload", answer))
    else:
        _show(Screen(sys.stdout), answer)
    return codes.MISCONFIGURED if answer.get("misconfigured") else codes.FINE


def _show(screen: Screen, answer: dict[str, Any]) -> None:
    parts = [
        f"{what} {', '.join(render.safe(name) for name in answer[what])}"
        for what in ("added", "removed", "changed")
        if answer.get(what)
    ]
    screen.prose(f"reloaded: {'; '.join(parts) if parts else 'nothing changed'}")
    if answer.get("restart_needed"):
        keys = ", ".join(render.safe(key) for key in answer["restart_needed"])
        screen.prose(f"needs a restart of the daemon to take effect: {keys}", colour="yellow")
    for wrong in answer.get("misconfigured") or []:
        print(f"error: {render.safe(wrong.get('message'))}", file=sys.stderr)
        if wrong.get("hint"):
            print(f"hint: {render.safe(wrong['hint'])}", file=sys.stderr)
