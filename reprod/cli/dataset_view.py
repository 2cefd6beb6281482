"""The datasets on the screens of ``reprod status``: a line for each, what stands below it, and one in every detail.

Takes datasets as they are in a ``reprod.status/1`` object; a missing or null field is shown as ``-`` or left out.
"""

from typing import Any

from reprod.cli import render
from reprod.cli.screen import Cell, Column, Screen, table

# mark, colour, and the word where it is not the state's own
_STATES: dict[str, tuple[str, str, str]] = {
    "new": ("new", "", "new"),
    "scanning": ("busy", "cyan", "scanning"),
    "current": ("good", "green", "current"),
    "dirty": ("busy", "cyan", "changing"),
    "incomplete": ("warn", "yellow", "incomplete"),
    "unavailable": ("bad", "red", "unavailable"),
    "misconfigured": ("bad", "red", "misconfigured"),
    "failed": ("bad", "red", "failed"),
}

# Enough to see what kind of problem it is; `reprod status NAME` shows all that the daemon sends.
_PROBLEMS_SHOWN = 3


def show_table(screen: Screen, datasets: list[dict[str, Any]]) -> None:
    """Write a line for each dataset, and below it what there is to say of it."""
    heading, *rows = table(screen, _HEADS, [_row(screen, dataset) for dataset in datasets])
    screen.line(heading)
    for dataset, row in zip(datasets, rows, strict=True):
        screen.line(row)
        _notes(screen, dataset, 4, _PROBLEMS_SHOWN)


def show_one(screen: Screen, name: str, answer: dict[str, Any]) -> None:
    """Write everything about one dataset, but for what needs a person."""
    dataset = next((item for item in answer.get("datasets") or [] if item.get("name") == name), None)
    if dataset is None:
        screen.prose(f"{render.safe(name)}: nothing is known of it")
        return
    mark, colour, word = state_of(dataset)
    live = "" if answer.get("live", True) else "   (last known, not live)"
    screen.line(f"{screen.paint(f'{screen.mark(mark)} {render.safe(name)}', colour)}  {word}{live}")
    for label, value in _facts(dataset, answer):
        screen.field(label, value, whole=label in {"path", "digest"})
    problems = dataset.get("problems") or []
    _notes(screen, dataset, 2, len(problems))


_HEADS = [
    Column("DATASET"),
    Column("STATE"),
    Column("FILES", right=True, drop=2),
    Column("SIZE", right=True, drop=1),
    Column("CHANGED", drop=5),
    Column("VERSION", drop=3),
    Column("DIGEST", drop=4),
]


def state_of(dataset: dict[str, Any]) -> tuple[str, str, str]:
    """Return mark, colour and words for the state of a dataset, what is being done with it included."""
    state = str(dataset.get("state"))
    mark, colour, word = _STATES.get(state, ("warn", "yellow", render.safe(state)))
    progress = dataset.get("progress") or {}
    if progress.get("phase") and mark == "busy":
        word = render.safe(progress["phase"])
    percent = progress.get("percent")
    return mark, colour, f"{word} {percent:.0f}%" if isinstance(percent, (int, float)) else word


def _row(screen: Screen, dataset: dict[str, Any]) -> list[Cell]:
    mark, colour, word = state_of(dataset)
    version = dataset.get("version")
    known = version is not None
    return [
        (render.safe(dataset.get("name")), "bold"),
        (f"{screen.mark(mark)} {word}", colour),
        (render.number(dataset.get("files")), ""),
        (render.size(dataset.get("bytes")), ""),
        (render.ago(dataset["last_change_at"]) if dataset.get("last_change_at") else "-", ""),
        (f"@{version}" if known else "-", ""),
        (render.digest(dataset.get("digest")) if known else "-", ""),
    ]


def _facts(dataset: dict[str, Any], answer: dict[str, Any]) -> list[tuple[str, str]]:
    store = answer.get("store") or {}
    facts = [("path", render.file_name(dataset.get("path") or "-"))]
    if dataset.get("files") is not None:
        facts.append(("files", f"{render.number(dataset['files'])}, {render.size(dataset.get('bytes'))}"))
    if dataset.get("version") is not None:
        complete = "" if dataset.get("complete", True) else " (incomplete)"
        facts.append(("version", f"@{dataset['version']}{complete}"))
        facts.append(("digest", render.safe(dataset.get("digest") or "no digest")))
    if dataset.get("history"):
        facts.append(("history", _history(dataset["history"])))
    if store.get("keep_days") is not None:
        facts.append(("kept", _kept(store)))
    for label, key in (("changed", "last_change_at"), ("confirmed", "confirmed_at")):
        at = f" ({render.moment(dataset[key])})" if dataset.get(key) else ""
        facts.append((label, f"{render.ago(dataset.get(key))}{at}"))
    if dataset.get("watch") and answer.get("live", True):
        facts.append(("watch", _watch(dataset)))
    return facts


def _watch(dataset: dict[str, Any]) -> str:
    """Return ``inotify · since it started 2 overflows, 1 unannounced change (found by walking)``."""
    words = (("watch_overflows", "overflow"), ("unannounced_changes", "unannounced change"))
    lost = [render.plural(dataset[key], word) for key, word in words if dataset.get(key)]
    told = f" · since it started {', '.join(lost)} (found by walking)" if lost else ""
    return f"{render.safe(dataset['watch'])}{told}"


def _history(history: dict[str, Any]) -> str:
    """Return ``12 versions, 3 more forgotten · 1.2 MiB of history in 4.0 MiB · next look in 20 h``."""
    told = render.plural(history.get("versions") or 0, "version")
    if history.get("pruned"):
        told += f", {render.number(history['pruned'])} more forgotten"
    told += f" · {render.size(history.get('history_bytes'))} of history in {render.size(history.get('file_bytes'))}"
    if history.get("next_prune_at"):
        told += f" · pruned {render.ago(history.get('pruned_at'))}, next {render.ago(history['next_prune_at'])}"
    return told


def _kept(store: dict[str, Any]) -> str:
    """Return ``all of 7 days, one a day for 90 days, what runs used for ever · max_gb 2``."""
    days = f"all of {store['keep_days']:g} days, one a day for {store.get('keep_daily_days') or 0:g} days"
    cap = f" · max_gb {store['max_gb']:g}" if store.get("max_gb") else ""
    return f"{days}, what runs used for ever{cap}"


def _notes(screen: Screen, dataset: dict[str, Any], indent: int, problems_shown: int) -> None:
    """Write what stands below a dataset's line: progress, reason, hint, how it is watched, its problems."""
    if dataset.get("progress"):
        screen.prose(_doing(dataset["progress"]), indent)
    if dataset.get("reason"):
        screen.prose(render.safe(dataset["reason"]), indent)
    if dataset.get("state") == "unavailable" and dataset.get("confirmed_at"):
        screen.prose(f"last seen {render.ago(dataset['confirmed_at'])}; nothing was forgotten", indent)
    problems = dataset.get("problems") or []
    for problem in problems[:problems_shown]:
        screen.prose(f"{render.file_name(problem)}: {render.safe(problem.get('problem'))}", indent)
    hidden = max(dataset.get("problem_count") or 0, len(problems)) - min(problems_shown, len(problems))
    if hidden > 0:
        more = f" (all: reprod status {render.safe(dataset.get('name'))})" if len(problems) > problems_shown else ""
        screen.prose(f"and {render.plural(hidden, 'more problem')}{more}", indent)
    if dataset.get("hint"):
        screen.prose(f"hint: {render.safe(dataset['hint'])}", indent)
    if dataset.get("watch_reason") not in {None, "", dataset.get("reason")}:
        how = {"poll": "watched by polling", "none": "not watched"}.get(str(dataset.get("watch")), "watch")
        screen.prose(f"{how}: {render.safe(dataset['watch_reason'])}", indent, "dim")


def _doing(progress: dict[str, Any]) -> str:
    """Return ``11,000 of 18,233 files · 1.0 GiB of 4.0 GiB · 3 s left``."""
    parts = []
    for shown, done, total in ((render.number, "files", "total_files"), (render.size, "bytes", "total_bytes")):
        if progress.get(done) is not None:
            of = f" of {shown(progress[total])}" if progress.get(total) is not None else ""
            parts.append(f"{shown(progress[done])}{of}{' files' if done == 'files' else ''}")
    if progress.get("seconds_left") is not None:
        parts.append(f"about {render.duration(progress['seconds_left'])} left")
    elif parts:
        parts[-1] += " so far"
    return " · ".join(parts)
