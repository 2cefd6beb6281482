"""The screen of ``diff run:A run:B``: what could explain other results, the likeliest first, then part by part.

Rule: the first lines answer the question; what is known not to matter is counted only, and what nobody recorded closes
the screen, so that "nothing differs" is never read as "all is the same".
"""

from collections import Counter

from reprod.cli import render
from reprod.cli.screen import Column, Screen, table
from reprod.cli.state_diff import show_listed
from reprod.cli.width import wrapped
from reprod.core.environment_diff import ORDER as GRADES
from reprod.core.explain import DIFFERENT, ORDER, Cause, Rank
from reprod.core.manifest import rfc3339
from reprod.core.run_differences import DatasetDifference, Pair, RunDifferences
from reprod.core.run_record import RunRecord

_COLOURS: dict[Rank, str] = {
    **dict.fromkeys(("data", "code", "params", "semantic"), "red"),
    **dict.fromkeys(("numeric", "hardware", "unknown"), "yellow"),
    "benign": "dim",
}
#: Explanations of one rank that a terminal gets: two environments may differ in hundreds of packages.
_EACH = 8

_WIDEST = max(map(len, ORDER))

#: Values of params and metrics in a column.
_VALUE = 30


def show(screen: Screen, found: RunDifferences, causes: tuple[Cause, ...], missing: tuple[str, ...]) -> None:
    """Show all of it."""
    for label, run in (("A", found.a), ("B", found.b)):
        screen.line(_side(screen, label, run))
    screen.line()
    _show_causes(screen, causes)
    for each in found.data:
        _show_data(screen, each)
    if found.metrics:
        _show_metrics(screen, found.metrics)
    _show_rest(screen, found)
    screen.line()
    screen.line(screen.paint("not recorded, so not compared", "dim"))
    for told in screen.listed(missing):
        screen.prose(render.safe(told), 2, "dim")


def _side(screen: Screen, label: str, run: RunRecord) -> str:
    started = render.ago(rfc3339(run.start_ns))
    name = f" {render.safe(run.name)}" if run.name else ""
    status = f"{render.safe(run.status)}, started {started}"
    return f"{screen.paint(label, 'bold')}  run:{render.safe(run.run_id)}{name}  {status}"


def _show_causes(screen: Screen, causes: tuple[Cause, ...]) -> None:
    told = [cause for cause in causes if cause.rank != "benign"]
    benign = len(causes) - len(told)
    if not told:
        screen.prose(f"{screen.mark('good')} nothing that is recorded differs in a way that could matter", 0, "green")
    else:
        known = any(cause.rank in DIFFERENT for cause in told)
        head = "what could explain another result, the likeliest first" if known else "no difference is known"
        screen.line(screen.paint(head, "bold"))
    counts = Counter(cause.rank for cause in told)
    shown: Counter[Rank] = Counter()
    for cause in told:
        shown[cause.rank] += 1
        if screen.width is not None and shown[cause.rank] > _EACH:
            if shown[cause.rank] == _EACH + 1:
                more = f"and {counts[cause.rank] - _EACH:,} more {cause.rank} (in a pipe or with --json all)"
                screen.prose(more, _WIDEST + 4, "dim")
            continue
        label = screen.paint(f"{cause.rank:<{_WIDEST}}", _COLOURS[cause.rank])
        text = render.safe(cause.sentence)
        lines = [text] if screen.width is None else wrapped(text, max(20, screen.width - _WIDEST - 4))
        first, *rest = lines
        screen.line(f"  {label}  {first}")
        for line in rest:
            screen.line(" " * (_WIDEST + 4) + line)
    if benign:
        screen.prose(
            f"and {render.plural(benign, 'difference')} that cannot matter, or of which nobody knows that they do",
            2,
            "dim",
        )


def _show_data(screen: Screen, each: DatasetDifference) -> None:
    if each.listing is not None:
        screen.line()
        show_listed(screen, each.listing)
    elif each.reason and each.relation == "differs":
        screen.line()
        screen.prose(f"{render.safe(each.name)}: {render.safe(each.reason)}", 0, "yellow")


def _show_metrics(screen: Screen, metrics: tuple[Pair, ...]) -> None:
    """Show the results side by side; they are what is to be explained."""
    screen.line()
    heads = [Column("METRIC"), Column("A", right=True), Column("B", right=True), Column("B - A", right=True, drop=1)]
    shown = screen.listed(metrics)
    for line in table(screen, heads, [_metric(each) for each in shown], indent=0):
        screen.line(line)
    if len(metrics) > len(shown):
        screen.prose(render.rest(len(metrics) - len(shown), "metric"), 0, "dim")


def _metric(each: Pair) -> list[tuple[str, str]]:
    both = isinstance(each.a, float) and isinstance(each.b, float)
    change = f"{each.b - each.a:+.4g}" if both else ""  # type: ignore[operator]
    return [(render.safe(each.name), ""), (_value(each.a), ""), (_value(each.b), ""), (change, "")]


def _value(value: object) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else render.safe(value)


def _show_rest(screen: Screen, found: RunDifferences) -> None:
    """Say in a line each what was compared and is the same."""
    screen.line()
    same = [each.name for each in found.data if each.relation == "same"]
    if same:
        screen.field("data", f"the same: {render.safe(', '.join(same))}")
    screen.field("code", render.safe(found.code.sentence))
    if found.environment is not None:
        counted = Counter(each.grade for each in found.environment.differences)
        told = ", ".join(f"{counted[grade]:,} {grade}" for grade in reversed(GRADES) if counted[grade])
        screen.field("env", found.environment.verdict + (f": {told}" if told else ""))
        if told:
            screen.field("", f"reprod env diff run:{found.a.run_id} run:{found.b.run_id} lists them")
    screen.field("params", f"{len(found.params):,} different, {found.equal_params:,} the same")
