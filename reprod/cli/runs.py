"""``reprod runs`` and ``reprod retry``: what is owed to runs, why it waits or failed, and trying it again now.

The list comes from the daemon, else from its registry as it was left; trying again needs the daemon.
"""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from reprod.cli import codes, render
from reprod.cli.place import locate
from reprod.cli.screen import Column, Screen, cut, table
from reprod.client import connect
from reprod.core.run import SHOWN_ID

if TYPE_CHECKING:
    from reprod.store.outbox import Which

#: Columns of a run's name, on a wide terminal and on others; MLflow's own names have some 18, and --json has the whole.
_LONGEST_NAME, _LONGER_NAME, _WIDE = 20, 40, 100  # in a pipe it is whole

_COLOURS = {"failed": "red", "incomplete": "yellow", "captured": "green", "noticed": "cyan", "waiting": "cyan"}
_MARKS = {"failed": "bad", "incomplete": "warn", "captured": "good", "noticed": "busy", "waiting": "busy"}

_DRIFT = {"changed": "red", "unknown": "yellow"}

_NONE = {
    "all": "no run was recorded yet: tag one with reprod.dataset = NAME",
    "waiting": "no run waits",
    "incomplete": "no run is incomplete",
    "failed": "no run failed",
}


def run(args: argparse.Namespace) -> int:
    """List runs, the newest first."""
    which: Which = args.which or "all"
    place = locate(args)
    try:
        if place.client is not None:
            answer = place.client.call("runs", {"which": which, "limit": args.limit})
        else:
            from reprod.ops import runs

            answer = runs.last_known(place.state, which, args.limit)
    finally:
        place.close()
    if args.json:
        print(render.to_json("runs", {"live": place.live, **answer}))
        return codes.FINE
    _show(Screen(sys.stdout), answer, which)
    if not place.live:
        Screen(sys.stderr).prose("no daemon is running: nothing is tried now (reprod daemon)")
    return codes.FINE


def retry(args: argparse.Namespace) -> int:
    """Make a run due now, and say what will happen."""
    with connect() as client:
        answer = client.call("retry", {"run": args.run_ref})
    if args.json:
        print(render.to_json("retry", answer))
        return codes.FINE
    screen = Screen(sys.stdout)
    name = f" ({render.safe(answer['name'])})" if answer.get("name") else ""
    screen.line(screen.paint(f"run {render.safe(answer.get('run_id'))}{name}", "bold"))
    screen.prose(f"{render.safe(answer.get('state'))}: {render.safe(answer.get('what'))}", 2)
    if answer.get("due"):
        screen.prose("hint: reprod runs shows what came of it", 2)
    return codes.FINE


_HEADS = [
    Column("RUN"),
    Column("NAME", drop=4),
    Column("EXPERIMENT", drop=7),
    Column("DATASET", drop=1),
    Column("STATE"),
    Column("DRIFT", drop=3),
    Column("SINCE", drop=2),
    Column("TRIES", right=True, drop=6),
    Column("NEXT TRY", drop=5),
]


def _show(screen: Screen, answer: dict[str, Any], which: str) -> None:
    rows = answer.get("runs") or []
    hidden = answer["total"] - len(rows) if isinstance(answer.get("total"), int) else 0
    if not rows:
        screen.prose(f"{render.plural(hidden, 'run')} (--limit N shows some)" if hidden > 0 else _NONE[which])
        return
    heading, *lines = table(screen, _HEADS, [_row(screen, row) for row in rows], indent=0)
    screen.line(heading)
    for row, line in zip(rows, lines, strict=True):
        screen.line(line)
        if row.get("error"):
            screen.prose(render.safe(row["error"]), 4)
        if row.get("hint"):
            screen.prose(f"hint: {render.safe(row['hint'])}", 4)
    if hidden > 0:
        screen.prose(f"and {render.plural(hidden, 'more run')} (--limit N shows more)", 0, "dim")


def _row(screen: Screen, row: dict[str, Any]) -> list[tuple[str, str]]:
    state = str(row.get("state"))
    name = render.safe(row.get("name") or "-")
    if screen.width is not None:
        name = cut(name, _LONGEST_NAME if screen.width < _WIDE else _LONGER_NAME)
    drift = str(row.get("drift") or "-")
    since = row.get("settled_at") or row.get("noticed_at")
    datasets = row.get("datasets")
    return [
        (render.safe(row.get("run_id"))[:SHOWN_ID], "bold"),
        (name, ""),
        (render.safe(row.get("experiment_id") or "-"), ""),
        (", ".join(map(render.safe, datasets)) if isinstance(datasets, list) and datasets else "-", ""),
        (f"{screen.mark(_MARKS.get(state, 'new'))} {render.safe(state)}", _COLOURS.get(state, "")),
        (render.safe(drift), _DRIFT.get(drift, "")),
        (render.ago(since), ""),
        (render.number(row.get("attempts")), ""),
        (_next(row.get("next_try_at")), ""),
    ]


def _next(moment: object) -> str:
    """Return when the next try is, ``now`` for what is due."""
    told = render.ago(moment) if moment is not None else "-"
    return "now" if told == "just now" or told.endswith(" ago") else told
