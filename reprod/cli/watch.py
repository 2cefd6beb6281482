"""``reprod status --watch``: what the daemon pushes, drawn over itself on a terminal, else a line for each change.

A daemon that ends is said, and waited for (``RETURN_S``); then the code is 3. Ctrl-C ends with 130 and the terminal as
it was. With --json every change is one line, a whole ``reprod.status/1`` object with ``seq``: it grows by one, and by
more where something was missed (``lagged``).
"""

import argparse
import select
import sys
import time
from contextlib import ExitStack
from typing import Any, Protocol

from reprod.cli import codes, dataset_view, render, status_view
from reprod.cli.live import Live
from reprod.cli.output import ended_by_signals
from reprod.cli.screen import Screen
from reprod.client import Client, connect
from reprod.errors import DaemonUnavailableError, ReprodError

# The daemon says something every second; silence that is longer means that it hangs.
SILENCE_S = 5.0
# A restart takes systemd two seconds and the daemon one; an upgrade or a machine that is busy may take a minute.
RETURN_S = 60.0
PAUSE_S = 0.5

State = dict[str, Any]


class View(Protocol):
    """Where states are shown."""

    def show(self, state: State, seq: int, lagged: int) -> None:
        """Take the newest state; with the same ``seq`` nothing but ages is new."""

    def lose(self, state: State, seq: int, why: str, left_s: float) -> None:
        """Say that no daemon answers, and for how long yet one is waited for."""


def follow(args: argparse.Namespace, client: Client) -> int:
    """Show what the daemon of ``client`` says until interrupted; 3 if it went and did not come back."""
    screen = Screen(sys.stdout)
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        view: View
        if args.json:
            view = _Objects()
        elif screen.rewritable:
            view = _Picture(screen, stack.enter_context(Live(sys.stdout)), args.name)
        else:
            view = _Lines(screen)
        try:
            _Watch(args.name, view).run(client)
        except BrokenPipeError:
            raise
        except DaemonUnavailableError as error:
            stack.close()
            told = Screen(sys.stderr)
            told.line(f"error: {error.message}")
            told.line(f"hint: {error.hint}")
    return codes.NO_DAEMON


class _Watch:
    """The stream of one daemon after the other, as one."""

    def __init__(self, name: str | None, view: View) -> None:
        self._name, self._view = name, view
        self._state: State = {}
        self._seq = self._before = 0

    def run(self, client: Client) -> None:
        """Follow until the daemon is gone for good. Raises DaemonUnavailableError."""
        while True:
            try:
                with client:
                    client.call("watch", {"name": self._name}, timeout_s=SILENCE_S, on_progress=self._take)
                raise DaemonUnavailableError("the daemon ended the stream", hint="its log says why")
            except DaemonUnavailableError as error:
                if not self._state:
                    raise  # one that does not know the method: it will not learn it
                client = self._wait(error)

    def _take(self, message: dict[str, Any]) -> None:
        told, seq = message.get("status"), message.get("seq")
        if not isinstance(told, dict) or not isinstance(seq, int):
            return
        self._state = {**self._state, **told}
        lagged = message.get("lagged")
        self._seq = self._before + seq
        self._view.show(self._state, self._seq, lagged if isinstance(lagged, int) else 0)

    def _wait(self, error: ReprodError) -> Client:
        """Return a connection to the next daemon. Raises DaemonUnavailableError after ``RETURN_S``."""
        give_up = time.monotonic() + RETURN_S
        self._seq = self._before = self._seq + 1
        stopped = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._state = {**self._state, "live": False, "stopped_at": stopped}
        while (left_s := give_up - time.monotonic()) > 0:
            self._view.lose(self._state, self._seq, error.message.partition(": ")[0], left_s)
            try:
                client = connect(timeout_s=SILENCE_S, retry_s=0)
                client.call("hello")
            except DaemonUnavailableError:
                time.sleep(PAUSE_S)
            else:
                return client
        raise DaemonUnavailableError(f"no daemon came back within {RETURN_S:.0f} s", hint=error.hint) from error


class _Picture:
    """The status screen, drawn again where it changed."""

    def __init__(self, screen: Screen, live: Live, name: str | None) -> None:
        self._screen, self._live, self._name = screen, live, name

    def show(self, state: State, seq: int, lagged: int) -> None:
        """Draw it."""
        self._draw(state)

    def lose(self, state: State, seq: int, why: str, left_s: float) -> None:
        """Draw what was known last, and what is waited for."""
        self._draw(state, f"{why}; waiting {render.duration(round(left_s))} more for it to come back")

    def _draw(self, state: State, lost: str = "") -> None:
        clock = time.strftime("%H:%M:%S")

        def body(screen: Screen) -> None:
            if lost:
                screen.prose(f"{screen.mark('warn')} {render.safe(lost)}", colour="yellow")
            if self._name is None:
                status_view.show_known(screen, state)
            else:
                dataset_view.show_one(screen, self._name, state)

        def foot(screen: Screen) -> None:
            status_view.show_needs(screen, state)
            screen.line()
            screen.prose(f"{clock} · Ctrl-C ends it", colour="dim")

        self._live.show(lambda width: (self._screen.drawn(body, width), self._screen.drawn(foot, width)))


class _Objects:
    """NDJSON: an object for each change."""

    def __init__(self) -> None:
        self._seq = 0

    def show(self, state: State, seq: int, lagged: int) -> None:
        """Print it if it is new."""
        _require_reader()
        if seq != self._seq:
            self._seq = seq
            print(render.to_json("status", {"seq": seq, "lagged": lagged, **state}, one_line=True), flush=True)

    def lose(self, state: State, seq: int, why: str, left_s: float) -> None:
        """Print once what was known last; ``live`` is false in it."""
        self.show({**state, "error": why}, seq, 0)


class _Lines:
    """A line for each thing that is other than it was, with the time before it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told: dict[str, str] = {}

    def show(self, state: State, seq: int, lagged: int) -> None:
        """Print what changed."""
        _require_reader()
        now = _lines(self._screen, state)
        gone = {f"{key} is gone" for key in self._told.keys() - now.keys() if key.startswith("dataset ")}
        self._say([*(text for key, text in now.items() if self._told.get(key) != text), *sorted(gone)])
        self._told = now

    def lose(self, state: State, seq: int, why: str, left_s: float) -> None:
        """Print once that it is gone."""
        _require_reader()
        told = f"{self._screen.mark('warn')} {render.safe(why)}; waiting for it to come back"
        if self._told.get("daemon") != told:
            self._say([told])
            self._told["daemon"] = told

    def _say(self, news: list[str]) -> None:
        clock = time.strftime("%H:%M:%S")
        for text in news:
            self._screen.line(f"{clock}  {text}")
        if news:
            sys.stdout.flush()


def _require_reader() -> None:
    """Raise BrokenPipeError if nobody reads standard output any more: there may be nothing to write for days."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise BrokenPipeError


def _lines(screen: Screen, state: State) -> dict[str, str]:
    """Return a line for each thing, without anything that changes by itself."""
    tracking, runs = state.get("tracking") or {}, state.get("runs") or {}
    server = f"MLflow {render.safe(tracking['uri'])}" if tracking.get("uri") else "MLflow"
    error = f": {render.safe(tracking['error'])}" if tracking.get("error") else ""
    who = f"reprod {render.safe(state.get('version'))}  pid {render.safe(state.get('pid'))}"
    lines = {
        "daemon": f"{screen.mark('good')} {who}",
        "tracking": f"{server} {render.safe(tracking.get('state'))}{error}",
    }
    counts = [f"{render.number(runs.get(key) or 0)} {key}" for key in ("waiting", "incomplete", "failed")]
    lines["runs"] = f"runs: {', '.join(counts)}"
    for dataset in state.get("datasets") or []:
        lines[f"dataset {render.safe(dataset.get('name'))}"] = _dataset_line(screen, dataset)
    for need in state.get("attention") or []:
        lines[f"need {need.get('what')}"] = f"{screen.mark('warn')} {render.safe(need.get('what'))}"
    return lines


def _dataset_line(screen: Screen, dataset: dict[str, Any]) -> str:
    mark, _, word = dataset_view.state_of(dataset)
    parts = [render.safe(dataset.get("name")), f"{screen.mark(mark)} {word}"]
    if dataset.get("version") is not None:
        files = dataset.get("files")
        parts += [
            render.plural(files, "file") if isinstance(files, int) else "-",
            render.size(dataset.get("bytes")),
            f"@{render.safe(dataset['version'])}",
            render.digest(dataset.get("digest")),
        ]
    if dataset.get("reason"):
        parts.append(render.safe(dataset["reason"]))
    return "  ".join(parts)
